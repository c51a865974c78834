//! The key of the stored secrets.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::v1::rotate_key_response::Event as Sent;
use postroom_proto::v1::{self, secret_service_server::SecretService};
use tonic::{Request, Response, Status};

use crate::rotation::{Event, Rotations};

#[tonic::async_trait]
impl SecretService for Rotations {
    type RotateKeyStream = BoxStream<'static, Result<v1::RotateKeyResponse, Status>>;

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<Self::RotateKeyStream>, Status> {
        let rotating = self.begin(request.into_inner().validate_only)?;
        let events = futures::stream::try_unfold(rotating, |mut rotating| async move {
            let event = rotating.next().await.map_err(Status::from)?;
            Ok(event.map(|event| (encode(event), rotating)))
        });
        Ok(Response::new(events.boxed()))
    }
}

fn encode(event: Event) -> v1::RotateKeyResponse {
    let event = match event {
        Event::Progress(progress) => Sent::Progress(progress),
        Event::Done(rotation) => Sent::Rotation(rotation),
    };
    v1::RotateKeyResponse { event: Some(event) }
}
