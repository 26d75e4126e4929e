//! The `[mqtt]` section: listener, limits and routes.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::tls::listener::TlsListenerConfig;

/// Configuration of the MQTT door. Every limit is per node unless it says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Address of the plain TCP listener. Default 127.0.0.1:1883.
    pub listen: SocketAddr,
    /// Whether clients without credentials are let in. Left out (the default): on a loopback
    /// address yes, on any other no. Wrong credentials are refused either way.
    pub allow_anonymous: Option<bool>,
    /// `[mqtt.tls]`: a listener with TLS beside the plain one; every limit counts both together.
    /// Default none.
    pub tls: Option<TlsListenerConfig>,
    /// Connected clients. Default 10000.
    pub connections_max: usize,
    /// Bytes of one packet, fixed header included; told to MQTT 5 clients. Default 921600
    /// (900 KiB), which with its headers fits a record batch of 1 MiB.
    pub packet_bytes_max: u32,
    /// Milliseconds from TCP accept to a complete CONNECT. Default 10000.
    pub handshake_timeout_ms: u64,
    /// Milliseconds a client may leave our bytes unread before it is closed. Default 30000.
    pub write_timeout_ms: u64,
    /// Longest keep-alive in seconds; an MQTT 5 client that asks for more, or for none, is told
    /// this one. 0 (the default) leaves the choice to the client.
    pub keep_alive_max_s: u16,
    /// Bytes of a client identifier. Default 128.
    pub client_id_bytes_max: usize,
    /// Bytes of a topic name or topic filter. Default 1024.
    pub topic_bytes_max: usize,
    /// Levels of a topic name or topic filter. Default 32.
    pub topic_levels_max: usize,
    /// User properties of one MQTT 5 publish. Default 64.
    pub user_properties_max: usize,
    /// Topic aliases a client may set (per connection). Default 64.
    pub topic_alias_max: u16,
    /// QoS 1 publishes of one connection that wait for their fdatasync; told to MQTT 5 clients as
    /// receive maximum. At the limit the connection is not read. Default 10000.
    pub in_flight_max: u16,
    /// The same in bytes of packets. Default 8 MiB.
    pub in_flight_bytes_max: usize,
    /// Subscriptions of one client, and distinct filters of one SUBSCRIBE. Default 100.
    pub subscriptions_per_client_max: usize,
    /// Distinct topic filters with live subscribers. Default 10000.
    pub filters_max: usize,
    /// QoS 1 messages sent to one subscriber and not yet acknowledged by it; a smaller receive
    /// maximum of the client wins. Default 1000.
    pub outgoing_in_flight_max: u16,
    /// Messages that wait for one subscriber. At the limit it misses the newest, counted and
    /// logged. Default 10000.
    pub outgoing_messages_max: usize,
    /// The same in bytes. Default 16 MiB.
    pub outgoing_bytes_max: usize,
    /// Retained messages. Default 10000.
    pub retained_max: usize,
    /// Bytes of all retained messages. Default 16 MiB.
    pub retained_bytes_max: usize,
    /// Bytes of one retained message. Default 64 KiB.
    pub retained_message_bytes_max: usize,
    /// Where publishes go in the log; the first match wins.
    pub routes: Vec<RouteConfig>,
}

/// One route from MQTT topics to a log topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// MQTT topic filter.
    pub filter: String,
    /// Log topic; made at start if it is absent.
    pub topic: String,
    /// Template of the record key: `{1}`, `{2}`, ... are the levels of the MQTT topic, `{client}`
    /// is the client identifier. Default `{client}`.
    #[serde(default = "client_template")]
    pub key: String,
    /// Template of the record header `kind`; left out, there is no such header.
    #[serde(default)]
    pub kind: Option<String>,
    /// Partitions of the log topic if it has to be made. Default 6.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
}

fn client_template() -> String {
    "{client}".to_owned()
}

fn default_partitions() -> u32 {
    6
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            allow_anonymous: None,
            tls: None,
            connections_max: 10_000,
            packet_bytes_max: 900 << 10,
            handshake_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            keep_alive_max_s: 0,
            client_id_bytes_max: 128,
            topic_bytes_max: 1024,
            topic_levels_max: 32,
            user_properties_max: 64,
            topic_alias_max: 64,
            in_flight_max: 10_000,
            in_flight_bytes_max: 8 << 20,
            subscriptions_per_client_max: 100,
            filters_max: 10_000,
            outgoing_in_flight_max: 1_000,
            outgoing_messages_max: 10_000,
            outgoing_bytes_max: 16 << 20,
            retained_max: 10_000,
            retained_bytes_max: 16 << 20,
            retained_message_bytes_max: 64 << 10,
            routes: RouteConfig::defaults(),
        }
    }
}

impl RouteConfig {
    fn new(filter: &str, topic: &str, key: &str, kind: Option<&str>) -> RouteConfig {
        RouteConfig {
            filter: filter.to_owned(),
            topic: topic.to_owned(),
            key: key.to_owned(),
            kind: kind.map(str::to_owned),
            partitions: default_partitions(),
        }
    }

    /// The routes of a node that configures none.
    pub fn defaults() -> Vec<RouteConfig> {
        let mut routes = vec![
            RouteConfig::new("telemetry/+/+", "telemetry.raw", "{3}", Some("{2}")),
            RouteConfig::new(
                "devices/+/telemetry",
                "telemetry.raw",
                "{2}",
                Some("devices"),
            ),
        ];
        routes.extend(
            ["sites", "inverters", "strings", "weather", "grid"]
                .map(|kind| RouteConfig::new(kind, "telemetry.raw", "{client}", Some("{1}"))),
        );
        routes.push(RouteConfig::new("speed/+", "speed-events", "{2}", None));
        routes
    }
}

impl MqttConfig {
    /// Checks what can be checked without the log. The text names the field.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let at_least_one = [
            ("connections_max", self.connections_max),
            ("client_id_bytes_max", self.client_id_bytes_max),
            ("topic_bytes_max", self.topic_bytes_max),
            ("topic_levels_max", self.topic_levels_max),
            ("in_flight_max", usize::from(self.in_flight_max)),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
            (
                "outgoing_in_flight_max",
                usize::from(self.outgoing_in_flight_max),
            ),
            ("outgoing_messages_max", self.outgoing_messages_max),
            ("outgoing_bytes_max", self.outgoing_bytes_max),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(format!("mqtt.{field} must be at least 1"));
            }
        }
        for (field, value) in [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
        ] {
            if value == 0 {
                return Err(format!("mqtt.{field} must be at least 1"));
            }
        }
        let packet_range = 256..=(64 << 20);
        if !packet_range.contains(&self.packet_bytes_max) {
            return Err(format!(
                "mqtt.packet_bytes_max is {}: {} to {} are possible",
                self.packet_bytes_max,
                packet_range.start(),
                packet_range.end()
            ));
        }
        Ok(())
    }

    /// Whether a client without credentials is let in by the listener of this address.
    pub(crate) fn anonymous_allowed(&self, listen: SocketAddr) -> bool {
        self.allow_anonymous
            .unwrap_or_else(|| listen.ip().is_loopback())
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
    use super::*;

    #[test]
    fn anonymous_follows_the_address_unless_said_in_words() {
        let mut config = MqttConfig::default();
        let (here, reachable) = (
            "127.0.0.1:1883".parse().unwrap(),
            "0.0.0.0:1883".parse().unwrap(),
        );
        assert!(config.anonymous_allowed(here));
        assert!(!config.anonymous_allowed(reachable));
        config.allow_anonymous = Some(true);
        assert!(config.anonymous_allowed(reachable));
        config.allow_anonymous = Some(false);
        assert!(!config.anonymous_allowed(here));
    }

    #[test]
    fn limits_out_of_range_name_their_field() {
        let config = MqttConfig {
            in_flight_max: 0,
            ..MqttConfig::default()
        };
        assert_eq!(
            config.validate().unwrap_err(),
            "mqtt.in_flight_max must be at least 1"
        );
        let config = MqttConfig {
            packet_bytes_max: 10,
            ..MqttConfig::default()
        };
        assert!(
            config
                .validate()
                .unwrap_err()
                .starts_with("mqtt.packet_bytes_max is 10")
        );
    }
}
