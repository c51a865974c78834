use std::io::{Read as _, Write as _};

use super::*;

fn here() -> Listen {
    Listen::At(([127, 0, 0, 1], 0).into())
}

/// Sends this and reads to the end, without any runtime.
fn asked(address: SocketAddr, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    asked(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

#[test]
fn it_answers_while_the_runtime_of_the_process_is_busy() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let health = Health::starting();
    let listener = Listener::start(here(), health.clone()).unwrap().unwrap();
    runtime.block_on(async {
        health.set(Vec::new());
        // This thread does nothing but ask, so no beat can come: only the listener's own thread can answer.
        assert!(get(listener.address(), "/live").starts_with("HTTP/1.1 200"));
        assert!(get(listener.address(), "/ready").ends_with("ready\n"));
        assert!(get(listener.address(), "/metrics").contains("# EOF"));
    });
}

#[test]
fn reasons_are_told_and_what_is_not_here_is_said() {
    let listener = Listener::start(here(), Health::starting()).unwrap().unwrap();
    let answer = get(listener.address(), "/ready");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready\nit is starting\n"), "{answer}");
    assert!(get(listener.address(), "/metric").starts_with("HTTP/1.1 404"));
    let answer = asked(listener.address(), "POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    let answer = asked(listener.address(), "HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(asked(listener.address(), "no request\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn whoever_says_nothing_holds_up_nobody() {
    let listener = Listener::start(here(), Health::starting()).unwrap().unwrap();
    let silent: Vec<_> =
        (0..CONNECTIONS - 1).map(|_| std::net::TcpStream::connect(listener.address()).unwrap()).collect();
    assert!(get(listener.address(), "/live").starts_with("HTTP/1.1 200"));
    // With as many as there is room for, the next one waits until a silent one is cut off.
    let last = std::net::TcpStream::connect(listener.address()).unwrap();
    assert!(get(listener.address(), "/live").starts_with("HTTP/1.1 200"));
    drop((silent, last));
}

#[test]
fn an_address_in_use_is_refused_only_to_whoever_asked_for_it() {
    let first = Listener::start(here(), Health::starting()).unwrap().unwrap();
    let error = Listener::start(Listen::At(first.address()), Health::starting()).unwrap_err();
    assert!(error.to_string().contains("observe.listen"), "{error}");
    assert!(Listener::start(Listen::Perhaps(first.address()), Health::starting()).unwrap().is_none());
    let address = first.address();
    drop(first);
    assert!(Listener::start(Listen::At(address), Health::starting()).unwrap().is_some(), "a dropped one is gone");
    assert!(Listener::start(Listen::Off, Health::starting()).unwrap().is_none());
}

#[test]
fn a_setting_is_an_address_or_off() {
    assert_eq!(Listen::parse("off"), Ok(None));
    assert_eq!(Listen::parse("127.0.0.1:1"), Ok(Some(([127, 0, 0, 1], 1).into())));
    assert!(Listen::parse("localhost").unwrap_err().contains("or off"));
    assert_eq!(Listen::of(None, true), Listen::Off);
}
