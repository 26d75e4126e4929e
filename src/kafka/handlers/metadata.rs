//! Metadata and FindCoordinator: which topics there are, and that this node leads all of them.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_storage::log::{CreateTopicError, NewTopic, Topic};
use uuid::Uuid;

use super::super::access::{Access, Operation, sentence};
use super::super::broker::{Asker, Broker, TopicRef};
use super::super::protocol::messages::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use super::super::protocol::{ErrorCode, Str};
use super::super::quotas::Quota;
use super::topics::{create_error, may_create};
use crate::auth::Resource;

/// What the asker may do to the cluster (KIP-430): nothing, as far as somebody is told who may not
/// describe it.
pub(super) fn cluster_operations(access: &Access<'_>) -> i32 {
    match access.to_cluster(Operation::Describe) {
        Ok(()) => access.operations(Resource::CLUSTER),
        Err(_) => 0,
    }
}

pub(super) async fn metadata(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: MetadataRequest,
) -> MetadataResponse {
    let access = broker.access(asker);
    let (host, port) = broker.address_for(asker);
    let brokers = vec![MetadataResponseBroker {
        node_id: broker.node_id(),
        host: host.into(),
        port,
        rack: None,
    }];
    let mut response = MetadataResponse {
        brokers,
        cluster_id: Some(cluster_id(broker)),
        controller_id: broker.node_id(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = cluster_operations(&access);
    }
    let auto_create = broker.config.auto_create_topics
        && (asker.version < 4 || request.allow_auto_topic_creation);
    let mut topics = match request.topics {
        None => every_topic(broker, &access),
        Some(topics) if topics.is_empty() && asker.version == 0 => every_topic(broker, &access),
        Some(asked) => some_topics(broker, asker, asked, auto_create).await,
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            let name = topic.name.as_ref().map(Str::as_str).unwrap_or_default();
            topic.topic_authorized_operations = access.operations(Resource::topic(name));
        }
    }
    response.topics = topics;
    response
}

/// Kafka's own form of a cluster id: 22 characters of base64.
pub(super) fn cluster_id(broker: &Broker) -> Str {
    use base64::Engine;
    let id = broker.log.cluster_id();
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(id.as_bytes())
        .into()
}

fn every_topic(broker: &Broker, access: &Access<'_>) -> Vec<MetadataResponseTopic> {
    broker
        .log
        .topics()
        .iter()
        .filter(|topic| access.to_topic(Operation::Describe, topic.name()).is_ok())
        .map(|topic| describe(broker, topic))
        .collect()
}

async fn some_topics(
    broker: &Arc<Broker>,
    asker: &Asker,
    asked: Vec<MetadataRequestTopic>,
    auto_create: bool,
) -> Vec<MetadataResponseTopic> {
    let (access, version) = (broker.access(asker), asker.version);
    let mut topics = Vec::with_capacity(asked.len());
    let mut named = HashSet::new();
    for MetadataRequestTopic { topic_id, name } in asked {
        // Once each, as Kafka.
        let place = (topic_id, name.as_ref().map(|name| name.as_str().to_owned()));
        if !named.insert(place) {
            continue;
        }
        let found = match &name {
            Some(name) if topic_id.is_nil() => {
                by_name(broker, asker, &access, name, auto_create).await
            }
            _ if version < TOPIC_ID_SINCE_VERSION => Err(ErrorCode::InvalidRequest),
            _ => access.topic(Operation::Describe, &TopicRef::Id(topic_id)),
        };
        // Where the name is not known, older versions have no null.
        let name = match name {
            None if version < TOPIC_ID_SINCE_VERSION => Some(Str::default()),
            name => name,
        };
        topics.push(match found {
            Ok(topic) => describe(broker, &topic),
            Err(error) => unknown(error, topic_id, name),
        });
    }
    topics
}

async fn by_name(
    broker: &Arc<Broker>,
    asker: &Asker,
    access: &Access<'_>,
    name: &Str,
    auto_create: bool,
) -> Result<Arc<Topic>, ErrorCode> {
    access.to_topic(Operation::Describe, name.as_str())?;
    let missing = match broker.topic(&TopicRef::Name(name.clone())) {
        Ok(topic) => return Ok(topic),
        Err(missing) => missing,
    };
    if auto_create && access.to_cluster(Operation::Create).is_err() {
        access.to_topic(Operation::Create, name.as_str())?;
    }
    let partitions = broker.config.default_partitions;
    let new = NewTopic {
        name: name.as_str().to_owned(),
        partitions,
        configs: Vec::new(),
    };
    if let Err(error @ CreateTopicError::InvalidName { .. }) = broker.log.check_topic(&new) {
        return Err(create_error(&error).0);
    }
    if !auto_create || broker.is_over(Quota::Mutation, asker) {
        return Err(missing);
    }
    may_create(broker, partitions).map_err(|(error, _)| error)?;
    match broker.log.create_topic(new).await {
        Ok(topic) => {
            broker.take(Quota::Mutation, asker, f64::from(partitions));
            tracing::info!(topic = %name, partitions, "topic created on a client's demand");
            Ok(topic)
        }
        // Somebody else was faster.
        Err(CreateTopicError::Exists(_)) => broker.topic(&TopicRef::Name(name.clone())),
        Err(error) => Err(create_error(&error).0),
    }
}

fn unknown(error: ErrorCode, topic_id: Uuid, name: Option<Str>) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: error.code(),
        name,
        topic_id,
        ..Default::default()
    }
}

fn describe(broker: &Broker, topic: &Topic) -> MetadataResponseTopic {
    let node = broker.node_id();
    let leader_epoch = broker.log.leader_epoch();
    let partition = |index: i32| MetadataResponsePartition {
        partition_index: index,
        leader_id: node,
        leader_epoch,
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        ..Default::default()
    };
    MetadataResponseTopic {
        name: Some(topic.name().into()),
        topic_id: topic.id().0,
        partitions: topic
            .partitions()
            .iter()
            .map(|p| partition(p.index()))
            .collect(),
        ..Default::default()
    }
}

/// Topics are asked for by id from here on (KIP-516).
const TOPIC_ID_SINCE_VERSION: i16 = 12;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const KEY_TYPE_SHARE: i8 = 2;

/// Share groups have coordinators from here on (KIP-932).
const SHARE_SINCE_VERSION: i16 = 6;

pub(super) fn find_coordinator(
    broker: &Broker,
    asker: &Asker,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let access = broker.access(asker);
    let (host, port) = broker.address_for(asker);
    let coordinator = |key: Str| {
        let mut found = Coordinator {
            key,
            error_message: None,
            ..Default::default()
        };
        match refusal(&access, asker.version, request.key_type, &found.key) {
            None => {
                found.node_id = broker.node_id();
                found.host = host.as_str().into();
                found.port = port;
            }
            Some((error, message)) => {
                found.node_id = -1;
                found.port = -1;
                found.error_code = error.code();
                found.error_message = Some(message.into());
            }
        }
        found
    };
    if asker.version >= 4 {
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .map(coordinator)
            .collect();
        return FindCoordinatorResponse {
            coordinators,
            ..Default::default()
        };
    }
    let found = coordinator(request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

fn refusal(
    access: &Access<'_>,
    version: i16,
    key_type: i8,
    key: &Str,
) -> Option<(ErrorCode, &'static str)> {
    let access = match key_type {
        KEY_TYPE_GROUP => access.to_group(Operation::Describe, key.as_str()),
        KEY_TYPE_TRANSACTION => access.to_transactional_id(Operation::Describe, key.as_str()),
        _ => Ok(()),
    };
    if let Err(error) = access {
        return Some((error, sentence(error)));
    }
    match key_type {
        KEY_TYPE_GROUP | KEY_TYPE_TRANSACTION => None,
        KEY_TYPE_SHARE if version >= SHARE_SINCE_VERSION => {
            let message = "this broker has no share groups";
            Some((ErrorCode::UnsupportedVersion, message))
        }
        _ => Some((ErrorCode::InvalidRequest, "there is no such type of key")),
    }
}
