//! `DefinitionService`.

use std::sync::Arc;
use std::time::SystemTime;

use postroom_proto::convert;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use postroom_proto::v1::definition_service_server::DefinitionService;
use tonic::{Request, Response, Status};

use super::by;
use super::page::Page;
use crate::access::vault::Vault;
use crate::audit::Changes;
use crate::binding::Binding;
use crate::definition::{self, Author, Definitions, Ground, history, rollout, wire};
use crate::lease::handle::Handle;
use crate::ledger::SharedLedger;

/// Serves definitions.
pub struct Service {
    definitions: Arc<Definitions>,
    vault: Arc<Vault>,
    ledger: SharedLedger,
    leader: Handle,
    binding: Binding,
    /// Name of this replica.
    replica: String,
}

impl Service {
    /// Serves these definitions; secrets are sealed with this vault, and the ledger is asked what a change leaves behind.
    /// The leader, asked by the replica of this name, knows what the workers run. Nothing is changed in a store that is not
    /// the ledger's.
    pub fn new(
        definitions: Arc<Definitions>,
        vault: Arc<Vault>,
        ledger: SharedLedger,
        leader: Handle,
        binding: Binding,
        replica: String,
    ) -> Self {
        Self { definitions, vault, ledger, leader, binding, replica }
    }

    fn ground(&self) -> Ground<'_> {
        Ground { definitions: &self.definitions, vault: &self.vault, ledger: &*self.ledger }
    }
}

fn author<T>(request: &Request<T>) -> Result<Author, Failure> {
    Ok(Author { name: by(request.extensions())?, time: convert::micros(SystemTime::now()) })
}

/// The answer, with what the audit is to know of it.
fn told(applied: v1::ApplyModelResponse, only_asks: bool) -> Response<v1::ApplyModelResponse> {
    let changes = Changes::of_model(&applied, only_asks);
    let mut response = Response::new(applied);
    response.extensions_mut().insert(changes);
    response
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DefinitionService for Service {
    async fn apply_model(&self, request: Request<v1::ApplyModelRequest>) -> Answer<v1::ApplyModelResponse> {
        self.binding.standing().require()?;
        let author = author(&request)?;
        let request = request.into_inner();
        let only_asks = request.validate_only;
        let applied = Box::pin(definition::apply(self.ground(), request, &author)).await?;
        Ok(told(applied, only_asks))
    }

    async fn rollback_model(&self, request: Request<v1::RollbackModelRequest>) -> Answer<v1::ApplyModelResponse> {
        self.binding.standing().require()?;
        let author = author(&request)?;
        let request = request.into_inner();
        let only_asks = request.validate_only;
        let applied = Box::pin(definition::roll_back(self.ground(), request, &author)).await?;
        Ok(told(applied, only_asks))
    }

    async fn export_model(&self, request: Request<v1::ExportModelRequest>) -> Answer<v1::ExportModelResponse> {
        let exported = Box::pin(definition::export(&self.definitions, request.into_inner().revision)).await?;
        Ok(Response::new(exported))
    }

    async fn list_revisions(&self, request: Request<v1::ListRevisionsRequest>) -> Answer<v1::ListRevisionsResponse> {
        let request = request.into_inner();
        let mut page = Page::read(request.page_size, &request.page_token, &["revisions"])?;
        page.size = if request.page_size == 0 { history::DEFAULT_PAGE } else { page.size.min(history::PAGE) };
        // Pages go on behind a key that grows, and these are listed newest first.
        let newest = self.definitions.model().revision();
        let (numbers, next_page_token) = page.cut((1..=newest).rev(), |number| format!("{:020}", u64::MAX - number));
        let revisions = Box::pin(history::revisions(&self.definitions, &numbers)).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListRevisionsResponse { revisions, next_page_token }))
    }

    async fn compare_revisions(
        &self,
        request: Request<v1::CompareRevisionsRequest>,
    ) -> Answer<v1::CompareRevisionsResponse> {
        let compared = Box::pin(history::changes(&self.definitions, request.get_ref())).await?;
        Ok(Response::new(compared))
    }

    async fn get_rollout(&self, _: Request<v1::GetRolloutRequest>) -> Answer<v1::Rollout> {
        let running = self.leader.running().await?;
        // Ordering: the model last, so that a revision which was applied meanwhile has not arrived rather than too early.
        Ok(Response::new(rollout::rollout(&self.definitions.model(), &self.replica, &running)))
    }

    async fn get_system(&self, _: Request<v1::GetSystemRequest>) -> Answer<v1::System> {
        Ok(Response::new(wire::system(self.definitions.model().system())))
    }

    async fn list_outgoing_servers(
        &self,
        request: Request<v1::ListOutgoingServersRequest>,
    ) -> Answer<v1::ListOutgoingServersResponse> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, &["outgoing-servers"])?;
        let model = self.definitions.model();
        let (rows, next_page_token) = page.cut(model.outgoing(), |it| it.name.clone());
        let outgoing_servers = rows.into_iter().map(|it| wire::outgoing_server(it)).collect();
        Ok(Response::new(v1::ListOutgoingServersResponse { outgoing_servers, next_page_token }))
    }

    async fn get_outgoing_server(&self, request: Request<v1::GetOutgoingServerRequest>) -> Answer<v1::OutgoingServer> {
        let asked = request.into_inner().outgoing_server;
        let model = self.definitions.model();
        let found = model.outgoing_server(&asked).ok_or_else(|| missing("outgoing server", &asked))?;
        Ok(Response::new(wire::outgoing_server(found)))
    }

    async fn list_instances(&self, request: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, &["instances"])?;
        let model = self.definitions.model();
        let (rows, next_page_token) = page.cut(model.instances(), |it| it.name.clone());
        let instances = rows.into_iter().map(|it| wire::instance(it)).collect();
        Ok(Response::new(v1::ListInstancesResponse { instances, next_page_token }))
    }

    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Answer<v1::Instance> {
        let asked = request.into_inner().instance;
        let model = self.definitions.model();
        let found = model.instance(&asked).ok_or_else(|| missing("instance", &asked))?;
        Ok(Response::new(wire::instance(found)))
    }

    async fn list_incoming_servers(
        &self,
        request: Request<v1::ListIncomingServersRequest>,
    ) -> Answer<v1::ListIncomingServersResponse> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, &["incoming-servers"])?;
        let model = self.definitions.model();
        let (rows, next_page_token) = page.cut(model.servers(), |it| it.name.clone());
        let incoming_servers = rows.into_iter().map(|it| wire::server(it)).collect();
        Ok(Response::new(v1::ListIncomingServersResponse { incoming_servers, next_page_token }))
    }

    async fn get_incoming_server(&self, request: Request<v1::GetIncomingServerRequest>) -> Answer<v1::IncomingServer> {
        let asked = request.into_inner().incoming_server;
        let model = self.definitions.model();
        let found = model.server(&asked).ok_or_else(|| missing("incoming server", &asked))?;
        Ok(Response::new(wire::server(found)))
    }

    async fn list_queues(&self, request: Request<v1::ListQueuesRequest>) -> Answer<v1::ListQueuesResponse> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token, &["queues"])?;
        let model = self.definitions.model();
        let (rows, next_page_token) = page.cut(model.queues(), |it| it.name.clone());
        let queues = rows.into_iter().map(|it| wire::queue(it, &model)).collect();
        Ok(Response::new(v1::ListQueuesResponse { queues, next_page_token }))
    }

    async fn get_queue(&self, request: Request<v1::GetQueueRequest>) -> Answer<v1::Queue> {
        let asked = request.into_inner().queue;
        let model = self.definitions.model();
        let found = model.queue(&asked).ok_or_else(|| missing("queue", &asked))?;
        Ok(Response::new(wire::queue(found, &model)))
    }
}

fn missing(what: &str, asked: &str) -> Failure {
    Failure::new(Reason::NotFound, format!("there is no {what} {asked:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::caller::Caller;
    use crate::access::role::Role;
    use crate::store::sqlite::Sqlite;

    async fn service() -> Service {
        let key = secrecy::SecretString::from("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let store = Arc::new(Sqlite::memory().await.unwrap());
        let definitions = Definitions::load(store.clone()).await.unwrap();
        let ledger = Arc::new(crate::ledger::sqlite::Sqlite::open(&crate::sqlite::Location::Memory).await.unwrap());
        let ground = crate::binding::Ground {
            store,
            location: String::new(),
            ledger: ledger.clone(),
            former: None,
            quiet: std::time::Duration::ZERO,
        };
        let binding = Binding::open(ground).await.unwrap();
        let vault = Arc::new(Vault::from_text(&key).unwrap());
        let (leader, _) = crate::lease::handle::pair();
        Service::new(Arc::new(definitions), vault, ledger, leader, binding, "r1".into())
    }

    #[tokio::test]
    async fn what_is_applied_is_listed_found_and_exported() {
        let service = service().await;
        let instances = (0..250).map(|n| v1::Instance { name: format!("core{n:03}"), ..Default::default() }).collect();
        let model = v1::Model { instances, ..Default::default() };
        let mut request = Request::new(v1::ApplyModelRequest { model: Some(model), ..Default::default() });
        request.extensions_mut().insert(Caller::new("ada", Role::Admin));
        let applied = service.apply_model(request).await.unwrap().into_inner();
        assert_eq!((applied.revision, applied.changes.len()), (1, 250));

        let (mut seen, mut page_token) = (Vec::new(), String::new());
        let mut sizes = Vec::new();
        loop {
            let request = v1::ListInstancesRequest { page_size: 0, page_token };
            let page = service.list_instances(Request::new(request)).await.unwrap().into_inner();
            sizes.push(page.instances.len());
            seen.extend(page.instances);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [100, 100, 50]);
        assert!(seen.is_sorted_by(|a, b| a.name < b.name));
        for instance in [&seen[7].name, &seen[7].uid] {
            let request = Request::new(v1::GetInstanceRequest { instance: instance.clone() });
            assert_eq!(service.get_instance(request).await.unwrap().into_inner(), seen[7]);
        }
        let exported =
            service.export_model(Request::new(v1::ExportModelRequest::default())).await.unwrap().into_inner();
        assert_eq!((exported.revision, exported.model.unwrap().instances), (1, seen));
    }

    #[tokio::test]
    async fn what_is_not_there_and_tokens_of_other_lists_are_refused() {
        let service = service().await;
        let reason = |status: Status| Failure::from_status(&status).unwrap().reason;
        let request = Request::new(v1::GetQueueRequest { queue: "Münster / \"Büro\"".into() });
        assert_eq!(reason(service.get_queue(request).await.unwrap_err()), Reason::NotFound);
        let page_token = Page::read(0, "", &["instances"]).unwrap().next("a");
        let request = Request::new(v1::ListQueuesRequest { page_size: 0, page_token });
        assert_eq!(reason(service.list_queues(request).await.unwrap_err()), Reason::InvalidField);
    }
}
