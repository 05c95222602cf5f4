//! Writes the matrix of clients and servers.

use std::fmt::Write as _;

/// A client, a server, and the result of running them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Index of the client.
    pub(crate) client: usize,
    /// Index of the server.
    pub(crate) server: usize,
    /// The failure, if there was one.
    pub(crate) fault: Option<String>,
}

/// Returns the matrix in Markdown, followed by the failures.
pub(crate) fn text(clients: &[String], servers: &[String], pairs: &[Pair]) -> String {
    let mut text = String::from("# Every client with every server\n\n");
    text.push_str(
        "Transfers of 500 bytes and of 1 MiB. ✓ both files arrived unchanged · ✗ see below\n\n",
    );
    text.push_str("| client ↓ server → |");
    servers.iter().for_each(|name| text.push_str(&format!(" {} |", escaped(name))));
    text.push_str("\n|---|");
    text.push_str(&":-:|".repeat(servers.len()));
    text.push('\n');
    for (client, name) in clients.iter().enumerate() {
        let _ = write!(text, "| {} |", escaped(name));
        for server in 0..servers.len() {
            let pair = pairs.iter().find(|pair| pair.client == client && pair.server == server);
            let sign = match pair {
                Some(Pair { fault: None, .. }) => "✓",
                Some(Pair { fault: Some(_), .. }) => "✗",
                None => "",
            };
            let _ = write!(text, " {sign} |");
        }
        text.push('\n');
    }
    let faults: Vec<_> = pairs.iter().filter(|pair| pair.fault.is_some()).collect();
    if !faults.is_empty() {
        text.push_str("\n## Failures\n\n");
    }
    for pair in faults {
        let (client, server) = (escaped(&clients[pair.client]), escaped(&servers[pair.server]));
        let fault = escaped(pair.fault.as_deref().unwrap_or_default());
        let _ = writeln!(text, "- {client} → {server}: {fault}");
    }
    text
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '<' | '[' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_cell_per_pair_and_a_line_per_failure() {
        let clients = ["a|b".to_owned(), "reference".to_owned()];
        let pairs = [
            Pair { client: 0, server: 0, fault: Some("late\nand wrong".into()) },
            Pair { client: 1, server: 0, fault: None },
        ];
        let text = text(&clients, &["reference".to_owned()], &pairs);
        assert!(text.contains("| a\\|b | ✗ |\n| reference | ✓ |\n"), "{text}");
        assert!(text.ends_with("- a\\|b → reference: late and wrong\n"), "{text}");
    }
}
