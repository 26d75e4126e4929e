//! One TCP connection from accept to close: handshake, session, and what is due afterwards.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use holdfast_storage::log::LogState;
use rumqttd::protocol::ConnectReturnCode;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::codec;
use super::connect::{self, Admitted, Connect, Refusal, Unreadable};
use super::message::{LiveMessage, NOBODY};
use super::publish::Publish;
use super::record::{Arrival, Publisher, Refused};
use super::session::{End, Session, SessionStart};
use super::stats::{add, sub};
use super::stream::Stream;
use super::{Door, Endpoint};
use crate::auth::{Caller, Operation, Principal};
use crate::tls::listener::NotLetIn;

/// How long a will may take to become durable.
const WILL_MAX: Duration = Duration::from_secs(30);
/// How long a client that is turned away may take to read why.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// A connection that got no session.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    #[error("it closed before its CONNECT was whole")]
    Closed,
    #[error("no CONNECT in time")]
    TimedOut,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("{reason} (client {client:?})")]
    Refused { client: String, reason: Refusal },
    #[error(transparent)]
    Tls(#[from] NotLetIn),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves one connection. `busy` ones are let in as far as to be told so.
pub(super) async fn connection(
    door: Arc<Door>,
    endpoint: Arc<Endpoint>,
    stream: TcpStream,
    peer: SocketAddr,
    busy: bool,
) {
    // Small packets answer small packets here; nothing is won by holding them back.
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::new();
    let limit = Duration::from_millis(door.config.handshake_timeout_ms);
    let shaking = async {
        let (mut stream, principal) = enter(&endpoint, stream, peer).await?;
        let shaken = shake(&door, &mut stream, principal, &mut buffer, peer, busy).await?;
        Ok((stream, shaken))
    };
    let shaken = tokio::select! {
        shaken = timeout(limit, shaking) => shaken,
        () = door.shutdown.cancelled() => return,
    }
    .unwrap_or(Err(NoSession::TimedOut));
    match shaken {
        Ok((stream, (connect, admitted))) => {
            session(door, stream, peer, buffer, connect, admitted).await;
        }
        Err(error) => {
            add(&door.stats.refused_total, 1);
            match error {
                NoSession::Unreadable(_) => add(&door.stats.malformed, 1),
                NoSession::Tls(_) => add(&door.stats.tls_refused, 1),
                _ => {}
            }
            info!(%peer, reason = %error, "connection refused");
        }
    }
}

/// TLS where the listener has it, and who the client is as long as it presents no credentials.
async fn enter(
    endpoint: &Endpoint,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(Stream, Option<Principal>), NotLetIn> {
    let anonymous = || endpoint.anonymous.then(|| Principal::anonymous(peer.ip()));
    let Some(tls) = &endpoint.tls else {
        return Ok((Stream::Plain(stream), anonymous()));
    };
    let (stream, name) = tls.let_in(stream).await?;
    let named = name.map(|name| Principal::of_certificate(&name, peer.ip()));
    Ok((Stream::Tls(Box::new(stream)), named.or_else(anonymous)))
}

async fn shake(
    door: &Door,
    stream: &mut Stream,
    without_login: Option<Principal>,
    buffer: &mut BytesMut,
    peer: SocketAddr,
    busy: bool,
) -> Result<(Connect, Admitted), NoSession> {
    let connect = loop {
        match connect::read(buffer) {
            Ok(Some(connect)) => break connect,
            Ok(None) => {}
            Err(error) => {
                if matches!(error, Unreadable::UnknownVersion { .. }) {
                    tell(stream, &connect::unknown_version_packet()).await;
                }
                return Err(error.into());
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(NoSession::Closed);
        }
    };
    let decided = if busy {
        Err(Refusal::Busy)
    } else if !matches!(door.log.state(), LogState::Accepting) {
        Err(Refusal::Unavailable)
    } else {
        connect::decide(&connect, &door.config, &door.auth, peer.ip(), without_login).await
    };
    match decided {
        Ok(admitted) => Ok((connect, admitted)),
        Err(reason) => {
            tell(stream, &connect::refusal_packet(reason, connect.version)).await;
            Err(refused(connect.client_id, reason))
        }
    }
}

fn refused(client: String, reason: Refusal) -> NoSession {
    NoSession::Refused {
        client: client.chars().take(64).collect(),
        reason,
    }
}

/// A client that does not listen is not told.
async fn tell(stream: &mut Stream, packet: &[u8]) {
    let _ = timeout(REFUSAL_MAX, stream.end_with(packet)).await;
}

async fn session(
    door: Arc<Door>,
    mut stream: Stream,
    peer: SocketAddr,
    buffer: BytesMut,
    connect: Connect,
    admitted: Admitted,
) {
    let connection = door.next_connection.fetch_add(1, Ordering::Relaxed);
    let client = admitted.client_id.clone();
    let caller = Caller::new(door.auth.clone(), admitted.principal.clone());
    let principal = &admitted.principal;
    let owner = (!principal.is_anonymous()).then(|| principal.name());
    let taken_over = match door.registry.enter(&client, owner, connection) {
        Ok(taken_over) => taken_over,
        Err(error) => {
            add(&door.stats.refused_total, 1);
            info!(%peer, client, reason = %error, "connection refused");
            tell(
                &mut stream,
                &connect::refusal_packet(Refusal::BadClientId, connect.version),
            )
            .await;
            return;
        }
    };
    let mut out = BytesMut::new();
    let properties = connect::connack_properties(&connect, &admitted, &door.config);
    codec::write_connack(
        ConnectReturnCode::Success,
        properties,
        connect.version,
        &mut out,
    );
    add(&door.stats.connections, 1);
    add(&door.stats.accepted_total, 1);
    debug!(%peer, client, version = ?connect.version, "client connected");
    let session = Session::new(
        Arc::clone(&door),
        SessionStart {
            connection,
            version: connect.version,
            client: client.clone(),
            caller: caller.clone(),
            keep_alive_s: admitted.keep_alive_s,
            receive_max: connect.receive_max,
            packet_bytes_max: connect.packet_bytes_max,
            taken_over,
            buffer,
            out,
        },
    );
    let end = AssertUnwindSafe(session.run(stream)).catch_unwind().await;
    door.registry.leave(&client, connection);
    door.fanout.leave(connection).await;
    sub(&door.stats.connections, 1);
    match &end {
        Ok(End::TopicMissing(_)) => make_topics_again(&door).await,
        Ok(_) => {}
        Err(_) => error!(
            client,
            "session panicked: its connection is closed, no other is touched"
        ),
    }
    if let Some(will) = connect
        .will
        .filter(|_| end.as_ref().map_or(true, End::will_is_due))
    {
        publish_will(&door, &caller, &client, will).await;
    }
}

async fn make_topics_again(door: &Door) {
    if let Err(error) = door.routes.ensure_topics(&door.log).await {
        warn!(%error, "the log topics of the routes could not be made");
    }
}

/// Through the log like any other publish; forwarded live once it is durable.
async fn publish_will(door: &Door, caller: &Caller, client: &str, will: Publish) {
    match timeout(WILL_MAX, keep_will(door, caller, client, will)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(message))) => {
            add(&door.stats.wills, 1);
            if door.fanout.anyone() {
                door.fanout.publish(vec![message]).await;
            }
        }
        Ok(Err(error)) => warn!(client, error, "will was not published"),
        Err(_) => warn!(
            client,
            "will was not published: it did not become durable in time"
        ),
    }
}

/// `None`: access rules do not let it, which has been noted.
async fn keep_will(
    door: &Door,
    caller: &Caller,
    client: &str,
    will: Publish,
) -> Result<Option<LiveMessage>, String> {
    let arrival = Arrival::now();
    let mut publisher = Publisher::new(client, caller, door.topic_limits, 0);
    let accepted = match publisher.accept(&will, &arrival, &door.routes, &door.log) {
        Ok(accepted) => accepted,
        Err(Refused::Denied(topic)) => {
            door.note_denied(caller, client, Operation::Write, &topic);
            return Ok(None);
        }
        Err(refused) => return Err(refused.to_string()),
    };
    if let Some(record) = accepted.record {
        let appended = door
            .log
            .append_all(vec![record])
            .await
            .map_err(|error| error.to_string())?;
        appended.await.map_err(|error| error.to_string())?;
    }
    let topic = String::from_utf8_lossy(&accepted.topic);
    let message = LiveMessage::of(&will, &topic, arrival.timestamp_ms, NOBODY);
    if message.retain
        && let Some(write) = door.retained.set(message.clone())
    {
        write.durable().await.map_err(|error| error.to_string())?;
    }
    Ok(Some(message))
}
