//! What the server gives up once it listens: every file but those in its folder and its journal,
//! connecting out, running programs, and new privileges.

use std::os::fd::{AsFd, BorrowedFd};

use accio_proto::cli::Failure;
use clap::ValueEnum;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};

/// How much confinement is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Do not serve without it
    Require,
    /// As much as the kernel offers
    Try,
    /// None
    Off,
}

impl Sandbox {
    /// Confines this thread, and those it starts from now on, to the folder that `dir` is open on,
    /// and to making and writing files where the journal is.
    pub(crate) fn confine(
        self,
        dir: impl AsFd,
        journal: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        let required = match self {
            Sandbox::Off => return Ok(()),
            Sandbox::Try => CompatLevel::BestEffort,
            Sandbox::Require => CompatLevel::HardRequirement,
        };
        let status = restrict(required, dir, journal).map_err(|error| {
            Failure::new("cannot confine the server (--sandbox try goes on without)", error)
        })?;
        match status {
            RulesetStatus::FullyEnforced => log::info!("confined to the folder"),
            RulesetStatus::PartiallyEnforced => {
                log::info!("confined to the folder, as far as this kernel can");
            }
            RulesetStatus::NotEnforced => log::info!("not confined: the kernel has no Landlock"),
        }
        Ok(())
    }
}

/// What the server does in its folder: nameless or hidden files that take or replace a name.
const IN_FOLDER: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | Truncate});

/// What it does where its journal is: open the file anew, after that was moved away.
const AT_JOURNAL: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

fn restrict(
    required: CompatLevel,
    dir: impl AsFd,
    journal: Option<BorrowedFd<'_>>,
) -> Result<RulesetStatus, RulesetError> {
    let status = Ruleset::default()
        // The first version knows all that matters for files; later ones add to it.
        .set_compatibility(required)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?
        .add_rule(PathBeneath::new(dir, IN_FOLDER))?
        .add_rules(journal.map(|dir| Ok::<_, RulesetError>(PathBeneath::new(dir, AT_JOURNAL))))?
        .restrict_self()?;
    Ok(status.ruleset)
}
