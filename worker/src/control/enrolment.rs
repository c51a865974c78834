//! How a worker comes by its certificate, and by the next one before that ends.

use std::path::Path;
use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::access_service_client::AccessServiceClient;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{ANSWER, Bearer, Control, Error, within};
use crate::identity::{self, folder, request};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Pause before a renewal that failed is tried again. It doubles each time.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const AT_LEAST: Duration = Duration::from_secs(600);

impl From<identity::Error> for Error {
    fn from(error: identity::Error) -> Self {
        Self::Unanswered(error.to_string())
    }
}

impl Control {
    /// Gets this worker its first certificate, if it is to have one and has none that holds.
    pub(super) async fn enrol(&self) -> Result<(), Error> {
        if !self.presence.is_missing(now()).await? {
            return Ok(());
        }
        let Some(folder) = self.presence.folder() else { return Ok(()) };
        self.enrol_into(folder).await
    }

    /// Gets this worker another certificate after the control plane refused it for this reason: what it shows may have
    /// been revoked, and a new token been brought. Where there is none, the reason stands.
    pub(super) async fn enrol_again(&self, refusal: String) -> Result<(), Error> {
        let (Some(folder), Some(file)) = (self.presence.folder(), self.presence.enrolment_token_file()) else {
            return Err(Error::Refused(refusal));
        };
        self.enrol_into(folder).await.map_err(|error| match error {
            Error::Refused(too) => Error::Refused(format!("{refusal} ({} does not help: {too})", file.display())),
            error => error,
        })
    }

    async fn enrol_into(&self, folder: &Path) -> Result<(), Error> {
        let help = "make a token with `postroom worker enroll`, and write it into the file of the setting \
                    tls.enrolment-token-file";
        let Some(file) = self.presence.enrolment_token_file() else {
            return Err(Error::Refused(format!("there is no certificate in {} that holds; {help}", folder.display())));
        };
        let token = tokio::fs::read_to_string(file).await;
        let token =
            token.map_err(|error| Error::Refused(format!("cannot read {}: {error}; {help}", file.display())))?;
        let bearer = Bearer::of(&SecretString::from(token.trim()));
        let bearer = bearer.map_err(|_| Error::Refused(format!("{} holds no token; {help}", file.display())))?;
        self.certify(folder, bearer).await?;
        tracing::info!(worker = self.worker, "enrolled; the control plane knows this worker by its certificate");
        Ok(())
    }

    /// Has a key signed, and puts it in place with its certificate.
    async fn certify(&self, folder: &Path, bearer: Bearer) -> Result<(), Error> {
        let key = match folder::pending(folder) {
            Some(key) => key,
            None => {
                let key = request::new_key()?;
                folder::keep_pending(folder, &key)?;
                key
            }
        };
        let signing_request = request::of(&key, &self.worker)?;
        let mut access = AccessServiceClient::with_interceptor(self.channel.clone(), bearer);
        let answer = access.request_certificate(v1::RequestCertificateRequest { signing_request });
        let answer = within(ANSWER, answer).await?;
        folder::keep(folder, &key, &answer.certificate)?;
        // Whoever uses the former certificate goes over to this one.
        self.presence.configuration().await?;
        Ok(())
    }

    /// Renews the certificate before it ends, and notices when files were exchanged, until it is told to stop.
    pub async fn keep_identity(self, told: CancellationToken) {
        let mut pause = AGAIN;
        loop {
            let due =
                self.presence.renewal().await.map(|due| Duration::from_secs(u64::try_from(due - now()).unwrap_or(0)));
            // Ordering: a renewal that failed rests; the first is not made before there is something to renew.
            let wait = due.map_or(LOOK, |due| due.max(pause).min(LOOK));
            tokio::select! {
                () = told.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if !self.secured {
                continue;
            }
            if let Err(error) = self.presence.configuration().await {
                tracing::warn!(%error, "certificates cannot be read; connections that stand go on");
            }
            let Some(folder) = self.presence.folder() else { continue };
            if self.presence.renewal().await.is_none_or(|due| now() < due) {
                continue;
            }
            match self.certify(folder, Bearer::none()).await {
                Ok(()) => {
                    tracing::info!(worker = self.worker, "the certificate was renewed");
                    pause = AGAIN;
                }
                Err(error) => {
                    tracing::warn!(%error, delay = ?pause, "the certificate could not be renewed; trying again");
                    tokio::select! {
                        () = told.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(AT_LEAST);
                }
            }
        }
    }
}

/// Seconds since 1970, as certificates count.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
