//! Parsers for flag values, to be used as clap's `value_parser`.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use accio_proto::limits;
use jiff::SignedDuration;

/// Parses a time limit: seconds with an optional fraction, or a number with a unit such as `500ms`,
/// `10s`, `5m` or `1h30m`.
///
/// # Errors
///
/// Returns an error if the value is not a time, is 0 or less, or is above [`limits::MAX_TIMEOUT`].
pub fn seconds(value: &str) -> Result<Duration, String> {
    let duration = match value.parse() {
        Ok(number) => Duration::try_from_secs_f64(number).ok(),
        Err(_) => {
            let duration: SignedDuration = value.parse().map_err(|_| {
                "not a time: use seconds such as 2.5, or 500ms, 10s or 5m".to_owned()
            })?;
            duration.try_into().ok()
        }
    };
    match duration {
        Some(duration) if duration.is_zero() => Err("must be above 0 seconds".into()),
        Some(duration) if duration <= limits::MAX_TIMEOUT => Ok(duration),
        _ => Err(format!("must be between 0 and {} seconds", limits::MAX_TIMEOUT.as_secs())),
    }
}

/// Parses a number of bytes, such as `4096`, `64K`, `1.5G`, `10MB` or `10MiB`. K, M, G and T are
/// powers of 1024, with or without a following `B` or `iB`.
///
/// # Errors
///
/// Returns an error if the value is not a size or is above 2^64 - 1.
pub fn bytes(value: &str) -> Result<u64, String> {
    parse_size::Config::new().with_binary().parse_size(value).map_err(|error| match error {
        parse_size::Error::PosOverflow => "above 2^64 - 1 bytes".to_owned(),
        _ => "not a size: use bytes such as 4096, or 64K, 1.5G or 10MB".to_owned(),
    })
}

/// Parses a number of things, of a type without 0 such as [`NonZeroUsize`](std::num::NonZeroUsize).
///
/// # Errors
///
/// Returns an error if the value is not a whole number, is 0, or is too large for the type.
pub fn count<T: FromStr<Err = ParseIntError>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => {
            let max = u64::MAX >> (64 - 8 * size_of::<T>().min(8));
            format!("too large: the maximum is {max}")
        }
        _ => "not a whole number above 0".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn count_rejects_zero_and_invalid_numbers() {
        assert_eq!(count("7"), Ok(NonZeroU32::new(7).unwrap()));
        for bad in ["0", "-1", "1.5", "", "x", "4294967296"] {
            assert!(count::<NonZeroU32>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn count_names_the_maximum() {
        let error = |value| count::<NonZeroU32>(value).unwrap_err();
        assert_eq!(error("4294967296"), "too large: the maximum is 4294967295");
        assert_eq!(error("18446744073709551616"), "too large: the maximum is 4294967295");
    }

    #[test]
    fn seconds_accepts_fractions_and_units() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for (text, millis) in
            [("10s", 10_000), ("1.5s", 1500), ("500ms", 500), ("1h30m", 5_400_000)]
        {
            assert_eq!(seconds(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["0", "0s", "-1", "-1s", "nan", "inf", "1e300", "ten", "", "s", "10x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_accepts_suffixes() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64k"), Ok(64 << 10));
        assert_eq!(bytes("16777215T"), Ok(16777215 << 40));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        for text in ["10M", "10m", "10MB", "10mb", "10MiB", "10485760B"] {
            assert_eq!(bytes(text), Ok(10 << 20), "{text}");
        }
        for bad in ["", "-1", "G", "1KX", "K1", "one", "16777216T", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
