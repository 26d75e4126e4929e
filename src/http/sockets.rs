//! The WebSocket routes: judges the upgrade, then hands the socket to the live gateway.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use super::access::{Access, Peer, token_of};
use super::errors::ApiError;
use crate::auth::Operation;
use crate::live::{Gate, Live, MESSAGE_BYTES_MAX, SENSOR_BYTES_MAX};
use crate::live::{SPEED_TOPIC, SocketPermit, TokenCheck};

pub(super) struct Sockets {
    pub(super) access: Arc<Access>,
    pub(super) live: Live,
}

#[derive(Deserialize)]
pub(super) struct GaugeQuery {
    sensor_id: Option<String>,
}

pub(super) async fn live(
    State(sockets): State<Arc<Sockets>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let permit = sockets.admit()?;
    let without_token = sockets.access.without_token(&headers, &peer);
    let check = sockets.token_check(peer);
    let gate = match without_token {
        Some(principal) => Gate::HelloOnly(sockets.access.caller(principal), check),
        None => Gate::Token(check),
    };
    let live = sockets.live.clone();
    Ok(limited(upgrade).on_upgrade(move |socket| live.serve_dashboard(socket, gate, permit)))
}

/// A browser cannot send an Authorization header with a WebSocket: where a token is needed and no header
/// came, the socket must begin with a hello, as on `/ws/live`.
pub(super) async fn gauge(
    State(sockets): State<Arc<Sockets>>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<GaugeQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let gate = match sockets.access.for_speed(&headers, &peer) {
        Ok(principal) => {
            let access = &sockets.access;
            access.permit_topic(&principal, Operation::Read, SPEED_TOPIC)?;
            let caller = access.caller(principal);
            match token_of(&headers) {
                Some(token) => Gate::Shown(caller, sockets.token_check(peer), token.to_owned()),
                None => Gate::Open(caller),
            }
        }
        Err(_) if !headers.contains_key(header::AUTHORIZATION) => {
            Gate::Token(sockets.token_check(peer))
        }
        Err(refused) => return Err(refused),
    };
    let sensor = query.sensor_id.filter(|id| !id.is_empty());
    if sensor
        .as_ref()
        .is_some_and(|id| id.len() > SENSOR_BYTES_MAX)
    {
        let sentence = format!("sensor_id is longer than {SENSOR_BYTES_MAX} bytes");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence));
    }
    let permit = sockets.admit()?;
    let live = sockets.live.clone();
    Ok(limited(upgrade).on_upgrade(move |socket| live.serve_gauge(socket, sensor, gate, permit)))
}

impl Sockets {
    fn admit(&self) -> Result<SocketPermit, ApiError> {
        self.live.admit().ok_or_else(|| {
            let sentence = "this node serves as many WebSockets as it is allowed to: try again";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence).retry_after(5)
        })
    }

    fn token_check(&self, peer: Peer) -> TokenCheck {
        let access = Arc::clone(&self.access);
        Arc::new(move |token| access.check_token(token, &peer))
    }
}

fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
}
