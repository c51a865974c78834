//! What stands in a client's certificate (X.509, RFC 5280). Whether it is trusted was decided before.

use std::net::IpAddr;

use postroom_proto::id::is_name;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::ledger::Micros;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The DNS names and addresses among its alternative names.
    pub names: Vec<String>,
    /// The only DNS name among its alternative names that a worker may have; `None` when there is none, or several.
    pub worker: Option<String>,
    /// Who signed it: the name, DER.
    pub issuer: Vec<u8>,
    /// Whose it is: the name, DER.
    pub subject: Vec<u8>,
    /// From when on it holds.
    pub begins: Micros,
    /// When it ends.
    pub expires: Micros,
}

/// Reads a certificate. `None`: it is none.
pub fn read(der: &[u8]) -> Option<Shown> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let alternative = parsed.subject_alternative_name().ok()?.map(|names| &names.value.general_names);
    let (mut names, mut workers) = (Vec::new(), Vec::new());
    for name in alternative.into_iter().flatten() {
        match name {
            GeneralName::DNSName(name) => {
                names.push((*name).to_owned());
                workers.extend(is_name(name).then(|| (*name).to_owned()));
            }
            GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
            _ => {}
        }
    }
    let worker = workers.pop().filter(|_| workers.is_empty());
    Some(Shown {
        names,
        worker,
        issuer: parsed.issuer().as_raw().to_vec(),
        subject: parsed.subject().as_raw().to_vec(),
        begins: parsed.validity().not_before.timestamp().saturating_mul(1_000_000),
        expires: parsed.validity().not_after.timestamp().saturating_mul(1_000_000),
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
}
