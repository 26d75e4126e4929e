//! What a client sees of a failure: a status and one sentence, always as JSON.
//!
//! Handlers raise [`ApiError`]; whatever else answers with an error (a rejected extractor, an unknown
//! route or method) is turned into the same shape by [`as_json`] on its way out.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Text of a foreign error answer that is looked at.
const SENTENCE_BYTES_MAX: usize = 4096;

/// A refusal with its status and the sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {sentence}")]
pub struct ApiError {
    pub status: StatusCode,
    pub sentence: String,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> ApiError {
        ApiError {
            status,
            sentence: sentence.into(),
            retry_after_s: None,
        }
    }

    pub fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn unauthorized(sentence: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, sentence)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (
            self.status,
            Json(serde_json::json!({ "error": self.sentence })),
        )
            .into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Gives an error answer that is not JSON the shape of [`ApiError`], keeping its status and headers.
pub(super) async fn as_json(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = to_bytes(body, SENTENCE_BYTES_MAX).await.unwrap_or_default();
    let said = std::str::from_utf8(&said).unwrap_or_default().trim();
    let sentence = if said.is_empty() {
        sentence_for(status)
    } else {
        said.to_owned()
    };
    let body = serde_json::json!({ "error": sentence }).to_string();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Response::from_parts(parts, Body::from(body))
}

fn is_json(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}

fn sentence_for(status: StatusCode) -> String {
    match status {
        StatusCode::NOT_FOUND => "nothing is served at this path".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => {
            "this path does not know the method; see the Allow header".to_owned()
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            "the request body is larger than this node accepts".to_owned()
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "the body must be JSON, with Content-Type: application/json".to_owned()
        }
        other => other
            .canonical_reason()
            .unwrap_or("the request failed")
            .to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    async fn read(response: Response) -> (StatusCode, serde_json::Value) {
        let status = response.status();
        assert!(is_json(&response));
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn an_empty_error_gets_a_sentence_and_keeps_its_headers() {
        let bare = (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
        let response = as_json(bare).await;
        assert_eq!(response.headers()[header::ALLOW], "POST");
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(body["error"].as_str().unwrap().contains("method"));
    }

    #[tokio::test]
    async fn a_text_error_keeps_its_sentence() {
        let text = (StatusCode::BAD_REQUEST, "line 1 is \"odd\"").into_response();
        assert_eq!(
            read(as_json(text).await).await.1["error"],
            "line 1 is \"odd\""
        );
    }

    #[tokio::test]
    async fn json_errors_and_successes_pass_untouched() {
        let own = ApiError::new(StatusCode::CONFLICT, "taken")
            .retry_after(7)
            .into_response();
        let response = as_json(own).await;
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        assert_eq!(
            read(response).await,
            (StatusCode::CONFLICT, serde_json::json!({"error": "taken"}))
        );
        let page = as_json("hello".into_response()).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(to_bytes(page.into_body(), 16).await.unwrap(), "hello");
    }
}
