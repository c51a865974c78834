//! The process: moto's server, as it comes from PyPI.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    error::{Error, Result},
    file, port,
    process::{Process, Program},
};

/// Longest wait for an answer.
const CALL_SECONDS: u64 = 30;
const PORT_TRIES: u32 = 8;

const PROGRAM: Program = Program { name: "moto", command: "sh \"$1/run\"", log: "moto.log", packages: "python3-venv" };

#[derive(Debug)]
pub(super) struct Moto {
    // Ordering: fields drop from top to bottom; the process ends before its folder goes.
    _process: Process,
    dir: TempDir,
    port: u16,
}

impl Moto {
    pub(super) async fn start() -> Result<Self> {
        let server = installed()?;
        let dir = tempfile::Builder::new().prefix("prt-moto").tempdir().map_err(Error::system("create a folder"))?;
        let mut tries = 0;
        loop {
            tries += 1;
            let port = port::free()?;
            // Its number is written down, so that it can be frozen.
            let (folder, program) = (dir.path().display(), server.display());
            let run = format!(
                "echo $$ >'{folder}/pid'\nexec '{program}' -H 127.0.0.1 -p {port} >'{folder}/{}' 2>&1\n",
                PROGRAM.log
            );
            file::write_private(&dir.path().join("run"), run.as_bytes())?;
            let answers = async || call(port, "GET /moto-api/data.json", "", "").await.is_ok();
            match Process::start(&PROGRAM, dir.path())?.until(answers).await {
                Ok(process) => return Ok(Self { _process: process, dir, port }),
                // Another process took the port between our look and moto's.
                Err(Error::Server { log, .. }) if log.contains("in use") && tries < PORT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Calls a service as nobody in particular, which is good before signatures are checked.
    pub(super) async fn call(&self, service: &str, request: &str, body: &str) -> Result<String> {
        let sign = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host, Signature=none\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        );
        call(self.port, request, &sign, body).await
    }

    /// Calls that are not signed by a known key are refused from now on.
    pub(super) async fn check_signatures(&self) -> Result<()> {
        call(self.port, "POST /moto-api/reset-auth", "", "0").await.map(|_| ())
    }

    pub(super) fn signal(&self, signal: &str) -> Result<()> {
        let mut kill = std::process::Command::new("sh");
        kill.args(["-c", r#"kill -s "$1" "$(cat "$2/pid")""#, "sh", signal]).arg(self.dir.path());
        let status = kill.status().map_err(Error::system(format!("send {signal} to moto")))?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Refused { protocol: "S3", said: format!("moto does not run; no {signal} for it") }),
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // A frozen one would not hear that it is to end. When it has ended there is nobody to tell.
        let _ = self.signal("CONT");
    }
}

/// Where `deploy/testbed/moto/setup` has put it: into a folder beside those of the build, from which we run.
fn installed() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::system("learn where this program is"))?;
    let places = own.ancestors().take(5).map(|folder| folder.join("moto/bin/moto_server"));
    places.into_iter().find(|place| place.exists()).ok_or_else(|| Error::Server {
        server: PROGRAM.name,
        what: "is not installed".to_owned(),
        log: "install it: deploy/testbed/moto/setup target/moto".to_owned(),
    })
}

/// One call and the body of its answer; anything but a success is an error.
async fn call(port: u16, request: &str, headers: &str, body: &str) -> Result<String> {
    let called = tokio::time::timeout(Duration::from_secs(CALL_SECONDS), async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let length = body.len();
        let head = format!("{request} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = called.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let answer = answer.map_err(Error::system(format!("call moto: {request}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        true => Ok(body.to_owned()),
        false => Err(Error::Refused { protocol: "S3", said: answer }),
    }
}
