//! SaslHandshake and SaslAuthenticate where they are not due: before the first request
//! [`super::super::sign_in`] answers them, and nobody signs in twice (no session ever ends, KIP-368).

use super::super::protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use super::super::protocol::{ApiKey, ErrorCode, Response};

/// ILLEGAL_SASL_STATE, as Kafka answers it.
pub(in super::super) fn illegal_sasl_state(api: ApiKey) -> Response {
    let error_code = ErrorCode::IllegalSaslState.code();
    if api == ApiKey::SaslHandshake {
        return SaslHandshakeResponse {
            error_code,
            ..Default::default()
        }
        .into();
    }
    SaslAuthenticateResponse {
        error_code,
        error_message: Some("no SASL exchange is under way on this connection".into()),
        ..Default::default()
    }
    .into()
}
