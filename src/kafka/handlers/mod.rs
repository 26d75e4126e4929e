//! What each API does, one module per theme. Handlers hold no sockets and no state.

mod epochs;
mod fetch;
mod groups;
mod metadata;
mod offsets;
pub(super) mod produce;
mod producer_ids;
mod topics;
mod versions;

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
pub(super) use versions::unknown_api_versions;

use super::broker::{Asker, Broker};
use super::protocol::{Request, Response};

/// What an answer takes of the door's limits until it is written.
pub(super) type Held = Option<OwnedSemaphorePermit>;

/// Answers every request; a Produce only where the connection has not admitted it before its turn.
pub(super) async fn handle(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: Request,
    held: &mut Held,
) -> Response {
    match request {
        Request::ApiVersions(request) => versions::api_versions(asker, &request).into(),
        Request::Metadata(request) => metadata::metadata(broker, asker, request).await.into(),
        Request::FindCoordinator(request) => {
            metadata::find_coordinator(broker, asker, request).into()
        }
        Request::Produce(request) => produce::answer(broker, asker, request).await.into(),
        Request::Fetch(request) => fetch::fetch(broker, asker, request, held).await.into(),
        Request::ListOffsets(request) => offsets::list_offsets(broker, asker, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => epochs::offset_for_leader_epoch(broker, request)
            .await
            .into(),
        Request::InitProducerId(request) => {
            producer_ids::init_producer_id(broker, request).await.into()
        }
        Request::CreateTopics(request) => topics::create_topics(broker, request).await.into(),
        Request::DeleteTopics(request) => topics::delete_topics(broker, request).await.into(),
        Request::DeleteRecords(request) => topics::delete_records(broker, request).await.into(),
        Request::JoinGroup(request) => groups::join(broker, asker, request).await.into(),
        Request::SyncGroup(request) => groups::sync(broker, request).await.into(),
        Request::Heartbeat(request) => groups::heartbeat(broker, request).into(),
        Request::LeaveGroup(request) => groups::leave(broker, asker, request).into(),
        Request::OffsetCommit(request) => groups::commit(broker, asker, request).await.into(),
        Request::OffsetFetch(request) => groups::fetch_offsets(broker, asker, request).into(),
    }
}
