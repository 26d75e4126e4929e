//! The mechanisms of SASL: a client's tokens in, the node's answers out, and who it is in the end.
//!
//! PLAIN (RFC 4616) and SCRAM (RFC 5802); [`crate::auth`] judges. Knows no frames: [`super::sign_in`]
//! carries the tokens.

use std::net::IpAddr;

use serde::Deserialize;

use crate::auth::scram::ScramMechanism;
use crate::auth::{Auth, LoginError, Principal, ScramLogin};

/// What a client can sign in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    pub const ALL: [Mechanism; 3] = [
        Mechanism::Plain,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => ScramMechanism::Sha256.name(),
            Mechanism::ScramSha512 => ScramMechanism::Sha512.name(),
        }
    }
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaslError {
    #[error("not a PLAIN message: {0}")]
    Plain(&'static str),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl SaslError {
    /// The sentence that the client is told, in Kafka's form. `None`: it is told nothing, and hung up
    /// on, because it shall come again.
    pub(super) fn told(&self, mechanism: Mechanism) -> Option<String> {
        match self {
            SaslError::Login(LoginError::Busy | LoginError::NoRandomness) => None,
            SaslError::Login(LoginError::TooManyFailures { .. }) => {
                Some(format!("Authentication failed: {self}"))
            }
            SaslError::Plain(reason) => Some(format!("Authentication failed: {reason}")),
            SaslError::Login(_) if mechanism == Mechanism::Plain => {
                Some("Authentication failed: Invalid username or password".to_owned())
            }
            SaslError::Login(_) => Some(format!(
                "Authentication failed during authentication due to invalid credentials with SASL mechanism {}",
                mechanism.name()
            )),
        }
    }
}

/// One exchange, as far as it has come.
pub(super) enum Exchange {
    Plain,
    ScramFirst(ScramMechanism),
    ScramFinal(Box<ScramLogin>),
}

/// What a token led to.
pub(super) enum Step {
    /// The answer, and what waits for the next token.
    More(String, Exchange),
    /// The answer, and who it is.
    Done(String, Principal),
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism) -> Exchange {
        match mechanism {
            Mechanism::Plain => Exchange::Plain,
            Mechanism::ScramSha256 => Exchange::ScramFirst(ScramMechanism::Sha256),
            Mechanism::ScramSha512 => Exchange::ScramFirst(ScramMechanism::Sha512),
        }
    }

    pub(super) async fn step(
        self,
        auth: &Auth,
        token: &[u8],
        from: IpAddr,
    ) -> Result<Step, SaslError> {
        match self {
            Exchange::Plain => {
                let (name, password) = parse_plain(token).map_err(SaslError::Plain)?;
                let principal = auth.login(name, password, from).await?;
                Ok(Step::Done(String::new(), principal))
            }
            Exchange::ScramFirst(mechanism) => {
                let (login, answer) = auth.scram_start(mechanism, token, from)?;
                Ok(Step::More(answer, Exchange::ScramFinal(Box::new(login))))
            }
            Exchange::ScramFinal(login) => {
                let (principal, answer) = auth.scram_finish(*login, token)?;
                Ok(Step::Done(answer, principal))
            }
        }
    }
}

/// `[authorization id] NUL name NUL password`.
fn parse_plain(token: &[u8]) -> Result<(&str, &str), &'static str> {
    let text = std::str::from_utf8(token).map_err(|_| "the message is not UTF-8")?;
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let &[authorization, name, password] = parts.as_slice() else {
        return Err("expected an authorization id, a name and a password");
    };
    match (authorization, name, password) {
        (_, "", _) => Err("username not specified"),
        (_, _, "") => Err("password not specified"),
        (id, name, _) if !id.is_empty() && id != name => {
            Err("Client requested an authorization id that is different from username")
        }
        (_, name, password) => Ok((name, password)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_messages_have_three_parts() {
        assert_eq!(parse_plain(b"\0alice\0secret"), Ok(("alice", "secret")));
        assert_eq!(parse_plain(b"alice\0alice\0s"), Ok(("alice", "s")));
        let wrong: [&[u8]; 8] = [
            b"",
            b"alice",
            b"\0alice",
            b"\0alice\0s\0",
            b"\0\0s",
            b"\0alice\0",
            b"bob\0alice\0s",
            b"\0\xff\0s",
        ];
        for token in wrong {
            assert!(parse_plain(token).is_err(), "{token:?}");
        }
    }
}
