//! Configures and starts the programs of the cluster.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use accio_harness::ports;
use accio_harness::program::command;
use accio_harness::verdict::Verdict;
use accio_harness::work_dir::WorkDir;
use anyhow::{Context, Result};
use rustix::process::Pid;

use super::balance::{self, Balancer, LOG_FORMAT};
use super::daemon::{Daemon, retry, wait_for_listener};
use super::store::{BUCKET, Bucket};
use super::tools::Tools;

const NODES: usize = 3;
const RECEIVERS: usize = 3;

/// The running cluster. Fields are dropped in order: programs before those that they connect to.
#[derive(Debug)]
pub(super) struct Cluster {
    envoy: Option<Daemon>,
    haproxy: Option<Daemon>,
    receivers: Vec<Daemon>,
    nodes: Vec<Daemon>,
    ports: Ports,
    bucket: Bucket,
    /// The path of accio-server.
    server: PathBuf,
    directory: WorkDir,
}

#[derive(Debug)]
struct Ports {
    /// haproxy's port for clients.
    clients: u16,
    /// haproxy's port for the store.
    store: u16,
    envoy: u16,
    receivers: Vec<u16>,
    /// The receivers' ports for metrics.
    metrics: Vec<u16>,
    /// The nodes' ports for S3 and for other nodes.
    nodes: Vec<(u16, u16)>,
}

impl Ports {
    fn take() -> Result<Ports> {
        let take = ports::free;
        let (clients, store, envoy) = (take()?, take()?, take()?);
        let each = || (0..RECEIVERS).map(|_| Ok(take()?)).collect::<Result<Vec<u16>>>();
        let (receivers, metrics) = (each()?, each()?);
        let nodes = (0..NODES).map(|_| Ok((take()?, take()?))).collect::<Result<_>>()?;
        Ok(Ports { clients, store, envoy, receivers, metrics, nodes })
    }
}

impl Cluster {
    pub(super) fn start(tools: &Tools, server: &Path) -> Result<Cluster> {
        let directory = WorkDir::new("cluster", || ())?;
        let ports = Ports::take()?;
        let bucket = Bucket {
            tools: tools.clone(),
            endpoint: format!("http://127.0.0.1:{}", ports.store),
            key: format!("GK{}", hex(24)),
            secret: hex(64),
        };
        let (envoy, haproxy, receivers, nodes) = (None, None, Vec::new(), Vec::new());
        let server = server.to_owned();
        let mut cluster =
            Cluster { envoy, haproxy, receivers, nodes, ports, bucket, server, directory };
        cluster.start_nodes().context("the store")?;
        cluster.start_haproxy(tools).context("haproxy")?;
        for index in 0..RECEIVERS {
            let receiver = cluster.receiver(index)?;
            cluster.receivers.push(receiver);
        }
        if let Some(program) = &tools.envoy {
            cluster.start_envoy(program).context("envoy")?;
        }
        // Wait until the health checks have seen all receivers.
        std::thread::sleep(Duration::from_secs(1));
        Ok(cluster)
    }

    /// Returns the ports that clients connect to.
    pub(super) fn client_ports(&self, balancer: Balancer) -> Vec<u16> {
        match balancer {
            Balancer::Direct => self.ports.receivers.clone(),
            Balancer::Envoy => vec![self.ports.envoy],
            Balancer::Haproxy | Balancer::Nft => vec![self.ports.clients],
        }
    }

    /// Makes the kernel distribute new connections over these receivers.
    pub(super) fn spread(&self, receivers: &[usize]) -> Verdict {
        let ports: Vec<u16> = receivers.iter().map(|index| self.ports.receivers[*index]).collect();
        balance::spread(self.ports.clients, &ports)
    }

    /// Returns haproxy's log so far.
    pub(super) fn haproxy_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("haproxy.log"))?)
    }

    /// Returns the processes of the store, including haproxy in front of it, and of the receivers.
    pub(super) fn processes(&self) -> (Vec<Pid>, Vec<Pid>) {
        (
            self.nodes.iter().chain(&self.haproxy).map(Daemon::pid).collect(),
            self.receivers.iter().map(Daemon::pid).collect(),
        )
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn store(&self) -> &Bucket {
        &self.bucket
    }

    /// Kills a receiver with SIGKILL, so that it cannot clean up.
    pub(super) fn kill_receiver(&mut self, index: usize) -> Result<()> {
        self.receivers[index].kill()
    }

    pub(super) fn stop_node(&mut self, index: usize) -> Result<()> {
        Ok(self.nodes[index].end()?)
    }

    /// Restarts a receiver that was killed.
    pub(super) fn start_receiver(&mut self, index: usize) -> Result<()> {
        self.receivers[index] = self.receiver(index)?;
        Ok(())
    }

    pub(super) fn stop_receivers(&mut self) -> Result<()> {
        Ok(self.receivers.iter_mut().try_for_each(Daemon::end)?)
    }

    fn start_nodes(&mut self) -> Result<()> {
        let tools = self.bucket.tools.clone();
        let shared = hex(64);
        let configs: Vec<_> =
            (0..NODES).map(|index| self.path(&format!("node{index}.toml"))).collect();
        for (index, (config, (s3, rpc))) in configs.iter().zip(&self.ports.nodes).enumerate() {
            let place = self.path(&format!("node{index}"));
            fs::create_dir(&place)?;
            let text = format!(
                "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"lmdb\"\n\
                 replication_factor = 3\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
                 rpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{shared}\"\n\
                 [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\n",
                place.join("meta"),
                place.join("data"),
            );
            fs::write(config, text)?;
            let mut command = Command::new(&tools.garage);
            command.arg("-c").arg(config).arg("server").env("RUST_LOG", "warn");
            let log = self.path(&format!("node{index}.log"));
            self.nodes.push(Daemon::start(command, &log)?);
        }
        let ids = configs.iter().map(|config| {
            let id = retry(|| tools.garage(config, &["node", "id", "-q"]))?;
            Ok(id.trim().to_owned())
        });
        let ids = ids.collect::<Result<Vec<String>>>()?;
        let run = |arguments: &[&str]| retry(|| tools.garage(&configs[0], arguments));
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                run(&["node", "connect", id])?;
            }
            let short = id.split('@').next().unwrap_or(id);
            run(&["layout", "assign", "-z", &format!("zone{index}"), "-c", "10G", short])?;
        }
        run(&["layout", "apply", "--version", "1"])?;
        run(&["bucket", "create", BUCKET])?;
        run(&["key", "import", "--yes", "-n", "test", &self.bucket.key, &self.bucket.secret])?;
        run(&["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", "test"])?;
        Ok(())
    }

    fn start_haproxy(&mut self, tools: &Tools) -> Result<()> {
        let Ports { clients, store, receivers, metrics, nodes, .. } = &self.ports;
        let mut text = format!(
            "global\n  maxconn 2000\n  log stdout format raw local0\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  \
             timeout server 60s\n  timeout check 2s\n  retries 3\n  option redispatch\n  \
             default-server check inter 300ms fall 2 rise 1\n\
             frontend clients\n  bind 127.0.0.1:{clients}\n  default_backend receivers\n  \
             log global\n  log-format \"{LOG_FORMAT}\"\n\
             frontend requests\n  bind 127.0.0.1:{store}\n  default_backend nodes\n\
             backend receivers\n  balance leastconn\n"
        );
        for (index, (port, checked)) in receivers.iter().zip(metrics).enumerate() {
            // Check the metrics port: a connection to the upload port would leave an empty object.
            text += &format!("  server r{index} 127.0.0.1:{port} port {checked}\n");
        }
        text += "backend nodes\n";
        for (index, (port, _)) in nodes.iter().enumerate() {
            text +=
                &format!("  server n{index} 127.0.0.1:{port} on-marked-down shutdown-sessions\n");
        }
        let config = self.path("haproxy.cfg");
        fs::write(&config, text)?;
        let mut command = Command::new(&tools.haproxy);
        // -db: run as a single process, so that dropping the handle ends it.
        command.args(["-db", "-f"]).arg(config);
        self.haproxy = Some(Daemon::start(command, &self.path("haproxy.log"))?);
        wait_for_listener(*store)
    }

    fn start_envoy(&mut self, program: &Path) -> Result<()> {
        let receivers: Vec<_> =
            self.ports.receivers.iter().copied().zip(self.ports.metrics.iter().copied()).collect();
        let config = self.path("envoy.yaml");
        let admin = self.path("envoy.sock");
        fs::write(&config, balance::envoy_config(self.ports.envoy, &receivers, &admin))?;
        let mut command = Command::new(program);
        command.args(["--disable-hot-restart", "--config-path"]).arg(config);
        self.envoy = Some(Daemon::start(command, &self.path("envoy.log"))?);
        // Use Envoy's admin socket: a connection through its port would be numbered by a receiver.
        retry(|| UnixStream::connect(&admin).map(drop).map_err(Into::into))
    }

    fn receiver(&self, index: usize) -> Result<Daemon> {
        let port = self.ports.receivers[index];
        let mut command = command(&self.server);
        command
            .arg(port.to_string())
            .arg(format!("s3://{BUCKET}/received"))
            .args(["--bind", "127.0.0.1", "--ids-from-store", "-v"])
            .args(["--node", &format!("receiver{index}")])
            .args(self.bucket.tools.envoy.as_ref().map(|_| "--proxy-protocol"))
            .env("AWS_ACCESS_KEY_ID", &self.bucket.key)
            .env("AWS_SECRET_ACCESS_KEY", &self.bucket.secret)
            .env("AWS_ENDPOINT", &self.bucket.endpoint)
            .env("AWS_REGION", "garage")
            .env("AWS_ALLOW_HTTP", "true");
        let metrics = self.ports.metrics[index];
        Daemon::receiver(&format!("receiver{index}"), metrics, command, self.directory())
    }

    /// Starts another receiver, which stores into a directory, and returns its port.
    pub(super) fn start_directory_receiver(&mut self) -> Result<u16> {
        let (port, metrics) = (ports::free()?, ports::free()?);
        let place = self.path("received");
        fs::create_dir(&place)?;
        let mut command = command(&self.server);
        command.arg(port.to_string()).arg(place).args(["--bind", "127.0.0.1"]);
        let receiver = Daemon::receiver("directory", metrics, command, self.directory())?;
        self.receivers.push(receiver);
        Ok(port)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn hex(digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(fastrand::u32(..16), 16).unwrap_or('0')).collect()
}
