//! Routes from MQTT topics to log topics: filters and templates, compiled once at start.
//!
//! Knows nothing of sockets or packets. A route's templates can only name what every matching
//! topic has, so that rendering cannot fail.

use std::fmt::Write as _;

use bytes::Bytes;
use holdfast_storage::log::{CreateTopicError, Log, NewTopic, Topic};

use super::config::RouteConfig;
use super::topic::{TopicFilter, TopicLimits};

/// Log topic of QoS 1 publishes that match no route; its key is the MQTT topic.
pub const UNROUTED_TOPIC: &str = "mqtt.unrouted";
const UNROUTED_PARTITIONS: u32 = 1;

/// Why a route of the configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The filter is not a topic filter.
    #[error("mqtt.routes[{index}].filter {filter:?} is not a topic filter: {reason}")]
    Filter {
        /// Position in `mqtt.routes`, from 0.
        index: usize,
        /// The refused text.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier route has the same filter, so that this one could never match.
    #[error("mqtt.routes[{index}].filter {filter:?} repeats the filter of mqtt.routes[{earlier}]")]
    Repeated {
        /// Position in `mqtt.routes`, from 0.
        index: usize,
        /// The refused text.
        filter: String,
        /// The route that has it already.
        earlier: usize,
    },
    /// A template names something that does not exist.
    #[error("mqtt.routes[{index}].{field} {template:?}: {reason}")]
    Template {
        /// Position in `mqtt.routes`, from 0.
        index: usize,
        /// `key` or `kind`.
        field: &'static str,
        /// The refused text.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log topic does not exist and could not be made.
    #[error("mqtt.routes: log topic {topic:?}: {source}")]
    Topic {
        /// Name of the log topic.
        topic: String,
        /// Why it could not be made.
        source: CreateTopicError,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// 0-based level of the MQTT topic.
    Level(usize),
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Part>);

impl Template {
    /// `levels` is how many levels every topic that matches the route's filter has.
    fn parse(text: &str, levels: usize) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after
                .split_once('}')
                .ok_or_else(|| "'{' is not closed by '}'".to_owned())?;
            push_text(&mut parts, before)?;
            parts.push(Self::placeholder(name, levels)?);
            rest = tail;
        }
        push_text(&mut parts, rest)?;
        if parts.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Template(parts))
    }

    fn placeholder(name: &str, levels: usize) -> Result<Part, String> {
        if name == "client" {
            return Ok(Part::Client);
        }
        let level: usize = name
            .parse()
            .map_err(|_| format!("{{{name}}} is neither a level such as {{1}} nor {{client}}"))?;
        if level == 0 || level > levels {
            return Err(format!(
                "{{{name}}}: the filter has the levels 1 to {levels}"
            ));
        }
        Ok(Part::Level(level - 1))
    }

    fn render(&self, topic: &str, client: &str) -> Bytes {
        let mut text = String::new();
        for part in &self.0 {
            let written = match part {
                Part::Text(fixed) => text.write_str(fixed),
                Part::Client => text.write_str(client),
                Part::Level(level) => text.write_str(topic.split('/').nth(*level).unwrap_or("")),
            };
            debug_assert!(written.is_ok(), "writing to a String does not fail");
        }
        Bytes::from(text)
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("'}' without '{'".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

#[derive(Debug)]
struct Route {
    filter: TopicFilter,
    topic: String,
    partitions: u32,
    key: Template,
    kind: Option<Template>,
}

/// Where a publish goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target<'r> {
    pub(crate) log_topic: &'r str,
    pub(crate) key: Bytes,
    pub(crate) kind: Option<Bytes>,
}

/// The compiled routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    pub(crate) fn compile(
        configs: &[RouteConfig],
        limits: TopicLimits,
    ) -> Result<RouteTable, RouteError> {
        let mut routes: Vec<Route> = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let route = Self::compile_one(index, config, limits)?;
            if let Some(earlier) = routes.iter().position(|r| r.filter == route.filter) {
                return Err(RouteError::Repeated {
                    index,
                    filter: config.filter.clone(),
                    earlier,
                });
            }
            routes.push(route);
        }
        Ok(RouteTable { routes })
    }

    fn compile_one(
        index: usize,
        config: &RouteConfig,
        limits: TopicLimits,
    ) -> Result<Route, RouteError> {
        let filter =
            TopicFilter::parse(&config.filter, limits).map_err(|e| RouteError::Filter {
                index,
                filter: config.filter.clone(),
                reason: e.to_string(),
            })?;
        let levels = config
            .filter
            .split('/')
            .filter(|level| *level != "#")
            .count();
        let template = |field: &'static str, text: &str| {
            Template::parse(text, levels).map_err(|reason| RouteError::Template {
                index,
                field,
                template: text.to_owned(),
                reason,
            })
        };
        Ok(Route {
            filter,
            topic: config.topic.clone(),
            partitions: config.partitions,
            key: template("key", &config.key)?,
            kind: config
                .kind
                .as_deref()
                .map(|kind| template("kind", kind))
                .transpose()?,
        })
    }

    /// The first route that matches.
    pub(crate) fn find(&self, topic: &str, client: &str) -> Option<Target<'_>> {
        let route = self
            .routes
            .iter()
            .find(|route| route.filter.matches(topic))?;
        Some(Target {
            log_topic: &route.topic,
            key: route.key.render(topic, client),
            kind: route.kind.as_ref().map(|kind| kind.render(topic, client)),
        })
    }

    /// Makes the log topics that are absent. Called at start, and again when a route's topic
    /// turns out to have been deleted.
    pub(crate) async fn ensure_topics(&self, log: &Log) -> Result<(), RouteError> {
        ensure_topic(log, UNROUTED_TOPIC, UNROUTED_PARTITIONS).await?;
        for route in &self.routes {
            ensure_topic(log, &route.topic, route.partitions).await?;
        }
        Ok(())
    }
}

async fn ensure_topic(log: &Log, name: &str, partitions: u32) -> Result<(), RouteError> {
    if log
        .topic(name)
        .is_some_and(|topic: std::sync::Arc<Topic>| !topic.partitions().is_empty())
    {
        return Ok(());
    }
    let new = NewTopic {
        name: name.to_owned(),
        partitions,
        configs: Vec::new(),
    };
    match log.create_topic(new).await {
        Ok(_) | Err(CreateTopicError::Exists(_)) => Ok(()),
        Err(source) => Err(RouteError::Topic {
            topic: name.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use proptest::prelude::*;

    use super::*;

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 256,
        levels_max: 16,
    };

    fn defaults() -> RouteTable {
        RouteTable::compile(&RouteConfig::defaults(), LIMITS).unwrap()
    }

    fn route(filter: &str, key: &str) -> RouteConfig {
        RouteConfig {
            filter: filter.to_owned(),
            topic: "t".to_owned(),
            key: key.to_owned(),
            kind: None,
            partitions: 1,
        }
    }

    #[test]
    fn default_routes_send_topics_where_they_belong() {
        let routes = defaults();
        for (topic, log_topic, key, kind) in [
            (
                "telemetry/inverters/inv-7",
                "telemetry.raw",
                "inv-7",
                Some("inverters"),
            ),
            (
                "devices/d-1/telemetry",
                "telemetry.raw",
                "d-1",
                Some("devices"),
            ),
            ("sites", "telemetry.raw", "cli", Some("sites")),
            ("grid", "telemetry.raw", "cli", Some("grid")),
            ("speed/sensor-1", "speed-events", "sensor-1", None),
        ] {
            let target = routes.find(topic, "cli").unwrap();
            assert_eq!(target.log_topic, log_topic, "{topic}");
            assert_eq!(target.key, key, "{topic}");
            assert_eq!(target.kind.as_deref(), kind.map(str::as_bytes), "{topic}");
        }
        for topic in ["telemetry/inverters", "sites/1", "speed", "other"] {
            assert_eq!(routes.find(topic, "cli"), None, "{topic}");
        }
    }

    #[test]
    fn the_first_match_wins() {
        let mut first = route("a/+", "{1}");
        first.topic = "first".to_owned();
        let routes = RouteTable::compile(&[first, route("a/#", "x")], LIMITS).unwrap();
        assert_eq!(routes.find("a/b", "c").unwrap().log_topic, "first");
        assert_eq!(routes.find("a/b/c", "c").unwrap().log_topic, "t");
    }

    #[test]
    fn faults_name_their_field() {
        let fault = |config: RouteConfig| {
            RouteTable::compile(&[config], LIMITS)
                .unwrap_err()
                .to_string()
        };
        assert!(fault(route("a/#/b", "x")).starts_with("mqtt.routes[0].filter \"a/#/b\""));
        assert_eq!(
            fault(route("a/+", "{3}")),
            "mqtt.routes[0].key \"{3}\": {3}: the filter has the levels 1 to 2"
        );
        assert!(fault(route("a/#", "{2}")).contains("the levels 1 to 1"));
        assert!(fault(route("a", "{0}")).contains("{0}"));
        assert!(fault(route("a", "{x}")).contains("neither a level"));
        assert!(fault(route("a", "{1")).contains("not closed"));
        assert!(fault(route("a", "1}")).contains("without '{'"));
        assert!(fault(route("a", "")).contains("empty"));
        let repeated =
            RouteTable::compile(&[route("a", "x"), route("a", "y")], LIMITS).unwrap_err();
        assert_eq!(
            repeated.to_string(),
            "mqtt.routes[1].filter \"a\" repeats the filter of mqtt.routes[0]"
        );
    }

    proptest! {
        #[test]
        fn a_template_of_levels_rebuilds_the_topic(levels in prop::collection::vec("[a-z0-9ü-]{0,8}", 1..8)) {
            let topic = levels.join("/");
            prop_assume!(!topic.is_empty());
            let filter = vec!["+"; levels.len()].join("/");
            let key = (1..=levels.len()).map(|n| format!("{{{n}}}")).collect::<Vec<_>>().join("/");
            let routes = RouteTable::compile(&[route(&filter, &key)], LIMITS).unwrap();
            prop_assert_eq!(routes.find(&topic, "c").unwrap().key, topic.as_bytes());
        }
    }
}
