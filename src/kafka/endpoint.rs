//! One listener of the door: its addresses, and what it asks of whoever connects.
//!
//! `[[kafka.listeners]]` is decoded and judged here; an [`Endpoint`] is such a listener bound. Knows no
//! connection. With `kafka.listen` alone there is one plaintext listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;
use tokio::net::TcpListener;

use super::config::KafkaConfig;
use super::listener::StartError;
use super::sasl::Mechanism;
use crate::tls::{ClientAuth, Tls, TlsConfig};

/// Listeners of one node.
const LISTENERS_MAX: usize = 32;
/// Bytes of a listener's name.
const NAME_BYTES_MAX: usize = 64;
/// Kafka's name of the listener that `kafka.listen` opens.
const SIMPLE_NAME: &str = "PLAINTEXT";

/// One of `[[kafka.listeners]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Names it in `listeners` and in announcements.
    pub name: String,
    pub listen: SocketAddr,
    /// `host:port` that clients who came in here are told. Default: the address they came in at.
    #[serde(default)]
    pub advertised: Option<String>,
    /// Default `plaintext`.
    #[serde(default)]
    pub security: Security,
    /// What SASL is offered. Default all of them, where `security` has SASL.
    #[serde(default)]
    pub sasl_mechanisms: Option<Vec<Mechanism>>,
    /// Opens a listener on a non-loopback address where nobody must say who they are. Default false.
    #[serde(default)]
    pub allow_anonymous: bool,
    /// `[kafka.listeners.tls]`.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// Kafka's security protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Security {
    /// As Kafka spells it.
    pub fn name(self) -> &'static str {
        match self {
            Security::Plaintext => "PLAINTEXT",
            Security::Ssl => "SSL",
            Security::SaslPlaintext => "SASL_PLAINTEXT",
            Security::SaslSsl => "SASL_SSL",
        }
    }

    pub fn has_tls(self) -> bool {
        matches!(self, Security::Ssl | Security::SaslSsl)
    }

    pub fn has_sasl(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslSsl)
    }
}

/// Every listener that a configuration asks for, the simple one first.
pub(super) fn listeners(config: &KafkaConfig) -> Vec<ListenerConfig> {
    let simple = config.simple_listen().map(|listen| ListenerConfig {
        name: SIMPLE_NAME.to_owned(),
        listen,
        advertised: config.advertised.clone(),
        security: Security::Plaintext,
        sasl_mechanisms: None,
        allow_anonymous: config.allow_anonymous,
        tls: None,
    });
    simple.into_iter().chain(config.listeners.clone()).collect()
}

/// What no type can say of `[[kafka.listeners]]`; the sentence begins with the key.
pub(super) fn validate(config: &KafkaConfig) -> Result<(), String> {
    if config.listeners.len() > LISTENERS_MAX {
        return Err(format!(
            "kafka.listeners: at most {LISTENERS_MAX} listeners are possible"
        ));
    }
    for (place, listener) in config.listeners.iter().enumerate() {
        let sentence = |key: &str, complaint: String| {
            Err(format!("kafka.listeners[{place}].{key}: {complaint}"))
        };
        let earlier = config.listeners.get(..place).unwrap_or_default();
        let is_same = |name: &str| name.eq_ignore_ascii_case(&listener.name);
        if !is_name(&listener.name) {
            let complaint = format!(
                "{:?} is not a name of letters, digits, '_', '-' and '.'",
                listener.name
            );
            return sentence("name", complaint);
        }
        let is_simple = config.simple_listen().is_some() && is_same(SIMPLE_NAME);
        if is_simple || earlier.iter().any(|other| is_same(&other.name)) {
            return sentence("name", format!("{:?} is there twice", listener.name));
        }
        if let Err((key, complaint)) = listener.check() {
            return sentence(key, complaint);
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits)
}

impl ListenerConfig {
    /// The key, and what is wrong with it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let security = self.security;
        if security.has_tls() && self.tls.is_none() {
            let complaint = "this needs a section [kafka.listeners.tls]".to_owned();
            return Err(("security", complaint));
        }
        if !security.has_tls() && self.tls.is_some() {
            let complaint = format!("{} has no TLS", security.name());
            return Err(("tls", complaint));
        }
        if let Some(mechanisms) = &self.sasl_mechanisms {
            if !security.has_sasl() {
                let complaint = format!("{} has no SASL", security.name());
                return Err(("sasl_mechanisms", complaint));
            }
            if mechanisms.is_empty() {
                return Err(("sasl_mechanisms", "at least one is needed".to_owned()));
            }
        }
        if let Some(advertised) = &self.advertised {
            parse_advertised(advertised)
                .ok_or_else(|| ("advertised", format!("{advertised:?} is not host:port")))?;
        }
        match self.is_open_by_accident() {
            true => Err((
                "listen",
                format!(
                    "{} is reachable from other machines, and nobody would have to say who they are: \
                     set its allow_anonymous = true to mean that",
                    self.listen
                ),
            )),
            false => Ok(()),
        }
    }

    /// Whether strangers could come in without anybody having said so.
    fn is_open_by_accident(&self) -> bool {
        !self.allow_anonymous && !self.listen.ip().is_loopback() && !self.authenticates()
    }

    /// Whether everybody must say who they are.
    fn authenticates(&self) -> bool {
        let tls = self.tls.as_ref();
        self.security.has_sasl() || tls.is_some_and(|tls| tls.client_auth == ClientAuth::Required)
    }

    /// Binds it, and reads its certificates.
    pub(super) async fn open(self) -> Result<(TcpListener, Endpoint), StartError> {
        if self.is_open_by_accident() {
            return Err(StartError::Anonymous(self.listen));
        }
        let advertised = match &self.advertised {
            Some(text) => {
                Some(parse_advertised(text).ok_or_else(|| StartError::Advertised(text.clone()))?)
            }
            None => None,
        };
        let tls = match &self.tls {
            Some(config) => Some(Arc::new(self.load(config.clone()).await?)),
            None => None,
        };
        let bind_error = |source: io::Error| StartError::Bind {
            address: self.listen,
            source,
        };
        let listener = TcpListener::bind(self.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let mechanisms = match (&self.sasl_mechanisms, self.security.has_sasl()) {
            (_, false) => Vec::new(),
            (Some(named), true) => named.clone(),
            (None, true) => Mechanism::ALL.to_vec(),
        };
        let endpoint = Endpoint {
            name: self.name,
            address,
            advertised,
            security: self.security,
            mechanisms,
            tls,
            tls_config: self.tls,
        };
        Ok((listener, endpoint))
    }

    async fn load(&self, config: TlsConfig) -> Result<Tls, StartError> {
        let name = self.name.clone();
        let loaded = tokio::task::spawn_blocking(move || Tls::load(config)).await;
        match loaded {
            Ok(loaded) => loaded.map_err(|source| StartError::Tls { name, source }),
            Err(source) => Err(StartError::Task(source)),
        }
    }
}

/// A listener that is open.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) name: String,
    /// Where it is bound.
    pub(super) address: SocketAddr,
    /// `None`: clients are told the address they came in at.
    pub(super) advertised: Option<(String, u16)>,
    pub(super) security: Security,
    /// Empty without SASL.
    pub(super) mechanisms: Vec<Mechanism>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tls_config: Option<TlsConfig>,
}

fn parse_advertised(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fits = (1..=255).contains(&host.len());
    fits.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn advertised_addresses_are_host_and_port() {
        assert_eq!(
            parse_advertised("box.local:9092").unwrap(),
            ("box.local".into(), 9092)
        );
        assert_eq!(parse_advertised("[::1]:1").unwrap(), ("::1".into(), 1));
        for wrong in ["box.local", ":9092", "box:port", "box:70000"] {
            assert!(parse_advertised(wrong).is_none(), "{wrong}");
        }
    }

    fn of_toml(text: &str) -> KafkaConfig {
        toml::from_str(text).unwrap()
    }

    const TLS: &str = "[listeners.tls]\ncertificate_file = \"c\"\nprivate_key_file = \"k\"\n";

    #[test]
    fn listed_listeners_stand_in_for_the_simple_one_unless_it_is_named() {
        let names = |config: &KafkaConfig| -> Vec<String> {
            let all = listeners(config).into_iter();
            all.map(|listener| format!("{} {}", listener.name, listener.listen))
                .collect()
        };
        assert_eq!(names(&of_toml("")), ["PLAINTEXT 127.0.0.1:9092"]);
        let listed = "[[listeners]]\nname = \"IN\"\nlisten = \"127.0.0.1:1\"\n";
        assert_eq!(names(&of_toml(listed)), ["IN 127.0.0.1:1"]);
        let both = format!("listen = \"127.0.0.1:2\"\n{listed}");
        assert_eq!(
            names(&of_toml(&both)),
            ["PLAINTEXT 127.0.0.1:2", "IN 127.0.0.1:1"]
        );
    }

    #[test]
    fn what_cannot_be_is_named_with_its_place() {
        let listener = |rest: &str| {
            format!(
                "[[listeners]]\nname = \"IN\"\nlisten = \"0.0.0.0:1\"\nallow_anonymous = true\n{rest}"
            )
        };
        let wrong = [
            (listener("security = \"ssl\""), "[0].security: this needs"),
            (listener(TLS), "[0].tls: PLAINTEXT has no TLS"),
            (
                listener("sasl_mechanisms = [\"PLAIN\"]"),
                "[0].sasl_mechanisms: PLAINTEXT has no SASL",
            ),
            (
                listener("security = \"sasl_plaintext\"\nsasl_mechanisms = []"),
                "[0].sasl_mechanisms: at least one",
            ),
            (listener("advertised = \"x\""), "[0].advertised: \"x\""),
            (
                listener("") + &listener("").replace("IN", "in"),
                "[1].name: \"in\" is there twice",
            ),
            (
                listener("").replace("IN", "a b"),
                "[0].name: \"a b\" is not a name",
            ),
            (
                listener("").replace("allow_anonymous = true", ""),
                "[0].listen: 0.0.0.0:1 is reachable",
            ),
            (
                format!(
                    "listen = \"127.0.0.1:1\"\n{}",
                    listener("").replace("IN", "plaintext")
                ),
                "[0].name: \"plaintext\" is there twice",
            ),
        ];
        for (text, start) in wrong {
            let error = validate(&of_toml(&text)).unwrap_err();
            let expected = format!("kafka.listeners{start}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn only_a_listener_that_lets_strangers_in_must_say_so() {
        let reachable = |rest: &str| {
            let text = format!("[[listeners]]\nname = \"IN\"\nlisten = \"0.0.0.0:1\"\n{rest}");
            validate(&of_toml(&text))
        };
        reachable("security = \"sasl_plaintext\"").unwrap();
        let tls = |auth: &str| reachable(&format!("security = \"ssl\"\n{TLS}{auth}"));
        tls("client_auth = \"required\"\nclient_ca_file = \"ca\"").unwrap();
        tls("client_auth = \"requested\"\nclient_ca_file = \"ca\"").unwrap_err();
        tls("").unwrap_err();
    }
}
