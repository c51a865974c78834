//! A small IMAP server with messages in it, for tests of what reads a whole folder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::connection::{Folder, SignIn, open};
use super::guard::Limits;
use crate::token::Token;

/// How a message behaves.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// As it should.
    Good(Vec<u8>),
    /// It is listed and never given.
    Missing,
    /// As it should, but for its headers alone: they are refused (`true`), or never given.
    NoHeader(Vec<u8>, bool),
    /// Giving it breaks the connection's answers.
    Broken,
    /// A literal of this size is announced.
    Huge(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) seen: bool,
    pub(crate) deleted: bool,
    pub(crate) size: u64,
    pub(crate) body: Body,
    /// INTERNALDATE: minutes behind 2024-01-01 10:00 UTC, below 60.
    pub(crate) minute: u32,
}

/// A folder. Shared by all connections to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    pub(crate) mails: Arc<Mutex<BTreeMap<u32, Mail>>>,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn put(&self, uid: u32, seen: bool, body: Body) {
        let size = match &body {
            Body::Good(raw) | Body::NoHeader(raw, _) => raw.len() as u64,
            _ => 10,
        };
        self.mails.lock().expect("mails").insert(uid, Mail { seen, deleted: false, size, body, minute: 0 });
    }

    /// Another folder with these messages, by the UIDs that they had and those that they get.
    pub(crate) fn renumbered(&self, uids: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mails = self.mails.lock().expect("mails");
        let moved = uids.into_iter().map(|(from, to)| (to, mails[&from].clone())).collect();
        Self { mails: Arc::new(Mutex::new(moved)), log: self.log.clone() }
    }

    pub(crate) fn put_good(&self, uids: impl IntoIterator<Item = u32>) {
        for uid in uids {
            self.put(uid, false, Body::Good(format!("Subject: m{uid}\r\n\r\nbody of {uid}\r\n").into_bytes()));
        }
    }

    pub(crate) fn seen(&self) -> Vec<u32> {
        self.mails.lock().expect("mails").iter().filter(|(_, mail)| mail.seen).map(|(uid, _)| *uid).collect()
    }

    /// A signed-in connection whose messages may have `max` bytes.
    pub(crate) async fn connect(&self, max: u64) -> Folder<DuplexStream> {
        let (client, stream) = tokio::io::duplex(1 << 20);
        tokio::spawn(self.clone().serve(stream));
        let server = ("imap.x.example".into(), 993);
        let sign_in = SignIn::Token { mailbox: "a@x.example".into(), token: Token::new("t".into()), server };
        open(client, Limits::for_messages(max), Duration::from_secs(5), &sign_in, "INBOX").await.expect("open")
    }

    async fn serve(self, stream: DuplexStream) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let mut answer = "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=PLAIN] ready\r\n".to_owned().into_bytes();
        loop {
            if stream.write_all(&answer).await.is_err() {
                return;
            }
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            self.log.lock().expect("log").push(line.trim_end().to_owned());
            answer = self.answer(line.trim_end());
        }
    }

    fn answer(&self, line: &str) -> Vec<u8> {
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        let mut mails = self.mails.lock().expect("mails");
        let mut out = Vec::new();
        if command.starts_with("AUTHENTICATE") {
            return b"+ \r\n".to_vec();
        }
        if command.is_empty() {
            return b"A0001 OK in\r\n".to_vec();
        }
        if command == "CAPABILITY" {
            out.extend(b"* CAPABILITY IMAP4rev1 MOVE UIDPLUS IDLE\r\n");
        }
        if command.starts_with("SELECT") {
            let next = mails.keys().max().map_or(1, |uid| uid + 1);
            out.extend(
                format!("* {} EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n* OK [UIDNEXT {next}] x\r\n", mails.len()).bytes(),
            );
        }
        let words: Vec<&str> = command.split(' ').collect();
        if let ["UID", verb, set, ..] = words.as_slice() {
            let uids = members(set, &mails);
            let refused = |uid: &u32| matches!(mails[uid].body, Body::NoHeader(_, true));
            if command.contains("HEADER.FIELDS") && uids.iter().any(refused) {
                return format!("{tag} NO it cannot be converted\r\n").into_bytes();
            }
            for (at, uid) in uids.iter().enumerate() {
                let mail = mails.get_mut(uid).expect("a member");
                let seq = at + 1;
                match *verb {
                    "FETCH" if command.contains("BODY.PEEK[]") => match &mail.body {
                        Body::Good(raw) | Body::NoHeader(raw, _) => {
                            out.extend(format!("* {seq} FETCH (UID {uid} BODY[] {{{}}}\r\n", raw.len()).bytes());
                            out.extend(raw);
                            out.extend(b")\r\n");
                        }
                        Body::Missing => {}
                        Body::Broken => out.extend(format!("* {seq} FETCH (UID {uid} BODY[] oops\r\n").bytes()),
                        Body::Huge(size) => {
                            out.extend(format!("* {seq} FETCH (UID {uid} BODY[] {{{size}}}\r\n").bytes())
                        }
                    },
                    "FETCH" if command.contains("HEADER.FIELDS") => {
                        if let Body::Good(raw) = &mail.body {
                            let end =
                                raw.windows(4).position(|four| four == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
                            let fields = "BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM TO SUBJECT)]";
                            out.extend(format!("* {seq} FETCH (UID {uid} {fields} {{{end}}}\r\n").bytes());
                            out.extend(&raw[..end]);
                            out.extend(b")\r\n");
                        }
                    }
                    "FETCH" => {
                        let flags = if mail.seen { "\\Seen" } else { "" };
                        out.extend(
                            format!(
                                "* {seq} FETCH (UID {uid} FLAGS ({flags}) INTERNALDATE \"01-Jan-2024 10:{:02}:00 +0000\" RFC822.SIZE {})\r\n",
                                mail.minute, mail.size
                            )
                            .bytes(),
                        );
                    }
                    "STORE" if command.contains("Deleted") => mail.deleted = true,
                    "STORE" => mail.seen = true,
                    "EXPUNGE" if !mail.deleted => {}
                    "EXPUNGE" => {
                        mails.remove(uid);
                    }
                    "MOVE" => {
                        mails.remove(uid);
                    }
                    _ => {}
                }
            }
        }
        out.extend(format!("{tag} OK done\r\n").bytes());
        out
    }
}

fn members(set: &str, mails: &BTreeMap<u32, Mail>) -> Vec<u32> {
    let last = mails.keys().max().copied().unwrap_or(0);
    let number = |text: &str| if text == "*" { last } else { text.parse().expect("a UID") };
    let mut found = Vec::new();
    for part in set.split(',') {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let (from, to) = (number(from), number(to));
        found.extend(mails.range(from.min(to)..=from.max(to)).map(|(uid, _)| *uid));
    }
    found
}
