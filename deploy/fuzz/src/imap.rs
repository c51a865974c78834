//! What a mail server answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroom_worker::mailbox::imap::connection::{SignIn, open};
use postroom_worker::mailbox::imap::fetch::{bodies, headers, summaries};
use postroom_worker::mailbox::imap::guard::Limits;
use postroom_worker::mailbox::imap::search::by_message_id;
use postroom_worker::token::Token;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::run;

/// Largest message that is taken here.
const LARGEST: u64 = 64 * 1024;
/// A server that lets the client in, up to the selected folder. Clients number their commands.
const OPENING: &str = "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] ready\r\n+ \r\nA0001 OK done\r\n\
    * CAPABILITY IMAP4rev1 IDLE MOVE\r\nA0002 OK done\r\n\
    * 3 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n* OK [UIDNEXT 4] x\r\nA0003 OK done\r\n";

/// A server that says what it has to say, in pieces, and hears nothing.
#[derive(Debug)]
struct Server {
    says: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Server {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.says.len() - self.at;
        let count = rest.min(self.piece).min(into.remaining());
        into.put_slice(&self.says[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn sign_in() -> SignIn {
    let server = ("imap.x.example".into(), 993);
    SignIn::Token { mailbox: "a@x.example".into(), token: Token::new(TOKEN.into()), server }
}

const TOKEN: &str = "planted-token";

/// Reads what a server answers to a look, to fetches and to a search in a folder that is open. The first byte says in pieces
/// of what size it comes.
///
/// # Panics
/// When more is taken than was asked for or than is allowed, or when the size of the pieces makes a difference.
pub fn imap(data: &[u8]) {
    let Some((first, answers)) = data.split_first() else { return };
    let whole = conversation(answers, usize::MAX);
    let in_pieces = conversation(answers, usize::from(*first) + 1);
    assert_eq!(whole, in_pieces, "the network makes no difference");
}

/// What the client made of it, in words.
fn conversation(answers: &[u8], piece: usize) -> Vec<String> {
    let says = [OPENING.as_bytes(), answers].concat();
    let (step, limits) = (Duration::from_secs(3600), Limits::for_messages(LARGEST));
    run(async {
        let mut made = Vec::new();
        let opened = open(Server { says, at: 0, piece }, limits, step, &sign_in(), "INBOX").await;
        // What follows the opening may be read with it and refuse the connection as a whole.
        let mut folder = match opened {
            Ok(folder) => folder,
            Err(error) => return vec![error.diagnosis.code],
        };
        let commands = &mut folder.commands;
        match summaries(commands, 1, None).await {
            Ok(found) => {
                assert!(found.windows(2).all(|pair| pair[0].uid < pair[1].uid), "by UID, each once");
                made.push(format!("{found:?}"));
            }
            Err(error) => made.push(error.to_string()),
        }
        let mut known = Vec::new();
        let listed = headers(commands, &[1, 2, 3], |uid, header| known.push((uid, header.to_vec()))).await;
        assert!(known.iter().all(|(_, header)| header.len() as u64 <= LARGEST), "headers are bounded");
        // What was too long and thrown away is told to the command that ran as it came: a server that speaks before it is
        // asked is compared without that.
        made.push(format!("{known:?} {:?}", listed.map(drop).map_err(|error| error.to_string())));
        match bodies(commands, &[1, 2, 3]).await {
            Ok(bodies) => {
                assert!(bodies.got.len() <= 3 && bodies.got.iter().all(|(uid, _)| (1..=3).contains(uid)));
                assert!(bodies.got.iter().all(|(_, body)| body.len() as u64 <= LARGEST), "messages are bounded");
                made.push(format!("{:?}", bodies.got));
            }
            Err(error) => made.push(error.to_string()),
        }
        made.push(format!("{:?}", by_message_id(commands, "a@x.example").await.map_err(|error| error.to_string())));
        made
    })
}

/// Signs in to a server that greets like this, up to the first zero byte, and then answers like that: as a SASL challenge
/// and as the lines themselves.
///
/// # Panics
/// When the token is told to anybody, or what is told of the refusal is not bounded.
pub fn challenge(data: &[u8]) {
    let (greeting, said) =
        data.iter().position(|byte| *byte == 0).map_or((&[][..], data), |at| (&data[..at], &data[at + 1..]));
    let greeting = if greeting.is_empty() { b"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] ready\r\n" } else { greeting };
    let encoded = STANDARD.encode(said);
    let challenged = format!("+ \r\n+ {encoded}\r\nA0001 NO AUTHENTICATE failed.\r\n");
    for answers in [challenged.as_bytes(), said] {
        let server = Server { says: [greeting, answers].concat(), at: 0, piece: usize::MAX };
        let (step, limits) = (Duration::from_secs(3600), Limits::for_messages(LARGEST));
        let Err(refused) = run(open(server, limits, step, &sign_in(), "INBOX")) else { continue };
        let told = format!("{} {}", refused.diagnosis.cause, refused.diagnosis.remedy);
        assert!(!told.contains(TOKEN) || data.windows(TOKEN.len()).any(|it| it == TOKEN.as_bytes()), "{told}");
        assert!(refused.diagnosis.cause.chars().count() <= 1000, "{told}");
        assert!(!refused.diagnosis.cause.chars().any(char::is_control), "{told:?}");
    }
}
