//! A network that really loses packets: a namespace joined to ours by a pair of virtual interfaces,
//! with a filter that drops packets at random. Needs root; which packets are lost no seed decides.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

/// Packets of a thousand that are lost, in each direction.
pub const LOST: u32 = 15;
/// What the names of ours begin with; the number of the process follows.
const PREFIX: &str = "accio-kit-";

/// A namespace; it goes with the handle.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Our end of the pair.
    outer: Ipv4Addr,
    /// The end within.
    inner: Ipv4Addr,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// Why this machine cannot, for people.
    pub fn create() -> Result<Namespace, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".into());
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep();
        }
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let unique = fastrand::u32(..);
        let (near, far) = (format!("ak{unique:08x}n"), format!("ak{unique:08x}f"));
        // 198.18.0.0/15 is for tests of networks; a block of four addresses each.
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + fastrand::u32(0..1 << 15) * 4;
        let (outer, inner) = (Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2));
        feed("ip", &["-batch", "-"], &format!("netns add {name}\n"))?;
        // From here on its end is the handle's.
        let namespace = Namespace { name, outer, inner };
        let name = &namespace.name;
        let lines = format!(
            "link add {near} type veth peer name {far} netns {name}\n\
             addr add {outer}/30 dev {near}\nlink set {near} up\n"
        );
        feed("ip", &["-batch", "-"], &lines)?;
        let lines = format!("addr add {inner}/30 dev {far}\nlink set {far} up\nlink set lo up\n");
        feed("ip", &["-n", name, "-batch", "-"], &lines)?;
        let rules = format!(
            "table ip accio {{\n\
             chain in {{ type filter hook input priority 0; iifname \"{far}\" numgen random mod 1000 < {LOST} drop; }}\n\
             chain out {{ type filter hook output priority 0; oifname \"{far}\" numgen random mod 1000 < {LOST} drop; }}\n\
             }}\n"
        );
        feed("ip", &["netns", "exec", name, "nft", "-f", "-"], &rules)?;
        Ok(namespace)
    }

    /// Our address, as seen from within.
    pub fn outer(&self) -> Ipv4Addr {
        self.outer
    }

    /// The address within, as seen from here.
    pub fn inner(&self) -> Ipv4Addr {
        self.inner
    }

    /// The same command, to be run within; the process becomes what it would have been.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.name]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what runs of ours left behind that were killed.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

/// Removes all namespaces of this process.
pub fn remove_all() {
    let own = format!("{PREFIX}{}-", std::process::id());
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&own) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    // The interfaces go with it. If it cannot be removed, the next run tries again.
    // Not by `feed`: whoever ends all processes starts none, and comes here.
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Runs a command with this input; what it had to say when it fails.
fn feed(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = process::while_none_starts(|| command.spawn());
    let mut child = child.map_err(|error| format!("cannot run {program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends early says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim().replace('\n', "; ")))
}
