//! What stands in certificates (X.509, RFC 5280), in words for people. Nothing here decides whether one is trusted.

use data_encoding::{Encoding, HEXUPPER};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::diagnosis::excerpt;

const HEX: Encoding = HEXUPPER;

/// What a server showed, from its own certificate upwards, and when the first of them ends.
pub fn describe(chain: &[CertificateDer<'_>]) -> String {
    let names: Vec<String> = chain.iter().map(|one| named(one).map_or_else(unreadable, |n| n.subject)).collect();
    let ends = chain.iter().filter_map(|one| Some(named(one)?.ends)).min();
    let issuer = chain.last().and_then(named).map(|last| last.issuer).unwrap_or_default();
    let ends = ends.and_then(|end| jiff::Timestamp::from_second(end).ok());
    let ends = ends.map(|end| format!("; valid until {}", end.strftime("%Y-%m-%d"))).unwrap_or_default();
    excerpt(&format!("{}, signed by {issuer}{ends}", names.join(", signed by ")), 400)
}

/// Seconds since 1970 between which a certificate holds.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

/// Seconds since 1970 at which the first certificate of a chain ends.
pub fn ends(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain.iter().filter_map(|one| Some(named(one)?.ends)).min()
}

/// Which certificate of a chain is signed by somebody unknown, and by whom: what has to be looked for.
pub fn unknown_issuer(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> String {
    let count = intermediates.len() + 1;
    // The last one up the chain whose signer was not sent along.
    let (mut at, mut top) = (1, named(end_entity));
    let mut fingerprint = fingerprint_of(end_entity);
    for _ in 0..intermediates.len() {
        let Some(issuer) = top.as_ref().map(|one| one.issuer.clone()) else { break };
        let next = intermediates.iter().enumerate().find_map(|(place, one)| {
            let found = named(one)?;
            (found.subject == issuer && found.subject != found.issuer).then_some((place, one, found))
        });
        let Some((place, one, found)) = next else { break };
        (at, fingerprint, top) = (place + 2, fingerprint_of(one), Some(found));
    }
    let Some(top) = top else {
        return format!("certificate {at} of {count} cannot be read; its SHA-256 fingerprint is {fingerprint}");
    };
    let signed = if top.subject == top.issuer {
        "is signed by itself".to_owned()
    } else {
        format!("is signed by the unknown CA \"{}\"", top.issuer)
    };
    let text = format!(
        "certificate {at} of {count} that the server sent, \"{}\", {signed}; its SHA-256 fingerprint is {fingerprint}",
        top.subject
    );
    excerpt(&text, 600)
}

struct Named {
    subject: String,
    issuer: String,
    ends: i64,
}

fn named(certificate: &CertificateDer<'_>) -> Option<Named> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Named {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        ends: parsed.validity().not_after.timestamp(),
    })
}

fn unreadable() -> String {
    "an unreadable certificate".to_owned()
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint_of(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate.as_ref());
    let bytes: Vec<String> = digest.iter().map(|byte| HEX.encode(&[*byte])).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named_by_its_fingerprint() {
        let told = unknown_issuer(&CertificateDer::from(vec![1, 2, 3]), &[]);
        // printf '\1\2\3' | sha256sum
        assert!(told.contains("03:90:58:C6:F2:C0:CB:49"), "{told}");
        assert_eq!(describe(&[]), ", signed by");
    }
}
