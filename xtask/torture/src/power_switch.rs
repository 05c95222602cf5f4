//! Shuts an ext4 down at an exact moment.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command};

use accio_harness::context::Context;
use accio_harness::peer::SOON;
use accio_harness::process::{Input, Process};
use accio_harness::tools;
use accio_harness::verdict::{Stop, Verdict};

/// Waits for a byte, then shuts the ext4 down without flushing its journal. The number of the ioctl
/// is from `ext4.h`.
const PYTHON: &str = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
flags = struct.pack('I', 2)
os.write(1, b'ready\\n')
os.read(0, 1)
fcntl.ioctl(fd, 0x8004587d, flags)";
const PERL: &str = "open(my $d, '<', $ARGV[0]) or die $!;
my $flags = pack('I', 2); syswrite(STDOUT, \"ready\\n\"); sysread(STDIN, my $byte, 1);
ioctl($d, 0x8004587d, $flags) or die $!;";

/// A helper process that has the file system open and waits, so that the power fails within
/// microseconds of the request.
pub(crate) struct PowerSwitch {
    helper: Process,
    request: ChildStdin,
}

impl PowerSwitch {
    /// Prepares to shut down the file system that is mounted at `mount`.
    pub(crate) fn new(context: &Context, mount: &Path) -> Verdict<PowerSwitch> {
        let mut failures = Vec::new();
        for (tool, flag, script) in [("python3", "-c", PYTHON), ("perl", "-e", PERL)] {
            match PowerSwitch::start(context, mount, tool, &[flag, script]) {
                Ok(switch) => return Ok(switch),
                Err(stop) => failures.push(stop.to_string()),
            }
        }
        Err(Stop::skip(format!("cannot shut an ext4 down: {}", failures.join(", "))))
    }

    fn start(context: &Context, mount: &Path, tool: &str, words: &[&str]) -> Verdict<PowerSwitch> {
        let mut command = Command::new(tools::require(tool)?);
        command.args(words).arg(mount);
        let mut helper = context.spawn(command, Input::Piped)?;
        let request =
            helper.take_input().ok_or_else(|| Stop::Trouble("no pipe to a helper".to_owned()))?;
        if helper.stdout().line(0, SOON).as_deref() != Some("ready") {
            return Err(Stop::Trouble(format!("{tool}: {}", helper.stderr().text())));
        }
        Ok(PowerSwitch { helper, request })
    }

    /// Shuts the file system down.
    pub(crate) fn turn_off(mut self) -> Verdict {
        self.request.write_all(b"x")?;
        let exit = self.helper.wait(SOON)?;
        if exit.status.success() {
            return Ok(());
        }
        Err(Stop::Trouble(format!("cannot shut an ext4 down: {}", self.helper.stderr().text())))
    }
}
