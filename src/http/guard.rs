//! What surrounds every handler: a request body that arrived whole within limits, an answer even where
//! a handler panicked, errors as JSON, and headers that keep browsers from doing harm.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::errors::{ApiError, as_json};

/// `ws:` and `wss:` because the gauge page may be served by one listener and fed by another.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

const FIXED_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Counters of the door since its start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    /// Ended in the TLS handshake, or with a certificate that names nobody.
    pub(super) tls_refused: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) client_errors: AtomicU64,
    /// Requests that access rules refused.
    pub(super) denied: AtomicU64,
    pub(super) server_errors: AtomicU64,
    pub(super) panics: AtomicU64,
}

/// Outermost: nothing leaves the door without passing here.
pub(super) async fn envelope(
    State(counters): State<Arc<Counters>>,
    request: Request,
    next: Next,
) -> Response {
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let answer = answer.unwrap_or_else(|panic| {
        counters.panics.fetch_add(1, Ordering::Relaxed);
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(%method, path, panic = said.unwrap_or("(not text)"), "a request handler panicked");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the node failed to handle this request").into_response()
    });
    let mut answer = as_json(answer).await;
    if answer.status().is_client_error() {
        counters.client_errors.fetch_add(1, Ordering::Relaxed);
    } else if answer.status().is_server_error() {
        counters.server_errors.fetch_add(1, Ordering::Relaxed);
    }
    if answer.status() == StatusCode::FORBIDDEN {
        counters.denied.fetch_add(1, Ordering::Relaxed);
    }
    let headers = answer.headers_mut();
    for (name, value) in FIXED_HEADERS {
        headers.entry(name).or_insert(value);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Limits on request bodies.
pub(super) struct BodyLimits {
    pub(super) bytes_max: usize,
    /// One permit per byte held, over all connections.
    pub(super) budget: Arc<Semaphore>,
    pub(super) timeout: Duration,
}

/// Reads the body before the handler runs, so that no handler can be kept waiting byte by byte; the
/// bytes count against the budget until the answer is made.
pub(super) async fn whole_body(
    State(limits): State<Arc<BodyLimits>>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let read = timeout(limits.timeout, read_body(body, &limits)).await;
    let late = || {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request body did not arrive in time",
        )
    };
    match read.unwrap_or_else(|_| Err(late())) {
        Ok((bytes, held)) => {
            let answer = next
                .run(Request::from_parts(parts, Body::from(bytes)))
                .await;
            drop(held);
            answer
        }
        Err(refused) => {
            let mut answer = refused.into_response();
            // What is left of the body would be read as the next request.
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    }
}

async fn read_body(
    body: Body,
    limits: &BodyLimits,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let too_large = || {
        let sentence = format!("the request body is larger than {} bytes", limits.bytes_max);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    };
    if body.size_hint().lower() > limits.bytes_max as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "the request body broke off"))?;
        if bytes.len() + chunk.len() > limits.bytes_max {
            return Err(too_large());
        }
        let permit = u32::try_from(chunk.len())
            .ok()
            .and_then(|n| Arc::clone(&limits.budget).try_acquire_many_owned(n).ok())
            .ok_or_else(|| {
                let sentence = "too many request bodies are being held: try again";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence).retry_after(1)
            })?;
        match held.as_mut() {
            Some(all) => all.merge(permit),
            None => held = Some(permit),
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes.freeze(), held))
}
