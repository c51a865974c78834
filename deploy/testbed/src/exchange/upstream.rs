//! The connection to Postfix, over TLS, and replies of SMTP as they are read and changed.

use std::{io, net::SocketAddr, sync::Arc};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::answers;

#[derive(Debug)]
pub(super) struct Upstream {
    stream: BufStream<TlsStream<TcpStream>>,
}

impl Upstream {
    /// Connects, and says EHLO.
    pub(super) async fn connect(addr: SocketAddr, connector: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(addr.ip().into());
        let tls = TlsConnector::from(Arc::clone(connector)).connect(name, tcp).await?;
        let mut upstream = Self { stream: BufStream::new(tls) };
        upstream.reply().await?;
        upstream.ask("EHLO front").await?;
        Ok(upstream)
    }

    /// Sends a command and reads its reply, all its lines, each without its line end.
    pub(super) async fn ask(&mut self, command: &str) -> io::Result<Vec<String>> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends bytes that are no command.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub(super) async fn reply(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_owned();
            let goes_on = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !goes_on {
                return Ok(lines);
            }
        }
    }
}

/// Whether a reply is of this class: `'2'` is success.
pub(super) fn is(reply: &[String], class: char) -> bool {
    reply.last().is_some_and(|line| line.starts_with(class))
}

/// A reply of Postfix in the words of Exchange.
pub(super) fn translated(reply: Vec<String>) -> Vec<String> {
    let said = reply.last().map_or("", String::as_str);
    if said.starts_with("535 5.7.8") {
        vec![answers::UNSUCCESSFUL.to_owned()]
    } else if said.starts_with("553 5.7.1") && said.contains("not owned by user") {
        vec![answers::NOT_AS_THIS_SENDER.to_owned()]
    } else {
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postfix_refuses_is_said_as_exchange_says_it() {
        let reply = |text: &str| vec![text.to_owned()];
        for (said, told) in [
            ("535 5.7.8 Error: authentication failed: ", answers::UNSUCCESSFUL),
            ("553 5.7.1 <a@b>: Sender address rejected: not owned by user c@d", answers::NOT_AS_THIS_SENDER),
            ("250 2.1.0 Ok", "250 2.1.0 Ok"),
        ] {
            assert_eq!(translated(reply(said)), reply(told));
        }
        assert!(is(&reply("250 ok"), '2') && !is(&reply("550 no"), '2') && !is(&[], '2'));
    }
}
