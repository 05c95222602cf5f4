//! The name in a client's certificate.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::Pin;

/// Maximum length of a name from a certificate in bytes.
const NAME_MAX: usize = 128;

/// Returns the name in a certificate: its first DNS name, otherwise its first URI, otherwise its
/// common name. Returns its [`Pin`] if it has none of these, or if the name is longer than 128
/// bytes or contains control characters.
pub fn certificate_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let name = parsed.valid_dns_names().next().or_else(|| parsed.valid_uri_names().next());
    let name = name.or_else(|| common_name(parsed.subject()));
    let is_fit = |name: &&str| {
        !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control)
    };
    match name.filter(is_fit) {
        Some(name) => Some(name.to_owned()),
        None => Pin::of(certificate).ok().map(|pin| pin.to_string()),
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;

/// The object identifier of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Returns the common name in a subject, given as the content of its sequence of attribute sets.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    while !subject.is_empty() {
        let (SET, attributes, rest) = element(subject)? else { return None };
        subject = rest;
        let (SEQUENCE, attribute, _) = element(attributes)? else { return None };
        let (OBJECT_ID, id, value) = element(attribute)? else { return None };
        if id == COMMON_NAME {
            return match element(value)? {
                (UTF8_STRING | PRINTABLE_STRING, name, _) => std::str::from_utf8(name).ok(),
                _ => None,
            };
        }
    }
    None
}

/// Splits an element in DER into its tag, its content and the bytes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: Option<&str>, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "an organization");
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn selects_a_name_of_the_certificate_in_order() {
        let dns = || SanType::DnsName("laptop.example".try_into().unwrap());
        let uri = || SanType::URI("spiffe://example/laptop".try_into().unwrap());
        for (certificate, name) in [
            (certificate(Some("alice"), vec![uri(), dns()]), "laptop.example"),
            (certificate(Some("alice"), vec![uri()]), "spiffe://example/laptop"),
            (certificate(Some("alice"), vec![]), "alice"),
        ] {
            assert_eq!(certificate_name(&certificate).as_deref(), Some(name));
        }
        let long = "n".repeat(200);
        for common in [None, Some(""), Some("a\x1b[2Jb"), Some(&*long)] {
            let certificate = certificate(common, vec![]);
            let pin = Pin::of(&certificate).unwrap().to_string();
            assert_eq!(certificate_name(&certificate), Some(pin), "{common:?}");
        }
        assert_eq!(certificate_name(&CertificateDer::from(vec![0x30, 0x80])), None);
    }

    #[test]
    fn ignores_a_malformed_subject() {
        for bytes in [
            &[0x31, 0x02, 0x30, 0x05][..],
            &[0x31, 0x80],
            &[0x31],
            &[0x31, 0x82, 0x01],
            &[0x30, 0x00],
            &[0x31, 0x07, 0x30, 0x05, 0x06, 0x03, 0x55, 0x04, 0x03],
        ] {
            assert_eq!(common_name(bytes), None, "{bytes:?}");
        }
    }
}
