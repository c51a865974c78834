//! What operators paste, brought into one form; and what follows from the login host.

use url::{Host, Url};

/// One of Microsoft's clouds, or what stands for one.
#[derive(Debug, PartialEq, Eq)]
pub struct Cloud {
    login_hosts: &'static [&'static str],
    /// Scope of the client credentials grant for IMAP.
    pub service_scope: &'static str,
    /// Scope of the password grant for IMAP.
    pub user_scope: &'static str,
    /// Host of IMAP. `None`: it must be written.
    pub imap_host: Option<&'static str>,
    /// Host of SMTP submission. `None`: it must be written.
    pub smtp_host: Option<&'static str>,
    /// Scope of the password grant for SMTP. That of client credentials is `service_scope`.
    pub smtp_user_scope: &'static str,
    /// Host of Microsoft Graph. `None`: it must be written.
    pub graph_host: Option<&'static str>,
    /// Scope of the client credentials grant for Graph.
    pub graph_service_scope: &'static str,
    /// Scope of the password grant for sending by Graph.
    pub graph_user_scope: &'static str,
}

/// Source: Microsoft's pages on national clouds and on OAuth for IMAP.
const CLOUDS: [Cloud; 3] = [
    Cloud {
        login_hosts: &["login.microsoftonline.com"],
        service_scope: "https://outlook.office365.com/.default",
        user_scope: "https://outlook.office.com/IMAP.AccessAsUser.All",
        imap_host: Some("outlook.office365.com"),
        smtp_host: Some("smtp.office365.com"),
        smtp_user_scope: "https://outlook.office.com/SMTP.Send",
        graph_host: Some("graph.microsoft.com"),
        graph_service_scope: "https://graph.microsoft.com/.default",
        graph_user_scope: "https://graph.microsoft.com/Mail.Send",
    },
    Cloud {
        login_hosts: &["login.microsoftonline.us"],
        service_scope: "https://outlook.office365.us/.default",
        user_scope: "https://outlook.office365.us/IMAP.AccessAsUser.All",
        imap_host: Some("outlook.office365.us"),
        smtp_host: Some("smtp.office365.us"),
        smtp_user_scope: "https://outlook.office365.us/SMTP.Send",
        graph_host: Some("graph.microsoft.us"),
        graph_service_scope: "https://graph.microsoft.us/.default",
        graph_user_scope: "https://graph.microsoft.us/Mail.Send",
    },
    Cloud {
        login_hosts: &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        service_scope: "https://partner.outlook.cn/.default",
        user_scope: "https://partner.outlook.cn/IMAP.AccessAsUser.All",
        imap_host: Some("partner.outlook.cn"),
        smtp_host: Some("smtp.partner.outlook.cn"),
        smtp_user_scope: "https://partner.outlook.cn/SMTP.Send",
        graph_host: Some("microsoftgraph.chinacloudapi.cn"),
        graph_service_scope: "https://microsoftgraph.chinacloudapi.cn/.default",
        graph_user_scope: "https://microsoftgraph.chinacloudapi.cn/Mail.Send",
    },
];

/// A tenant on this machine, for rehearsals: scopes as in the global cloud, the servers must be written.
const LOCAL: Cloud = Cloud { login_hosts: &[], imap_host: None, smtp_host: None, graph_host: None, ..CLOUDS[0] };

/// Paths that are pasted behind the tenant.
const PASTED: [&[&str]; 7] = [
    &["oauth2", "v2.0", "token"],
    &["oauth2", "v2.0", "authorize"],
    &["oauth2", "v2.0"],
    &["oauth2", "token"],
    &["oauth2", "authorize"],
    &["oauth2"],
    &["v2.0"],
];

const FORM: &str = "write https://<login host>/<tenant id>, for example \
                    https://login.microsoftonline.com/contoso.onmicrosoft.com";

/// The address of a server as `https://<login host>/<tenant>`. The error says what is wrong and what to write.
pub fn address(pasted: &str) -> Result<String, String> {
    if pasted.is_empty() {
        return Err(format!("is empty; {FORM}"));
    }
    let url = Url::parse(pasted).map_err(|_| format!("is not a URL; {FORM}"))?;
    if url.scheme() != "https" {
        return Err(format!("does not begin with https://; {FORM}"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(format!("has no login host; {FORM}"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password; {FORM}"));
    }
    let segments: Vec<&str> = url.path_segments().map_or_else(Vec::new, |it| it.filter(|s| !s.is_empty()).collect());
    let Some((tenant, rest)) = segments.split_first() else { return Err(format!("names no tenant; {FORM}")) };
    let ends_as_pasted = rest.is_empty() || PASTED.iter().any(|end| rest.eq_ignore_ascii_case_all(end));
    if !ends_as_pasted {
        return Err(format!("has more behind the tenant than is known; {FORM}"));
    }
    check_tenant(tenant, host)?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("https://{host}{port}/{tenant}"))
}

/// Login host (with its port) and tenant of a normalised address.
pub fn split(address: &str) -> Option<(&str, &str)> {
    address.strip_prefix("https://")?.split_once('/')
}

/// The cloud that the login host of a normalised address belongs to. `None`: an unknown host.
pub fn cloud_of(address: &str) -> Option<&'static Cloud> {
    let url = Url::parse(address).ok()?;
    let local = match url.host()? {
        Host::Domain(name) => {
            if let Some(cloud) = CLOUDS.iter().find(|cloud| cloud.login_hosts.contains(&name)) {
                return Some(cloud);
            }
            name == "localhost"
        }
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    local.then_some(&LOCAL)
}

/// True for an address or a name of a host, without scheme and port.
pub fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.parse::<std::net::IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(label))
}

/// The beginning of a day `YYYY-MM-DD` in UTC, in seconds since 1970. `None`: it is none.
pub fn day(written: &str) -> Option<i64> {
    let date: jiff::civil::Date = written.parse().ok().filter(|_| written.len() == 10)?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// A proxy's URL as `scheme://host:port`. The error says what is wrong and what to write.
pub fn proxy(written: &str) -> Result<String, String> {
    const FORM: &str = "write http://host:port, https://host:port or socks5://host:port";
    let url = Url::parse(written).map_err(|_| format!("is not a URL; {FORM}"))?;
    if !matches!(url.scheme(), "http" | "https" | "socks5") {
        return Err(format!("has an unknown scheme; {FORM}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("contains a user name or password, which would be shown to everybody; {FORM}"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return Err(format!("has no host; {FORM}")) };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has more behind the host; {FORM}"));
    }
    // Its scheme tells the port, but for SOCKS (RFC 1928), whose usual one the URL standard does not know.
    let port = url.port_or_known_default().or((url.scheme() == "socks5").then_some(1080));
    let Some(port) = port.filter(|port| *port != 0) else { return Err(format!("has no port; {FORM}")) };
    Ok(format!("{}://{host}:{port}", url.scheme()))
}

/// A tenant without its login host. The error says what is wrong and what to write. `local`: of a tenant on this
/// machine, whose names are its own.
pub fn tenant(tenant: &str, local: bool) -> Result<(), String> {
    check_tenant(tenant, if local { "" } else { CLOUDS[0].login_hosts[0] })
}

fn check_tenant(tenant: &str, host: &str) -> Result<(), String> {
    const TELL: &str = "write the tenant id (Entra admin center, Overview) or one of the tenant's domains";
    if ["common", "consumers", "organizations"].iter().any(|many| tenant.eq_ignore_ascii_case(many)) {
        return Err(format!("names {tenant:?}, which is no single tenant; {TELL}"));
    }
    let plain = tenant.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let microsoft = CLOUDS.iter().any(|cloud| cloud.login_hosts.contains(&host));
    let exists = tenant.contains('.') || uuid::Uuid::try_parse(tenant).is_ok();
    if !plain || tenant.starts_with('.') || (microsoft && !exists) {
        return Err(format!("names the tenant {tenant:?}, which is neither a GUID nor a domain; {TELL}"));
    }
    Ok(())
}

trait Segments {
    fn eq_ignore_ascii_case_all(&self, other: &[&str]) -> bool;
}

impl Segments for [&str] {
    fn eq_ignore_ascii_case_all(&self, other: &[&str]) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

    #[test]
    fn what_is_pasted_becomes_the_authority() {
        let expected = format!("https://login.microsoftonline.com/{TENANT}");
        let ends =
            ["", "/", "//", "/oauth2/v2.0/token", "/oauth2/v2.0/authorize", "/v2.0", "/v2.0/", "/OAuth2/v2.0/Token/"];
        for end in ends {
            for start in ["https://login.microsoftonline.com/", "HTTPS://Login.MicrosoftOnline.com:443//"] {
                assert_eq!(
                    address(&format!("{start}{TENANT}{end}")).as_deref(),
                    Ok(expected.as_str()),
                    "{start} {end}"
                );
            }
        }
        let with_query = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize?client_id=1#x");
        assert_eq!(address(&with_query), Ok(expected));
        assert_eq!(address("https://127.0.0.1:8443/rehearsal").unwrap(), "https://127.0.0.1:8443/rehearsal");
        assert_eq!(address("https://[::1]:8443/t/v2.0").unwrap(), "https://[::1]:8443/t");
    }

    #[test]
    fn what_is_no_authority_is_refused_with_a_remedy() {
        for (pasted, says) in [
            ("", "is empty"),
            ("login.microsoftonline.com/x.example", "is not a URL"),
            ("http://login.microsoftonline.com/x.example", "https://"),
            ("https://login.microsoftonline.com", "names no tenant"),
            ("https://login.microsoftonline.com/common", "no single tenant"),
            ("https://login.microsoftonline.com/token", "neither a GUID nor a domain"),
            ("https://login.microsoftonline.com/oauth2/v2.0/token", "behind the tenant"),
            ("https://login.microsoftonline.com/x.example/users/1", "behind the tenant"),
            ("https://me:secret@login.microsoftonline.com/x.example", "user name"),
            ("https://login.example/a%20b", "neither"),
        ] {
            let fault = address(pasted).unwrap_err();
            assert!(fault.contains(says) && fault.contains("write "), "{pasted}: {fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn the_cloud_is_known_from_the_login_host() {
        let imap = |address| cloud_of(address).map(|cloud| cloud.imap_host);
        assert_eq!(imap("https://login.microsoftonline.com/t"), Some(Some("outlook.office365.com")));
        assert_eq!(imap("https://login.microsoftonline.us/t"), Some(Some("outlook.office365.us")));
        assert_eq!(imap("https://login.chinacloudapi.cn/t"), Some(Some("partner.outlook.cn")));
        for local in ["https://127.0.0.1:4433/t", "https://localhost/t", "https://[::1]/t"] {
            assert_eq!(imap(local), Some(None));
            assert_eq!(cloud_of(local).unwrap().service_scope, "https://outlook.office365.com/.default");
        }
        assert_eq!(imap("https://login.example/t"), None);
        assert_eq!(imap("https://login.microsoftonline.com.evil.example/t"), None);
    }

    #[test]
    fn a_day_is_one_of_the_calendar() {
        assert_eq!(day("1970-01-02"), Some(86_400));
        for written in ["", "2027-02-29", "31.01.2027", "2027-1-3", "2027-01-31T00:00:00", "20270131"] {
            assert_eq!(day(written), None, "{written}");
        }
    }

    #[test]
    fn a_proxy_has_scheme_host_and_port_and_no_password() {
        for (written, read) in [
            ("http://proxy.example:3128/", "http://proxy.example:3128"),
            ("HTTPS://Proxy.example", "https://proxy.example:443"),
            ("socks5://[::1]:9050", "socks5://[::1]:9050"),
            ("socks5://proxy.example", "socks5://proxy.example:1080"),
        ] {
            assert_eq!(proxy(written).as_deref(), Ok(read));
            assert_eq!(proxy(read).as_deref(), Ok(read));
        }
        for (written, says) in [
            ("proxy.example:3128", "scheme"),
            ("ftp://proxy.example", "scheme"),
            ("http://me:planted@proxy.example:1", "user name"),
            ("http://proxy.example:1/path", "behind the host"),
            ("http://proxy.example:0", "no port"),
            ("no url", "no"),
        ] {
            let fault = proxy(written).unwrap_err();
            assert!(
                fault.contains(says) && fault.contains("write ") && !fault.contains("planted"),
                "{written}: {fault}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_normalised_address_stays_as_it_is(host in "[a-z]{1,9}(\\.[a-z]{2,5}){0,2}", port in 1u16.., tenant in "[A-Za-z0-9_-]{1,12}", end in "(/|/v2\\.0|/oauth2/v2\\.0/token)?") {
            if let Ok(once) = address(&format!("https://{host}:{port}/{tenant}{end}")) {
                prop_assert_eq!(split(&once).map(|(_, tenant)| tenant), Some(tenant.as_str()));
                prop_assert_eq!(address(&once), Ok(once));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text: String, url in "https://[^ ]{0,40}") {
            let _ = (address(&text), address(&url), cloud_of(&text), cloud_of(&url));
        }
    }
}
