//! The dashboard, embedded from `ui/dist` when the binary is built.
//!
//! A release holds the files; a debug build reads them from the source tree at every request. Files under
//! `assets/` carry a hash of their content in their names and never change; everything else is asked for
//! again and answered 304 where it is the same.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use rust_embed::Embed;

use super::errors::ApiError;

#[derive(Embed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Built;

const INDEX: &str = "index.html";

struct Asset {
    data: Cow<'static, [u8]>,
    sha256: [u8; 32],
    content_type: String,
}

/// Fallback of the router: a file, the dashboard's page for the paths it routes itself, or 404.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    respond(&method, uri.path(), &headers, |path| {
        Built::get(path).map(|file| Asset {
            content_type: file.metadata.mimetype().to_owned(),
            sha256: file.metadata.sha256_hash(),
            data: file.data,
        })
    })
}

fn respond(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    find: impl Fn(&str) -> Option<Asset>,
) -> Response {
    let unknown =
        || ApiError::new(StatusCode::NOT_FOUND, "nothing is served at this path").into_response();
    if !matches!(*method, Method::GET | Method::HEAD) {
        return unknown();
    }
    let name = path.trim_start_matches('/');
    if !name.is_empty()
        && name != INDEX
        && let Some(asset) = find(name)
    {
        let cache = if name.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        return answer(method, headers, asset, cache);
    }
    if !is_page(name) {
        return unknown();
    }
    match find(INDEX) {
        Some(index) => answer(method, headers, index, "no-cache"),
        None if name.is_empty() || name == INDEX => {
            let sentence =
                "this binary was built without its dashboard: run `make ui`, then build again";
            ApiError::new(StatusCode::NOT_FOUND, sentence).into_response()
        }
        None => unknown(),
    }
}

/// Paths that the page routes itself have no file extension and belong to no API.
fn is_page(name: &str) -> bool {
    let api = [
        "api/", "ws/", "auth/", "health/", "ingest/", "topics/", "invalid/", "speed/", "assets/",
    ];
    let file = name.rsplit('/').next().unwrap_or(name);
    name == INDEX || (!file.contains('.') && !api.iter().any(|prefix| name.starts_with(prefix)))
}

fn answer(method: &Method, headers: &HeaderMap, asset: Asset, cache: &'static str) -> Response {
    let tag = entity_tag(&asset.sha256);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if known.is_some_and(|tags| {
        tags.split(',')
            .any(|t| t.trim().trim_start_matches("W/") == tag)
    }) {
        return (
            StatusCode::NOT_MODIFIED,
            [
                (header::ETAG, tag),
                (header::CACHE_CONTROL, cache.to_owned()),
            ],
        )
            .into_response();
    }
    let length = asset.data.len();
    let body = match (method, asset.data) {
        (&Method::HEAD, _) => Body::empty(),
        (_, Cow::Borrowed(data)) => Body::from(Bytes::from_static(data)),
        (_, Cow::Owned(data)) => Body::from(data),
    };
    let headers = [
        (header::CONTENT_TYPE, with_charset(asset.content_type)),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::ETAG, tag),
    ];
    (headers, body).into_response()
}

fn entity_tag(sha256: &[u8; 32]) -> String {
    use base64::Engine;
    let short = sha256.get(..16).unwrap_or_default();
    format!(
        "\"{}\"",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(short)
    )
}

fn with_charset(content_type: String) -> String {
    let is_text = content_type.starts_with("text/") || content_type == "application/javascript";
    if is_text && !content_type.contains("charset") {
        format!("{content_type}; charset=utf-8")
    } else {
        content_type
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use axum::body::to_bytes;

    use super::*;

    fn built(path: &str) -> Option<Asset> {
        let (content_type, data): (&str, &[u8]) = match path {
            "index.html" => ("text/html", b"<!doctype html>"),
            "assets/app-1a2b.js" => ("text/javascript", b"1"),
            "favicon.svg" => ("image/svg+xml", b"<svg/>"),
            _ => return None,
        };
        Some(Asset {
            data: Cow::Borrowed(data),
            sha256: [7; 32],
            content_type: content_type.to_owned(),
        })
    }

    fn get(path: &str) -> Response {
        respond(&Method::GET, path, &HeaderMap::new(), built)
    }

    #[test]
    fn hashed_assets_are_immutable_and_the_index_is_asked_for_again() {
        let asset = get("/assets/app-1a2b.js");
        assert_eq!(asset.status(), StatusCode::OK);
        assert_eq!(
            asset.headers()[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
        assert!(
            asset.headers()[header::CACHE_CONTROL]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        for path in ["/", "/index.html", "/favicon.svg"] {
            assert_eq!(
                get(path).headers()[header::CACHE_CONTROL],
                "no-cache",
                "{path}"
            );
        }
        assert_eq!(
            get("/").headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
    }

    #[test]
    fn the_page_answers_for_its_own_routes_and_for_nothing_else() {
        for path in ["/quality", "/topics", "/groups/telemetry-writer"] {
            assert_eq!(get(path).status(), StatusCode::OK, "{path}");
        }
        for path in [
            "/assets/gone.js",
            "/assets/gone",
            "/api/v1/nothing",
            "/ws/nothing",
            "/missing.png",
            "/../Cargo.toml",
        ] {
            assert_eq!(get(path).status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(
            respond(&Method::POST, "/quality", &HeaderMap::new(), built).status(),
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn an_unchanged_file_is_not_sent_again() {
        let tag = get("/").headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
        let again = respond(&Method::GET, "/", &asked, built);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(to_bytes(again.into_body(), 64).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn head_tells_the_length_without_the_body() {
        let head = respond(&Method::HEAD, "/", &HeaderMap::new(), built);
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "15");
        assert!(to_bytes(head.into_body(), 64).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_binary_without_a_dashboard_says_how_to_get_one() {
        let answer = respond(&Method::GET, "/", &HeaderMap::new(), |_| None);
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let body = to_bytes(answer.into_body(), 1024).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("make ui"));
    }
}
