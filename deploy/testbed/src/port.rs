//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

use uuid::Uuid;

use crate::error::{Error, Result};

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: one of these could sit
/// on the port while a server restarts.
pub(crate) fn free() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    let mut last = None;
    for _ in 0..100 {
        let port = FIRST + (Uuid::new_v4().as_u128() % u128::from(COUNT)) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    let source = last.unwrap_or_else(|| std::io::Error::other("no port was tried"));
    Err(Error::System { action: "find a free port".to_owned(), source })
}
