//! A real Prometheus (Debian package `prometheus`), for tests of alerts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::port;
use crate::process::{Process, Program};

const PROMETHEUS: Program = Program {
    name: "prometheus",
    command: r#"prometheus --config.file="$1/prometheus.yaml" --storage.tsdb.path="$1/data" --log.level=warn --web.listen-address="$(cat "$1/address")" >"$1/prometheus.log" 2>&1"#,
    log: "prometheus.log",
    packages: "prometheus",
};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// One alert that is not inactive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alert {
    /// `alertname`.
    pub name: String,
    /// True: it fires. False: it is pending.
    pub firing: bool,
    /// Its other labels.
    pub labels: BTreeMap<String, String>,
    /// What it says in one line.
    pub summary: String,
}

/// A running Prometheus. It ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these jobs every `interval` and evaluates `rules`, the text of a rule file, as often.
    pub async fn start(jobs: &[(&str, Vec<SocketAddr>)], rules: &str, interval: Duration) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::system("make a folder"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()?));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map_err(Error::file("write", &path))
        };
        write("address", &address.to_string())?;
        write("alerts.yaml", rules)?;
        write("prometheus.yaml", &config(jobs, interval))?;
        let ready = async || get(address, "/-/ready").await.is_ok();
        let process = Process::start(&PROMETHEUS, folder.path())?.until(ready).await?;
        Ok(Self { address, process, _folder: folder })
    }

    /// Every alert that is pending or fires, in order.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        let answer = self.ask("/api/v1/alerts").await?;
        let mut alerts: Vec<Alert> = answer["data"]["alerts"].as_array().into_iter().flatten().map(alert).collect();
        alerts.sort();
        Ok(alerts)
    }

    /// The values of an instant query, each with its labels. `query`: of letters, digits and `_` only.
    pub async fn values(&self, query: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let answer = self.ask(&format!("/api/v1/query?query={query}")).await?;
        let results = answer["data"]["result"].as_array().into_iter().flatten();
        let value = |it: &Value| it["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        Ok(results.map(|it| (texts(&it["metric"]), value(it))).collect())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.process.stop("TERM").await
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let body = get(self.address, path).await?;
        serde_json::from_str(&body)
            .map_err(|error| Error::Refused { protocol: "HTTP", said: format!("{error}: {body}") })
    }
}

/// Runs `promtool` and returns what it said, or its refusal.
pub fn promtool(args: &[&str], folder: &Path) -> Result<String> {
    let output = Command::new("promtool").args(args).current_dir(folder).output();
    let output = output.map_err(Error::system("run promtool, of the Debian package prometheus"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(Error::Refused { protocol: "promtool", said }) }
}

fn config(jobs: &[(&str, Vec<SocketAddr>)], interval: Duration) -> String {
    let interval = interval.as_millis();
    let mut text = format!(
        "global: {{scrape_interval: {interval}ms, scrape_timeout: {interval}ms, evaluation_interval: {interval}ms}}\n\
         rule_files: [alerts.yaml]\nscrape_configs:\n"
    );
    for (name, targets) in jobs {
        let targets = targets.iter().map(|target| format!("\"{target}\"")).collect::<Vec<_>>().join(", ");
        text += &format!("  - {{job_name: {name}, honor_labels: true, static_configs: [{{targets: [{targets}]}}]}}\n");
    }
    text
}

fn alert(value: &Value) -> Alert {
    let mut labels = texts(&value["labels"]);
    Alert {
        name: labels.remove("alertname").unwrap_or_default(),
        firing: value["state"] == "firing",
        labels,
        summary: value["annotations"]["summary"].as_str().unwrap_or_default().to_owned(),
    }
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The body of a page.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer comes as a whole and ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let late = || Error::Late { what: format!("an answer to {path}"), seconds: ANSWER.as_secs() };
    let answer = timeout(ANSWER, asked).await.map_err(|_| late())?.map_err(Error::system(format!("get {path}")))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(Error::Refused { protocol: "HTTP", said: answer }),
    }
}
