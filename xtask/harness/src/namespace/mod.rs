//! Network namespaces: [`Namespace`] is connected to the machine's network or to another namespace and
//! can drop packets, [`PrivateNamespace`] runs this program again without any network, and [`rerun`] a
//! single test.

mod commands;
#[cfg(linux_sys)]
mod mounts;
mod private;
mod test_runs;

use std::fs;
#[cfg(linux_sys)]
use std::io;
use std::net::Ipv4Addr;
#[cfg(linux_sys)]
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use self::commands::ip;
#[cfg(linux_sys)]
pub use self::mounts::hide_mounts;
pub use self::private::PrivateNamespace;
pub use self::test_runs::{as_process_1, rerun, with_private_mounts, without_mount_namespaces};
use super::tools;
use super::verdict::{Stop, Verdict};
use super::wrapper;

/// Prefix of the names of all namespaces; the id of the process that made them follows.
const PREFIX: &str = "accio-test-";

/// The share of packets that a namespace loses. The lost packets are random and do not depend on a
/// seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Lost incoming packets per thousand.
    pub incoming: u32,
    /// Lost outgoing packets per thousand.
    pub outgoing: u32,
}

impl Loss {
    /// No packet is lost.
    pub const NONE: Loss = Loss { incoming: 0, outgoing: 0 };
    /// Every incoming packet is lost.
    pub const ALL_INCOMING: Loss = Loss { incoming: 1000, outgoing: 0 };
}

/// A namespace connected to the machine's network, or to another namespace, by a pair of virtual
/// interfaces. It is removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// The interface inside the namespace.
    device: String,
    /// The interface outside the namespace.
    outer_device: String,
    /// The address of the interface outside the namespace.
    outer: Ipv4Addr,
    /// The address of the interface inside the namespace.
    inner: Ipv4Addr,
}

impl Namespace {
    /// Creates a namespace that loses no packets, or returns a skip if this machine cannot.
    pub fn create() -> Verdict<Namespace> {
        Namespace::create_in(None)
    }

    /// Creates a namespace that is connected to this one only, like another machine by a cable, or
    /// returns a skip if this machine cannot.
    pub fn create_neighbor(&self) -> Verdict<Namespace> {
        Namespace::create_in(Some(&self.name))
    }

    /// Creates a namespace connected to the machine's network, or to the namespace `other`.
    fn create_in(other: Option<&str>) -> Verdict<Namespace> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if cfg!(not(linux_sys)) {
            return Err(Stop::skip("this system has no network namespaces"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Stop::skip("network namespaces need root"));
        }
        tools::require("ip")?;
        tools::require("nft")?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            remove_abandoned();
        }
        Namespace::connect(format!("{PREFIX}{}-{number}", std::process::id()), other)
            .map_err(|stop| Stop::skip(format!("cannot create a network namespace: {stop}")))
    }

    fn connect(name: String, other: Option<&str>) -> Verdict<Namespace> {
        let unique = fastrand::u32(..);
        let (near, device) = (format!("at{unique:08x}n"), format!("at{unique:08x}f"));
        // 198.18.0.0/15 is reserved for network tests; each namespace takes a block of four
        // addresses.
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + fastrand::u32(0..1 << 15) * 4;
        let (outer, inner) = (Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2));
        ip(&["-batch", "-"], &format!("netns add {name}\n"))?;
        // From here on, dropping this removes the namespace.
        let namespace = Namespace { name, device, outer_device: near, outer, inner };
        let Namespace { name, device, outer_device, .. } = &namespace;
        let lines = format!(
            "link add {outer_device} type veth peer name {device} netns {name}\n\
             addr add {outer}/30 dev {outer_device}\nlink set {outer_device} up\n"
        );
        let place = other.map_or(vec![], |other| vec!["-n", other]);
        ip(&[&place[..], &["-batch", "-"]].concat(), &lines)?;
        let lines =
            format!("addr add {inner}/30 dev {device}\nlink set {device} up\nlink set lo up\n");
        ip(&["-n", name, "-batch", "-"], &lines)?;
        namespace.lose(Loss::NONE)?;
        Ok(namespace)
    }

    /// Returns the address of this machine, or of the namespace it was created from, as seen from
    /// inside the namespace.
    pub fn outer(&self) -> Ipv4Addr {
        self.outer
    }

    /// Returns the name of the interface outside the namespace.
    pub fn outer_device(&self) -> &str {
        &self.outer_device
    }

    /// Returns the address of the namespace as seen from outside.
    pub fn inner(&self) -> Ipv4Addr {
        self.inner
    }

    /// Replaces the current loss.
    pub fn lose(&self, loss: Loss) -> Verdict {
        let device = &self.device;
        let rule = |direction: &str, per_mille: u32| match per_mille {
            0 => String::new(),
            1000.. => format!("{direction} \"{device}\" counter drop;"),
            some => {
                format!("{direction} \"{device}\" numgen random mod 1000 < {some} counter drop;")
            }
        };
        let (incoming, outgoing) = (rule("iifname", loss.incoming), rule("oifname", loss.outgoing));
        let rules = format!(
            "add table ip accio\nflush table ip accio\ntable ip accio {{\n\
             chain in {{ type filter hook input priority 0; {incoming} }}\n\
             chain out {{ type filter hook output priority 0; {outgoing} }}\n}}\n"
        );
        self.nft(&["-f", "-"], &rules).map(drop)
    }

    /// Returns the number of packets lost since the last call of [`Namespace::lose`].
    pub fn lost(&self) -> Verdict<u64> {
        let text = self.nft(&["list", "table", "ip", "accio"], "")?;
        let counters = text.split("counter packets ").skip(1);
        let numbers = counters.map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        numbers
            .sum::<Option<u64>>()
            .ok_or_else(|| Stop::Trouble(format!("no counters in {text:?}")))
    }

    /// Opens it, for `setns`.
    #[cfg(linux_sys)]
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(fs::File::open(Path::new("/run/netns").join(&self.name))?.into())
    }

    /// Returns the words to put before a command to run it inside the namespace.
    pub fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Returns a command that runs `command` inside the namespace.
    pub fn wrap(&self, command: &Command) -> Command {
        let [ip, words @ ..] = self.enter();
        let mut wrapped = Command::new(ip);
        wrapped.args(words);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapper::inherit(&mut wrapped, command);
        wrapped
    }

    fn nft(&self, arguments: &[&str], input: &str) -> Verdict<String> {
        ip(&[&["netns", "exec", &self.name, "nft"], arguments].concat(), input)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes all namespaces of this process.
pub fn remove_all() {
    let own = format!("{PREFIX}{}-", std::process::id());
    names().filter(|name| name.starts_with(&own)).for_each(|name| remove(&name));
}

/// Removes the namespaces of processes that were killed.
fn remove_abandoned() {
    for name in names() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn remove(name: &str) {
    // This removes its interfaces, too. If it fails, the next run tries again.
    let _ = ip(&["netns", "del", name], "");
}
