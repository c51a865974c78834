//! From the greeting of a server to a session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_imap::{Authenticator, Client, Session};
use tokio::io::AsyncWriteExt as _;

use super::answer::{Answer, Untagged, receive};
use super::watched::{io_error, lost, watched};
use super::{Commands, Error, Stream};
use crate::mailbox::imap::guard::{Guard, Limits, Notes};

/// A connection that was greeted, on which nobody has signed in.
pub struct Greeted<S: Stream + fmt::Debug> {
    client: Client<Guard<S>>,
    progress: Arc<AtomicU64>,
    step: Duration,
    /// What the server can do before a sign-in, upper case. Empty: it does not say.
    pub capabilities: Vec<String>,
}

impl<S: Stream + fmt::Debug> fmt::Debug for Greeted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

/// Waits for the greeting, and asks what the server can do unless the greeting says so. `step`: longest silence that is
/// endured.
pub async fn greet<S: Stream + fmt::Debug>(stream: S, limits: Limits, step: Duration) -> Result<Greeted<S>, Error> {
    let mut client = Client::new(Guard::new(stream, limits));
    let progress = client.get_ref().progress();
    let capabilities = match receive(&mut client, &progress, step).await {
        Ok(Answer::Untagged(Untagged::Capabilities(capabilities))) => capabilities,
        Ok(Answer::Untagged(_)) => ask_capabilities(&mut client, &progress, step).await?,
        Ok(Answer::Bye(text)) => return Err(Error::Bye { text }),
        Ok(Answer::Done { .. }) => return Err(Error::Malformed),
        Err(error) => return Err(lost(error, client.get_mut().notes())),
    };
    Ok(Greeted { client, progress, step, capabilities })
}

/// CAPABILITY before a sign-in. A server that refuses it does not say what it can do, which is no fault.
async fn ask_capabilities<S: Stream + fmt::Debug>(
    client: &mut Client<Guard<S>>,
    progress: &AtomicU64,
    step: Duration,
) -> Result<Vec<String>, Error> {
    // async-imap lets nobody run a command before the sign-in, and knows no tag of this form.
    const TAG: &str = "C0";
    let sent = async {
        let stream = client.get_mut();
        stream.write_all(format!("{TAG} CAPABILITY\r\n").as_bytes()).await?;
        stream.flush().await
    };
    watched(progress, step, sent).await?;
    loop {
        match receive(client, progress, step).await {
            Ok(Answer::Done { tag: other, .. }) if other == TAG => break,
            Ok(Answer::Bye(text)) => return Err(Error::Bye { text }),
            Ok(_) => {}
            Err(error) => return Err(lost(error, client.get_mut().notes())),
        }
    }
    let notes = client.get_mut().notes();
    notes.remark = None;
    Ok(notes.capabilities.take().unwrap_or_default())
}

impl<S: Stream + fmt::Debug> Greeted<S> {
    /// Signs in by SASL (RFC 3501 section 6.2.2).
    pub async fn authenticate(
        self,
        mechanism: &'static str,
        authenticator: impl Authenticator + Send,
    ) -> Result<Commands<S>, Error> {
        let Self { client, progress, step, .. } = self;
        let signing_in = async { Ok(client.authenticate(mechanism, authenticator).await) };
        signed_in("AUTHENTICATE", watched(&progress.clone(), step, signing_in).await?, progress, step)
    }

    /// Signs in by LOGIN (RFC 3501 section 6.2.3), for servers that know no SASL mechanism for passwords.
    pub async fn log_in(self, account: &str, password: &str) -> Result<Commands<S>, Error> {
        let Self { client, progress, step, .. } = self;
        let signing_in = async { Ok(client.login(account, password).await) };
        signed_in("LOGIN", watched(&progress.clone(), step, signing_in).await?, progress, step)
    }
}

type SignedIn<S> = Result<Session<Guard<S>>, (async_imap::error::Error, Client<Guard<S>>)>;

fn signed_in<S: Stream + fmt::Debug>(
    command: &'static str,
    result: SignedIn<S>,
    progress: Arc<AtomicU64>,
    step: Duration,
) -> Result<Commands<S>, Error> {
    match result {
        Ok(mut session) => {
            let moves = session.get_mut().moves();
            Ok(Commands { session, progress, moves, step, busy: false, exists: 0, news: false })
        }
        Err((error, mut client)) => {
            let remark = client.get_mut().notes().remark.take();
            Err(match error {
                // Its own text is a debug print of the parser; the guard kept the line.
                async_imap::error::Error::No(_) => {
                    Error::Refused { command, text: remark.unwrap_or_default(), bad: false }
                }
                async_imap::error::Error::Bad(_) => {
                    Error::Refused { command, text: remark.unwrap_or_default(), bad: true }
                }
                async_imap::error::Error::Io(error) => lost(io_error(error), &mut Notes { remark, ..Notes::default() }),
                async_imap::error::Error::ConnectionLost => Error::Lost { remark },
                _ => Error::Malformed,
            })
        }
    }
}
