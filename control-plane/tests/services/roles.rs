//! Every role and every RPC, over real gRPC: what is allowed gets through the gate, and nothing else does.

use http::uri::PathAndQuery;
use postroom_proto::reason::Reason;
use postroom_proto::v1;
use prost_reflect::DescriptorPool;
use secrecy::SecretString;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::bench::{bearing, reason};
use crate::secured::Secured;

/// RPC, and who may call it: Admin, Operator, Viewer, Instance, Worker, Enrolling. Written down apart from the table that
/// the gate uses, so that a slip there is noticed.
const MATRIX: &[(&str, &str)] = &[
    ("AccessService/CreateToken", "A"),
    ("AccessService/EnrollWorker", "A"),
    ("AccessService/ListCredentials", "A"),
    ("AccessService/RequestCertificate", "WE"),
    ("AccessService/RevokeCredentials", "A"),
    ("AuditService/ListAudit", "A"),
    ("BackupService/CreateBackup", "A"),
    ("ContactService/AcceptContacts", "AI"),
    ("ContactService/AllocateContacts", "AI"),
    ("ContactService/EndContacts", "AI"),
    ("ContactService/ExtendContacts", "AI"),
    ("ContactService/GetAttachment", "AOI"),
    ("ContactService/GetContact", "AOVI"),
    ("ContactService/GetRawMessage", "AOI"),
    ("ContactService/ListContacts", "AOVI"),
    ("ContactService/RejectContacts", "AI"),
    ("ContactService/RequeueContacts", "AOI"),
    ("ContactService/TransferContacts", "AOI"),
    ("ContactService/WatchContacts", "AOVI"),
    ("DefinitionService/ApplyModel", "A"),
    ("DefinitionService/CompareRevisions", "AOV"),
    ("DefinitionService/ExportModel", "AOV"),
    ("DefinitionService/GetIncomingServer", "AOV"),
    ("DefinitionService/GetInstance", "AOV"),
    ("DefinitionService/GetOutgoingServer", "AOV"),
    ("DefinitionService/GetQueue", "AOV"),
    ("DefinitionService/GetRollout", "AOV"),
    ("DefinitionService/GetSystem", "AOV"),
    ("DefinitionService/ListIncomingServers", "AOV"),
    ("DefinitionService/ListInstances", "AOV"),
    ("DefinitionService/ListOutgoingServers", "AOV"),
    ("DefinitionService/ListQueues", "AOV"),
    ("DefinitionService/ListRevisions", "AOV"),
    ("DefinitionService/RollbackModel", "A"),
    ("ErrandService/ReportErrand", "W"),
    ("ErrandService/TakeErrands", "W"),
    ("LeaseService/Heartbeat", "W"),
    ("LeaseService/Leave", "W"),
    ("LeaseService/Register", "W"),
    ("LeaseService/WatchNudge", "W"),
    ("MessageService/DiscardMessage", "AO"),
    ("MessageService/GetMessage", "AOV"),
    ("MessageService/GetMessageRaw", "AO"),
    ("MessageService/ListMessages", "AOV"),
    ("MessageService/ReconcileMailbox", "AOV"),
    ("MessageService/ReplayMessage", "AO"),
    ("OperatorService/ApproveBacklog", "AO"),
    ("OperatorService/CheckIncomingServer", "AO"),
    ("OperatorService/CheckMailbox", "AO"),
    ("OperatorService/CheckOutgoingServer", "AO"),
    ("OperatorService/GetBacklog", "AOV"),
    ("OperatorService/GetMailbox", "AOV"),
    ("OperatorService/GetStatus", "AOV"),
    ("OperatorService/GetVersion", "AOVIW"),
    ("OperatorService/ListMailboxes", "AOV"),
    ("OperatorService/StopBacklog", "AO"),
    ("OutboxService/CancelOutboxMail", "AOI"),
    ("OutboxService/ConfirmOutboxMail", "AOI"),
    ("OutboxService/GetOutboxMail", "AOVI"),
    ("OutboxService/GetOutboxRaw", "AOI"),
    ("OutboxService/ListOutbox", "AOVI"),
    ("OutboxService/Reply", "AI"),
    ("OutboxService/RetryOutboxMail", "AOI"),
    ("OutboxService/Send", "AI"),
    ("OutboxService/WatchOutbox", "AOVI"),
    ("ReportService/FindKnown", "W"),
    ("ReportService/OpenMailboxes", "W"),
    ("ReportService/Report", "W"),
    ("ReportService/ReportStatus", "W"),
    ("ReportService/UploadBlob", "W"),
    ("SecretService/RotateKey", "A"),
    ("SendService/ClaimMails", "W"),
    ("SendService/GetClaimedRaw", "W"),
    ("SendService/MarkSubmitting", "W"),
    ("SendService/SettleMail", "W"),
    ("StoreService/AdoptStore", "A"),
    ("StoreService/GetStore", "AOV"),
    ("WorkerService/DrainWorker", "AO"),
    ("WorkerService/FreezeWorkers", "AO"),
    ("WorkerService/ListWorkers", "AOV"),
    ("WorkerService/SetWorkerRole", "AO"),
    ("WorkerService/UndrainWorker", "AO"),
    ("WorkerService/UnfreezeWorkers", "AO"),
];

#[test]
fn the_matrix_has_every_rpc() {
    let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    let mut served: Vec<String> = pool
        .services()
        .flat_map(|service| {
            let name = service.name().to_owned();
            service.methods().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
        })
        .collect();
    served.sort();
    let listed: Vec<&str> = MATRIX.iter().map(|(rpc, _)| *rpc).collect();
    assert_eq!(served, listed, "in order");
}

/// Calls with an empty message, and says how it was answered: whatever is wrong with the message is said behind the gate.
async fn call(channel: &Channel, rpc: &str, token: Option<&SecretString>) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/postroom.v1.{rpc}").parse().unwrap();
    let request = match token {
        Some(token) => bearing(token, ()),
        None => Request::new(()),
    };
    // An empty message is a message of any kind, and what comes back is not looked at.
    grpc.server_streaming(request, path, ProstCodec::<(), ()>::default()).await.map(drop)
}

/// True when the gate has refused the call for its role.
fn is_turned_away(answer: &Result<(), Status>, rpc: &str) -> bool {
    let Err(status) = answer else { return false };
    let turned_away = status.message().contains(&format!("may not call /postroom.v1.{rpc}"));
    assert!(!turned_away || reason(status) == Reason::PermissionDenied, "{status:?}");
    turned_away
}

#[tokio::test]
async fn every_role_gets_to_its_own_calls_and_to_no_other() {
    let data = tempfile::tempdir().unwrap();
    let plane = Secured::start(data.path()).await;
    crate::bench::define_mailbox(&plane.channel(), &plane.admin).await;
    let token = async |role: &str, instance: &str, worker: &str| {
        let (name, role) = (format!("{role}-{worker}"), role.into());
        let request =
            v1::CreateTokenRequest { name, role, instance: instance.into(), worker: worker.into(), ttl: None };
        plane.token(request).await
    };
    let bearers = [
        ('A', plane.admin.clone()),
        ('A', token("admin", "", "").await),
        ('O', token("operator", "", "").await),
        ('V', token("viewer", "", "").await),
        ('I', token("instance", "core1", "").await),
        ('W', plane.worker.clone()),
        ('W', token("worker", "", "").await),
        ('W', token("worker", "", "mail-1").await),
        ('E', plane.enrolment("mail-2").await),
    ];
    let (bare, certified) = (plane.channel(), plane.showing(&plane.enrolled("mail-3").await));
    for (rpc, may) in MATRIX {
        for (role, token) in &bearers {
            let answer = call(&bare, rpc, Some(token)).await;
            assert_eq!(!is_turned_away(&answer, rpc), may.contains(*role), "{role} {rpc}: {answer:?}");
            if let Err(status) = &answer {
                assert_ne!(status.code(), tonic::Code::Unauthenticated, "{role} {rpc}");
            }
        }
        let answer = call(&certified, rpc, None).await;
        assert_eq!(!is_turned_away(&answer, rpc), may.contains('W'), "certificate {rpc}: {answer:?}");
        for nobody in [None, Some("forged".to_owned().into()), Some(String::new().into())] {
            let answer = call(&bare, rpc, nobody.as_ref()).await;
            assert_eq!(reason(&answer.unwrap_err()), Reason::Unauthenticated, "{rpc}");
        }
    }
    plane.app.stop().await;
}
