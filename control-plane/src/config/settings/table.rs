//! Every setting of a control plane: its name, its default, and what it is for. A test holds the commented example against it.

use postroom_proto::settings::{Default, Setting};
use postroom_proto::trace::choice;

use crate::blob::choice::REGION;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "data",
        value: "DIR",
        default: Default::Required,
        help: "Folder with the ledger, large bodies unless they are elsewhere, the key of the secrets and the tokens; one \
               process at a time",
    },
    Setting {
        name: "store",
        value: "URL",
        default: Default::Is("sqlite"),
        help: "Where definitions and leases are kept: sqlite (in the data folder), or \
               etcd://[USER@]HOST:PORT[,HOST:PORT...][/PREFIX], with etcds:// for TLS",
    },
    Setting {
        name: "store-password-file",
        value: "FILE",
        default: Default::Nothing("etcd asks for none"),
        help: "Holds the password of the etcd user",
    },
    Setting {
        name: "store-ca-file",
        value: "FILE",
        default: Default::Nothing("the CA certificates of the system"),
        help: "PEM file with the CA certificates to trust for etcd",
    },
    Setting {
        name: "store-certificate-file",
        value: "FILE",
        default: Default::Nothing("etcd asks for none"),
        help: "PEM file with a client certificate for etcd",
    },
    Setting {
        name: "store-key-file",
        value: "FILE",
        default: Default::Nothing("etcd asks for none"),
        help: "PEM file with the key of the client certificate",
    },
    Setting {
        name: "secret-key",
        value: "SOURCE",
        default: Default::Nothing("file:secret.key in the data folder"),
        help: "Where the key of the stored secrets is: file:PATH (made at the first start), env:VARIABLE, or credential:NAME \
               (systemd's LoadCredential)",
    },
    Setting {
        name: "listen",
        value: "ADDR",
        default: Default::Is("127.0.0.1:7430"),
        help: "Where to serve workers, instances and operators",
    },
    Setting {
        name: "endpoint",
        value: "URL",
        default: Default::Nothing("made of the address, and of the names in the certificate"),
        help: "URL by which it is called; context.toml in the data folder has it",
    },
    Setting {
        name: "insecure",
        value: "",
        default: Default::Is("false"),
        help: "Listen beyond loopback in plaintext, where something else protects the connection",
    },
    Setting {
        name: "replica",
        value: "NAME",
        default: Default::Nothing("made of the name of the host"),
        help: "Name of this control plane among its replicas",
    },
    Setting {
        name: "worker-token-file",
        value: "FILE",
        default: Default::Nothing("worker.token in the data folder"),
        help: "Holds the token by which workers call; made at the first start when it is missing",
    },
    Setting {
        name: "blobs.url",
        value: "URL",
        default: Default::Is("folder"),
        help: "Where messages above 1 MiB are kept: folder (in the data folder), or s3://BUCKET[/PREFIX]",
    },
    Setting {
        name: "blobs.endpoint",
        value: "URL",
        default: Default::Nothing("that of Amazon in the region"),
        help: "The server of the bucket: https://HOST[:PORT]; http only on this machine, or with blobs.insecure",
    },
    Setting { name: "blobs.region", value: "NAME", default: Default::Is(REGION), help: "Region of the bucket" },
    Setting {
        name: "blobs.access-key",
        value: "ID",
        default: Default::Nothing("a folder asks for none"),
        help: "Id of the access key, which may read and write objects in the bucket",
    },
    Setting {
        name: "blobs.secret-key-file",
        value: "FILE",
        default: Default::Nothing("a folder asks for none"),
        help: "Holds the secret of the access key",
    },
    Setting {
        name: "blobs.ca-file",
        value: "FILE",
        default: Default::Nothing("the CA certificates of the system"),
        help: "PEM file with further CA certificates to trust for the bucket",
    },
    Setting {
        name: "blobs.insecure",
        value: "",
        default: Default::Is("false"),
        help: "Mail may go to the bucket in plaintext, where something else protects the connection",
    },
    Setting {
        name: "tls.certificate-file",
        value: "FILE",
        default: Default::Nothing("plaintext, unless tls.own-names says otherwise"),
        help: "PEM file with the server's certificate, and those between it and its CA; read again when it changes",
    },
    Setting {
        name: "tls.key-file",
        value: "FILE",
        default: Default::Nothing("no TLS"),
        help: "PEM file with the key of the server's certificate",
    },
    Setting {
        name: "tls.ca-file",
        value: "FILE",
        default: Default::Nothing("the CA certificates of the system"),
        help: "PEM file with the CA certificates by which commands on this machine trust the server",
    },
    Setting {
        name: "tls.client-ca-file",
        value: "FILE",
        default: Default::Nothing("only certificates made here"),
        help: "PEM file with the CAs whose certificates make a caller the worker that they name",
    },
    Setting {
        name: "tls.own-names",
        value: "NAME,…",
        default: Default::Nothing("a certificate comes by file"),
        help: "Makes a certificate of the installation's own CA for these names and addresses; ca.pem in the data folder",
    },
    Setting {
        name: "tls.worker-certificate-ttl",
        value: "TIME",
        default: Default::Is("720h"),
        help: "How long a worker's certificate holds that is made here; it is renewed by itself",
    },
    Setting {
        name: "limits.calls-per-second",
        value: "COUNT",
        default: Default::Is("2000"),
        help: "Calls of one token in the long run, for workers ten times as many; 0: no limit",
    },
    Setting {
        name: "lease.heartbeat",
        value: "TIME",
        default: Default::Is("2s"),
        help: "Time between two heartbeats of a worker",
    },
    Setting {
        name: "lease.heartbeat-timeout",
        value: "TIME",
        default: Default::Is("1s"),
        help: "How long a worker waits for the answer to a heartbeat",
    },
    Setting {
        name: "lease.ttl",
        value: "TIME",
        default: Default::Is("12s"),
        help: "A worker that is not heard for this time is given up, and its mailboxes go to others",
    },
    Setting {
        name: "lease.margin",
        value: "TIME",
        default: Default::Is("1s"),
        help: "How much earlier than that a worker stops by itself",
    },
    Setting {
        name: "lease.leader-ttl",
        value: "TIME",
        default: Default::Is("5s"),
        help: "A leader that does not renew its office for this time has lost it",
    },
    Setting {
        name: "outbox.max-mail-bytes",
        value: "BYTES",
        default: Default::Is("100MiB"),
        help: "Largest mail that is sent, with its attachments as they are encoded",
    },
    Setting {
        name: "outbox.max-attachment-bytes",
        value: "BYTES",
        default: Default::Is("10MiB"),
        help: "Largest attachment of a mail that is sent",
    },
    Setting {
        name: "outbox.connections",
        value: "COUNT",
        default: Default::Is("3"),
        help: "Mails that are handed over for one sending mailbox at one time, over all workers",
    },
    Setting {
        name: "outbox.per-minute",
        value: "COUNT",
        default: Default::Is("30"),
        help: "Mails that are handed over for one sending mailbox within a minute, over all workers",
    },
    Setting {
        name: "outbox.minute",
        value: "TIME",
        default: Default::Is("1m"),
        help: "What a minute is for the setting above",
    },
    Setting {
        name: "outbox.per-day",
        value: "COUNT",
        default: Default::Is("10000"),
        help: "Recipients of one sending mailbox within 24 h",
    },
    Setting {
        name: "outbox.claim-time",
        value: "TIME",
        default: Default::Is("2m"),
        help: "How long a worker has until it hands a mail over, besides a second for each 256 KiB; then it is queued again",
    },
    Setting {
        name: "outbox.answer-time",
        value: "TIME",
        default: Default::Is("10m15s"),
        help: "How long it has from then on for the server's answer, besides a second for each 256 KiB; then it is unknown",
    },
    Setting {
        name: "outbox.look-after",
        value: "TIME",
        default: Default::Is("10m"),
        help: "How long after such an attempt has ended its mail is looked for",
    },
    Setting {
        name: "outbox.give-up-after",
        value: "TIME",
        default: Default::Is("120h"),
        help: "A mail that could not be sent for this time has failed, unless somebody has to mend a definition",
    },
    Setting {
        name: "outbox.breaker",
        value: "COUNT",
        default: Default::Is("20"),
        help: "Mails from one address to another within an hour; further ones are refused",
    },
    Setting {
        name: "outbox.breaker-automatic",
        value: "COUNT",
        default: Default::Is("5"),
        help: "The same for mails that nobody wrote",
    },
    Setting {
        name: "observe.listen",
        value: "ADDR",
        default: Default::Is("127.0.0.1:7431"),
        help: "Where to serve metrics and health over HTTP, for those who can reach it; off: nowhere",
    },
    Setting {
        name: "observe.mailboxes",
        value: "COUNT",
        default: Default::Is("2000"),
        help: "Most mailboxes with metrics of their own; those that fail come first",
    },
    Setting {
        name: "observe.interval",
        value: "TIME",
        default: Default::Is("15s"),
        help: "Time between two looks at mailboxes, contacts, mails and workers, of which metrics are made",
    },
    choice::ENDPOINT_SETTING,
    choice::SHARE_SETTING,
    choice::CA_FILE_SETTING,
    Setting {
        name: "audit.keep",
        value: "TIME",
        default: Default::Is("8784h"),
        help: "How long the audit is kept: who changed what, and who was turned away",
    },
    Setting {
        name: "log.filter",
        value: "FILTER",
        default: Default::Is("info"),
        help: "What is logged: a level, or directives such as postroom_control_plane=debug,info",
    },
    Setting {
        name: "log.format",
        value: "FORMAT",
        default: Default::Is("text"),
        help: "text, or json with an object a line",
    },
];
