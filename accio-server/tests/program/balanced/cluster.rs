//! A load balancer with three receivers on loopback.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use accio_harness::process::{Input, NO_OWNER, Process};
use accio_harness::tools;

use super::super::harness::{
    Place, Server, command, connect, finish, free_port, json_lines, program, until,
};

/// A load balancer for which the server comes with a configuration.
pub(super) struct Balancer {
    /// The program.
    pub(super) name: &'static str,
    /// The arguments before the name of the configuration file.
    pub(super) arguments: &'static [&'static str],
    /// The name that the configuration file must have.
    pub(super) file: &'static str,
    /// The configuration under test.
    pub(super) config: &'static str,
    /// Adapts the configuration to this machine and this test run.
    pub(super) settle: fn(String, &Settings) -> String,
}

/// Settings that differ between test runs.
pub(super) struct Settings {
    pub(super) front: u16,
    /// The port of all receivers, whose addresses are 127.0.0.11 to 127.0.0.13.
    pub(super) port: u16,
    pub(super) metrics: u16,
    /// The address or path of the balancer's admin interface.
    pub(super) admin: String,
}

/// A balancer and its receivers, all ended when dropped, and the address for clients.
pub(super) struct Cluster {
    _balancer: Process,
    pub(super) receivers: Vec<Receiver>,
    pub(super) front: SocketAddr,
    /// The peer address of the upload that showed that the balancer serves.
    first: String,
    place: Place,
}

pub(super) struct Receiver {
    pub(super) server: Option<Server>,
    pub(super) place: Place,
    pub(super) address: SocketAddr,
}

impl Cluster {
    /// Starts three receivers with these flags in addition to the usual ones, and the balancer with
    /// its configuration modified by `change`; `None` where the balancer is not installed.
    pub(super) fn start(
        balancer: &Balancer,
        flags: &[&str],
        change: impl Fn(String) -> String,
    ) -> Option<Self> {
        let Balancer { name, arguments, file, config, settle } = balancer;
        if tools::find(name).is_none() {
            let _ = writeln!(io::stderr(), "skipped: {name} is not installed");
            return None;
        }
        let (port, metrics, front) = (free_port(), free_port(), free_port());
        let start = |last: u8| {
            let place = Place::new();
            let ip = format!("127.0.0.{last}");
            let mut command = program();
            command.arg(port.to_string()).arg(place.dir()).args([
                "--bind",
                &ip,
                "--proxy-protocol",
            ]);
            command.args(["--metrics", &format!("{ip}:{metrics}"), "-v"]);
            command.args(["--journal", &place.text("log/journal")]).args(flags);
            let server = Server::spawn(command);
            let address = server.address();
            Receiver { server: Some(server), place, address }
        };
        let receivers: Vec<_> = (11..=13).map(start).collect();

        let place = Place::new();
        let admin = place.text("admin.sock");
        let config =
            settle(change((*config).to_owned()), &Settings { front, port, metrics, admin });
        let file = place.path(file);
        std::fs::write(&file, config.replace("192.0.2.", "127.0.0.")).unwrap();
        let mut balancer = command(name);
        balancer.args(*arguments).arg(file);
        let balancer = Process::spawn(balancer, NO_OWNER, Input::Null).unwrap();
        let front = SocketAddr::from(([127, 0, 0, 1], front));
        let mut cluster =
            Cluster { _balancer: balancer, receivers, front, first: String::new(), place };
        until(&format!("{name} serves"), || {
            let Ok(stream) = connect(front) else { return false };
            cluster.first = stream.local_addr().unwrap().to_string();
            finish(stream).is_ok()
        });
        Some(cluster)
    }

    /// Sends a command to the admin interface.
    pub(super) fn ask(&self, order: &str) {
        let mut socket = UnixStream::connect(self.place.path("admin.sock")).unwrap();
        writeln!(socket, "{order}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.trim(), "", "{order}");
    }

    /// Returns the journals' lines by peer: the receiver, the number and the line.
    pub(super) fn journals(&self) -> BTreeMap<String, (usize, u64, serde_json::Value)> {
        let mut all = BTreeMap::new();
        for (index, receiver) in self.receivers.iter().enumerate() {
            for line in json_lines(&receiver.place.path("log/journal")) {
                let peer = line["peer"].as_str().unwrap().to_owned();
                if peer == self.first {
                    continue;
                }
                let earlier = all.insert(peer, (index, line["id"].as_u64().unwrap(), line));
                assert!(earlier.is_none(), "{earlier:?}");
            }
        }
        all
    }

    /// Waits for the line about a peer; returns the file and the line.
    pub(super) fn wait_for_line(&self, peer: SocketAddr) -> (Vec<u8>, serde_json::Value) {
        let peer = peer.to_string();
        until(&format!("a line about {peer}"), || self.journals().contains_key(&peer));
        let (index, id, line) = self.journals().remove(&peer).unwrap();
        (self.receivers[index].place.read(id).unwrap(), line)
    }
}
