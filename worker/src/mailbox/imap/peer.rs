//! A scripted IMAP server for tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::connection::{Folder, SignIn, Unopened, open};
use super::guard::Limits;
use crate::token::Token;

/// What a test server expects and answers. In an answer `{tag}` is the tag of the command; `CLOSE` ends the connection.
pub(crate) type Script = Vec<(&'static str, String)>;

/// Sign-in as XOAUTH2 does it, CAPABILITY and SELECT, all well.
pub(crate) fn opening(capabilities: &str) -> Script {
    vec![
        ("AUTHENTICATE XOAUTH2", "+ \r\n".into()),
        ("dXNlcj", "A0001 OK Success\r\n".into()),
        ("CAPABILITY", format!("* CAPABILITY IMAP4rev1 {capabilities}\r\n{{tag}} OK done\r\n")),
        (
            "SELECT",
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n* OK [UIDNEXT 4] x\r\n{tag} OK [READ-WRITE] done\r\n".into(),
        ),
    ]
}

/// Starts a server that follows `script` and then closes. The log holds the commands that it got.
pub(crate) fn start(script: Script) -> (DuplexStream, Arc<Mutex<Vec<String>>>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    tokio::spawn(async move {
        let mut server = BufReader::new(server);
        if server.write_all(b"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=PLAIN] ready\r\n").await.is_err() {
            return;
        }
        for (expected, answer) in script {
            let mut line = String::new();
            if server.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            lines.lock().expect("the log").push(line.trim_end().to_owned());
            assert!(line.contains(expected), "expected {expected:?}, got {line:?}");
            let tag = line.split(' ').next().unwrap_or_default();
            let answer = answer.replace("{tag}", tag);
            let (answer, close) = match answer.strip_suffix("CLOSE") {
                Some(answer) => (answer.to_owned(), true),
                None => (answer, false),
            };
            if server.write_all(answer.as_bytes()).await.is_err() || close {
                return;
            }
        }
    });
    (client, log)
}

/// Opens INBOX on a server that follows `script`.
pub(crate) async fn opened(script: Script) -> Result<Folder<DuplexStream>, Unopened> {
    let (stream, _) = start(script);
    let server = ("imap.x.example".into(), 993);
    let sign_in = SignIn::Token { mailbox: "a@x.example".into(), token: Token::new("secret-token".into()), server };
    open(stream, Limits::for_messages(1000), Duration::from_secs(5), &sign_in, "INBOX").await
}
