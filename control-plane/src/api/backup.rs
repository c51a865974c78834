//! Backups.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::v1::create_backup_response::Event as Sent;
use postroom_proto::v1::{self, backup_service_server::BackupService};
use tonic::{Request, Response, Status};

use crate::backup::Event;
use crate::backup::making::Backups;

#[tonic::async_trait]
impl BackupService for Backups {
    type CreateBackupStream = BoxStream<'static, Result<v1::CreateBackupResponse, Status>>;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let making = self.begin(request.into_inner().include_key)?;
        let events = futures::stream::try_unfold(making, |mut making| async move {
            let event = making.next().await.map_err(Status::from)?;
            Ok(event.map(|event| (encode(event), making)))
        });
        Ok(Response::new(events.boxed()))
    }
}

fn encode(event: Event) -> v1::CreateBackupResponse {
    let event = match event {
        Event::Progress(progress) => Sent::Progress(progress),
        Event::Chunk(chunk) => Sent::Chunk(chunk),
        Event::Done(backup) => Sent::Backup(backup),
    };
    v1::CreateBackupResponse { event: Some(event) }
}
