//! What an administrator consents to, and what tokens say of it.

/// Names of Exchange Online as a resource (app-only and delegated).
const EXCHANGE: [&str; 3] = ["https://outlook.office365.com", "https://outlook.office.com", "https://ps.outlook.com"];
/// Name of Microsoft Graph as a resource, and the audience of its tokens.
pub const GRAPH: &str = "https://graph.microsoft.com";

/// One thing that an application may do, for itself or for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
pub enum Permission {
    /// Read mail by IMAP.
    Imap,
    /// Send mail by SMTP.
    Smtp,
    /// Send mail by Graph.
    GraphSend,
    /// Read mail and write drafts by Graph.
    GraphReadWrite,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Imap, Self::Smtp, Self::GraphSend, Self::GraphReadWrite];

    /// Its name among the application permissions: what stands in the claim `roles`.
    pub fn role(self) -> &'static str {
        match self {
            Self::Imap => "IMAP.AccessAsApp",
            Self::Smtp => "SMTP.SendAsApp",
            Self::GraphSend => "Mail.Send",
            Self::GraphReadWrite => "Mail.ReadWrite",
        }
    }

    /// Its name among the delegated permissions: what stands in a scope and in the claim `scp`.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Imap => "IMAP.AccessAsUser.All",
            Self::Smtp => "SMTP.Send",
            Self::GraphSend => "Mail.Send",
            Self::GraphReadWrite => "Mail.ReadWrite",
        }
    }

    /// Whether a token for this resource can carry it.
    pub(super) fn is_of(self, resource: &str) -> bool {
        match self {
            Self::Imap | Self::Smtp => EXCHANGE.contains(&resource),
            Self::GraphSend | Self::GraphReadWrite => resource == GRAPH,
        }
    }

    /// The protocol that Dovecot's settings of tokens name, when it is one of Dovecot's.
    pub(super) fn protocol(self) -> Option<&'static str> {
        match self {
            Self::Imap => Some("imap"),
            Self::Smtp => Some("smtp"),
            Self::GraphSend | Self::GraphReadWrite => None,
        }
    }
}

/// The resource of this name, without the slash that may end it; none when the tenant has none of that name.
pub(super) fn resource(name: &str) -> Option<String> {
    let name = name.trim_end_matches('/');
    (name == GRAPH || EXCHANGE.contains(&name)).then(|| name.to_owned())
}
