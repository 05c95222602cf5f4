//! Holds many connections that are silent or send a byte now and then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use accio_harness::peer::GREETING;
use anyhow::{Context, Result, ensure};

use super::stream::{Stream, tls_config};

/// The connections to hold.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HoldOptions {
    port: u16,
    connections: usize,
    /// Interval in seconds at which each connection sends a byte
    #[arg(long)]
    drip: Option<f64>,
    /// Use TLS; the pin of the server's key
    #[arg(long)]
    pin: Option<String>,
}

/// Opens the connections, prints `ready` when all are greeted, and holds them until killed.
pub(super) fn run(options: &HoldOptions) -> Result<()> {
    let server = SocketAddr::from(([127, 0, 0, 1], options.port));
    let config = options.pin.as_deref().map(tls_config).transpose()?;
    let mut streams = Vec::with_capacity(options.connections);
    for number in 1..=options.connections {
        let open = || -> Result<Stream> {
            let tcp = TcpStream::connect(server)?;
            tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut stream = Stream::new(tcp, config.as_ref().map(Arc::clone))?;
            stream.read_exact(&mut [0; GREETING.len()])?;
            Ok(stream)
        };
        streams.push(open().with_context(|| format!("connection {number}"))?);
    }
    writeln!(io::stdout(), "ready")?;
    let Some(seconds) = options.drip else {
        // Hold the connections until the parent process closes stdin.
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    };
    ensure!(seconds > 0.0, "--drip must be positive");
    let pause = Duration::from_secs_f64(seconds / options.connections.max(1) as f64);
    // Spread the bytes evenly over time; in small groups if the pauses would be too short to sleep.
    let group = (0.001 / pause.as_secs_f64()).ceil().max(1.0);
    loop {
        for streams in streams.chunks_mut(group as usize) {
            for stream in streams {
                stream.write_all(b".")?;
            }
            std::thread::sleep(pause.mul_f64(group));
        }
    }
}
