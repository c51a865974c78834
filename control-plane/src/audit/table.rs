//! Which calls are written down, and what of them. One table; a test fails for an RPC that is not in it.

use crate::access::role::Role;

/// Whose calls are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Everybody's.
    All,
    /// Those of people: an instance does it all day, and what it does is told by the contact or mail itself.
    People,
    /// Nobody's: it changes nothing, or it is a worker's daily work, of which the ledger has the outcome.
    Nobody,
}

/// What is written down of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    whose: Whose,
    /// Fields of the request that say what it is about.
    pub subject: &'static [&'static str],
    /// Fields of the request that say what was asked for. None of them holds a secret, or the text of a mail.
    pub detail: &'static [&'static str],
}

impl Rule {
    /// True when a call by this role is written down.
    pub fn covers(&self, role: &Role) -> bool {
        match self.whose {
            Whose::All => true,
            Whose::People => matches!(role, Role::Admin | Role::Operator | Role::Viewer),
            Whose::Nobody => false,
        }
    }
}

/// The rule of an RPC, by its path. One that is in no table is written down, with nothing of its request.
pub fn rule(path: &str) -> Rule {
    let found = TABLE.iter().find(|(rpc, _)| *rpc == path);
    found.map_or(Rule { whose: Whose::All, subject: &[], detail: &[] }, |(_, rule)| *rule)
}

const NO: Rule = Rule { whose: Whose::Nobody, subject: &[], detail: &[] };

const fn all(subject: &'static [&'static str], detail: &'static [&'static str]) -> Rule {
    Rule { whose: Whose::All, subject, detail }
}

const fn people(subject: &'static [&'static str], detail: &'static [&'static str]) -> Rule {
    Rule { whose: Whose::People, subject, detail }
}

const TABLE: &[(&str, Rule)] = &[
    // Definitions: what changed is told by the outcome, field by field.
    ("/postroom.v1.DefinitionService/ApplyModel", all(&[], &["etag", "prune", "removals", "renames", "requestId"])),
    ("/postroom.v1.DefinitionService/ExportModel", NO),
    ("/postroom.v1.DefinitionService/ListRevisions", NO),
    ("/postroom.v1.DefinitionService/CompareRevisions", NO),
    ("/postroom.v1.DefinitionService/RollbackModel", all(&["revision"], &["etag", "requestId"])),
    ("/postroom.v1.DefinitionService/GetRollout", NO),
    ("/postroom.v1.DefinitionService/GetSystem", NO),
    ("/postroom.v1.DefinitionService/ListOutgoingServers", NO),
    ("/postroom.v1.DefinitionService/GetOutgoingServer", NO),
    ("/postroom.v1.DefinitionService/ListInstances", NO),
    ("/postroom.v1.DefinitionService/GetInstance", NO),
    ("/postroom.v1.DefinitionService/ListIncomingServers", NO),
    ("/postroom.v1.DefinitionService/GetIncomingServer", NO),
    ("/postroom.v1.DefinitionService/ListQueues", NO),
    ("/postroom.v1.DefinitionService/GetQueue", NO),
    // Workers' daily work: many a second, and the ledger has what came of it.
    ("/postroom.v1.LeaseService/Register", NO),
    ("/postroom.v1.LeaseService/Heartbeat", NO),
    ("/postroom.v1.LeaseService/Leave", NO),
    ("/postroom.v1.LeaseService/WatchNudge", NO),
    ("/postroom.v1.ReportService/OpenMailboxes", NO),
    ("/postroom.v1.ReportService/UploadBlob", NO),
    ("/postroom.v1.ReportService/Report", NO),
    ("/postroom.v1.ReportService/ReportStatus", NO),
    ("/postroom.v1.ReportService/FindKnown", NO),
    ("/postroom.v1.ErrandService/TakeErrands", NO),
    ("/postroom.v1.ErrandService/ReportErrand", NO),
    ("/postroom.v1.SendService/ClaimMails", NO),
    ("/postroom.v1.SendService/GetClaimedRaw", NO),
    ("/postroom.v1.SendService/MarkSubmitting", NO),
    ("/postroom.v1.SendService/SettleMail", NO),
    // Contacts: what instances do all day is not, what people do in their place is.
    ("/postroom.v1.ContactService/AllocateContacts", people(&["instance"], &["maxCount", "requestId"])),
    ("/postroom.v1.ContactService/AcceptContacts", people(&["instance"], &["contacts"])),
    ("/postroom.v1.ContactService/ExtendContacts", people(&["instance"], &["contacts", "acceptWithin"])),
    ("/postroom.v1.ContactService/EndContacts", people(&["instance"], &["contacts", "outcome"])),
    ("/postroom.v1.ContactService/RejectContacts", people(&["instance"], &["contacts"])),
    ("/postroom.v1.ContactService/RequeueContacts", all(&["instance"], &["contacts"])),
    (
        "/postroom.v1.ContactService/TransferContacts",
        all(&["instance"], &["contacts", "queue", "priority", "requestId"]),
    ),
    ("/postroom.v1.ContactService/WatchContacts", NO),
    ("/postroom.v1.ContactService/ListContacts", NO),
    ("/postroom.v1.ContactService/GetContact", NO),
    ("/postroom.v1.ContactService/GetRawMessage", NO),
    ("/postroom.v1.ContactService/GetAttachment", NO),
    ("/postroom.v1.MessageService/ListMessages", NO),
    ("/postroom.v1.MessageService/GetMessage", NO),
    ("/postroom.v1.MessageService/GetMessageRaw", NO),
    ("/postroom.v1.MessageService/ReplayMessage", all(&["message"], &[])),
    ("/postroom.v1.MessageService/DiscardMessage", all(&["message"], &["reason"])),
    ("/postroom.v1.MessageService/ReconcileMailbox", NO),
    ("/postroom.v1.OperatorService/ListMailboxes", NO),
    ("/postroom.v1.OperatorService/GetMailbox", NO),
    ("/postroom.v1.OperatorService/GetBacklog", NO),
    ("/postroom.v1.OperatorService/ApproveBacklog", all(&["mailbox"], &["sinceTime", "ratePerMinute"])),
    ("/postroom.v1.OperatorService/StopBacklog", all(&["mailbox"], &[])),
    ("/postroom.v1.OperatorService/CheckMailbox", NO),
    ("/postroom.v1.OperatorService/CheckIncomingServer", NO),
    ("/postroom.v1.OperatorService/CheckOutgoingServer", NO),
    ("/postroom.v1.OperatorService/GetStatus", NO),
    ("/postroom.v1.OperatorService/GetVersion", NO),
    ("/postroom.v1.WorkerService/ListWorkers", NO),
    ("/postroom.v1.WorkerService/DrainWorker", all(&["worker"], &[])),
    ("/postroom.v1.WorkerService/UndrainWorker", all(&["worker"], &[])),
    ("/postroom.v1.WorkerService/SetWorkerRole", all(&["worker"], &["role"])),
    ("/postroom.v1.WorkerService/FreezeWorkers", all(&[], &["note", "duration"])),
    ("/postroom.v1.WorkerService/UnfreezeWorkers", all(&[], &[])),
    ("/postroom.v1.StoreService/GetStore", NO),
    ("/postroom.v1.StoreService/AdoptStore", all(&["storeId"], &[])),
    // It changes nothing, but whoever has the archive has all mail.
    ("/postroom.v1.BackupService/CreateBackup", all(&[], &["includeKey"])),
    ("/postroom.v1.SecretService/RotateKey", all(&[], &[])),
    ("/postroom.v1.AuditService/ListAudit", NO),
    ("/postroom.v1.AccessService/CreateToken", all(&["name"], &["role", "instance", "worker", "ttl"])),
    ("/postroom.v1.AccessService/ListCredentials", NO),
    ("/postroom.v1.AccessService/RevokeCredentials", all(&["credential", "worker"], &[])),
    ("/postroom.v1.AccessService/EnrollWorker", all(&["worker"], &["ttl"])),
    // A worker's own, to renew what it has; the enrolment before the first was written down, and `token list` shows it.
    ("/postroom.v1.AccessService/RequestCertificate", NO),
    // Mail: each is a row of the outbox with its instance and time; what people decide about one is written down.
    ("/postroom.v1.OutboxService/Reply", people(&[], &[])),
    ("/postroom.v1.OutboxService/Send", people(&[], &[])),
    ("/postroom.v1.OutboxService/ListOutbox", NO),
    ("/postroom.v1.OutboxService/GetOutboxMail", NO),
    ("/postroom.v1.OutboxService/GetOutboxRaw", NO),
    ("/postroom.v1.OutboxService/RetryOutboxMail", all(&["mail"], &["mayArriveTwice"])),
    ("/postroom.v1.OutboxService/CancelOutboxMail", all(&["mail"], &[])),
    ("/postroom.v1.OutboxService/ConfirmOutboxMail", all(&["mail"], &[])),
    ("/postroom.v1.OutboxService/WatchOutbox", NO),
];

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, MethodDescriptor};

    use super::*;

    fn served() -> Vec<(String, MethodDescriptor)> {
        let pool = DescriptorPool::decode(postroom_proto::v1::FILE_DESCRIPTOR_SET).unwrap();
        let services: Vec<_> = pool.services().collect();
        let methods = services.iter().flat_map(|service| {
            let name = service.full_name().to_owned();
            service.methods().map(move |method| (format!("/{name}/{}", method.name()), method)).collect::<Vec<_>>()
        });
        methods.collect()
    }

    #[test]
    fn the_table_has_every_rpc_and_no_other() {
        let mut served: Vec<String> = served().into_iter().map(|(path, _)| path).collect();
        let mut listed: Vec<&str> = TABLE.iter().map(|(rpc, _)| *rpc).collect();
        served.sort();
        listed.sort_unstable();
        assert_eq!(served, listed);
    }

    #[test]
    fn every_field_that_it_names_is_a_field_of_the_request() {
        for (path, method) in served() {
            let fields: Vec<String> = method.input().fields().map(|field| field.json_name().to_owned()).collect();
            let rule = rule(&path);
            for name in rule.subject.iter().chain(rule.detail) {
                assert!(fields.iter().any(|field| field == name), "{path} has no field {name}");
            }
        }
    }

    /// Whatever a new call is named like, its author has to decide.
    #[test]
    fn what_reads_is_not_written_down_and_what_workers_do_is_not() {
        for (path, rule) in TABLE {
            let name = path.rsplit('/').next().unwrap();
            let reads =
                ["List", "Get", "Watch", "Export", "Compare", "Find", "Check"].iter().any(|it| name.starts_with(it));
            assert!(!reads || rule.whose == Whose::Nobody, "{path}");
            let worker = ["Lease", "Report", "Errand", "Send"].map(|it| format!("/postroom.v1.{it}Service/"));
            assert!(!worker.iter().any(|it| path.starts_with(it)) || rule.whose == Whose::Nobody, "{path}");
        }
    }

    #[test]
    fn what_instances_do_all_day_is_written_down_only_for_people() {
        let accept = rule("/postroom.v1.ContactService/AcceptContacts");
        assert!(accept.covers(&Role::Admin) && !accept.covers(&Role::Instance("core1".into())));
        let transfer = rule("/postroom.v1.ContactService/TransferContacts");
        assert!(transfer.covers(&Role::Instance("core1".into())));
        assert!(rule("/postroom.v1.NoService/Nothing").covers(&Role::Viewer), "what is not known is written down");
    }
}
