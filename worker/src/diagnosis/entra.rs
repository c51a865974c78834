//! The token endpoint of Microsoft Entra: AADSTS numbers and OAuth error names.
//!
//! Numbers are for people only, as Entra asks (its numbers change): when one is not known, the OAuth `error` of RFC 6749
//! section 5.2 decides what kind of problem it is.

use std::time::Duration;

use super::{Diagnosis, ProblemKind as Kind, excerpt};

/// What a token endpoint said when it refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// OAuth error name (RFC 6749 section 5.2), for example `invalid_grant`.
    pub error: String,
    /// Text for people.
    pub description: String,
    /// AADSTS numbers.
    pub codes: Vec<u64>,
    /// Finer name, for example `bad_token`.
    pub suberror: String,
    /// For Microsoft's support.
    pub trace_id: String,
    /// Finds the attempt in the sign-in log.
    pub correlation_id: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// `Retry-After` of the answer.
    pub retry_after: Option<Duration>,
}

/// One row: numbers, kind, cause, remedy.
type Row = (&'static [u64], Kind, &'static str, &'static str);

const WRONG_PASSWORD: &[u64] = &[50126, 50034, 50053, 50055, 50144, 50056, 50057];

const ROWS: &[Row] = &[
    (
        &[7_000_215],
        Kind::Configuration,
        "the client secret is wrong",
        "store the Value of the client secret in the incoming server, not its Secret ID; make a new secret if the Value is lost",
    ),
    (
        &[7_000_222],
        Kind::Configuration,
        "the client secret has expired",
        "make a new client secret in the app registration and store its Value in the incoming server",
    ),
    (
        &[7_000_218],
        Kind::Configuration,
        "the app registration is confidential, but no secret was sent",
        "set \"Allow public client flows\" to Yes in the app registration, or use an app registration made for OAuth User",
    ),
    (
        &[700_025],
        Kind::Configuration,
        "the app registration is public, but a secret was sent",
        "use an app registration with a client secret for OAuth Service, or authentication oauth-user",
    ),
    (
        &[700_016, 700_011, 70_001],
        Kind::Configuration,
        "the application (client) id is not known in this tenant",
        "compare client id and tenant with the app registration's overview page; the object id is not the client id",
    ),
    (
        &[7_000_112],
        Kind::Configuration,
        "the application is disabled",
        "enable sign-in for the enterprise application, or ask Microsoft why it was disabled",
    ),
    (
        &[700_027, 50_012, 700_024, 7_000_216, 700_021, 70_021],
        Kind::Configuration,
        "the client assertion was refused",
        "compare certificate or federated credential with the app registration, and look at the worker's clock",
    ),
    (
        &[90_002],
        Kind::Configuration,
        "the tenant does not exist",
        "compare the tenant id in the incoming server's address, and its login host, with the tenant's overview page",
    ),
    (
        &[900_023],
        Kind::Configuration,
        "the tenant in the address is neither an id nor a domain",
        "write the incoming server's address as https://<login host>/<tenant id>, nothing behind it",
    ),
    (
        &[90_038, 900_382, 900_432],
        Kind::Configuration,
        "the tenant belongs to another national cloud",
        "use that cloud's login host in the incoming server's address, for example login.microsoftonline.us",
    ),
    (
        &[9_001_023],
        Kind::Configuration,
        "this way of signing in needs a tenant in the address",
        "put the tenant id into the incoming server's address in place of common, organizations or consumers",
    ),
    (
        &[900_144, 90_014, 9_002_313, 700_022, 700_023],
        Kind::Configuration,
        "the token request is incomplete or malformed",
        "look for an empty client id, secret or scope in the incoming server; otherwise send the trace id to the maintainers",
    ),
    (
        &[70_011, 28_002],
        Kind::Configuration,
        "the scope is not valid",
        "clear the incoming server's `scope` to use the one that belongs to its cloud",
    ),
    (
        &[1_002_012],
        Kind::Configuration,
        "OAuth Service needs a scope that ends in /.default",
        "clear the incoming server's `scope`, or write <resource>/.default",
    ),
    (
        &[500_011],
        Kind::Configuration,
        "the resource of the scope does not exist in this tenant",
        "compare the incoming server's `scope` with the cloud, and check that the tenant has Exchange Online",
    ),
    (
        &[650_052, 650_057],
        Kind::Consent,
        "the app registration lacks the permission for this resource",
        "add Office 365 Exchange Online > IMAP.AccessAsApp (OAuth Service) or IMAP.AccessAsUser.All (OAuth User), then grant admin consent",
    ),
    (
        &[65_001],
        Kind::Consent,
        "nobody has consented to the application",
        "grant admin consent for the tenant in the app registration's API permissions",
    ),
    (
        &[501_051],
        Kind::Consent,
        "the application is not assigned to a role of the resource",
        "grant admin consent for IMAP.AccessAsApp",
    ),
    (
        &[50_105],
        Kind::Consent,
        "the user is not assigned to the application",
        "add the account itself, not a nested group, to the enterprise application, or turn \"Assignment required\" off",
    ),
    (
        &[50_126],
        Kind::Credential,
        "user name or password is wrong",
        "store the account's present password in the address; a federated account cannot sign in this way",
    ),
    (
        &[50_034, 50_059],
        Kind::Credential,
        "the account does not exist in this tenant",
        "set the address's account to the user principal name, which may differ from the e-mail address",
    ),
    (
        &[50_053],
        Kind::Credential,
        "the account is locked, or the worker's network address is blocked",
        "wait or unlock the account in Entra, and check the sign-in log for the reason; then store the right password",
    ),
    (
        &[50_055, 50_144],
        Kind::Credential,
        "the password has expired",
        "set a new password, one that does not expire for service accounts, and store it in the address",
    ),
    (
        &[50_056],
        Kind::Credential,
        "the account has no password in Entra",
        "use an account with a cloud password or password hash sync, or OAuth Service",
    ),
    (
        &[50_057],
        Kind::Credential,
        "the account is disabled",
        "a shared mailbox's own account is disabled by design: set another `account` with full access, or use OAuth Service",
    ),
    (
        &[50_076, 50_079, 50_072, 50_074, 50_078, 50_158],
        Kind::Interaction,
        "the account must use multi-factor authentication, which OAuth User cannot do",
        "use OAuth Service for this mailbox, or exclude the account from the policy for the worker's network addresses",
    ),
    (
        &[53_003],
        Kind::Policy,
        "a Conditional Access policy blocks the sign-in",
        "find the policy in the sign-in log by the correlation id; exclude the account or name the worker's network addresses as trusted",
    ),
    (
        &[53_000, 53_001, 530_002, 530_003],
        Kind::Policy,
        "a policy demands a managed device, which a server is not",
        "exclude the account from the policy, or use OAuth Service",
    ),
    (
        &[530_032, 530_035],
        Kind::Policy,
        "the tenant's security defaults block password sign-in",
        "use OAuth Service, or Conditional Access with an exclusion in place of security defaults",
    ),
    (&[53_011, 50_135], Kind::Policy, "the account is considered at risk", "resolve the risk in Entra ID Protection"),
    (
        &[70_043],
        Kind::Policy,
        "a sign-in frequency policy ended the grant",
        "exclude the account from the sign-in frequency policy",
    ),
    (
        &[50_173, 50_132, 50_133, 70_000, 70_008, 700_082],
        Kind::Credential,
        "the grant was revoked or has expired",
        "store the account's present password in the address",
    ),
    (
        &[50_196],
        Kind::Throttled,
        "the same token was asked for too often",
        "nothing to do: it is asked for less often; if it returns, look for a second program with the same client id",
    ),
    (&[90_055, 50_088], Kind::Throttled, "Entra asks to slow down", "nothing to do: it is tried again later"),
    (
        &[90_024, 90_033, 90_006, 50_033, 50_087],
        Kind::Transient,
        "Entra has a passing fault",
        "nothing to do: it is tried again; if it lasts, look at Microsoft's service health",
    ),
];

/// The codes of a refused password: each further try brings the account nearer to its lock-out.
pub fn is_refused_password(refusal: &Refusal) -> bool {
    refusal.codes.iter().any(|code| WRONG_PASSWORD.contains(code))
        || (refusal.codes.is_empty() && refusal.error == "invalid_grant")
}

/// What a refusal means.
pub fn diagnose(refusal: &Refusal) -> Diagnosis {
    let codes = &refusal.codes;
    let found = codes.iter().find_map(|code| {
        let row = ROWS.iter().find(|row| row.0.contains(code));
        row.map(|row| (format!("AADSTS{code}"), row.1, row.2.to_owned(), row.3.to_owned()))
    });
    let (code, kind, cause, remedy) = found.unwrap_or_else(|| by_error(refusal));
    let trace = match (refusal.correlation_id.as_str(), refusal.trace_id.as_str()) {
        ("", "") => String::new(),
        (correlation, trace) => {
            format!(" (correlation id {}, trace id {})", excerpt(correlation, 64), excerpt(trace, 64))
        }
    };
    let wait = refusal.retry_after.or_else(|| codes.contains(&50_196).then_some(Duration::from_secs(300)));
    Diagnosis::new(kind, code, format!("{cause}{trace}"), remedy).after(wait)
}

/// Numbers come and go; the OAuth error names stay.
fn by_error(refusal: &Refusal) -> (String, Kind, String, String) {
    let (kind, remedy) = match refusal.error.as_str() {
        // Entra numbers what lies with its on-premises agents 80001 to 80014.
        _ if refusal.codes.iter().any(|code| (80_001..=80_014).contains(code)) => {
            (Kind::Transient, "the agents that check passwords on-premises do not answer: look at them")
        }
        _ if refusal.status == 429 => (Kind::Throttled, "nothing to do: it is tried again later"),
        _ if refusal.status >= 500 => (Kind::Transient, "nothing to do: it is tried again"),
        "temporarily_unavailable" | "server_error" => (Kind::Transient, "nothing to do: it is tried again"),
        "invalid_grant" => (Kind::Credential, "check account and password of the address"),
        "interaction_required" | "login_required" => {
            (Kind::Interaction, "somebody would have to sign in at a screen: use OAuth Service for this mailbox")
        }
        "consent_required" => (Kind::Consent, "grant admin consent in the app registration's API permissions"),
        "invalid_client" => (Kind::Configuration, "check client id and secret of the incoming server"),
        "unauthorized_client" => {
            (Kind::Configuration, "allow this way of signing in for the application at the identity provider")
        }
        "invalid_scope" | "invalid_resource" => (Kind::Configuration, "check the incoming server's `scope`"),
        _ => (Kind::Configuration, "compare the incoming server's address, client id and scope with the registration"),
    };
    let code = match refusal.codes.first() {
        Some(code) => format!("AADSTS{code}"),
        None if refusal.error.is_empty() => format!("HTTP_{}", refusal.status),
        None => refusal.error.to_uppercase(),
    };
    // The first line of Entra's text; what follows are ids and a time.
    let text = refusal.description.lines().next().unwrap_or_default();
    let text = text.split(" Trace ID").next().unwrap_or_default();
    let cause = match excerpt(text, 300) {
        text if text.is_empty() => format!("the token endpoint answered {} {}", refusal.status, refusal.error),
        text => format!("the token endpoint refused: {text}"),
    };
    (excerpt(&code, 64), kind, cause, remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(error: &str, code: u64) -> Refusal {
        let codes = if code == 0 { vec![] } else { vec![code] };
        Refusal { error: error.into(), codes, status: 400, ..Refusal::default() }
    }

    #[test]
    fn every_row_says_a_cause_and_a_remedy_and_no_number_stands_twice() {
        let mut seen = std::collections::HashSet::new();
        for (codes, _, cause, remedy) in ROWS {
            assert!(!cause.is_empty() && !remedy.is_empty());
            for code in *codes {
                assert!(seen.insert(code), "{code}");
                assert_eq!(diagnose(&refusal("x", *code)).code, format!("AADSTS{code}"));
            }
        }
    }

    #[test]
    fn an_expired_secret_names_the_secret() {
        let found = diagnose(&refusal("invalid_client", 7_000_222));
        assert_eq!(found.kind, Kind::Configuration);
        assert!(found.remedy.contains("secret"), "{}", found.remedy);
    }

    #[test]
    fn unknown_numbers_fall_back_to_the_error_name() {
        let found = diagnose(&refusal("interaction_required", 999_999));
        assert_eq!((found.kind, found.code.as_str()), (Kind::Interaction, "AADSTS999999"));
        assert_eq!(diagnose(&refusal("temporarily_unavailable", 0)).kind, Kind::Transient);
        let busy = Refusal { status: 429, retry_after: Some(Duration::from_secs(7)), ..refusal("", 0) };
        let found = diagnose(&busy);
        assert_eq!((found.kind, found.wait), (Kind::Throttled, Some(Duration::from_secs(7))));
    }

    #[test]
    fn only_refused_passwords_count_towards_the_lock_out() {
        assert!(is_refused_password(&refusal("invalid_grant", 50_126)));
        assert!(is_refused_password(&refusal("invalid_grant", 0)));
        assert!(!is_refused_password(&refusal("invalid_grant", 50_076)));
        assert!(!is_refused_password(&refusal("invalid_client", 7_000_215)));
    }
}
