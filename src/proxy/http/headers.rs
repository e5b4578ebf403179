//! Header rules of an intermediary: what belongs to one connection only, what marks gRPC, what a request must have.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, uri::PathAndQuery};

/// Why an HTTP/1 request is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("an HTTP/1.1 request has exactly one Host header (RFC 9112 section 3.2)")]
    Host,
    #[error("the request target is not a path")]
    Target,
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Removes what is meant for this connection only (RFC 9110 section 7.6.1), and `TE` but for `trailers` (RFC 9113
/// section 8.2.2).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        strip_named_by_connection(headers);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    if headers.get_all(header::TE).iter().any(|te| te != "trailers") {
        let wants_trailers = headers.get_all(header::TE).iter().any(|te| names(te).any(|name| name == "trailers"));
        headers.remove(header::TE);
        if wants_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

fn strip_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(names)
        .filter(|name| !name.eq_ignore_ascii_case("te"))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    headers.remove(header::CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

fn names(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(|name| name.split(';').next().unwrap_or_default().trim())
}

/// Does this HTTP/1 message ask for, or grant, another protocol on its connection (RFC 9110 section 7.8)?
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut offered = headers.get_all(header::UPGRADE).iter().flat_map(names);
    // HTTP/2 by upgrade is obsolete (RFC 9113 section 3.1), and who offers it is as well served without.
    offered.any(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case("h2c"))
        && headers.get_all(header::CONNECTION).iter().flat_map(names).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// `grpc-status` of trailers, or of a response that is trailers only.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.trim().parse().ok()
}

/// Brings an HTTP/1 request into the form in which it travels: its target a path, its authority in `Host`.
///
/// # Errors
/// When RFC 9112 section 3.2 demands a 400.
pub(crate) fn normalize_http1<B>(request: &mut http::Request<B>) -> Result<(), Error> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Error::Host);
    }
    if hosts == 0 {
        // It travels on as HTTP/1.1, where the field is needed, empty if need be.
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(""));
    }
    if request.uri().authority().is_some() && request.method() != Method::CONNECT {
        let uri = std::mem::take(request.uri_mut());
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        // RFC 9112 section 3.2.2: the authority of an absolute-form target replaces Host, but for its user's name.
        let host =
            HeaderValue::from_str(authority.rsplit('@').next().unwrap_or_default()).map_err(|_| Error::Target)?;
        request.headers_mut().insert(header::HOST, host);
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn only_what_is_end_to_end_passes() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers;q=0.5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("trailer", "x-sum"), ("accept", "*/*")]));
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_a_host() {
        let mut request =
            http::Request::get("http://shop.example:8080/a?b").header("host", "other").body(()).expect("valid");
        assert_eq!(normalize_http1(&mut request), Ok(()));
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()["host"]),
            ("/a?b", &HeaderValue::from_static("shop.example:8080"))
        );
    }

    #[test]
    fn host_is_needed_exactly_once() {
        let mut none = http::Request::get("/").body(()).expect("valid");
        assert_eq!(normalize_http1(&mut none), Err(Error::Host));
        let mut two = http::Request::get("/").header("host", "a").header("host", "b").body(()).expect("valid");
        assert_eq!(normalize_http1(&mut two), Err(Error::Host));
    }

    #[test]
    fn upgrades_are_known_by_both_headers() {
        assert!(is_upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])));
        assert!(!is_upgrade(&map(&[("upgrade", "websocket")])));
    }
}
