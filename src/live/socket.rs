//! One WebSocket: the hello with its token, keep-alive, and an orderly end.
//!
//! Limits: a hello within [`HELLO_TIMEOUT`]; messages of [`MESSAGE_BYTES_MAX`]; silence of
//! `live.idle_timeout_s` ends the socket, a frame not taken within `live.send_timeout_s` too.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::{Live, LiveConfig};
use crate::auth::{Caller, TokenError};

/// From the upgrade to the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest message that a client may send.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// How long a client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Close code for a missing, wrong, expired or revoked token (the private range of RFC 6455, after HTTP's 401).
pub const CLOSE_UNAUTHORIZED: u16 = 4401;
/// Close code for somebody whom access rules do not let follow (after HTTP's 403).
pub const CLOSE_FORBIDDEN: u16 = 4403;
/// RFC 6455 section 7.4.1.
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_POLICY: u16 = 1008;

/// Judges a token; asked again from time to time while the socket lives.
pub type TokenCheck = Arc<dyn Fn(&str) -> Result<Caller, TokenError> + Send + Sync>;

/// What a socket must show before it is served.
#[derive(Clone)]
pub enum Gate {
    /// Nothing.
    Open(Caller),
    /// Nothing: this token came with the upgrade and was judged. It is asked again like one of a hello.
    Shown(Caller, TokenCheck, String),
    /// A hello with a token.
    Token(TokenCheck),
    /// A hello; a token in it is judged, and without one it is this caller.
    HelloOnly(Caller, TokenCheck),
}

/// Why a socket ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client left, broke off, or takes nothing any more.
    Gone,
    ShuttingDown,
    Unauthorized(&'static str),
    Forbidden(&'static str),
    Policy(&'static str),
}

/// What a client may say first.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Hello {
    Hello { token: Option<String> },
}

/// A socket with its timers.
pub(super) struct Link {
    socket: WebSocket,
    cancel: CancellationToken,
    idle_timeout: Duration,
    send_timeout: Duration,
    ping: Interval,
    heard: Instant,
    token: Option<(TokenCheck, String)>,
}

impl Link {
    pub(super) fn new(live: &Live, socket: WebSocket) -> Link {
        let LiveConfig {
            idle_timeout_s,
            ping_interval_s,
            send_timeout_s,
            ..
        } = live.shared.config;
        let every = Duration::from_secs(ping_interval_s.max(1));
        let mut ping = interval_at(Instant::now() + every, every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Link {
            socket,
            cancel: live.shared.cancel.clone(),
            idle_timeout: Duration::from_secs(idle_timeout_s.max(1)),
            send_timeout: Duration::from_secs(send_timeout_s.max(1)),
            ping,
            heard: Instant::now(),
            token: None,
        }
    }

    /// Lets the client in and says who it is; `welcome` says whether it is told so.
    pub(super) async fn hello(&mut self, gate: Gate, welcome: bool) -> Result<Caller, Ended> {
        let (check, without_token) = match gate {
            Gate::Open(caller) => return Ok(caller),
            Gate::Shown(caller, check, token) => {
                self.token = Some((check, token));
                return Ok(caller);
            }
            Gate::Token(check) => (check, None),
            Gate::HelloOnly(caller, check) => (check, Some(caller)),
        };
        let late = Ended::Unauthorized("no hello came in time");
        let first = timeout(HELLO_TIMEOUT, self.hear())
            .await
            .unwrap_or(Err(late))?;
        let malformed =
            Ended::Unauthorized("the first message must be {\"type\":\"hello\",\"token\":\"...\"}");
        let Ok(Hello::Hello { token }) = serde_json::from_str(&first) else {
            return Err(malformed);
        };
        let caller = match token.filter(|token| !token.is_empty()) {
            Some(token) => {
                let caller = check(&token).map_err(unauthorized)?;
                self.token = Some((check, token));
                caller
            }
            None => without_token.ok_or(malformed)?,
        };
        if welcome {
            self.send(r#"{"type":"welcome"}"#.into()).await?;
        }
        Ok(caller)
    }

    /// The next text of the client. Pings, answers, and checks the token in between.
    pub(super) async fn hear(&mut self) -> Result<Utf8Bytes, Ended> {
        loop {
            tokio::select! {
                // In this order: a client that talks without pause must not put off the end or the checks.
                biased;
                () = self.cancel.cancelled() => return Err(Ended::ShuttingDown),
                _ = self.ping.tick() => self.keep_alive().await?,
                message = self.socket.recv() => {
                    self.heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => return Ok(text),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Err(Ended::Policy("messages are JSON text")),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Ended::Gone),
                    }
                }
            }
        }
    }

    async fn keep_alive(&mut self) -> Result<(), Ended> {
        if self.heard.elapsed() >= self.idle_timeout {
            return Err(Ended::Policy("nothing was heard for too long"));
        }
        if let Some((check, token)) = &self.token {
            check(token).map_err(unauthorized)?;
        }
        self.deliver(Message::Ping(Bytes::new())).await
    }

    pub(super) async fn send(&mut self, frame: Utf8Bytes) -> Result<(), Ended> {
        self.deliver(Message::Text(frame)).await
    }

    async fn deliver(&mut self, message: Message) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Ended::ShuttingDown),
            sent = timeout(self.send_timeout, self.socket.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Ended::Gone),
            }
        }
    }

    /// Tells the client why and waits, briefly, for its answer.
    pub(super) async fn close(mut self, ended: Ended) {
        let (code, reason) = match ended {
            Ended::Gone => return,
            Ended::ShuttingDown => (CLOSE_GOING_AWAY, "the node is shutting down"),
            Ended::Unauthorized(reason) => (CLOSE_UNAUTHORIZED, reason),
            Ended::Forbidden(reason) => (CLOSE_FORBIDDEN, reason),
            Ended::Policy(reason) => (CLOSE_POLICY, reason),
        };
        let farewell = async {
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        // A client that does not answer loses its socket all the same.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

fn unauthorized(refused: TokenError) -> Ended {
    Ended::Unauthorized(match refused {
        TokenError::Expired => "the token has expired",
        TokenError::Revoked => "the token was revoked",
        TokenError::Invalid => "the token is not valid",
    })
}
