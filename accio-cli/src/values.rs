//! Parsers of flag values that several programs take; for clap's `value_parser`.

use std::time::Duration;

use accio_proto::limits;

/// Parses a time limit in seconds, fractions allowed.
///
/// # Errors
///
/// The value is not a number, not above 0, or above [`limits::MAX_TIMEOUT`].
pub fn seconds(value: &str) -> Result<Duration, String> {
    let number: f64 = value.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration.is_zero() => Err("must be above 0 seconds".into()),
        Ok(duration) if duration <= limits::MAX_TIMEOUT => Ok(duration),
        _ => Err(format!("must be between 0 and {} seconds", limits::MAX_TIMEOUT.as_secs())),
    }
}

/// Parses a number of bytes with an optional suffix K, M, G or T (powers of 1024).
///
/// # Errors
///
/// The value is not a whole number, has an unknown suffix, or is too large.
pub fn bytes(value: &str) -> Result<u64, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &value[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err("unknown suffix: use K, M, G or T".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a number of bytes: use one such as 4096, 64K or 10G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "above 2^64 - 1 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_take_fractions_and_refuse_the_rest() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "ten", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_take_suffixes_and_refuse_the_rest() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64k"), Ok(64 << 10));
        assert_eq!(bytes("16777215T"), Ok(16777215 << 40));
        for bad in ["", "-1", "1.5G", "G", "1KB", "1 K", "16777216T", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
