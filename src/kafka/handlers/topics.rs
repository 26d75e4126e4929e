//! CreateTopics, CreatePartitions, DeleteTopics and DeleteRecords, and the rules under which a client may create a topic.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_storage::log::{
    ChangeTopicError, CreateTopicError, DeleteRecordsError, DeleteTopicError, NewTopic, Offset,
    PARTITIONS_MAX, Retention, Topic,
};
use tokio::task::consume_budget;

use super::super::access::{Access, Operation, sentence};
use super::super::broker::{Asker, Broker, Refusal, TopicRef};
use super::super::config::ReplicationFactors;
use super::super::configs::{self, Setting};
use super::super::protocol::messages::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse,
    CreatePartitionsTopic, CreatePartitionsTopicResult, CreateTopicsRequest, CreateTopicsResponse,
    DeletableTopicResult, DeleteRecordsPartition, DeleteRecordsPartitionResult,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult, DeleteTopicState,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use super::super::protocol::{ErrorCode, Str};
use super::super::quotas::Quota;
use super::configs::judge_configs;
use super::produce::append_error;

/// DeleteRecords: everything there is.
const HIGH_WATERMARK: i64 = -1;

/// From these versions on a client that has changed too much is refused, older ones are only told to wait
/// (KIP-599).
const CREATE_QUOTA_SINCE_VERSION: i16 = 6;
const DELETE_QUOTA_SINCE_VERSION: i16 = 5;
const PARTITIONS_QUOTA_SINCE_VERSION: i16 = 3;

/// Refuses who has made and deleted too many partitions lately.
fn check_quota(broker: &Broker, asker: &Asker, since_version: i16) -> Result<(), Refusal> {
    if broker.is_over(Quota::Mutation, asker) && asker.version >= since_version {
        let message = "The throttling quota has been exceeded.".to_owned();
        return Err((ErrorCode::ThrottlingQuotaExceeded, message));
    }
    Ok(())
}

/// Whether the node has room for `partitions` more.
pub(super) fn may_create(broker: &Broker, partitions: u32) -> Result<(), Refusal> {
    let taken: usize = broker
        .log
        .topics()
        .iter()
        .map(|topic| topic.partitions().len())
        .sum();
    let max = broker.config.partitions_max;
    if taken.saturating_add(partitions as usize) > max {
        let message = format!(
            "{partitions} partitions more than the {taken} there are would exceed kafka.partitions_max = {max}"
        );
        return Err((ErrorCode::PolicyViolation, message));
    }
    Ok(())
}

pub(super) fn create_error(error: &CreateTopicError) -> Refusal {
    let code = match error {
        CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
        CreateTopicError::InvalidName { .. } => ErrorCode::InvalidTopic,
        CreateTopicError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        CreateTopicError::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        CreateTopicError::Append(error) => return append_error(error),
        other => {
            tracing::error!(error = %other, "creating a topic failed");
            return (ErrorCode::UnknownServerError, String::new());
        }
    };
    (code, error.to_string())
}

pub(super) async fn create_topics(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let access = broker.access(asker);
    let may_create_all = access.to_cluster(Operation::Create).is_ok();
    let mut named: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.as_str().to_owned()).or_default() += 1;
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        consume_budget().await;
        let once = match named.remove(wanted.name.as_str()) {
            None => continue,
            Some(times) => times == 1,
        };
        let name = wanted.name.as_str();
        let may = may_create_all || !once || access.to_topic(Operation::Create, name).is_ok();
        let outcome = if once && may {
            let created = create_one(broker, asker, &wanted, request.validate_only).await;
            created.map(|result| as_far_as_shown(&access, result))
        } else if once {
            let error = ErrorCode::TopicAuthorizationFailed;
            Err((error, "Authorization failed.".to_owned()))
        } else {
            Err(named_twice())
        };
        topics.push(
            outcome.unwrap_or_else(|(error, message)| CreatableTopicResult {
                name: wanted.name.clone(),
                error_code: error.code(),
                error_message: Some(message.into()),
                configs: None,
                ..Default::default()
            }),
        );
    }
    CreateTopicsResponse {
        topics,
        ..Default::default()
    }
}

/// Such a topic is answered once, as Kafka does.
fn named_twice() -> Refusal {
    let message = "the request names this topic twice".to_owned();
    (ErrorCode::InvalidRequest, message)
}

/// What was made of a topic is shown to those who may see its configurations.
fn as_far_as_shown(access: &Access<'_>, result: CreatableTopicResult) -> CreatableTopicResult {
    match access.to_topic(Operation::DescribeConfigs, result.name.as_str()) {
        Ok(()) => result,
        Err(error) => CreatableTopicResult {
            topic_config_error_code: error.code(),
            num_partitions: -1,
            replication_factor: -1,
            configs: None,
            ..result
        },
    }
}

async fn create_one(
    broker: &Arc<Broker>,
    asker: &Asker,
    wanted: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let new = judge(broker, wanted)?;
    check_quota(broker, asker, CREATE_QUOTA_SINCE_VERSION)?;
    let result = CreatableTopicResult {
        name: wanted.name.clone(),
        error_message: None,
        num_partitions: i32::try_from(new.partitions).unwrap_or(-1),
        replication_factor: 1,
        ..Default::default()
    };
    if validate_only {
        let configs = Some(describe_configs(broker, &new.configs));
        return Ok(CreatableTopicResult { configs, ..result });
    }
    let topic: Arc<Topic> = broker
        .log
        .create_topic(new)
        .await
        .map_err(|error| create_error(&error))?;
    broker.take(Quota::Mutation, asker, topic.partitions().len() as f64);
    tracing::info!(
        topic = topic.name(),
        partitions = topic.partitions().len(),
        "topic created"
    );
    let configs = Some(describe_configs(broker, topic.configs()));
    Ok(CreatableTopicResult {
        topic_id: topic.id().0,
        configs,
        ..result
    })
}

fn describe_configs(broker: &Broker, own: &[(String, String)]) -> Vec<CreatableTopicConfigs> {
    let describe = |setting: Setting| CreatableTopicConfigs {
        name: setting.key.name.into(),
        value: setting.value.map(Str::from),
        config_source: setting.source as i8,
        ..Default::default()
    };
    let all = configs::of_configs(broker, own).into_iter();
    all.map(describe).collect()
}

/// What Kafka has against the name of a topic, whether there is one of it or not.
pub(super) fn check_name(broker: &Broker, name: &str) -> Result<(), Refusal> {
    let new = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        configs: Vec::new(),
    };
    match broker.log.check_topic(&new) {
        Err(error @ CreateTopicError::InvalidName { .. }) => Err(create_error(&error)),
        _ => Ok(()),
    }
}

/// Dots and underscores look the same in the names of metrics: a topic whose name differs in nothing else
/// is refused, as Kafka does.
fn check_collision(broker: &Broker, name: &str) -> Result<(), Refusal> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let wanted = name.replace('.', "_");
    let topics = broker.log.topics();
    let found = topics
        .iter()
        .find(|topic| topic.name().replace('.', "_") == wanted);
    match found {
        None => Ok(()),
        Some(topic) => {
            let message = format!(
                "Topic '{name}' collides with existing topic: {}",
                topic.name()
            );
            Err((ErrorCode::InvalidTopic, message))
        }
    }
}

/// Everything that can be said against a topic before it is created.
fn judge(broker: &Broker, wanted: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let name = wanted.name.as_str();
    if broker.log.topic(name).is_some() {
        return Err(create_error(&CreateTopicError::Exists(name.to_owned())));
    }
    check_name(broker, name)?;
    check_collision(broker, name)?;
    let partitions = if wanted.assignments.is_empty() {
        check_replication_factor(broker, wanted.replication_factor)?;
        match wanted.num_partitions {
            -1 => broker.config.default_partitions,
            asked => u32::try_from(asked)
                .ok()
                .filter(|&n| n > 0)
                .ok_or_else(|| {
                    (
                        ErrorCode::InvalidPartitions,
                        format!("{asked} partitions are not possible"),
                    )
                })?,
        }
    } else {
        assigned_partitions(broker, wanted)?
    };
    may_create(broker, partitions)?;
    let mut configs: Vec<(String, String)> = Vec::with_capacity(wanted.configs.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for config in &wanted.configs {
        let Some(value) = &config.value else {
            let message = format!("{} has no value", config.name);
            return Err((ErrorCode::InvalidConfig, message));
        };
        // The last one counts, without blanks around it.
        let value = value.as_str().trim().to_owned();
        let place = *places.entry(config.name.as_str()).or_insert(configs.len());
        match configs.get_mut(place) {
            Some((_, earlier)) => *earlier = value,
            None => configs.push((config.name.as_str().to_owned(), value)),
        }
    }
    judge_configs(broker, &configs)?;
    Ok(NewTopic {
        name: name.to_owned(),
        partitions,
        configs,
    })
}

fn check_replication_factor(broker: &Broker, factor: i16) -> Result<(), Refusal> {
    let any = broker.config.accept_replication_factor == ReplicationFactors::Any;
    match factor {
        -1 | 1 => Ok(()),
        2.. if any => Ok(()),
        _ => Err((
            ErrorCode::InvalidReplicationFactor,
            format!("replication factor {factor} is not possible: there is one broker"),
        )),
    }
}

/// A manual assignment may only say what is so anyway: every partition on this node.
fn assigned_partitions(broker: &Broker, wanted: &CreatableTopic) -> Result<u32, Refusal> {
    if wanted.num_partitions != -1 || wanted.replication_factor != -1 {
        let message = "with an assignment, partitions and replication factor must be -1";
        return Err((ErrorCode::InvalidRequest, message.to_owned()));
    }
    let mut indexes: Vec<i32> = wanted
        .assignments
        .iter()
        .map(|a| a.partition_index)
        .collect();
    indexes.sort_unstable();
    let here = |a: &CreatableReplicaAssignment| a.broker_ids == [broker.node_id()];
    if !(0..).zip(&indexes).all(|(n, &index)| n == index) || !wanted.assignments.iter().all(here) {
        let message = format!(
            "partitions must be numbered from 0 without gaps, each on broker {} alone",
            broker.node_id()
        );
        return Err((ErrorCode::InvalidReplicaAssignment, message));
    }
    u32::try_from(indexes.len()).map_err(|_| {
        (
            ErrorCode::InvalidPartitions,
            "too many partitions".to_owned(),
        )
    })
}

/// Of a topic that is changed all the time.
pub(super) const CHANGE_TRIES_MAX: usize = 16;

pub(super) fn change_error(error: &ChangeTopicError) -> Refusal {
    let code = match error {
        ChangeTopicError::Unknown => ErrorCode::UnknownTopicOrPartition,
        // Others were faster time and again: a client tries that again.
        ChangeTopicError::Outdated => ErrorCode::RequestTimedOut,
        ChangeTopicError::FewerPartitions { .. } => ErrorCode::InvalidPartitions,
        ChangeTopicError::Invalid(error) => return create_error(error),
        ChangeTopicError::Append(error) => return append_error(error),
        other => {
            tracing::error!(error = %other, "changing a topic failed");
            return (ErrorCode::UnknownServerError, String::new());
        }
    };
    (code, error.to_string())
}

pub(super) async fn create_partitions(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let access = broker.access(asker);
    let mut named: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.as_str().to_owned()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        consume_budget().await;
        let outcome = match named.remove(wanted.name.as_str()) {
            None => continue,
            Some(1) => match access.to_topic(Operation::Alter, wanted.name.as_str()) {
                Ok(()) => add_partitions(broker, asker, &wanted, request.validate_only).await,
                Err(error) => Err((error, sentence(error).to_owned())),
            },
            Some(_) => Err(named_twice()),
        };
        let (error, error_message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(message.into())),
        };
        results.push(CreatePartitionsTopicResult {
            name: wanted.name,
            error_code: error.code(),
            error_message,
        });
    }
    CreatePartitionsResponse {
        results,
        ..Default::default()
    }
}

async fn add_partitions(
    broker: &Arc<Broker>,
    asker: &Asker,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    for _ in 0..CHANGE_TRIES_MAX {
        match try_add_partitions(broker, asker, wanted, validate_only).await {
            // Somebody else was faster: judged anew.
            Err(ChangeRefused::Outdated) => {}
            Err(ChangeRefused::Final(refusal)) => return Err(refusal),
            Ok(()) => return Ok(()),
        }
    }
    Err(change_error(&ChangeTopicError::Outdated))
}

enum ChangeRefused {
    Outdated,
    Final(Refusal),
}

impl From<Refusal> for ChangeRefused {
    fn from(refusal: Refusal) -> ChangeRefused {
        ChangeRefused::Final(refusal)
    }
}

async fn try_add_partitions(
    broker: &Arc<Broker>,
    asker: &Asker,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), ChangeRefused> {
    let topic = broker.log.topic(wanted.name.as_str());
    let topic = topic.ok_or_else(|| change_error(&ChangeTopicError::Unknown))?;
    let now = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
    let count = u32::try_from(wanted.count)
        .ok()
        .filter(|&count| count > now);
    let count = count.ok_or_else(|| change_error(&ChangeTopicError::FewerPartitions { now }))?;
    if let Some(assignments) = &wanted.assignments {
        let here = |a: &CreatePartitionsAssignment| a.broker_ids == [broker.node_id()];
        if assignments.len() != (count - now) as usize || !assignments.iter().all(here) {
            let message = format!(
                "an assignment names broker {} alone for each of the {} new partitions",
                broker.node_id(),
                count - now
            );
            return Err((ErrorCode::InvalidReplicaAssignment, message).into());
        }
    }
    if count > PARTITIONS_MAX {
        return Err(create_error(&CreateTopicError::InvalidPartitions(count)).into());
    }
    may_create(broker, count - now)?;
    check_quota(broker, asker, PARTITIONS_QUOTA_SINCE_VERSION)?;
    if validate_only {
        return Ok(());
    }
    let changed = broker.log.set_partitions(&topic, count).await;
    let topic = changed.map_err(|error| match error {
        ChangeTopicError::Outdated => ChangeRefused::Outdated,
        other => change_error(&other).into(),
    })?;
    broker.take(Quota::Mutation, asker, f64::from(count - now));
    tracing::info!(
        topic = topic.name(),
        partitions = count,
        "topic has more partitions"
    );
    Ok(())
}

pub(super) async fn delete_topics(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let access = broker.access(asker);
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState {
            name: Some(name),
            topic_id: uuid::Uuid::nil(),
        });
    let wanted: Vec<DeleteTopicState> = request.topics.into_iter().chain(by_name).collect();
    let mut named: HashMap<(Option<String>, uuid::Uuid), u32> = HashMap::new();
    let place = |state: &DeleteTopicState| {
        let name = state.name.as_ref().map(|name| name.as_str().to_owned());
        (name, state.topic_id)
    };
    for state in &wanted {
        *named.entry(place(state)).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(wanted.len());
    for state in &wanted {
        consume_budget().await;
        let outcome = match named.remove(&place(state)) {
            None => continue,
            Some(1) => delete_one(broker, asker, &access, state).await,
            Some(_) => Err(named_twice()),
        };
        // Who asked by id learns the name only if the topic was there.
        let (name, topic_id, error_code, error_message) = match outcome {
            Ok(topic) => {
                let id = topic.id().0;
                (Some(topic.name().into()), id, ErrorCode::None, None)
            }
            Err((error, message)) => {
                let name = state.name.clone();
                (name, state.topic_id, error, Some(message.into()))
            }
        };
        responses.push(DeletableTopicResult {
            name,
            topic_id,
            error_code: error_code.code(),
            error_message,
        });
    }
    DeleteTopicsResponse {
        responses,
        ..Default::default()
    }
}

async fn delete_one(
    broker: &Arc<Broker>,
    asker: &Asker,
    access: &Access<'_>,
    state: &DeleteTopicState,
) -> Result<Arc<Topic>, Refusal> {
    let (named, unknown) = match (&state.name, state.topic_id) {
        (Some(name), id) if id.is_nil() => (
            TopicRef::Name(name.clone()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (None, id) if !id.is_nil() => (TopicRef::Id(id), ErrorCode::UnknownTopicId),
        _ => {
            let message = "a topic is named either by name or by id".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
    };
    let missing = || (unknown, "there is no such topic".to_owned());
    // Who may see a topic but not delete it is told whether there is one.
    let topic = access.topic(Operation::Describe, &named);
    let topic = topic.and_then(|topic| {
        access.to_topic(Operation::Delete, topic.name())?;
        Ok(topic)
    });
    let topic = topic.map_err(|error| match error {
        ErrorCode::TopicAuthorizationFailed => (error, sentence(error).to_owned()),
        _ => missing(),
    })?;
    check_quota(broker, asker, DELETE_QUOTA_SINCE_VERSION)?;
    match broker.log.delete_topic(topic.id()).await {
        Ok(()) => {
            broker.take(Quota::Mutation, asker, topic.partitions().len() as f64);
            tracing::info!(topic = topic.name(), id = %topic.id(), "topic deleted");
            Ok(topic)
        }
        Err(DeleteTopicError::Unknown) => Err(missing()),
        Err(DeleteTopicError::Append(error)) => Err(append_error(&error)),
        Err(other) => {
            tracing::error!(error = %other, "deleting a topic failed");
            Err((ErrorCode::UnknownServerError, String::new()))
        }
    }
}

pub(super) async fn delete_records(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let access = broker.access(asker);
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let topic = access.topic(Operation::Delete, &TopicRef::Name(wanted.name.clone()));
        let mut partitions = Vec::with_capacity(wanted.partitions.len());
        for partition in &wanted.partitions {
            consume_budget().await;
            let outcome = match &topic {
                Ok(topic) => delete_before(broker, topic, partition).await,
                Err(error) => Err(*error),
            };
            let (low_watermark, error) = match outcome {
                Ok(start) => (start.value(), ErrorCode::None),
                Err(error) => (-1, error),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark,
                error_code: error.code(),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: wanted.name,
            partitions,
        });
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

async fn delete_before(
    broker: &Arc<Broker>,
    topic: &Topic,
    wanted: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    let partition = topic
        .partition(wanted.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.retention(&Retention::default()).is_none() {
        // As Kafka: a topic that is only compacted loses records by compaction alone.
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match wanted.offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset::new(offset).ok_or(ErrorCode::OffsetOutOfRange)?),
    };
    let deleted = broker.log.delete_records(partition, before).await;
    deleted.map_err(|error| match error {
        DeleteRecordsError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::Append(error) => append_error(&error).0,
        other => {
            tracing::error!(error = %other, "deleting records failed");
            ErrorCode::UnknownServerError
        }
    })
}
