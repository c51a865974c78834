//! Every metric there is. The manual's table is made of this list, and a test fails when they differ.

use super::{Counter, Gauge, Histogram, Kind, Listed, Metric, Process};

/// Of calls and of commits: from a millisecond to a minute.
const TIMES: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From delivery to contact: from a tenth of a second to a day.
const LAGS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0];

/// Which labels name a mailbox.
const MAILBOX: &[&str] = &["mailbox", "folder", "instance", "queue"];

macro_rules! inventory {
    ($( $kind:ident $id:ident, $process:ident, $name:literal, $labels:expr, $help:literal $(, $buckets:expr)?; )*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub static $id: $kind = $kind::new(
                Metric { name: $name, kind: Kind::$kind, labels: $labels, process: Process::$process, help: $help }
                $(, $buckets)?
            );
        )*

        /// Every metric, in the order of the manual.
        pub static ALL: &[&dyn Listed] = &[$(&$id),*];
        /// The names by which sources call them, in the same order.
        #[cfg(test)]
        pub(super) const IDENTIFIERS: &[&str] = &[$(stringify!($id)),*];
    };
}

inventory! {
    Gauge BUILD, Both, "postroom_build_info", &["process", "version"],
        "Always 1: which version runs as what";
    Gauge START_TIME, Both, "postroom_start_timestamp_seconds", &["process"],
        "When the process started";

    Counter SPANS, Both, "postroom_spans_total", &["outcome"],
        "Spans of traces: sent, failed (the collector did not take them) or dropped (too many waited)";

    // What is put together from time to time.
    Gauge OVERVIEW_TIME, ControlPlane, "postroom_overview_timestamp_seconds", &[],
        "When the numbers about mailboxes, contacts, mails and workers were put together";
    Gauge OVERVIEW_FAILED, ControlPlane, "postroom_overview_failed", &[],
        "1 when they could not be put together the last time, else 0: they are older ones then";
    Gauge LEADER, ControlPlane, "postroom_leader", &[],
        "1 while a control plane leads, else 0";
    Gauge MODEL_REVISION, ControlPlane, "postroom_model_revision", &[],
        "Revision of the definitions that are followed";
    Gauge CONCERNS, ControlPlane, "postroom_concerns", &["code"],
        "Things that need somebody, as postroom status lists them";

    // Mailboxes.
    Gauge MAILBOXES, ControlPlane, "postroom_mailboxes", &["instance", "state"],
        "Mailboxes in each state";
    Gauge MAILBOXES_FAILING, ControlPlane, "postroom_mailboxes_failing", &["instance", "kind", "code"],
        "Mailboxes that do not work, by the problem";
    Gauge MAILBOXES_UNASSIGNED, ControlPlane, "postroom_mailboxes_unassigned", &["pool", "reason"],
        "Mailboxes that nobody reads, by the reason";
    Gauge MAILBOXES_WITHOUT_SERIES, ControlPlane, "postroom_mailboxes_without_series", &[],
        "Mailboxes that have no series of their own, being more than observe.mailboxes; those that fail come first";
    Gauge OLDEST_PROOF, ControlPlane, "postroom_oldest_proof_of_life_timestamp_seconds", &["instance"],
        "Of all mailboxes of the instance the oldest last proof of life";
    Gauge OLDEST_UNFETCHED, ControlPlane, "postroom_oldest_unfetched_timestamp_seconds", &["instance"],
        "When the oldest message was received that a worker saw and has not yet handed over; absent: none waits";
    Gauge MAILBOX_STATE, ControlPlane, "postroom_mailbox_state", &["mailbox", "folder", "instance", "queue", "state"],
        "Always 1: the state of the mailbox";
    Gauge MAILBOX_PROBLEM, ControlPlane, "postroom_mailbox_problem_timestamp_seconds",
        &["mailbox", "folder", "instance", "queue", "kind", "code"],
        "Since when the mailbox has its problem; absent: it has none";
    Gauge MAILBOX_PROOF, ControlPlane, "postroom_mailbox_proof_of_life_timestamp_seconds", MAILBOX,
        "When the mailbox was last seen to be read: it was looked through to its end, or messages of it were committed";
    Gauge MAILBOX_UNFETCHED, ControlPlane, "postroom_mailbox_unfetched_timestamp_seconds", MAILBOX,
        "When the oldest message of the mailbox was received that its worker saw and has not yet handed over";
    Gauge MAILBOX_LAG, ControlPlane, "postroom_mailbox_delivery_lag_seconds", MAILBOX,
        "How long the newest message of the last batch took from the mail server to the ledger";

    // Messages, contacts, mails.
    Counter MESSAGES, ControlPlane, "postroom_messages_total", &["instance", "disposition"],
        "Messages that were committed to the ledger, by what became of them";
    Gauge MESSAGES_ASIDE, ControlPlane, "postroom_messages_aside", &["disposition"],
        "Messages of the ledger that are no contacts";
    Gauge CONTACTS, ControlPlane, "postroom_contacts", &["instance", "state"],
        "Contacts in each state";
    Gauge OLDEST_CONTACT, ControlPlane, "postroom_oldest_contact_timestamp_seconds", &["instance"],
        "Since when the contact waits that waits longest; absent: none waits";
    Gauge QUEUE_WAITING, ControlPlane, "postroom_queue_contacts_waiting", &["instance", "queue"],
        "Contacts that wait in each queue; 10000 means that many or more";
    Gauge QUEUE_OLDEST, ControlPlane, "postroom_queue_oldest_contact_timestamp_seconds", &["instance", "queue"],
        "Since when the contact of the queue waits that waits longest; absent: none waits";
    Gauge OUTBOX, ControlPlane, "postroom_outbox_mails", &["instance", "state"],
        "Mails of the outbox in each state";

    // Workers.
    Gauge WORKERS, ControlPlane, "postroom_workers", &["pool", "role", "state"],
        "Workers in each state";
    Gauge SPARES_FREE, ControlPlane, "postroom_spares_free", &["pool"],
        "Spares that live and hold nothing; absent: the pool has no spare";
    Gauge WORKER_MAILBOXES, ControlPlane, "postroom_worker_mailboxes", &["worker", "pool"],
        "Mailboxes that are assigned to the worker";
    Gauge WORKER_HEARTBEAT, ControlPlane, "postroom_worker_heartbeat_timestamp_seconds", &["worker", "pool"],
        "When the worker was last heard";

    // By what processes know each other.
    Gauge OWN_CERTIFICATE_START, Both, "postroom_own_certificate_start_timestamp_seconds", &["certificate"],
        "From when on the certificate holds: server and ca of the control plane, client of a worker";
    Gauge OWN_CERTIFICATE_EXPIRY, Both, "postroom_own_certificate_expiry_timestamp_seconds", &["certificate"],
        "When the certificate ends; absent: the process has none";

    // The control plane itself.
    Gauge LEDGER_BYTES, ControlPlane, "postroom_ledger_bytes", &[],
        "Size of the ledger's database";
    Gauge DISK_FREE, ControlPlane, "postroom_data_free_bytes", &[],
        "What is free on the file system of the data folder";
    Gauge DISK_SIZE, ControlPlane, "postroom_data_size_bytes", &[],
        "How large the file system of the data folder is";
    Gauge SECRET_EXPIRY, ControlPlane, "postroom_secret_expiry_timestamp_seconds", &["server"],
        "When the day begins on which the client secret of the incoming server ends, as its secretExpires says";
    Histogram COMMIT_TIME, ControlPlane, "postroom_commit_seconds", &["database"],
        "How long commits took until they were durable", TIMES;
    Counter COMMITS_FAILED, ControlPlane, "postroom_commits_failed_total", &["database"],
        "Commits that failed, or whose outcome is not known";
    Counter CALLS, ControlPlane, "postroom_calls_total", &["method", "code"],
        "Calls that were answered, by their gRPC code";
    Histogram CALL_TIME, ControlPlane, "postroom_call_seconds", &["method"],
        "How long calls took; streams: until they ended", TIMES;

    // Workers themselves.
    Gauge TRUSTED, Worker, "postroom_worker_trusted", &[],
        "1 while the control plane answers the worker, so that it may write, else 0";
    Gauge HELD, Worker, "postroom_worker_mailboxes_held", &[],
        "Mailboxes that the worker holds";
    Counter HEARTBEATS, Worker, "postroom_heartbeats_total", &["outcome"],
        "Heartbeats by how they ended: answered, unanswered, refused, session-ended";
    Histogram HEARTBEAT_TIME, Worker, "postroom_heartbeat_seconds", &[],
        "How long heartbeats took that were answered", TIMES;
    Counter TOKENS, Worker, "postroom_token_requests_total", &["outcome", "code"],
        "Requests for tokens: granted, refused (somebody has to mend it) or failed (passes by itself), with the problem's code";
    Counter SIGN_INS, Worker, "postroom_sign_ins_total", &["outcome", "code"],
        "Sign-ins to mailboxes: accepted, refused or failed, with the problem's code";
    Counter FETCHED, Worker, "postroom_fetched_messages_total", &[],
        "Messages that were fetched and committed";
    Counter FETCHED_BYTES, Worker, "postroom_fetched_bytes_total", &[],
        "Bytes of these messages, as mail servers count them";
    Histogram DELIVERY_LAG, Worker, "postroom_delivery_lag_seconds", &[],
        "How long messages took from the mail server to the ledger; without those from before the mailbox was first read", LAGS;
    Histogram REPORT_TIME, Worker, "postroom_report_seconds", &[],
        "How long reports took until they were durable, with their repetitions", TIMES;
    Gauge BUDGET_FREE, Worker, "postroom_fetch_budget_free_bytes", &[],
        "What is left of the memory for messages that are fetched and not yet committed";
    Counter SENDS, Worker, "postroom_sends_total", &["transport", "verdict", "code"],
        "Attempts to send or look for a mail, by what became of it";
    Gauge CERTIFICATE_EXPIRY, Worker, "postroom_server_certificate_expiry_timestamp_seconds", &["host"],
        "When the first certificate ends of the chain that a server showed";
}
