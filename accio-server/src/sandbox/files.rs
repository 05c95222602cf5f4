//! The files that a server may access once it listens; Landlock denies all others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// Rights in FILE-DIR: creating files without a name or with a hidden one, and naming or replacing
/// files.
pub(super) const IN_DIRECTORY: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | Truncate});

/// Rights in the directory of the journal, for the process that reopens it after a rotation.
pub(super) const AT_JOURNAL: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | MakeReg});

/// Rights in FILE-DIR of the process that reopens uploads.
#[cfg(feature = "digest")]
pub(super) const REOPENING: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile});

/// Restrictions for this thread and the threads that it starts later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confinement<'a> {
    pub(super) required: CompatLevel,
    pub(super) dir: BorrowedFd<'a>,
    pub(super) access: BitFlags<AccessFs>,
    /// Directories below which files may be read.
    pub(super) readable: &'a [OwnedFd],
    /// Kinds of actions on other processes that are denied.
    pub(super) scopes: BitFlags<Scope>,
}

impl Confinement<'_> {
    pub(super) fn apply(self) -> Result<RulesetStatus, RulesetError> {
        let ruleset = Ruleset::default()
            // The first version covers everything that is needed for files; later versions add
            // restrictions.
            .set_compatibility(self.required)
            .handle_access(AccessFs::from_all(ABI::V1))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V6))?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(self.scopes)?;
        let rule = PathBeneath::new(self.dir.as_fd(), self.access);
        let read = |dir| Ok::<_, RulesetError>(PathBeneath::new(dir, AccessFs::ReadFile));
        let ruleset =
            ruleset.create()?.add_rule(rule)?.add_rules(self.readable.iter().map(read))?;
        Ok(ruleset.restrict_self()?.ruleset)
    }
}
