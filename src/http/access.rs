//! Who may use a route: the token of the API, the rule for the speedometer's open routes, and what access
//! rules allow.
//!
//! A request without a token is let through only where the configuration says so, or on the speed routes
//! of a loopback listener. Even then it must not come from a foreign web page: a page that the operator
//! happens to open could otherwise talk to the node behind their back, directly (`Origin`) or by letting
//! its own name resolve to 127.0.0.1 (`Host`). One that comes over a connection whose certificate names its
//! user must come from a page of this very listener, scheme and port included: a browser presents the
//! certificate for every page.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::errors::ApiError;
use crate::auth::{Auth, Caller, Operation, Principal, Resource, TokenError};

/// The two ends of the connection a request came over; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub listener: SocketAddr,
    /// Who the client's certificate says it is.
    pub certificate: Option<Principal>,
}

pub(super) struct Access {
    pub(super) auth: Auth,
    /// `http.allow_anonymous`.
    pub(super) allow_anonymous: bool,
    /// `speed.allow_anonymous`: said explicitly, also for listeners that others can reach.
    pub(super) speed_allow_anonymous: bool,
    pub(super) rights: Vec<RouteRight>,
}

/// What access rules are asked before a route is served; its body has not been read by then.
#[derive(Debug, Clone, Copy)]
pub struct RouteRight {
    pub path: &'static str,
    pub operation: Operation,
    pub topic: &'static str,
}

/// The port that an `https` URL does not name.
const HTTPS_PORT: u16 = 443;

/// Routes that leave out of their answer what the asker may not see.
pub(super) const ANSWERS_CUT_DOWN: [&str; 2] = ["/api/v1/topics", "/api/v1/groups"];

impl Access {
    /// The user behind an `Authorization` header, else the one whom the connection's certificate names,
    /// else anonymous where that is allowed.
    fn judge(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        anonymous_allowed: bool,
    ) -> Result<Principal, ApiError> {
        if headers.contains_key(header::AUTHORIZATION) {
            let token = token_of(headers).ok_or_else(|| {
                ApiError::unauthorized(
                    "the Authorization header must be: Bearer <token from POST /auth>",
                )
            })?;
            return self
                .auth
                .verify_token(token, peer.address.ip())
                .map_err(|refused| ApiError::unauthorized(refused.to_string()));
        }
        let without_token = match &peer.certificate {
            Some(named) => Some(named.clone()),
            None => anonymous_allowed.then(|| Principal::anonymous(peer.address.ip())),
        };
        let Some(principal) = without_token else {
            return Err(ApiError::unauthorized(
                "a token is needed: POST /auth gives one, send it as Authorization: Bearer",
            ));
        };
        if !same_site(headers, peer) {
            return Err(ApiError::unauthorized(
                "a request made by a page from another site needs a token",
            ));
        }
        Ok(principal)
    }

    pub(super) fn for_api(&self, headers: &HeaderMap, peer: &Peer) -> Result<Principal, ApiError> {
        self.judge(headers, peer, self.allow_anonymous)
    }

    pub(super) fn for_speed(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Principal, ApiError> {
        let open =
            self.allow_anonymous || self.speed_allow_anonymous || peer.listener.ip().is_loopback();
        self.judge(headers, peer, open)
    }

    /// Who a live socket of this request is that brings no token; `None`: it must bring one.
    pub(super) fn without_token(&self, headers: &HeaderMap, peer: &Peer) -> Option<Principal> {
        let anonymous = || Principal::anonymous(peer.address.ip());
        let named = peer.certificate.clone();
        let named = named.or_else(|| self.allow_anonymous.then(anonymous));
        named.filter(|_| same_site(headers, peer))
    }

    pub(super) fn check_token(&self, token: &str, peer: &Peer) -> Result<Caller, TokenError> {
        let principal = self.auth.verify_token(token, peer.address.ip())?;
        Ok(self.caller(principal))
    }

    pub(super) fn caller(&self, principal: Principal) -> Caller {
        Caller::new(self.auth.clone(), principal)
    }

    /// A route that nobody named a right for is for those whom no rule binds.
    fn permit(&self, principal: &Principal, path: &str) -> Result<(), ApiError> {
        if ANSWERS_CUT_DOWN.contains(&path) || self.auth.is_unbound(principal) {
            return Ok(());
        }
        let sentence = match self.rights.iter().find(|right| right.path == path) {
            Some(right) => return self.permit_topic(principal, right.operation, right.topic),
            None => format!("not authorized to use {path}"),
        };
        tracing::debug!(%principal, path, "not authorized");
        Err(ApiError::new(StatusCode::FORBIDDEN, sentence))
    }

    pub(super) fn permit_topic(
        &self,
        principal: &Principal,
        operation: Operation,
        topic: &str,
    ) -> Result<(), ApiError> {
        let resource = Resource::topic(topic);
        if self.auth.authorize(principal, operation, resource) {
            return Ok(());
        }
        tracing::debug!(%principal, ?operation, topic, "not authorized");
        let verb = match operation {
            Operation::Write => "write to",
            _ => "read",
        };
        let sentence = format!("not authorized to {verb} the topic {topic}");
        Err(ApiError::new(StatusCode::FORBIDDEN, sentence))
    }
}

/// Middleware of the routes that need the token; leaves the [`Principal`] as an extension.
pub(super) async fn require_token(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let judged = peer_of(&request).and_then(|peer| access.for_api(request.headers(), &peer));
    admit(&access, judged, request, next).await
}

/// Middleware of the speed routes; leaves the [`Principal`] as an extension.
pub(super) async fn require_speed_access(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let judged = peer_of(&request).and_then(|peer| access.for_speed(request.headers(), &peer));
    admit(&access, judged, request, next).await
}

async fn admit(
    access: &Access,
    judged: Result<Principal, ApiError>,
    mut request: Request,
    next: Next,
) -> Response {
    let permitted = judged.and_then(|principal| {
        access.permit(&principal, request.uri().path())?;
        Ok(principal)
    });
    match permitted {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Every request of this door carries its peer; one without it is refused rather than trusted.
pub(super) fn peer_of(request: &Request) -> Result<Peer, ApiError> {
    let internal = || {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the connection of this request is unknown",
        )
    };
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(internal)
}

/// The token of an `Authorization` header.
pub(super) fn token_of(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    value.to_str().ok().and_then(bearer)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same_site(headers: &HeaderMap, peer: &Peer) -> bool {
    let host = match headers
        .get(header::HOST)
        .map(|value| value.to_str().map(str::to_owned))
    {
        None => None,
        Some(Ok(authority)) => match host_name(&format!("http://{authority}")) {
            Some(name) => Some(name),
            None => return false,
        },
        Some(Err(_)) => return false,
    };
    if peer.listener.ip().is_loopback() && !host.as_deref().is_none_or(is_loopback_name) {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if peer.certificate.is_some() {
        return same_origin(headers, origin);
    }
    let origin = host_name(origin);
    origin.is_some() && origin == host
}

/// Whether an origin is the listener with TLS that `Host` names (RFC 6454, section 5).
fn same_origin(headers: &HeaderMap, origin: &str) -> bool {
    let place = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?.to_ascii_lowercase();
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        https.then_some((host, uri.port_u16().unwrap_or(HTTPS_PORT)))
    };
    let own = headers.get(header::HOST).and_then(|host| {
        let authority = host.to_str().ok()?;
        place(&format!("https://{authority}"))
    });
    own.is_some() && own == place(origin)
}

/// Ports do not count where no certificate is at stake: the original page, door and socket sit on three of them.
fn host_name(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.host().map(str::to_ascii_lowercase)
}

fn is_loopback_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderName;

    use super::*;

    fn headers(list: &[(HeaderName, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn on(listener: &str) -> Peer {
        Peer {
            address: "127.0.0.1:50000".parse().unwrap(),
            listener: listener.parse().unwrap(),
            certificate: None,
        }
    }

    #[test]
    fn a_page_of_another_site_is_recognised() {
        let loopback = on("127.0.0.1:8080");
        let public = on("192.0.2.1:8080");
        let cases = [
            (&loopback, "127.0.0.1:8080", None, true),
            (
                &loopback,
                "localhost:8080",
                Some("http://localhost:3000"),
                true,
            ),
            (&loopback, "[::1]:8080", Some("http://[::1]:3000"), true),
            (
                &loopback,
                "127.0.0.1:8080",
                Some("https://evil.example"),
                false,
            ),
            (&loopback, "127.0.0.1:8080", Some("null"), false),
            (
                &loopback,
                "rebound.example:8080",
                Some("http://rebound.example:8080"),
                false,
            ),
            (&loopback, "rebound.example:8080", None, false),
            (&public, "site.example", Some("https://site.example"), true),
            (&public, "site.example", Some("https://evil.example"), false),
        ];
        for (peer, host, origin, expected) in cases {
            let mut list = vec![(header::HOST, host)];
            list.extend(origin.map(|o| (header::ORIGIN, o)));
            assert_eq!(
                same_site(&headers(&list), peer),
                expected,
                "{host} {origin:?}"
            );
        }
        assert!(same_site(&HeaderMap::new(), &loopback));
    }

    #[test]
    fn with_a_certificate_a_page_is_of_this_site_by_scheme_and_port_too() {
        let peer = Peer {
            certificate: Some(Principal::of_certificate("carol", [192, 0, 2, 7].into())),
            ..on("192.0.2.1:8443")
        };
        let cases = [
            ("site.example:8443", None, true),
            ("site.example:8443", Some("https://site.example:8443"), true),
            ("Site.example:8443", Some("https://site.EXAMPLE:8443"), true),
            ("site.example", Some("https://site.example"), true),
            ("site.example:443", Some("https://site.example"), true),
            (
                "[2001:db8::1]:8443",
                Some("https://[2001:db8::1]:8443"),
                true,
            ),
            ("site.example:8443", Some("http://site.example:8443"), false),
            (
                "site.example:8443",
                Some("https://site.example:3000"),
                false,
            ),
            ("site.example:8443", Some("https://site.example"), false),
            ("site.example", Some("http://site.example"), false),
            (
                "site.example:8443",
                Some("https://evil.example:8443"),
                false,
            ),
            ("site.example:8443", Some("site.example:8443"), false),
            ("site.example:8443", Some("null"), false),
        ];
        for (host, origin, expected) in cases {
            let mut list = vec![(header::HOST, host)];
            list.extend(origin.map(|o| (header::ORIGIN, o)));
            let own = same_site(&headers(&list), &peer);
            assert_eq!(own, expected, "{host} {origin:?}");
        }
        let nameless = headers(&[(header::ORIGIN, "https://site.example:8443")]);
        assert!(!same_site(&nameless, &peer));
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer"), None);
    }
}
