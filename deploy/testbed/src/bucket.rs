//! A bucket of a server that speaks S3: moto, which checks signatures and keeps everything in memory, behind a front that
//! can answer in its place.

mod front;
mod moto;

use std::net::SocketAddr;

pub use self::front::Fault;
use self::front::Front;
use self::moto::Moto;
use crate::error::{Error, Result};

/// Name of the bucket that is there.
pub const BUCKET: &str = "postroom";
/// Name of the user that reads and writes it.
const USER: &str = "postroom";

/// A running server with one bucket. Its content goes with it.
#[derive(Debug)]
pub struct Bucket {
    // Ordering: fields drop from top to bottom; the front ends before its server.
    front: Front,
    moto: Moto,
    access_key: String,
    secret_key: String,
}

impl Bucket {
    /// Starts a server with an empty bucket, and a key that may read and write it.
    ///
    /// # Errors
    /// [`Error::Server`] when moto is not installed or does not answer in time.
    pub async fn start() -> Result<Self> {
        let moto = Moto::start().await?;
        moto.call("s3", &format!("PUT /{BUCKET}"), "").await?;
        moto.call("iam", "POST /", &format!("Action=CreateUser&UserName={USER}")).await?;
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        let policy: String = url::form_urlencoded::byte_serialize(policy.as_bytes()).collect();
        let allow = format!("Action=PutUserPolicy&UserName={USER}&PolicyName=all&PolicyDocument={policy}");
        moto.call("iam", "POST /", &allow).await?;
        let made = moto.call("iam", "POST /", &format!("Action=CreateAccessKey&UserName={USER}")).await?;
        let part = |name: &str| {
            let inner = made.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
            let missing = || Error::Refused { protocol: "IAM", said: format!("no {name} in {made}") };
            inner.map(|(inner, _)| inner.to_owned()).ok_or_else(missing)
        };
        let (access_key, secret_key) = (part("AccessKeyId")?, part("SecretAccessKey")?);
        // From here on every call has to be signed by that key.
        moto.check_signatures().await?;
        let front = Front::start(moto.addr()).await?;
        Ok(Self { front, moto, access_key, secret_key })
    }

    /// Where it listens, by HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.front.addr()
    }

    /// URL of the server.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Id of the access key.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// Its secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The next `count` requests of this method (all of them when it is empty) end like this.
    pub fn fail(&self, count: usize, method: &str, fault: Fault) {
        self.front.fail(count, method, fault);
    }

    /// No further faults.
    pub fn heal(&self) {
        self.front.heal();
    }

    /// Requests that came so far, as `METHOD /path?query`, whatever became of them.
    pub fn requests(&self) -> Vec<String> {
        self.front.requests()
    }

    /// Freezes the server (SIGSTOP): connections are made, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.moto.signal("STOP")
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.moto.signal("CONT")
    }
}
