//! InitProducerId: identities for idempotent and transactional producers (KIP-98, KIP-360).

use holdfast_storage::log::{ProducerId, ProducerIdentity};

use super::super::broker::{Asker, Broker};
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use super::produce::{append_error, transaction_error};

/// PRODUCER_FENCED is known from here on (KIP-588).
const FENCED_SINCE_VERSION: i16 = 4;

/// Without a transactional id a fresh producer id at epoch 0, whatever the producer had before, as Kafka
/// answers.
pub(super) async fn init_producer_id(
    broker: &Broker,
    asker: &Asker,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let is_half = (request.producer_id == -1) != (request.producer_epoch == -1);
    let begun = match &request.transactional_id {
        _ if is_half => Err(ErrorCode::InvalidRequest),
        None => fresh(broker).await,
        Some(id) => begin(broker, id.as_str(), &request).await,
    };
    match begun {
        Ok(identity) => InitProducerIdResponse {
            producer_id: identity.id.0,
            producer_epoch: identity.epoch,
            ..Default::default()
        },
        Err(error) => InitProducerIdResponse {
            error_code: match error {
                ErrorCode::ProducerFenced if asker.version < FENCED_SINCE_VERSION => {
                    ErrorCode::InvalidProducerEpoch.code()
                }
                // Producers ask again after this one.
                ErrorCode::NotLeaderOrFollower => ErrorCode::CoordinatorNotAvailable.code(),
                other => other.code(),
            },
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

async fn fresh(broker: &Broker) -> Result<ProducerIdentity, ErrorCode> {
    let id = broker.log.new_producer_id().await;
    let id = id.map_err(|error| append_error(&error).0)?;
    Ok(ProducerIdentity { id, epoch: 0 })
}

async fn begin(
    broker: &Broker,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<ProducerIdentity, ErrorCode> {
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let timeout_ms_max = broker.config.transactions.timeout_ms_max;
    let timeout_ms = u32::try_from(request.transaction_timeout_ms).ok();
    let timeout_ms = timeout_ms.filter(|ms| (1..=timeout_ms_max).contains(ms));
    let timeout_ms = timeout_ms.ok_or(ErrorCode::InvalidTransactionTimeout)?;
    let believed = match (request.producer_id, request.producer_epoch) {
        (-1, _) => None,
        (id, epoch) => Some(ProducerIdentity {
            id: ProducerId(id),
            epoch,
        }),
    };
    let begun = broker.log.begin_producer(id, timeout_ms, believed).await;
    begun.map_err(|error| transaction_error(&error).0)
}
