//! Who exists in the tenant, and what each token request is answered. Values in, values out.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::{
    error::Refusal,
    permission::{self, GRAPH, Permission},
};

/// Scopes that belong to no resource and may accompany any.
const COMMON_SCOPES: [&str; 4] = ["offline_access", "openid", "profile", "email"];
/// Wrong passwords in a row after which an account is locked, as by Entra's smart lock-out.
pub const LOCK_AFTER: u32 = 10;

/// An app registration.
#[derive(Clone)]
pub(super) struct Client {
    /// Absent: a public client, which must not send one.
    pub(super) secret: Option<String>,
    /// What an administrator has consented to.
    pub(super) permissions: BTreeSet<Permission>,
}

/// An account.
#[derive(Clone, Default)]
pub(super) struct User {
    pub(super) password: String,
    pub(super) demands_mfa: bool,
    pub(super) locked: bool,
    pub(super) wrong_passwords: u32,
    /// Opens every mailbox (in Exchange: full access), not only its own.
    pub(super) full_access: bool,
}

/// Everybody.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) id: String,
    pub(super) domain: String,
    pub(super) clients: HashMap<String, Client>,
    pub(super) users: HashMap<String, User>,
    /// Object ids of mailboxes, by address in lower case.
    pub(super) objects: HashMap<String, String>,
}

/// A token request as it came.
pub(super) struct Request<'a> {
    /// The tenant of the path.
    pub(super) tenant: &'a str,
    /// The fields of the form, and of HTTP Basic when the client used that.
    pub(super) fields: &'a HashMap<String, String>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) resource: String,
    pub(super) subject: Subject,
    /// What it lets do at the resource.
    pub(super) permissions: Vec<Permission>,
}

/// In whose name a token speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The application itself.
    App,
    /// A user.
    User { name: String, full_access: bool },
}

impl Directory {
    /// Whether `tenant` names this tenant, by GUID or by domain.
    pub(super) fn is_called(&self, tenant: &str) -> bool {
        tenant.eq_ignore_ascii_case(&self.id) || tenant.eq_ignore_ascii_case(&self.domain)
    }

    /// The refusal of a request for another tenant.
    pub(super) fn not_found(tenant: &str) -> Refusal {
        let is_name = tenant.contains('.') || tenant.len() == 36;
        if is_name {
            Refusal::new(90_002, format!("Tenant '{tenant}' does not exist in this cloud."))
        } else {
            Refusal::new(900_023, format!("Tenant identifier '{tenant}' is neither a DNS name nor a GUID."))
        }
    }

    /// The object id of a mailbox, which is made up when it is asked for the first time.
    pub(super) fn object_id(&mut self, address: &str) -> String {
        self.objects.entry(address.to_lowercase()).or_insert_with(|| Uuid::new_v4().to_string()).clone()
    }

    /// The mailbox that an object id or an address of this tenant names.
    pub(super) fn mailbox(&self, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        if let Some((address, _)) = self.objects.iter().find(|(_, id)| **id == name) {
            return Some(address.clone());
        }
        let is_known = self.objects.contains_key(&name) || self.users.contains_key(&name);
        (is_known || name.rsplit_once('@')?.1 == self.domain).then_some(name)
    }

    /// Decides a token request. Wrong passwords are counted.
    pub(super) fn decide(&mut self, request: &Request<'_>) -> Result<Grant, Refusal> {
        if !self.is_called(request.tenant) {
            return Err(Self::not_found(request.tenant));
        }
        let grant_type = required(request, "grant_type")?;
        let client_id = required(request, "client_id")?;
        let Some(client) = self.clients.get(client_id).cloned() else {
            let what = format!("Application '{client_id}' was not found in the directory '{}'.", self.domain);
            return Err(Refusal::new(700_016, what));
        };
        check_secret(client_id, &client, request.fields.get("client_secret"))?;
        match grant_type {
            "client_credentials" => {
                if client.secret.is_none() {
                    return Err(missing_secret());
                }
                let resource = app_resource(required(request, "scope")?)?;
                // As Entra does: without consent a token is issued, but it carries no role and opens nothing.
                let permissions = client.permissions.iter().copied().filter(|it| it.is_of(&resource)).collect();
                Ok(Grant { client: client_id.to_owned(), resource, subject: Subject::App, permissions })
            }
            "password" => {
                let (resource, asked) = user_scope(required(request, "scope")?)?;
                let name = required(request, "username")?.to_lowercase();
                let full_access = self.check_password(&name, required(request, "password")?)?;
                let granted = client.permissions.iter().copied().filter(|it| it.is_of(&resource));
                let permissions: Vec<_> = granted.filter(|it| asked.is_empty() || asked.contains(it)).collect();
                if permissions.is_empty() || permissions.len() < asked.len() {
                    let what = format!("Nobody has consented to the use of the application '{client_id}'.");
                    return Err(Refusal::new(65_001, what));
                }
                let subject = Subject::User { name, full_access };
                Ok(Grant { client: client_id.to_owned(), resource, subject, permissions })
            }
            other => Err(Refusal::new(70_003, format!("The grant type '{other}' is not supported."))),
        }
    }

    /// Returns whether the account has full access.
    fn check_password(&mut self, name: &str, password: &str) -> Result<bool, Refusal> {
        let Some(user) = self.users.get_mut(name) else {
            let what = format!("The account '{name}' does not exist in the directory '{}'.", self.domain);
            return Err(Refusal::new(50_034, what));
        };
        if user.locked {
            return Err(Refusal::new(50_053, "The account is locked after too many sign-ins with a wrong password."));
        }
        if user.password != password {
            user.wrong_passwords += 1;
            user.locked = user.wrong_passwords >= LOCK_AFTER;
            return Err(Refusal::new(50_126, "User name or password is wrong."));
        }
        user.wrong_passwords = 0;
        if user.demands_mfa {
            let what = "Multi-factor authentication is demanded, which this grant cannot give.";
            return Err(Refusal::new(50_076, what));
        }
        Ok(user.full_access)
    }
}

fn required<'a>(request: &Request<'a>, field: &str) -> Result<&'a str, Refusal> {
    let value = request.fields.get(field).filter(|value| !value.is_empty());
    value
        .map(String::as_str)
        .ok_or_else(|| Refusal::new(900_144, format!("The request body must contain the parameter '{field}'.")))
}

fn check_secret(client_id: &str, client: &Client, sent: Option<&String>) -> Result<(), Refusal> {
    match (&client.secret, sent) {
        (Some(secret), Some(sent)) if secret == sent => Ok(()),
        (Some(_), Some(_)) => {
            let what =
                format!("The client secret is not one of application '{client_id}'. Send its value, not its id.");
            Err(Refusal::new(7_000_215, what))
        }
        (Some(_), None) => Err(missing_secret()),
        (None, Some(_)) => {
            Err(Refusal::new(700_025, format!("Application '{client_id}' is public and must not send a secret.")))
        }
        (None, None) => Ok(()),
    }
}

fn missing_secret() -> Refusal {
    Refusal::new(7_000_218, "The request body must contain 'client_assertion' or 'client_secret'.")
}

/// The resource of `<resource>/.default`, the only scope that client credentials may ask for.
fn app_resource(scope: &str) -> Result<String, Refusal> {
    let mut scopes = scope.split_whitespace();
    let (Some(only), None) = (scopes.next(), scopes.next()) else {
        return Err(bad_scope(scope));
    };
    match only.strip_suffix("/.default") {
        Some(resource) => known_resource(resource),
        None => {
            let what =
                format!("The scope '{scope}' is not valid with client credentials: ask for <resource>/.default.");
            Err(Refusal::new(1_002_012, what))
        }
    }
}

/// The resource of a delegated scope, and what is asked for there; nothing means all that was consented to.
fn user_scope(scope: &str) -> Result<(String, BTreeSet<Permission>), Refusal> {
    let (mut resource, mut asked) = (None, BTreeSet::new());
    for one in scope.split_whitespace().filter(|one| !COMMON_SCOPES.contains(one)) {
        // A name without a resource is one of Graph.
        let (base, name) = one.rsplit_once('/').unwrap_or((GRAPH, one));
        let base = known_resource(base)?;
        if name != ".default" {
            let known = Permission::ALL.into_iter().find(|it| it.scope() == name && it.is_of(&base));
            asked.insert(known.ok_or_else(|| bad_scope(scope))?);
        }
        if resource.replace(base.clone()).is_some_and(|other| other != base) {
            return Err(bad_scope(scope));
        }
    }
    Ok((resource.ok_or_else(|| bad_scope(scope))?, asked))
}

fn known_resource(name: &str) -> Result<String, Refusal> {
    permission::resource(name)
        .ok_or_else(|| Refusal::new(500_011, format!("The resource principal '{name}' was not found in the tenant.")))
}

fn bad_scope(scope: &str) -> Refusal {
    Refusal::new(70_011, format!("The scope '{scope}' is not valid."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "grant_type=client_credentials&client_id=svc&client_secret=s&scope=https://outlook.office365.com/.default";
    const USER: &str = "grant_type=password&client_id=pub&username=Eve@contoso.example&password=p&scope=https://outlook.office.com/IMAP.AccessAsUser.All offline_access";

    fn directory() -> Directory {
        let client = |secret: Option<&str>, permissions: &[Permission]| Client {
            secret: secret.map(str::to_owned),
            permissions: permissions.iter().copied().collect(),
        };
        let user = |password: &str| User { password: password.to_owned(), ..User::default() };
        Directory {
            id: "c0de0000-0000-4000-8000-000000000000".to_owned(),
            domain: "contoso.example".to_owned(),
            clients: HashMap::from([
                ("svc".to_owned(), client(Some("s"), &Permission::ALL)),
                ("pub".to_owned(), client(None, &Permission::ALL)),
                ("reader".to_owned(), client(None, &[Permission::Imap])),
                ("new".to_owned(), client(None, &[])),
            ]),
            users: HashMap::from([
                ("eve@contoso.example".to_owned(), user("p")),
                ("mfa@contoso.example".to_owned(), User { demands_mfa: true, ..user("p") }),
            ]),
            objects: HashMap::new(),
        }
    }

    /// Asks with `form` after each `(from, to)` in it has been replaced; returns 0 or the number of the refusal.
    fn check(directory: &mut Directory, form: &str, change: (&str, &str), expected: u32) {
        let form = form.replace(change.0, change.1);
        let fields: HashMap<String, String> = form
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let answer = directory.decide(&Request { tenant: "Contoso.example", fields: &fields });
        assert_eq!(answer.map_or_else(|refusal| refusal.code, |_| 0), expected, "{form}");
    }

    #[test]
    fn each_fault_has_its_number() {
        let mut all = directory();
        let nothing = ("#", "");
        for (form, change, expected) in [
            (SERVICE, nothing, 0),
            (SERVICE, ("outlook.office365.com", "ps.outlook.com"), 0),
            (SERVICE, ("grant_type=client_credentials&", ""), 900_144),
            (SERVICE, ("client_credentials", "saml"), 70_003),
            (SERVICE, ("client_id=svc&", ""), 900_144),
            (SERVICE, ("client_id=svc", "client_id=other"), 700_016),
            (SERVICE, ("client_secret=s", "client_secret=t"), 7_000_215),
            (SERVICE, ("&client_secret=s", ""), 7_000_218),
            (SERVICE, ("client_id=svc&client_secret=s", "client_id=pub"), 7_000_218),
            (SERVICE, ("client_id=svc", "client_id=pub"), 700_025),
            (SERVICE, ("/.default", "/IMAP.AccessAsUser.All"), 1_002_012),
            (SERVICE, ("/.default", "/.default https://graph.microsoft.com/.default"), 70_011),
            (SERVICE, ("outlook.office365.com", "graph.microsoft.com"), 0),
            (SERVICE, ("outlook.office365.com", "outlook.live.example"), 500_011),
            (USER, nothing, 0),
            (USER, ("&scope=", "&other="), 900_144),
            (USER, ("IMAP.AccessAsUser.All", "Imap.Everything"), 70_011),
            (USER, ("offline_access", "nonsense"), 70_011),
            (USER, ("https://outlook.office.com/IMAP.AccessAsUser.All ", ""), 70_011),
            (USER, ("username=Eve", "username=nobody"), 50_034),
            (USER, ("password=p&", "password=P&"), 50_126),
            (USER, ("username=Eve", "username=mfa"), 50_076),
            (USER, ("client_id=pub", "client_id=new"), 65_001),
            (USER, ("client_id=pub", "client_id=reader"), 0),
            (USER, ("IMAP.AccessAsUser.All", "SMTP.Send"), 0),
            (USER, ("https://outlook.office.com/IMAP.AccessAsUser.All", "Mail.Send Mail.ReadWrite"), 0),
            (USER, ("https://outlook.office.com/IMAP.AccessAsUser.All", "https://graph.microsoft.com/.default"), 0),
            (USER, ("IMAP.AccessAsUser.All", "Mail.Send"), 70_011),
            (USER, ("offline_access", "Mail.Send"), 70_011),
        ] {
            check(&mut all, form, change, expected);
        }
    }

    #[test]
    fn a_token_carries_what_was_consented_to_at_its_resource() {
        let mut all = directory();
        let mut granted = |form: &str| {
            let fields = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
            all.decide(&Request { tenant: "contoso.example", fields: &fields }).map(|grant| grant.permissions)
        };
        assert_eq!(granted(SERVICE), Ok(vec![Permission::Imap, Permission::Smtp]));
        let graph = SERVICE.replace("outlook.office365.com", "graph.microsoft.com");
        assert_eq!(granted(&graph), Ok(vec![Permission::GraphSend, Permission::GraphReadWrite]));
        assert_eq!(granted(USER), Ok(vec![Permission::Imap]));
        let default = USER.replace("IMAP.AccessAsUser.All", ".default");
        assert_eq!(granted(&default), Ok(vec![Permission::Imap, Permission::Smtp]));
        let both = USER.replace("offline_access", "https://outlook.office.com/SMTP.Send").replace("=pub", "=reader");
        assert_eq!(granted(&both).map_err(|refusal| refusal.code), Err(65_001));
    }

    #[test]
    fn a_mailbox_is_found_by_its_object_id_and_by_its_address() {
        let mut all = directory();
        let id = all.object_id("Sales@elsewhere.example");
        assert_eq!(all.object_id("sales@elsewhere.example"), id);
        for (name, found) in [
            (id.to_uppercase().as_str(), Some("sales@elsewhere.example")),
            ("SALES@elsewhere.example", Some("sales@elsewhere.example")),
            ("eve@contoso.example", Some("eve@contoso.example")),
            ("anybody@Contoso.example", Some("anybody@contoso.example")),
            ("other@elsewhere.example", None),
            ("c0de0000-0000-4000-8000-000000000000", None),
        ] {
            assert_eq!(all.mailbox(name).as_deref(), found, "{name}");
        }
    }

    #[test]
    fn another_tenant_is_not_found() {
        let mut all = directory();
        let fields = HashMap::new();
        for (tenant, expected) in [
            ("c0de0000-0000-4000-8000-000000000001", 90_002),
            ("other.example", 90_002),
            ("undefined", 900_023),
            ("C0DE0000-0000-4000-8000-000000000000", 900_144),
        ] {
            let answer = all.decide(&Request { tenant, fields: &fields });
            assert_eq!(answer.map_err(|refusal| refusal.code), Err(expected), "{tenant}");
        }
    }

    #[test]
    fn an_account_is_locked_after_too_many_wrong_passwords() {
        let mut all = directory();
        for _ in 0..LOCK_AFTER {
            check(&mut all, USER, ("password=p&", "password=P&"), 50_126);
        }
        check(&mut all, USER, ("#", ""), 50_053);
    }
}
