//! `POST /auth`: a user's name and secret (a machine token or a password) against a token. The fields keep
//! the names they had when users were clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::access::{Access, Peer};
use super::errors::ApiError;
use crate::auth::{LoginError, USER_NAME_BYTES_MAX};

/// Credentials are small, and anybody may send them.
pub(super) const BODY_BYTES_MAX: usize = 16 << 10;

#[derive(Deserialize)]
pub(super) struct Credentials {
    client_id: String,
    client_secret: String,
}

#[derive(Serialize)]
pub(super) struct TokenAnswer {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

pub(super) async fn sign_in(
    State(access): State<Arc<Access>>,
    Extension(peer): Extension<Peer>,
    Json(credentials): Json<Credentials>,
) -> Result<Json<TokenAnswer>, ApiError> {
    let auth = &access.auth;
    let from = peer.address.ip();
    let Credentials {
        client_id,
        client_secret,
    } = credentials;
    let principal = auth.login(&client_id, &client_secret, from).await;
    let principal = principal.map_err(|refused| match refused {
        // Not logged: an address that is turned away must not be able to fill the disk.
        LoginError::TooManyFailures { retry_after_s } => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, refused.to_string())
                .retry_after(retry_after_s)
        }
        LoginError::Busy => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()).retry_after(1)
        }
        _ => {
            let named: String = client_id.chars().take(USER_NAME_BYTES_MAX).collect();
            tracing::warn!(user = ?named, %from, "sign-in refused");
            ApiError::unauthorized(refused.to_string())
        }
    })?;
    let token = auth.issue_token(&principal).map_err(|error| {
        tracing::error!(%error, "a token could not be issued");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the node could not issue a token",
        )
    })?;
    Ok(Json(TokenAnswer {
        access_token: token.jwt,
        token_type: "Bearer",
        expires_in: token.expires_in_s,
    }))
}
