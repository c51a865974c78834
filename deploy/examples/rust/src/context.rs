//! Where the control plane is, and with which token: from the installation's `context.toml`, or named one by one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Which control plane.
#[derive(Debug, clap::Args)]
pub(crate) struct Connection {
    /// Data folder of an installation on this machine.
    #[arg(long, value_name = "DIR", required_unless_present = "endpoint")]
    data: Option<PathBuf>,
    /// https://host:port of a control plane elsewhere.
    #[arg(long, value_name = "URL", requires = "token_file")]
    endpoint: Option<String>,
    /// File that holds the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the CA to trust; needed for https.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Plaintext beyond this machine.
    #[arg(long)]
    insecure: bool,
}

/// `context.toml`.
#[derive(serde::Deserialize)]
struct Described {
    endpoint: String,
    token: String,
    ca_file: Option<PathBuf>,
}

/// A channel, which connects with the first call, and what every call carries.
pub(crate) fn connect(connection: &Connection) -> anyhow::Result<(Channel, MetadataValue<Ascii>)> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let described = match (&connection.endpoint, &connection.token_file, &connection.data) {
        (Some(endpoint), Some(token), _) => {
            Described { endpoint: endpoint.clone(), token: read(token)?.trim().into(), ca_file: None }
        }
        (_, _, Some(data)) => {
            let described: Described = toml::from_str(&read(&data.join("context.toml"))?)?;
            Described { ca_file: described.ca_file.map(|file| data.join(file)), ..described }
        }
        _ => bail!("say which control plane: --data DIR, or --endpoint URL --token-file FILE"),
    };
    let mut endpoint = Endpoint::from_shared(described.endpoint.clone())?
        .connect_timeout(Duration::from_secs(5))
        // The only way to notice that the other side vanished without a word.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if endpoint.uri().scheme_str() == Some("https") {
        let ca_file = connection.ca_file.as_ref().or(described.ca_file.as_ref()).context("name the CA by --ca-file")?;
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca_file)?)))?;
    } else if !connection.insecure && !matches!(endpoint.uri().host(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        bail!("{} would send token and mail in clear; use https://, or say --insecure", described.endpoint);
    }
    let mut bearer: MetadataValue<_> = format!("Bearer {}", described.token).parse()?;
    bearer.set_sensitive(true);
    Ok((endpoint.connect_lazy(), bearer))
}
