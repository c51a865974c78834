//! Delivery by LMTP (RFC 2033): many messages over one connection, none waiting for the answer to the one before.
//!
//! Messages go by BDAT (RFC 3030), which unlike DATA needs no round trip of its own and no dot-stuffing. A server that
//! does not take it, as Cyrus, gets them by DATA, one after the other.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::error::{Error, Result};

const ANSWER_SECONDS: u64 = 60;
/// Deliveries whose answers may be outstanding on one connection.
const WINDOW: usize = 32;
/// Answers to one delivery: MAIL, RCPT, BDAT.
const ANSWERS: usize = 3;

/// A message and who gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Address of the recipient.
    pub to: String,
    /// The message, with CRLF line ends.
    pub message: Vec<u8>,
}

/// A connection to an LMTP server.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The server takes BDAT.
    chunking: bool,
}

impl Client {
    /// Connects, reads the greeting and says LHLO.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let tcp = TcpStream::connect(addr).await.map_err(Error::system(format!("connect to {addr}")))?;
        tcp.set_nodelay(true).map_err(Error::system("set TCP_NODELAY"))?;
        let (reader, writer) = tcp.into_split();
        let mut client = Self { reader: BufReader::new(reader), writer, chunking: false };
        expect(&mut client.reader, "2").await?;
        send(&mut client.writer, b"LHLO localhost\r\n").await?;
        let extensions = expect(&mut client.reader, "2").await?;
        client.chunking = extensions.contains("CHUNKING");
        Ok(client)
    }

    /// Delivers everything, in order, and returns when the server has taken responsibility for the last.
    ///
    /// # Errors
    /// The first refusal or failure; deliveries before it have been made, and some after it may have.
    pub async fn deliver(&mut self, deliveries: impl IntoIterator<Item = Delivery>) -> Result<()> {
        let mut waiting: VecDeque<String> = VecDeque::with_capacity(WINDOW);
        for delivery in deliveries {
            if !self.chunking {
                self.deliver_by_data(&delivery).await?;
                continue;
            }
            if waiting.len() == WINDOW {
                // Half of the window at a time, so that many small commands share a segment.
                answered(&mut self.reader, &mut waiting, WINDOW / 2).await?;
            }
            let head = format!("MAIL FROM:<>\r\nRCPT TO:<{}>\r\nBDAT {} LAST\r\n", delivery.to, delivery.message.len());
            let mut bytes = Vec::with_capacity(head.len() + delivery.message.len());
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&delivery.message);
            // The server stops reading while nobody reads its answers; they are small, so a window of them fits.
            send(&mut self.writer, &bytes).await?;
            waiting.push_back(delivery.to);
        }
        answered(&mut self.reader, &mut waiting, 0).await
    }

    async fn deliver_by_data(&mut self, delivery: &Delivery) -> Result<()> {
        let head = format!("MAIL FROM:<>\r\nRCPT TO:<{}>\r\nDATA\r\n", delivery.to);
        send(&mut self.writer, head.as_bytes()).await?;
        for class in ["2", "2", "3"] {
            expect(&mut self.reader, class).await?;
        }
        send(&mut self.writer, &stuffed(&delivery.message)).await?;
        expect(&mut self.reader, "2").await.map(drop)
    }
}

/// What follows DATA (RFC 5321 section 4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            bytes.push(b'.');
        }
        bytes.extend_from_slice(line);
    }
    if !bytes.ends_with(b"\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b".\r\n");
    bytes
}

/// Reads answers until at most `left` deliveries are unanswered.
async fn answered(reader: &mut BufReader<OwnedReadHalf>, waiting: &mut VecDeque<String>, left: usize) -> Result<()> {
    while waiting.len() > left {
        for _ in 0..ANSWERS {
            expect(reader, "2").await?;
        }
        waiting.pop_front();
    }
    Ok(())
}

async fn send(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<()> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), writer.write_all(bytes)).await {
        Ok(written) => written.map_err(Error::system("send by LMTP")),
        Err(_) => Err(Error::Late { what: "the LMTP server to take a message".to_owned(), seconds: ANSWER_SECONDS }),
    }
}

/// Reads one answer, all its lines, and fails unless its code starts with `class`.
async fn expect(reader: &mut BufReader<OwnedReadHalf>, class: &str) -> Result<String> {
    let read = async {
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            answer.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(answer);
            }
        }
    };
    let answer = match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), read).await {
        Ok(answer) => answer.map_err(Error::system("read an LMTP answer"))?,
        Err(_) => return Err(Error::Late { what: "an LMTP answer".to_owned(), seconds: ANSWER_SECONDS }),
    };
    if answer.starts_with(class) {
        Ok(answer)
    } else {
        Err(Error::Refused { protocol: "LMTP", said: answer.trim_end().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_after_data_ends_where_it_ends() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\n"), b"a\r\n..\r\n...b\r\n.\r\n");
        assert_eq!(stuffed(b"a"), b"a\r\n.\r\n");
    }
}
