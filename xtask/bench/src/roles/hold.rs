//! Many connections that say nothing, or a byte now and then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use accio_harness::peer::GREETING;
use anyhow::{Context, Result, ensure};

/// How many connections to hold, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HoldOptions {
    port: u16,
    connections: usize,
    /// Send a byte on each connection this often, in seconds
    #[arg(long)]
    drip: Option<f64>,
}

/// Opens the connections, prints `ready` when all are greeted, and holds them until killed.
pub(super) fn run(plan: &HoldOptions) -> Result<()> {
    let server = SocketAddr::from(([127, 0, 0, 1], plan.port));
    let mut streams = Vec::with_capacity(plan.connections);
    for number in 1..=plan.connections {
        let open = || -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.read_exact(&mut [0; GREETING.len()])?;
            Ok(stream)
        };
        streams.push(open().with_context(|| format!("connection {number}"))?);
    }
    writeln!(io::stdout(), "ready")?;
    let Some(seconds) = plan.drip else {
        // Held until the one who started it has seen enough.
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    };
    ensure!(seconds > 0.0, "a drip takes time");
    let pause = Duration::from_secs_f64(seconds / plan.connections.max(1) as f64);
    // Evenly over time, in small groups where single bytes would come too thick to sleep between.
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
