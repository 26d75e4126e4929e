//! Who is asking, after authentication: the same for every door.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::scram::ScramMechanism;

/// Kafka's type of every principal that this node knows; access rules name principals with it.
pub const PRINCIPAL_TYPE: &str = "User:";

/// Whoever did not say who they are, as Kafka names them.
pub const ANONYMOUS: &str = "ANONYMOUS";

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// Not at all.
    None,
    /// A password or machine token in the clear: MQTT, `POST /auth`, SASL PLAIN.
    Secret,
    /// A token of the HTTP door.
    Bearer,
    Scram(ScramMechanism),
    /// A client's certificate in the TLS handshake.
    Certificate,
}

/// Somebody's name, how they showed it, and where they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// With its type: `User:alice`.
    full_name: Arc<str>,
    authentication: Authentication,
    peer: IpAddr,
    /// Fingerprint of the credential presented, where it is one that a token can be bound to.
    pub(super) credential: Option<Arc<str>>,
}

impl Principal {
    /// Somebody who was let in without saying who they are.
    pub fn anonymous(peer: IpAddr) -> Principal {
        Principal::new(ANONYMOUS, Authentication::None, peer)
    }

    /// Somebody whom a TLS handshake authenticated; the name is what the certificate's subject was
    /// mapped to.
    pub fn of_certificate(name: &str, peer: IpAddr) -> Principal {
        Principal::new(name, Authentication::Certificate, peer)
    }

    pub(super) fn new(name: &str, authentication: Authentication, peer: IpAddr) -> Principal {
        Principal {
            full_name: Arc::from([PRINCIPAL_TYPE, name].concat()),
            authentication,
            peer,
            credential: None,
        }
    }

    pub(super) fn with_credential(mut self, fingerprint: &str) -> Principal {
        self.credential = Some(Arc::from(fingerprint));
        self
    }

    /// `alice`.
    pub fn name(&self) -> &str {
        self.full_name
            .strip_prefix(PRINCIPAL_TYPE)
            .unwrap_or_default()
    }

    /// `User:alice`, as access rules and Kafka's tools spell it.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    pub fn authentication(&self) -> Authentication {
        self.authentication
    }

    pub fn is_anonymous(&self) -> bool {
        self.authentication == Authentication::None
    }

    /// The address that the connection comes from.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full_name)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Principal {
            full_name,
            authentication,
            peer,
            ..
        } = self;
        write!(f, "Principal({full_name}, {authentication:?}, {peer})")
    }
}
