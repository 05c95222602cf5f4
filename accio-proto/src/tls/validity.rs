//! The dates between which a certificate is valid.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// The reason why a certificate is not valid at a time. Use another one, or correct the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutOfDate {
    /// The certificate expired this long before.
    #[error("it expired {} ago", Rounded(*.0))]
    Expired(Duration),
    /// The certificate becomes valid this much later.
    #[error("it is not valid for another {}", Rounded(*.0))]
    NotYetValid(Duration),
}

/// Checks the dates of a certificate, and nothing else of it.
///
/// # Errors
///
/// Returns the reason if the certificate is not valid at `now`.
pub fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), OutOfDate> {
    // The private key would not fit to a certificate that cannot be parsed.
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Ok(()) };
    // Dates are checked before the issuer, which is missing here.
    let verified =
        certificate.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None);
    let between = |from: UnixTime, to: UnixTime| {
        Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
    };
    match verified.map(drop) {
        Err(Error::CertExpired { not_after, .. }) => {
            Err(OutOfDate::Expired(between(not_after, now)))
        }
        Err(Error::CertNotValidYet { not_before, .. }) => {
            Err(OutOfDate::NotYetValid(between(now, not_before)))
        }
        _ => Ok(()),
    }
}

/// Formats a duration in its largest unit.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
        let (size, unit) =
            units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
        let count = seconds / size;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_valid_between_its_dates() {
        let mut params = CertificateParams::new(["receiver".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let check = |seconds| check_dates(certificate.der(), at(seconds));
        let (first, last) = (1_577_836_800, 1_580_428_800);
        assert_eq!(check(first), Ok(()));
        assert_eq!(check(last), Ok(()));
        assert_eq!(
            check(first - 60).unwrap_err().to_string(),
            "it is not valid for another 1 minute"
        );
        assert_eq!(check(last + 3 * 86_400).unwrap_err().to_string(), "it expired 3 days ago");
        assert_eq!(check(last + 7200).unwrap_err().to_string(), "it expired 2 hours ago");
    }
}
