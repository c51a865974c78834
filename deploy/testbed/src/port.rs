//! Free ports.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use crate::error::{Error, Result};

/// Those that were given out. Between that and its server's start nobody listens on a port, so that a second look would find it
/// free as well.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nobody listens on and that this process was not given before, below those that the kernel gives to outgoing
/// connections: one of these could sit on the port while a server restarts.
///
/// # Errors
/// [`Error::System`] when none is found.
pub fn free() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    let mut last = None;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..100 {
        let port = FIRST + (Uuid::new_v4().as_u128() % u128::from(COUNT)) as u16;
        if given.contains(&port) {
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {
                given.insert(port);
                return Ok(port);
            }
            Err(error) => last = Some(error),
        }
    }
    let source = last.unwrap_or_else(|| std::io::Error::other("no port was tried"));
    Err(Error::System { action: "find a free port".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..3000).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 3000);
    }
}
