//! One connection of the client: versions agreed, a request out, its answer in.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::protocol::messages::ApiVersionsRequest;
use super::super::protocol::{self, ApiKey, Call, ErrorCode, Request, Str};
use super::sign_in::sign_in;
use super::{ClientError, ConnectOptions};

/// Longest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest wait for an answer, beyond what the request asks the broker to wait.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// What is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Versions beyond which a request of the client would have to name topics by id, or several groups.
const VERSIONS_MAX: [(ApiKey, i16); 5] = [
    (ApiKey::Produce, 12),
    (ApiKey::Fetch, 12),
    (ApiKey::OffsetFetch, 7),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::ApiVersions, 0),
];

/// With or without TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Socket for S {}

#[derive(Debug)]
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    /// First and last version of each API the broker offers.
    offered: HashMap<i16, (i16, i16)>,
    correlation_id: i32,
    /// Set by a failure in mid-frame, after which no answer can be trusted.
    broken: bool,
}

impl Connection {
    pub(super) async fn open(
        address: &str,
        options: &ConnectOptions,
    ) -> Result<Connection, ClientError> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let socket: Box<dyn Socket> = match &options.tls {
            Some(tls) => Box::new(tls.connect(address, socket).await?),
            None => Box::new(socket),
        };
        let offered = HashMap::from([(ApiKey::ApiVersions.code(), (0, 0))]);
        let mut connection = Connection {
            socket,
            offered,
            correlation_id: 0,
            broken: false,
        };
        let response = connection
            .call(ApiVersionsRequest::default(), Duration::ZERO)
            .await?;
        super::check(|| "ApiVersions".to_owned(), response.error_code, None)?;
        let offers = response.api_keys.iter();
        connection.offered = offers
            .map(|offer| (offer.api_key, (offer.min_version, offer.max_version)))
            .collect();
        if let Some(login) = &options.login {
            sign_in(&mut connection, login).await?;
        }
        Ok(connection)
    }

    /// The highest version that both sides know.
    pub(super) fn version<R: Call>(&self) -> Result<i16, ClientError> {
        let api = R::API;
        let none = ClientError::NoCommonVersion(api.name());
        let Some(&(min, max)) = self.offered.get(&api.code()) else {
            return Err(none);
        };
        let cap = VERSIONS_MAX
            .iter()
            .find(|(capped, _)| *capped == api)
            .map(|(_, max)| *max);
        let served = api.served();
        let best = max.min(*served.end()).min(cap.unwrap_or(i16::MAX));
        if best < min || best < *served.start() {
            Err(none)
        } else {
            Ok(best)
        }
    }

    /// Sends a request and waits for its answer: as long as `wait`, which the broker was asked to
    /// wait itself, and [`ANSWER_WAIT_MAX`] on top.
    pub(super) async fn call<R: Call>(
        &mut self,
        request: R,
        wait: Duration,
    ) -> Result<R::Response, ClientError> {
        if self.broken {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        }
        let version = self.version::<R>()?;
        let limit = wait + ANSWER_WAIT_MAX;
        self.broken = true;
        let outcome = timeout(limit, self.exchange(request.into(), version)).await;
        let response = outcome.map_err(|_| ClientError::Timeout(limit))??;
        self.broken = false;
        R::response(response).ok_or(ClientError::Unexpected("another API's"))
    }

    async fn exchange(
        &mut self,
        request: Request,
        version: i16,
    ) -> Result<protocol::Response, ClientError> {
        let api = request.api();
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let client_id = Str::from("holdfast");
        let frame = protocol::encode_request(&request, version, self.correlation_id, &client_id)?;
        let frame = frame.into_bytes();
        let frame = frame.map_err(|_| ClientError::Unexpected("stored records"))?;
        self.socket.write_all(&frame).await?;
        self.socket.flush().await?;
        let answer = self.read_frame().await?;
        let (correlation_id, response) = protocol::decode_response(api, version, answer)?;
        if correlation_id != self.correlation_id {
            return Err(ClientError::Unexpected("another correlation id"));
        }
        Ok(response)
    }

    async fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        let length = self.socket.read_i32().await?;
        let too_long = || {
            let code = ErrorCode::UnknownServerError;
            let message = Some(format!("an answer of {length} bytes"));
            ClientError::Refused {
                what: "broker".to_owned(),
                code,
                message,
            }
        };
        let length = usize::try_from(length).map_err(|_| too_long())?;
        if length > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        let mut frame = BytesMut::with_capacity(length.min(READ_BYTES));
        while frame.len() < length {
            let missing = length - frame.len();
            let mut part = (&mut self.socket).take(missing as u64);
            frame.reserve(missing.min(READ_BYTES.max(frame.len())));
            if part.read_buf(&mut frame).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(frame.freeze())
    }
}
