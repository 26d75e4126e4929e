//! Transactions: the wire side of their steps, and what administrators ask of them. The log decides.
//!
//! The lists of what is asked are bounded by the frame; every answer is as long as its request at most,
//! except for lists of everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_storage::log::{
    Outcome, Partition, ProducerId, ProducerIdentity, TransactionDescription, TransactionState,
};
use tokio::task::consume_budget;

use super::super::access::{Access, Operation, sentence};
use super::super::broker::{Asker, Broker, TopicRef};
use super::super::groups::{CommitRequest, GroupError, OffsetToCommit, WithinTransaction};
use super::super::protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult, AddPartitionsToTxnTransaction,
    DescribeProducersPartition, DescribeProducersRequest, DescribeProducersResponse,
    DescribeProducersTopicResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    DescribedTransaction, DescribedTransactionTopic, EndTxnRequest, EndTxnResponse,
    ListTransactionsRequest, ListTransactionsResponse, ListedTransaction, ProducerState,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic, WritableTxnMarker, WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult, WritableTxnMarkerTopicResult, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use super::super::protocol::{ErrorCode, Str};
use super::produce::transaction_error;
use super::topics::check_name;

/// PRODUCER_FENCED is known from here on; before, it is INVALID_PRODUCER_EPOCH (KIP-588).
const FENCED_SINCE_VERSION: i16 = 2;
/// AddPartitionsToTxn: several transactions, asked by brokers (KIP-890).
const BATCH_SINCE_VERSION: i16 = 4;
/// EndTxn: the epoch rises with every transaction (KIP-890).
const RAISES_EPOCH_SINCE_VERSION: i16 = 5;
/// TxnOffsetCommit: TRANSACTION_ABORTABLE is known from here on (KIP-890).
const ABORTABLE_SINCE_VERSION: i16 = 4;
/// TxnOffsetCommit: offsets become part of the transaction by being sent (KIP-890).
const ADDS_SINCE_VERSION: i16 = 5;

fn identity(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch,
    }
}

fn for_version(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced if version < FENCED_SINCE_VERSION => {
            ErrorCode::InvalidProducerEpoch
        }
        other => other,
    }
}

pub(super) async fn add_partitions(
    broker: &Broker,
    asker: &Asker,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let access = broker.access(asker);
    if asker.version >= BATCH_SINCE_VERSION {
        if let Err(error) = access.to_cluster(Operation::ClusterAction) {
            return AddPartitionsToTxnResponse {
                error_code: error.code(),
                ..Default::default()
            };
        }
        let mut results = Vec::with_capacity(request.transactions.len());
        for transaction in request.transactions {
            let topic_results = add_some(broker, asker, &transaction).await;
            results.push(AddPartitionsToTxnResult {
                transactional_id: transaction.transactional_id,
                topic_results,
            });
        }
        return AddPartitionsToTxnResponse {
            results_by_transaction: results,
            ..Default::default()
        };
    }
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        producer_epoch: request.v3_and_below_producer_epoch,
        verify_only: false,
        topics: request.v3_and_below_topics,
    };
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: add_some(broker, asker, &transaction).await,
        ..Default::default()
    }
}

/// All of a transaction's partitions, or none of them.
async fn add_some(
    broker: &Broker,
    asker: &Asker,
    asked: &AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let (access, version) = (broker.access(asker), asker.version);
    // From then on it is brokers who ask, on behalf of clients whose rights they have looked at.
    let is_client = version < BATCH_SINCE_VERSION;
    let id = asked.transactional_id.as_str();
    let refused = is_client.then(|| access.to_transactional_id(Operation::Write, id).err());
    let refused = refused.flatten();
    let (mut partitions, mut named) = (Vec::new(), HashSet::new());
    let mut wrong = HashMap::new();
    // By places, not names: a long name would be hashed for each of its partitions.
    for (place, topic) in asked.topics.iter().enumerate() {
        let topic_ref = TopicRef::Name(topic.name.clone());
        for &index in &topic.partitions {
            consume_budget().await;
            let found = match is_client && refused.is_none() {
                true => access.partition(Operation::Write, &topic_ref, index),
                false => broker.partition(&topic_ref, index),
            };
            match found {
                Ok(partition) if named.insert((topic.name.clone(), index)) => {
                    partitions.push(partition);
                }
                Ok(_) => {}
                Err(error) => drop(wrong.insert((place, index), error)),
            }
        }
    }
    if refused.is_some() {
        wrong.clear();
    }
    let outcome = if let Some(error) = refused {
        error
    } else if !wrong.is_empty() {
        ErrorCode::OperationNotAttempted
    } else if asked.verify_only {
        verify(broker, asked, &partitions)
    } else {
        let producer = identity(asked.producer_id, asked.producer_epoch);
        let id = asked.transactional_id.as_str();
        let added = (broker.log).add_to_transaction(id, producer, partitions, false);
        match added.await {
            _ if id.is_empty() => ErrorCode::InvalidRequest,
            Ok(()) => ErrorCode::None,
            Err(error) => for_version(transaction_error(&error).0, version),
        }
    };
    let result =
        |(place, topic): (usize, &AddPartitionsToTxnTopic)| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: (topic.partitions.iter())
                .map(|&partition_index| {
                    let own = wrong.get(&(place, partition_index));
                    let error = own.copied().unwrap_or(outcome);
                    AddPartitionsToTxnPartitionResult {
                        partition_index,
                        partition_error_code: error.code(),
                    }
                })
                .collect(),
        };
    asked.topics.iter().enumerate().map(result).collect()
}

/// Whether all of them are in the transaction already.
fn verify(
    broker: &Broker,
    asked: &AddPartitionsToTxnTransaction,
    partitions: &[Arc<Partition>],
) -> ErrorCode {
    let Some(known) = broker.log.transaction(asked.transactional_id.as_str()) else {
        return ErrorCode::InvalidProducerIdMapping;
    };
    if known.value.producer_id != asked.producer_id {
        return ErrorCode::InvalidProducerIdMapping;
    }
    if known.value.epoch != asked.producer_epoch {
        return ErrorCode::ProducerFenced;
    }
    let known: HashSet<*const Partition> = known.partitions.iter().map(Arc::as_ptr).collect();
    if partitions
        .iter()
        .map(Arc::as_ptr)
        .all(|p| known.contains(&p))
    {
        ErrorCode::None
    } else {
        ErrorCode::TransactionAbortable
    }
}

pub(super) async fn add_offsets(
    broker: &Broker,
    asker: &Asker,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let id = request.transactional_id.as_str();
    let producer = identity(request.producer_id, request.producer_epoch);
    let access = broker.access(asker);
    let allowed = access
        .to_transactional_id(Operation::Write, id)
        .and_then(|()| access.to_group(Operation::Read, request.group_id.as_str()));
    let error = if let Err(error) = allowed {
        error
    } else if id.is_empty() {
        ErrorCode::InvalidRequest
    } else {
        let added = (broker.log).add_to_transaction(id, producer, Vec::new(), true);
        match added.await {
            Ok(()) => ErrorCode::None,
            Err(error) => for_version(transaction_error(&error).0, asker.version),
        }
    };
    AddOffsetsToTxnResponse {
        error_code: error.code(),
        ..Default::default()
    }
}

pub(super) async fn end(broker: &Broker, asker: &Asker, request: EndTxnRequest) -> EndTxnResponse {
    let id = request.transactional_id.as_str();
    let refused = |error: ErrorCode| EndTxnResponse {
        error_code: error.code(),
        ..Default::default()
    };
    let access = broker.access(asker);
    if let Err(error) = access.to_transactional_id(Operation::Write, id) {
        return refused(error);
    }
    if id.is_empty() {
        return refused(ErrorCode::InvalidRequest);
    }
    let producer = identity(request.producer_id, request.producer_epoch);
    let outcome = outcome(request.committed);
    let raises_epoch = asker.version >= RAISES_EPOCH_SINCE_VERSION;
    let ended = (broker.log).end_transaction(id, producer, outcome, raises_epoch);
    match ended.await {
        Ok(next) => EndTxnResponse {
            producer_id: next.id.0,
            producer_epoch: next.epoch,
            ..Default::default()
        },
        Err(error) => refused(for_version(transaction_error(&error).0, asker.version)),
    }
}

fn outcome(commits: bool) -> Outcome {
    if commits {
        Outcome::Commit
    } else {
        Outcome::Abort
    }
}

/// For administrators who end what no coordinator ends (KIP-664).
pub(super) async fn write_markers(
    broker: &Broker,
    asker: &Asker,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let access = broker.access(asker);
    let allowed = access.to_cluster(Operation::Alter);
    let allowed = allowed.or_else(|_| access.to_cluster(Operation::ClusterAction));
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        markers.push(write_marker(broker, allowed, marker).await);
    }
    WriteTxnMarkersResponse { markers }
}

async fn write_marker(
    broker: &Broker,
    allowed: Result<(), ErrorCode>,
    marker: WritableTxnMarker,
) -> WritableTxnMarkerResult {
    let producer = identity(marker.producer_id, marker.producer_epoch);
    let outcome = outcome(marker.transaction_result);
    let mut topics = Vec::with_capacity(marker.topics.len());
    for topic in marker.topics {
        let topic_ref = TopicRef::Name(topic.name.clone());
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            consume_budget().await;
            let found = allowed.and_then(|()| broker.partition(&topic_ref, partition_index));
            let error = match found {
                Ok(partition) => {
                    let ended = (broker.log).end_transaction_in(&partition, producer, outcome);
                    match ended.await.map_err(|error| transaction_error(&error).0) {
                        Ok(()) => ErrorCode::None,
                        Err(ErrorCode::ProducerFenced) => ErrorCode::InvalidProducerEpoch,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            partitions.push(WritableTxnMarkerPartitionResult {
                partition_index,
                error_code: error.code(),
            });
        }
        topics.push(WritableTxnMarkerTopicResult {
            name: topic.name,
            partitions,
        });
    }
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics,
    }
}

pub(super) async fn commit_offsets(
    broker: &Broker,
    asker: &Asker,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let owned = |text: &Str| text.as_str().to_owned();
    let access = broker.access(asker);
    let id = request.transactional_id.as_str();
    let allowed = access
        .to_transactional_id(Operation::Write, id)
        .and_then(|()| access.to_group(Operation::Read, request.group_id.as_str()));
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let topic_ref = TopicRef::Name(topic.name.clone());
        let found = allowed.and_then(|()| access.topic(Operation::Read, &topic_ref));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            consume_budget().await;
            let error = match &found {
                Err(error) => *error,
                Ok(topic) if topic.partition(wanted.partition_index).is_none() => {
                    ErrorCode::UnknownTopicOrPartition
                }
                Ok(topic) => {
                    offsets.push(OffsetToCommit {
                        topic: topic.id(),
                        partition: wanted.partition_index,
                        offset: wanted.committed_offset,
                        leader_epoch: wanted.committed_leader_epoch,
                        metadata: (wanted.committed_metadata.as_ref())
                            .map(owned)
                            .unwrap_or_default(),
                    });
                    ErrorCode::None
                }
            };
            partitions.push(TxnOffsetCommitResponsePartition {
                partition_index: wanted.partition_index,
                error_code: error.code(),
            });
        }
        topics.push(TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions,
        });
    }
    if allowed.is_err() {
        return TxnOffsetCommitResponse {
            topics,
            ..Default::default()
        };
    }
    let commit = CommitRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id,
        member_id: owned(&request.member_id),
        group_instance_id: request.group_instance_id.as_ref().map(owned),
        offsets,
        within: Some(WithinTransaction {
            transactional_id: owned(&request.transactional_id),
            producer: identity(request.producer_id, request.producer_epoch),
            adds: asker.version >= ADDS_SINCE_VERSION,
        }),
    };
    let outcome = if request.group_id.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        broker.groups.commit_offsets(commit).await
    };
    let mut outcomes = outcome.iter().flatten();
    let all = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in all.filter(|partition| partition.error_code == 0) {
        partition.error_code = match &outcome {
            Err(GroupError::GroupIdNotFound) => ErrorCode::IllegalGeneration.code(),
            Err(error) => error.code(),
            Ok(_) => match outcomes.next() {
                Some(outcome) => match &outcome.result {
                    Ok(()) => 0,
                    Err(GroupError::TransactionAbortable)
                        if asker.version < ABORTABLE_SINCE_VERSION =>
                    {
                        ErrorCode::InvalidTxnState.code()
                    }
                    Err(error) => error.code(),
                },
                None => ErrorCode::UnknownServerError.code(),
            },
        };
    }
    TxnOffsetCommitResponse {
        topics,
        ..Default::default()
    }
}

pub(super) fn describe_producers(
    broker: &Broker,
    asker: &Asker,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let access = broker.access(asker);
    let mut named = HashSet::new();
    let topics = request.topics.into_iter();
    // Once each: a short request must not ask for a long answer many times over.
    let topics = topics.filter(|topic| named.insert(topic.name.as_str().to_owned()));
    let topics = topics.map(|topic| {
        let topic_ref = TopicRef::Name(topic.name.clone());
        let (mut indexes, mut seen) = (topic.partition_indexes, HashSet::new());
        indexes.retain(|index| seen.insert(*index));
        let name = check_name(broker, topic.name.as_str()).map_err(|(error, _)| error);
        let partitions = indexes.into_iter().map(|partition_index| {
            let found = access.partition(Operation::Read, &topic_ref, partition_index);
            match name.and(found) {
                Ok(partition) => DescribeProducersPartition {
                    partition_index,
                    active_producers: producers_of(broker, &partition),
                    ..Default::default()
                },
                Err(error) => DescribeProducersPartition {
                    partition_index,
                    error_code: error.code(),
                    error_message: Some(match error {
                        ErrorCode::TopicAuthorizationFailed => sentence(error).into(),
                        _ => "there is no such partition".into(),
                    }),
                    ..Default::default()
                },
            }
        });
        DescribeProducersTopicResponse {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    DescribeProducersResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn producers_of(broker: &Broker, partition: &Partition) -> Vec<ProducerState> {
    let all = broker.log.producers(partition).into_iter();
    all.map(|producer| ProducerState {
        producer_id: producer.identity.id.0,
        producer_epoch: i32::from(producer.identity.epoch),
        last_sequence: producer.last_sequence.unwrap_or(-1),
        last_timestamp: milliseconds(producer.last_append_ms),
        coordinator_epoch: 0,
        current_txn_start_offset: producer.transaction_start.map_or(-1, |at| at.value()),
    })
    .collect()
}

fn milliseconds(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(super) fn describe_transactions(
    broker: &Broker,
    asker: &Asker,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let access = broker.access(asker);
    let may_describe = |id: &Str| {
        let access = access.to_transactional_id(Operation::Describe, id.as_str());
        access.is_ok()
    };
    let mut named = HashSet::new();
    let asked = request.transactional_ids.into_iter();
    let states = asked
        .filter(|id| named.insert(id.as_str().to_owned()))
        .map(|id| match broker.log.transaction(id.as_str()) {
            _ if !may_describe(&id) => DescribedTransaction {
                error_code: ErrorCode::TransactionalIdAuthorizationFailed.code(),
                transactional_id: id,
                ..Default::default()
            },
            _ if id.is_empty() => DescribedTransaction {
                error_code: ErrorCode::InvalidRequest.code(),
                transactional_id: id,
                ..Default::default()
            },
            Some(known) => describe(&access, id, &known),
            None => DescribedTransaction {
                error_code: ErrorCode::TransactionalIdNotFound.code(),
                transactional_id: id,
                ..Default::default()
            },
        });
    DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..Default::default()
    }
}

fn describe(
    access: &Access<'_>,
    transactional_id: Str,
    known: &TransactionDescription,
) -> DescribedTransaction {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in &known.partitions {
        let of_topic = topics.entry(partition.topic_name()).or_default();
        of_topic.push(partition.index());
    }
    topics.retain(|topic, _| access.to_topic(Operation::Describe, topic).is_ok());
    let value = &known.value;
    DescribedTransaction {
        error_code: 0,
        transactional_id,
        transaction_state: state_name(value.state).into(),
        transaction_timeout_ms: i32::try_from(value.timeout_ms).unwrap_or(i32::MAX),
        transaction_start_time_ms: match value.started_ms {
            0 => -1,
            started_ms => milliseconds(started_ms),
        },
        producer_id: value.producer_id,
        producer_epoch: value.epoch,
        topics: topics
            .into_iter()
            .map(|(topic, partitions)| DescribedTransactionTopic {
                topic: topic.into(),
                partitions,
            })
            .collect(),
    }
}

/// Kafka's states; two of them are never seen here.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

fn state_name(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Empty => "Empty",
        TransactionState::Ongoing => "Ongoing",
        TransactionState::CompleteCommit => "CompleteCommit",
        TransactionState::CompleteAbort => "CompleteAbort",
    }
}

/// Longest pattern, and what it may take in memory: it is held against every id.
const PATTERN_BYTES_MAX: usize = 1024;
const PATTERN_MEMORY_BYTES_MAX: usize = 64 << 10;

fn pattern_of(text: &str) -> Option<regex_lite::Regex> {
    let mut builder = regex_lite::RegexBuilder::new(&format!("^(?:{text})$"));
    let built = builder.size_limit(PATTERN_MEMORY_BYTES_MAX).build();
    built.ok().filter(|_| text.len() <= PATTERN_BYTES_MAX)
}

pub(super) fn list(
    broker: &Broker,
    asker: &Asker,
    request: &ListTransactionsRequest,
) -> ListTransactionsResponse {
    let access = broker.access(asker);
    let pattern = request.transactional_id_pattern.as_ref();
    let pattern = match pattern.filter(|pattern| !pattern.is_empty()) {
        Some(text) => match pattern_of(text.as_str()) {
            Some(pattern) => Some(pattern),
            None => {
                return ListTransactionsResponse {
                    error_code: ErrorCode::InvalidRegularExpression.code(),
                    ..Default::default()
                };
            }
        },
        None => None,
    };
    let is_known = |state: &&Str| STATES.contains(&state.as_str());
    let unknown = request
        .state_filters
        .iter()
        .filter(|state| !is_known(state));
    let states: HashSet<&str> = (request.state_filters.iter())
        .filter(is_known)
        .map(|state| state.as_str())
        .collect();
    let producers: HashSet<i64> = request.producer_id_filters.iter().copied().collect();
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let is_wanted = |(id, known): &(String, TransactionDescription)| {
        let value = &known.value;
        let age_ms = now_ms.saturating_sub(u128::from(value.started_ms));
        let is_old = u128::try_from(request.duration_filter)
            .is_ok_and(|wanted| value.state == TransactionState::Ongoing && age_ms > wanted);
        (request.state_filters.is_empty() || states.contains(state_name(value.state)))
            && (producers.is_empty() || producers.contains(&value.producer_id))
            && (request.duration_filter < 0 || is_old)
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    };
    let is_shown = |id: &str| access.to_transactional_id(Operation::Describe, id).is_ok();
    let found = broker.log.transactions().into_iter();
    let found = found.filter(|(id, _)| is_shown(id)).filter(is_wanted);
    ListTransactionsResponse {
        unknown_state_filters: unknown.cloned().collect(),
        transaction_states: found
            .map(|(id, known)| ListedTransaction {
                transactional_id: id.into(),
                producer_id: known.value.producer_id,
                transaction_state: state_name(known.value.state).into(),
            })
            .collect(),
        ..Default::default()
    }
}
