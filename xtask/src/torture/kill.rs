use super::cases::{Case, Plan}; pub(super) fn cases(_plan: &Plan) -> Vec<Case> { Vec::new() }
