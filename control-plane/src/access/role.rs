//! Which role may make which call. One table; a test fails for an RPC that is not in it.

use std::fmt;
use std::str::FromStr;

use postroom_proto::id::is_name;

/// What a caller is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Definitions and everything that is not a worker's own.
    Admin,
    /// Mailboxes, workers, quarantine.
    Operator,
    /// Looks, never touches.
    Viewer,
    /// A worker's own session and reports; with a name only what is of the worker of that name.
    Worker(Option<String>),
    /// The contacts of the instance of this name.
    Instance(String),
    /// The first certificate of the worker of this name.
    Enrolling(String),
}

/// A role without the name it is bound to: the columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Admin,
    Operator,
    Viewer,
    Worker,
    Instance,
    Enrolling,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Operator => f.write_str("operator"),
            Self::Viewer => f.write_str("viewer"),
            Self::Worker(None) => f.write_str("worker"),
            Self::Worker(Some(name)) => write!(f, "worker:{name}"),
            Self::Instance(name) => write!(f, "instance:{name}"),
            Self::Enrolling(name) => write!(f, "enrolment:{name}"),
        }
    }
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; write admin, operator, viewer, worker, worker:NAME or instance:NAME")]
pub struct Unknown(String);

impl FromStr for Role {
    type Err = Unknown;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.into());
        match text.split_once(':') {
            None => match text {
                "admin" => Ok(Self::Admin),
                "operator" => Ok(Self::Operator),
                "viewer" => Ok(Self::Viewer),
                "worker" => Ok(Self::Worker(None)),
                _ => Err(unknown()),
            },
            Some((_, name)) if !is_name(name) => Err(unknown()),
            Some(("worker", name)) => Ok(Self::Worker(Some(name.into()))),
            Some(("instance", name)) => Ok(Self::Instance(name.into())),
            Some(("enrolment", name)) => Ok(Self::Enrolling(name.into())),
            Some(_) => Err(unknown()),
        }
    }
}

impl Role {
    fn kind(&self) -> Kind {
        match self {
            Self::Admin => Kind::Admin,
            Self::Operator => Kind::Operator,
            Self::Viewer => Kind::Viewer,
            Self::Worker(_) => Kind::Worker,
            Self::Instance(_) => Kind::Instance,
            Self::Enrolling(_) => Kind::Enrolling,
        }
    }

    /// True when this role may call the RPC of this path, `/package.Service/Method`. What is not in the table nobody may.
    pub fn may_call(&self, path: &str) -> bool {
        TABLE.iter().chain(BESIDE).any(|(rpc, kinds)| *rpc == path && kinds.contains(&self.kind()))
    }

    /// The only worker that it is for.
    pub fn worker(&self) -> Option<&str> {
        match self {
            Self::Worker(name) => name.as_deref(),
            Self::Enrolling(name) => Some(name),
            _ => None,
        }
    }

    /// True when this role may see and take the contacts of an instance.
    pub fn may_serve(&self, instance: &str) -> bool {
        match self {
            Self::Instance(own) => own == instance,
            Self::Admin | Self::Operator | Self::Viewer | Self::Worker(_) => true,
            Self::Enrolling(_) => false,
        }
    }
}

/// The name of an RPC, without the package where it is ours; `other` for what nobody serves.
pub fn known(path: &str) -> &'static str {
    let all = TABLE.iter().chain(BESIDE).map(|(rpc, _)| *rpc).chain(OPEN.iter().copied());
    let found = all.into_iter().find(|rpc| *rpc == path).map(|rpc| rpc.trim_start_matches('/'));
    found.map_or("other", |rpc| rpc.strip_prefix("postroom.v1.").unwrap_or(rpc))
}

/// True for what anybody may call, without a token: those who look after processes have none.
pub fn is_open(path: &str) -> bool {
    OPEN.contains(&path)
}

/// Whether it serves, and nothing else.
const OPEN: &[&str] = &["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

/// Services that are not ours. The protos are no secret, but whoever asks for them is to be known.
const BESIDE: &[(&str, &[Kind])] = &[(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance],
)];

const WORKER: &[Kind] = &[Kind::Worker];
const ADMIN: &[Kind] = &[Kind::Admin];
const OPERATORS: &[Kind] = &[Kind::Admin, Kind::Operator];
const PEOPLE: &[Kind] = &[Kind::Admin, Kind::Operator, Kind::Viewer];
const EVERYBODY: &[Kind] = &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Worker, Kind::Instance];
const TAKERS: &[Kind] = &[Kind::Admin, Kind::Instance];

/// Invariant: instances' own contacts are checked besides, by [`Role::may_serve`], wherever `Kind::Instance` stands.
const TABLE: &[(&str, &[Kind])] = &[
    ("/postroom.v1.AccessService/CreateToken", ADMIN),
    ("/postroom.v1.AccessService/ListCredentials", ADMIN),
    ("/postroom.v1.AccessService/RevokeCredentials", ADMIN),
    ("/postroom.v1.AccessService/EnrollWorker", ADMIN),
    ("/postroom.v1.AccessService/RequestCertificate", &[Kind::Worker, Kind::Enrolling]),
    ("/postroom.v1.DefinitionService/ApplyModel", ADMIN),
    ("/postroom.v1.DefinitionService/ExportModel", PEOPLE),
    ("/postroom.v1.DefinitionService/ListRevisions", PEOPLE),
    ("/postroom.v1.DefinitionService/CompareRevisions", PEOPLE),
    ("/postroom.v1.DefinitionService/RollbackModel", ADMIN),
    ("/postroom.v1.DefinitionService/GetRollout", PEOPLE),
    ("/postroom.v1.DefinitionService/GetSystem", PEOPLE),
    ("/postroom.v1.DefinitionService/ListOutgoingServers", PEOPLE),
    ("/postroom.v1.DefinitionService/GetOutgoingServer", PEOPLE),
    ("/postroom.v1.DefinitionService/ListInstances", PEOPLE),
    ("/postroom.v1.DefinitionService/GetInstance", PEOPLE),
    ("/postroom.v1.DefinitionService/ListIncomingServers", PEOPLE),
    ("/postroom.v1.DefinitionService/GetIncomingServer", PEOPLE),
    ("/postroom.v1.DefinitionService/ListQueues", PEOPLE),
    ("/postroom.v1.DefinitionService/GetQueue", PEOPLE),
    ("/postroom.v1.LeaseService/Register", WORKER),
    ("/postroom.v1.LeaseService/Heartbeat", WORKER),
    ("/postroom.v1.LeaseService/Leave", WORKER),
    ("/postroom.v1.LeaseService/WatchNudge", WORKER),
    ("/postroom.v1.ReportService/OpenMailboxes", WORKER),
    ("/postroom.v1.ReportService/UploadBlob", WORKER),
    ("/postroom.v1.ReportService/Report", WORKER),
    ("/postroom.v1.ReportService/ReportStatus", WORKER),
    ("/postroom.v1.ReportService/FindKnown", WORKER),
    ("/postroom.v1.ErrandService/TakeErrands", WORKER),
    ("/postroom.v1.ErrandService/ReportErrand", WORKER),
    ("/postroom.v1.ContactService/AllocateContacts", TAKERS),
    ("/postroom.v1.ContactService/AcceptContacts", TAKERS),
    ("/postroom.v1.ContactService/ExtendContacts", TAKERS),
    ("/postroom.v1.ContactService/EndContacts", TAKERS),
    ("/postroom.v1.ContactService/RejectContacts", TAKERS),
    ("/postroom.v1.ContactService/RequeueContacts", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.ContactService/TransferContacts", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.ContactService/WatchContacts", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.ContactService/ListContacts", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.ContactService/GetContact", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.ContactService/GetRawMessage", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.ContactService/GetAttachment", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.MessageService/ListMessages", PEOPLE),
    ("/postroom.v1.MessageService/GetMessage", PEOPLE),
    ("/postroom.v1.MessageService/GetMessageRaw", OPERATORS),
    ("/postroom.v1.MessageService/ReplayMessage", OPERATORS),
    ("/postroom.v1.MessageService/DiscardMessage", OPERATORS),
    ("/postroom.v1.MessageService/ReconcileMailbox", PEOPLE),
    ("/postroom.v1.OperatorService/ListMailboxes", PEOPLE),
    ("/postroom.v1.OperatorService/GetMailbox", PEOPLE),
    ("/postroom.v1.OperatorService/GetBacklog", PEOPLE),
    ("/postroom.v1.OperatorService/ApproveBacklog", OPERATORS),
    ("/postroom.v1.OperatorService/StopBacklog", OPERATORS),
    ("/postroom.v1.BackupService/CreateBackup", ADMIN),
    ("/postroom.v1.SecretService/RotateKey", ADMIN),
    ("/postroom.v1.AuditService/ListAudit", ADMIN),
    ("/postroom.v1.OperatorService/CheckMailbox", OPERATORS),
    ("/postroom.v1.OperatorService/CheckIncomingServer", OPERATORS),
    ("/postroom.v1.OperatorService/CheckOutgoingServer", OPERATORS),
    ("/postroom.v1.OperatorService/GetStatus", PEOPLE),
    ("/postroom.v1.OperatorService/GetVersion", EVERYBODY),
    ("/postroom.v1.WorkerService/ListWorkers", PEOPLE),
    ("/postroom.v1.WorkerService/DrainWorker", OPERATORS),
    ("/postroom.v1.WorkerService/UndrainWorker", OPERATORS),
    ("/postroom.v1.WorkerService/SetWorkerRole", OPERATORS),
    ("/postroom.v1.WorkerService/FreezeWorkers", OPERATORS),
    ("/postroom.v1.WorkerService/UnfreezeWorkers", OPERATORS),
    ("/postroom.v1.StoreService/GetStore", PEOPLE),
    ("/postroom.v1.StoreService/AdoptStore", ADMIN),
    ("/postroom.v1.OutboxService/Reply", TAKERS),
    ("/postroom.v1.OutboxService/Send", TAKERS),
    ("/postroom.v1.OutboxService/ListOutbox", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.OutboxService/GetOutboxMail", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.OutboxService/GetOutboxRaw", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.OutboxService/RetryOutboxMail", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.OutboxService/CancelOutboxMail", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.OutboxService/ConfirmOutboxMail", &[Kind::Admin, Kind::Operator, Kind::Instance]),
    ("/postroom.v1.OutboxService/WatchOutbox", &[Kind::Admin, Kind::Operator, Kind::Viewer, Kind::Instance]),
    ("/postroom.v1.SendService/ClaimMails", WORKER),
    ("/postroom.v1.SendService/GetClaimedRaw", WORKER),
    ("/postroom.v1.SendService/MarkSubmitting", WORKER),
    ("/postroom.v1.SendService/SettleMail", WORKER),
];

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn the_table_has_every_rpc_and_no_other() {
        let pool = DescriptorPool::decode(postroom_proto::v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut served: Vec<String> = pool
            .services()
            .flat_map(|service| {
                let name = service.full_name().to_owned();
                service.methods().map(move |method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
            })
            .collect();
        let mut listed: Vec<&str> = TABLE.iter().map(|(rpc, _)| *rpc).collect();
        served.sort();
        listed.sort_unstable();
        assert_eq!(served, listed);
    }

    #[test]
    fn a_role_is_read_as_it_is_written_and_nothing_else_is_one() {
        for text in ["admin", "operator", "viewer", "worker", "worker:mail-1", "instance:core1", "enrolment:mail-1"] {
            assert_eq!(text.parse::<Role>().unwrap().to_string(), text);
        }
        for text in ["", "Admin", "root", "instance", "instance:", "instance:Core 1", "admin:x", "worker:a:b"] {
            assert_eq!(text.parse::<Role>(), Err(Unknown(text.into())));
        }
    }

    #[test]
    fn so_have_the_lists_of_services_that_are_not_ours() {
        let mut pool = DescriptorPool::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
        pool.decode_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET).unwrap();
        let methods = pool.services().flat_map(|service| {
            let name = service.full_name().to_owned();
            service.methods().map(move |method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
        });
        for method in methods {
            assert!(is_open(&method) || Role::Admin.may_call(&method), "{method}");
            assert!(!Role::Worker(None).may_call(&method), "{method}");
            assert_ne!(known(&method), "other");
        }
        assert_eq!(known("/postroom.v1.ContactService/GetContact"), "ContactService/GetContact");
        assert_eq!(known("/made.up.Service/Call"), "other");
    }

    #[test]
    fn workers_and_people_keep_out_of_each_others_calls() {
        assert!(!Role::Worker(None).may_call("/postroom.v1.ContactService/AllocateContacts"));
        assert!(!Role::Admin.may_call("/postroom.v1.ReportService/OpenMailboxes"), "it hands out secrets");
        assert!(!Role::Viewer.may_call("/postroom.v1.ContactService/GetRawMessage"));
        assert!(!Role::Admin.may_call("/postroom.v1.NoService/Nothing"));
        let core1 = Role::Instance("core1".into());
        assert!(core1.may_serve("core1") && !core1.may_serve("core2"));
    }
}
