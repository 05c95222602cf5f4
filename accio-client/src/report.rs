//! What the program says at the end, on stderr.

use std::time::Duration;

use accio_proto::Sent;
use accio_proto::cli::say;

use crate::arguments::Arguments;

/// A note when the server did not confirm, and with `-v` a line about the transfer.
pub(crate) fn end(sent: &Sent, arguments: &Arguments) {
    if arguments.verbosity.verbose > 0 {
        say(line(sent));
    } else if !sent.confirmed && !arguments.verbosity.quiet {
        say(format_args!("note: {}", unconfirmed(sent)));
    }
}

fn line(sent: &Sent) -> String {
    let confirmation = match sent.confirmed {
        true => "confirmed".to_owned(),
        false => unconfirmed(sent),
    };
    format!(
        "sent {} bytes to {} in {:.3} s ({}), {confirmation}",
        sent.bytes,
        sent.peer,
        sent.duration.as_secs_f64(),
        rate(sent.bytes, sent.duration),
    )
}

fn unconfirmed(sent: &Sent) -> String {
    format!(
        "not confirmed: {} has acknowledged all {} bytes but did not close the connection",
        sent.peer, sent.bytes
    )
}

/// Bytes per second in units of a thousand.
fn rate(bytes: u64, duration: Duration) -> String {
    let mut rate = bytes as f64 / duration.as_secs_f64().max(1e-9);
    let mut unit = "B/s";
    for larger in ["kB/s", "MB/s", "GB/s"] {
        if rate < 999.95 {
            break;
        }
        rate /= 1000.0;
        unit = larger;
    }
    format!("{rate:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit_that_fits() {
        for (bytes, milliseconds, text) in [
            (0, 1000, "0.0 B/s"),
            (999, 1000, "999.0 B/s"),
            (1000, 1000, "1.0 kB/s"),
            (999_999, 1000, "1.0 MB/s"),
            (5 << 30, 2000, "2.7 GB/s"),
            (5_000_000_000_000, 1000, "5000.0 GB/s"),
        ] {
            assert_eq!(rate(bytes, Duration::from_millis(milliseconds)), text);
        }
        assert!(rate(7, Duration::ZERO).ends_with("GB/s"));
    }
}
