//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_storage::log::{ChangeTopicError, Topic};
use tokio::task::consume_budget;

use super::super::access::{self, sentence};
use super::super::broker::{Asker, Broker, Refusal, TopicRef};
use super::super::configs::{self, Operation, Setting, Source};
use super::super::protocol::messages::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse, ListConfigResourcesRequest, ListConfigResourcesResponse,
    ListedConfigResource,
};
use super::super::protocol::{ErrorCode, Str};
use super::topics::{CHANGE_TRIES_MAX, change_error, check_name, create_error};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Broker loggers, client metrics (KIP-714) and groups (KIP-1142): kinds of which there are none here.
const WITHOUT_RESOURCES: [i8; 3] = [8, 16, 32];

pub(super) fn describe_configs(
    broker: &Broker,
    asker: &Asker,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut named = HashSet::new();
    // Once each: a short request must not ask for a long answer many times over.
    let asked = request.resources.iter();
    let asked = asked.filter(|r| named.insert((r.resource_type, r.resource_name.as_str())));
    let results = asked.map(|resource| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            error_message: None,
            ..Default::default()
        };
        let right = access::Operation::DescribeConfigs;
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        let found = allowed(broker, asker, right, kind, name);
        match found.and_then(|()| settings(broker, resource)) {
            Ok(settings) => {
                let keys = resource.configuration_keys.as_deref().unwrap_or_default();
                let keys: HashSet<&str> = keys.iter().map(Str::as_str).collect();
                let wanted = |setting: &Setting| keys.is_empty() || keys.contains(setting.key.name);
                let settings = settings.into_iter().filter(wanted);
                let read_only = resource.resource_type == BROKER;
                result.configs = settings
                    .map(|setting| describe(setting, read_only, &request))
                    .collect();
            }
            Err((error, message)) => {
                result.error_code = error.code();
                result.error_message = Some(message.into());
            }
        }
        result
    });
    DescribeConfigsResponse {
        results: results.collect(),
        ..Default::default()
    }
}

fn settings(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Setting>, Refusal> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => Ok(configs::of_topic(broker, &*topic(broker, name)?)),
        BROKER => {
            check_broker(broker, name)?;
            // What holds for all brokers can only be set by clients, and they set nothing.
            let all = if name.as_str().is_empty() {
                Vec::new()
            } else {
                configs::of_broker(broker)
            };
            Ok(all)
        }
        other => Err(no_such_type(other)),
    }
}

/// Whether the asker may do this to the resource's configurations. Types that are not known here are
/// refused later.
fn allowed(
    broker: &Broker,
    asker: &Asker,
    right: access::Operation,
    resource_type: i8,
    name: &str,
) -> Result<(), Refusal> {
    let access = broker.access(asker);
    let allowed = match resource_type {
        TOPIC => access.to_topic(right, name),
        _ => access.to_cluster(right),
    };
    allowed.map_err(|error| (error, sentence(error).to_owned()))
}

fn topic(broker: &Broker, name: &Str) -> Result<Arc<Topic>, Refusal> {
    check_name(broker, name.as_str())?;
    let found = broker.topic(&TopicRef::Name(name.clone()));
    found.map_err(|error| (error, format!("there is no topic {name}")))
}

fn check_broker(broker: &Broker, name: &Str) -> Result<(), Refusal> {
    let id = broker.node_id();
    if name.as_str().is_empty() || name.as_str() == id.to_string() {
        return Ok(());
    }
    let message =
        format!("Unexpected broker id, expected {id} or empty string, but received {name}");
    Err((ErrorCode::InvalidRequest, message))
}

fn no_such_type(resource_type: i8) -> Refusal {
    let message = format!("resources of type {resource_type} have no configurations here");
    (ErrorCode::InvalidRequest, message)
}

fn describe(
    setting: Setting,
    read_only: bool,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let sensitive = setting.key.kind == configs::Kind::Password;
    let shown = |value: Option<String>| value.filter(|_| !sensitive).map(Str::from);
    let synonyms = if request.include_synonyms {
        setting.synonyms
    } else {
        Vec::new()
    };
    let synonym = |(name, value, source): (&str, Option<String>, Source)| DescribeConfigsSynonym {
        name: name.into(),
        value: shown(value),
        source: source as i8,
    };
    DescribeConfigsResourceResult {
        name: setting.key.name.into(),
        value: shown(setting.value),
        read_only,
        config_source: setting.source as i8,
        is_sensitive: sensitive,
        synonyms: synonyms.into_iter().map(synonym).collect(),
        config_type: setting.key.kind as i8,
        documentation: (request.include_documentation).then(|| setting.key.documentation().into()),
    }
}

/// One configuration, what is done to it, and with what.
type Step = (Str, Operation, Option<Str>);

/// What is asked of one resource.
struct Alteration {
    resource_type: i8,
    resource_name: Str,
    steps: Result<Vec<Step>, Refusal>,
    /// Whatever the steps do not name goes back to its default.
    from_nothing: bool,
}

/// Resources that a request names more than once.
struct Twice(HashSet<(i8, String)>);

impl Twice {
    fn of<'a>(named: impl Iterator<Item = (i8, &'a str)>) -> Twice {
        let mut seen = HashSet::new();
        let again = named.filter(|place| !seen.insert(*place));
        Twice(again.map(|(kind, name)| (kind, name.to_owned())).collect())
    }

    fn refuse(&self, alteration: Alteration) -> Alteration {
        let name = alteration.resource_name.as_str().to_owned();
        if !self.0.contains(&(alteration.resource_type, name)) {
            return alteration;
        }
        let message = "Each resource must appear at most once.".to_owned();
        Alteration {
            steps: Err((ErrorCode::InvalidRequest, message)),
            ..alteration
        }
    }
}

pub(super) async fn alter_configs(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = request.resources.iter();
    let twice = Twice::of(named.map(|r| (r.resource_type, r.resource_name.as_str())));
    for resource in request.resources {
        consume_budget().await;
        let set = |config: super::super::protocol::messages::AlterableConfig| {
            (config.name, Operation::Set, config.value)
        };
        let alteration = Alteration {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            steps: Ok(resource.configs.into_iter().map(set).collect()),
            from_nothing: true,
        };
        let alteration = twice.refuse(alteration);
        let (error_code, error_message) =
            alter(broker, asker, &alteration, request.validate_only).await;
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: alteration.resource_type,
            resource_name: alteration.resource_name,
        });
    }
    AlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

pub(super) async fn incremental_alter_configs(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = request.resources.iter();
    let twice = Twice::of(named.map(|r| (r.resource_type, r.resource_name.as_str())));
    for resource in request.resources {
        consume_budget().await;
        let steps = resource.configs.into_iter().map(|config| {
            let operation = Operation::from_wire(config.config_operation);
            let operation = operation.ok_or_else(|| {
                let message = format!("unknown operation {}", config.config_operation);
                (ErrorCode::InvalidRequest, message)
            })?;
            Ok((config.name, operation, config.value))
        });
        let alteration = Alteration {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            steps: steps.collect(),
            from_nothing: false,
        };
        let alteration = twice.refuse(alteration);
        let (error_code, error_message) =
            alter(broker, asker, &alteration, request.validate_only).await;
        responses.push(IncrementalAlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: alteration.resource_type,
            resource_name: alteration.resource_name,
        });
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

async fn alter(
    broker: &Arc<Broker>,
    asker: &Asker,
    alteration: &Alteration,
    validate_only: bool,
) -> (i16, Option<Str>) {
    let right = access::Operation::AlterConfigs;
    let name = alteration.resource_name.as_str();
    let twice = alteration.steps.as_ref().err();
    let refused = match twice {
        Some(_) => None,
        None => allowed(broker, asker, right, alteration.resource_type, name).err(),
    };
    if let Some((error, message)) = refused {
        return (error.code(), Some(message.into()));
    }
    match try_alter(broker, alteration, validate_only).await {
        Ok(()) => (0, None),
        Err((error, message)) => (error.code(), Some(message.into())),
    }
}

async fn try_alter(
    broker: &Arc<Broker>,
    alteration: &Alteration,
    validate_only: bool,
) -> Result<(), Refusal> {
    let steps = alteration.steps.as_ref().map_err(Clone::clone)?;
    let mut named = HashSet::new();
    if !steps.iter().all(|(name, ..)| named.insert(name.as_str())) {
        let message = "Error due to duplicate config keys".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    }
    let name = &alteration.resource_name;
    match alteration.resource_type {
        TOPIC if name.is_empty() => {
            let message = "The name of a topic is empty.".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
        TOPIC => {}
        BROKER => {
            check_broker(broker, name)?;
            // Nothing is set by clients, so what they take back is not there already.
            let set = steps
                .iter()
                .filter(|(_, step, _)| *step != Operation::Delete);
            let names: Vec<&str> = set.map(|(name, ..)| name.as_str()).collect();
            if names.is_empty() {
                return Ok(());
            }
            let message = format!(
                "Cannot update these configs dynamically: {}; they are in the node's configuration file",
                names.join(", ")
            );
            return Err((ErrorCode::InvalidRequest, message));
        }
        other => return Err(no_such_type(other)),
    }
    for _ in 0..CHANGE_TRIES_MAX {
        let topic = topic(broker, name)?;
        let mut configs = if alteration.from_nothing {
            Vec::new()
        } else {
            topic.configs().to_vec()
        };
        for (name, operation, value) in steps {
            let value = value.as_ref().map(Str::as_str);
            configs::apply(broker, &mut configs, name.as_str(), *operation, value)?;
        }
        judge_configs(broker, &configs)?;
        if validate_only {
            return Ok(());
        }
        match broker.log.set_configs(&topic, configs).await {
            Ok(topic) => {
                tracing::info!(topic = topic.name(), configs = ?topic.configs(), "topic configured");
                return Ok(());
            }
            Err(ChangeTopicError::Outdated) => {}
            Err(error) => return Err(change_error(&error)),
        }
    }
    Err(change_error(&ChangeTopicError::Outdated))
}

/// All configurations that a topic shall have: the log judges those that it obeys, the others are judged
/// by type and range.
pub(super) fn judge_configs(broker: &Broker, configs: &[(String, String)]) -> Result<(), Refusal> {
    let judged = broker.log.check_configs(configs);
    judged.map_err(|error| create_error(&error))?;
    for (name, value) in configs {
        let key = configs::TOPIC_KEYS.iter().find(|key| key.name == name);
        if let Some(key) = key.filter(|key| !key.kind.admits(value)) {
            let kind = format!("{:?}", key.kind).to_lowercase();
            let message =
                format!("Invalid value {value} for configuration {name}: not of type {kind}");
            return Err((ErrorCode::InvalidConfig, message));
        }
        if key.is_some_and(|key| !key.range.admits(value)) {
            let message = format!("Invalid value {value} for configuration {name}: out of range");
            return Err((ErrorCode::InvalidConfig, message));
        }
    }
    Ok(())
}

/// Topics and this broker; version 0 asks for subscriptions to client metrics, of which there are none.
pub(super) fn list_config_resources(
    broker: &Broker,
    asker: &Asker,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let version = asker.version;
    let right = access::Operation::DescribeConfigs;
    if let Err(error) = broker.access(asker).to_cluster(right) {
        return ListConfigResourcesResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let wanted = |resource_type: i8| {
        let types = &request.resource_types;
        version > 0 && (types.is_empty() || types.contains(&resource_type))
    };
    let listed = |resource_name: Str, resource_type: i8| ListedConfigResource {
        resource_name,
        resource_type,
    };
    let known = |resource_type: &i8| {
        let is_without_resources = WITHOUT_RESOURCES.contains(resource_type);
        is_without_resources || matches!(*resource_type, TOPIC | BROKER)
    };
    if version > 0 && !request.resource_types.iter().all(known) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    }
    let mut config_resources = Vec::new();
    if wanted(TOPIC) {
        let topics = broker.log.topics();
        config_resources.extend(
            topics
                .iter()
                .map(|topic| listed(topic.name().into(), TOPIC)),
        );
    }
    if wanted(BROKER) {
        config_resources.push(listed(broker.node_id().to_string().into(), BROKER));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..Default::default()
    }
}
