//! What happens before a connection's first request: the TLS handshake, then SASL.
//!
//! Until it is known who the client is, only ApiVersions, SaslHandshake and SaslAuthenticate are
//! answered, one at a time. After a SaslHandshake of version 0 the tokens come as frames without
//! Kafka's header (clients from before KIP-152). Whoever fails is told so after a pause, which costs
//! guessers time and the node nothing, and is closed.
//!
//! Limits: `kafka.handshake_timeout_ms` for all of it, [`FRAME_BYTES_MAX`] for one frame.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::broker::{Asker, Broker};
use super::endpoint::Endpoint;
use super::handlers;
use super::protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use super::protocol::wire::LENGTH_BYTES;
use super::protocol::{
    self, ApiKey, DecodeError, EncodeError, ErrorCode, Request, RequestHeader, Response, Str,
};
use super::sasl::{Exchange, Mechanism, SaslError, Step};
use super::stream::{self, FromClient, ToClient};
use super::throttle::Throttle;
use crate::auth::Principal;
use crate::tls::TlsError;

/// Largest frame of somebody unknown.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 10;

/// Between a failure and its answer. Kafka: `connection.failed.authentication.delay.ms`.
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// How a TLS handshake begins: its record type, and the major version.
const TLS_BEGINS: [u8; 2] = [0x16, 0x03];

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the client closed the connection before it was known who it is")]
    ByClient,
    #[error("not signed in after {0} ms")]
    TimedOut(u64),
    #[error("the node is stopping")]
    Stopping,
    #[error("the client does not speak TLS, and this listener does")]
    NotTls,
    #[error("the client speaks TLS, and this listener does not")]
    Tls,
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the client's certificate: {0}")]
    Certificate(#[from] TlsError),
    #[error("a frame of {0} bytes before the client signed in; {FRAME_BYTES_MAX} are possible")]
    FrameLength(i32),
    #[error("a request before the client signed in: {0}")]
    Request(&'static str),
    #[error("SASL mechanism {0:?} is not enabled")]
    Mechanism(String),
    #[error("{} failed: {error}", mechanism.name())]
    Sasl {
        mechanism: Mechanism,
        error: SaslError,
    },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("cannot encode an answer: {0}")]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether these bytes, read as the length of a frame, are the beginning of a TLS handshake.
pub(super) fn is_tls(length: i32) -> bool {
    length.to_be_bytes().starts_with(&TLS_BEGINS)
}

/// A connection whose client is known, and what has been read of its requests.
pub(super) struct Entered {
    pub(super) principal: Principal,
    pub(super) from: FromClient,
    pub(super) to: ToClient,
    pub(super) buffer: BytesMut,
}

/// Does what the listener asks for, in time.
pub(super) async fn enter(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<Entered, Refused> {
    let limit_ms = broker.config.handshake_timeout_ms;
    let entering = try_enter(broker, endpoint, socket, peer, local);
    tokio::select! {
        entered = timeout(Duration::from_millis(limit_ms), entering) => {
            entered.unwrap_or(Err(Refused::TimedOut(limit_ms)))
        }
        () = broker.stop.cancelled() => Err(Refused::Stopping),
    }
}

async fn try_enter(
    broker: &Arc<Broker>,
    endpoint: &Arc<Endpoint>,
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<Entered, Refused> {
    let anonymous = Principal::anonymous(peer.ip());
    let (principal, (from, to)) = match &endpoint.tls {
        None => (anonymous, stream::plain(socket)),
        Some(tls) => {
            let accepted = tls.acceptor().accept(socket).await;
            let accepted = accepted.map_err(handshake_error)?;
            let principal = match endpoint.security.has_sasl() {
                true => anonymous,
                false => match tls.client_name(accepted.get_ref().1)? {
                    Some(name) => Principal::of_certificate(&name, peer.ip()),
                    None => anonymous,
                },
            };
            (principal, stream::tls(accepted))
        }
    };
    let entered = Entered {
        principal,
        from,
        to,
        buffer: BytesMut::new(),
    };
    if !endpoint.security.has_sasl() {
        return Ok(entered);
    }
    let mut signing_in = SigningIn {
        broker,
        endpoint,
        peer,
        local,
        connection: entered,
    };
    let principal = signing_in.run().await?;
    Ok(Entered {
        principal,
        ..signing_in.connection
    })
}

fn handshake_error(error: io::Error) -> Refused {
    let source = error.get_ref().and_then(|e| e.downcast_ref());
    match source {
        Some(rustls::Error::InvalidMessage(_)) => Refused::NotTls,
        None if error.kind() == io::ErrorKind::UnexpectedEof => Refused::ByClient,
        _ => Refused::Handshake(error),
    }
}

/// A connection in the middle of SASL.
struct SigningIn<'a> {
    broker: &'a Arc<Broker>,
    endpoint: &'a Arc<Endpoint>,
    peer: SocketAddr,
    local: SocketAddr,
    connection: Entered,
}

/// How tokens travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// In SaslAuthenticate.
    ByRequests,
    /// Behind their length, after a SaslHandshake of version 0.
    Raw,
}

impl SigningIn<'_> {
    async fn run(&mut self) -> Result<Principal, Refused> {
        let (mechanism, carried) = self.handshake().await?;
        let mut exchange = Exchange::new(mechanism);
        loop {
            let (token, header) = match carried {
                Carried::Raw => (self.frame().await?, None),
                Carried::ByRequests => {
                    let (header, request) = self.token().await?;
                    (request.auth_bytes, Some(header))
                }
            };
            let step = exchange.step(&self.broker.auth, &token, self.peer.ip());
            let answer = match step.await {
                Err(error) => return Err(self.fail(mechanism, error, header).await?),
                Ok(Step::Done(answer, principal)) => {
                    self.answer_token(header, answer).await?;
                    return Ok(principal);
                }
                Ok(Step::More(answer, next)) => {
                    exchange = next;
                    answer
                }
            };
            self.answer_token(header, answer).await?;
        }
    }

    /// Answers until the client has named a mechanism.
    async fn handshake(&mut self) -> Result<(Mechanism, Carried), Refused> {
        loop {
            let frame = self.frame().await?;
            let header = protocol::decode_header(&frame)?;
            let request = match protocol::decode_request(frame) {
                Ok((_, request)) => request,
                Err(DecodeError::UnsupportedVersion { .. })
                    if header.api_key == ApiKey::ApiVersions.code() =>
                {
                    let response = handlers::unknown_api_versions().into();
                    self.answer(&response, 0, header.correlation_id).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match request {
                Request::ApiVersions(request) => {
                    let asker = self.asker(&header);
                    let response = handlers::api_versions(&asker, &request).into();
                    let version = header.api_version;
                    self.answer(&response, version, header.correlation_id)
                        .await?;
                }
                Request::SaslHandshake(request) => return self.choose(&header, &request).await,
                Request::SaslAuthenticate(_) => {
                    return Err(self.refuse(&header, ApiKey::SaslAuthenticate).await?);
                }
                other => return Err(Refused::Request(other.api().name())),
            }
        }
    }

    async fn choose(
        &mut self,
        header: &RequestHeader,
        request: &SaslHandshakeRequest,
    ) -> Result<(Mechanism, Carried), Refused> {
        let enabled = &self.endpoint.mechanisms;
        let asked = request.mechanism.as_str();
        let chosen = enabled.iter().find(|m| m.name() == asked).copied();
        let error = match chosen {
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnsupportedSaslMechanism,
        };
        let response = SaslHandshakeResponse {
            error_code: error.code(),
            mechanisms: enabled.iter().map(|m| m.name().into()).collect(),
        };
        let version = header.api_version;
        self.answer(&response.into(), version, header.correlation_id)
            .await?;
        let carried = match version {
            0 => Carried::Raw,
            _ => Carried::ByRequests,
        };
        let chosen = chosen.ok_or_else(|| Refused::Mechanism(asked.chars().take(64).collect()));
        Ok((chosen?, carried))
    }

    /// The next SaslAuthenticate.
    async fn token(&mut self) -> Result<(RequestHeader, SaslAuthenticateRequest), Refused> {
        let frame = self.frame().await?;
        match protocol::decode_request(frame)? {
            (header, Request::SaslAuthenticate(request)) => Ok((header, request)),
            (header, Request::SaslHandshake(_)) => {
                Err(self.refuse(&header, ApiKey::SaslHandshake).await?)
            }
            (_, other) => Err(Refused::Request(other.api().name())),
        }
    }

    /// For a step of SASL that is not due.
    async fn refuse(&mut self, header: &RequestHeader, api: ApiKey) -> Result<Refused, Refused> {
        let response = handlers::illegal_sasl_state(api);
        let version = header.api_version;
        self.answer(&response, version, header.correlation_id)
            .await?;
        Ok(Refused::Request(api.name()))
    }

    /// Tells the client, if it can be told, that it is not who it says.
    async fn fail(
        &mut self,
        mechanism: Mechanism,
        error: SaslError,
        header: Option<RequestHeader>,
    ) -> Result<Refused, Refused> {
        tokio::time::sleep(FAILURE_DELAY).await;
        if let (Some(header), Some(message)) = (header, error.told(mechanism)) {
            let response = SaslAuthenticateResponse {
                error_code: ErrorCode::SaslAuthenticationFailed.code(),
                error_message: Some(message.into()),
                ..Default::default()
            };
            let (version, id) = (header.api_version, header.correlation_id);
            self.answer(&response.into(), version, id).await?;
        }
        Ok(Refused::Sasl { mechanism, error })
    }

    async fn answer_token(
        &mut self,
        header: Option<RequestHeader>,
        answer: String,
    ) -> Result<(), Refused> {
        let Some(header) = header else {
            let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
            let frame = [&length.to_be_bytes(), answer.as_bytes()].concat();
            return self.send(&frame).await;
        };
        let response = SaslAuthenticateResponse {
            error_message: None,
            auth_bytes: answer.into(),
            ..Default::default()
        };
        let version = header.api_version;
        self.answer(&response.into(), version, header.correlation_id)
            .await
    }

    fn asker(&self, header: &RequestHeader) -> Asker {
        Asker {
            api: ApiKey::ApiVersions,
            version: header.api_version,
            client_id: header
                .client_id
                .as_ref()
                .map(Str::to_string)
                .unwrap_or_default(),
            peer: self.peer,
            local: self.local,
            endpoint: self.endpoint.clone(),
            principal: self.connection.principal.clone(),
            // Who has not signed in has no quotas.
            throttle: Arc::new(Throttle::new(Arc::default())),
        }
    }

    async fn answer(
        &mut self,
        response: &Response,
        version: i16,
        correlation_id: i32,
    ) -> Result<(), Refused> {
        let frame = protocol::encode_response(response, version, correlation_id)?;
        let bytes = frame.into_bytes().map_err(io::Error::other)?;
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.connection.to.write_all(bytes).await?;
        Ok(self.connection.to.flush().await?)
    }

    /// The next frame without its length field.
    async fn frame(&mut self) -> Result<Bytes, Refused> {
        self.fill(LENGTH_BYTES).await?;
        let length = self.connection.buffer.get_i32();
        if is_tls(length) {
            return Err(Refused::Tls);
        }
        let bytes = usize::try_from(length).ok();
        let bytes = bytes.filter(|bytes| *bytes <= FRAME_BYTES_MAX);
        let bytes = bytes.ok_or(Refused::FrameLength(length))?;
        self.fill(bytes).await?;
        Ok(self.connection.buffer.split_to(bytes).freeze())
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), Refused> {
        let Entered { from, buffer, .. } = &mut self.connection;
        while buffer.len() < bytes {
            if from.read_buf(buffer).await? == 0 {
                return Err(Refused::ByClient);
            }
        }
        Ok(())
    }
}
