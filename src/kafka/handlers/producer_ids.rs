//! InitProducerId: identities for idempotent producers (KIP-98).

use super::super::broker::Broker;
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use super::produce::append_error;

/// A fresh id at epoch 0, whatever the producer had before, as Kafka answers without a transactional
/// id. With one it is refused: there are no transactions.
pub(super) async fn init_producer_id(
    broker: &Broker,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_epoch: -1,
        ..Default::default()
    };
    match request.transactional_id {
        Some(id) if id.is_empty() => return refused(ErrorCode::InvalidRequest),
        Some(_) => return refused(ErrorCode::UnsupportedVersion),
        None => {}
    }
    match broker.log.new_producer_id().await {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.0,
            ..Default::default()
        },
        Err(error) => refused(match append_error(&error).0 {
            // Producers ask again after this one.
            ErrorCode::NotLeaderOrFollower => ErrorCode::CoordinatorNotAvailable,
            code => code,
        }),
    }
}
