//! Responses that the proxy makes itself.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::{Response, body::Body};
use crate::proxy::error::Error;

/// What says that an answer is the proxy's own, and why.
pub(crate) const PROXY_ERROR: &str = "mesh-proxy-error";

/// An error as a response: gRPC callers get a trailers-only response (gRPC over HTTP/2, "Responses"), others a status
/// and a line of text.
pub(crate) fn error(error: &Error, is_grpc: bool) -> Response {
    let kind = error.kind;
    let mut response;
    if is_grpc {
        response = http::Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(kind.grpc() as u16));
        if let Ok(message) = HeaderValue::from_str(&percent_encode(&error.to_string())) {
            headers.insert("grpc-message", message);
        }
    } else {
        let text = format!("mesh proxy: {error}\n");
        response = http::Response::new(Body::once(Bytes::from(text)));
        *response.status_mut() = kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if kind.status() == StatusCode::REQUEST_TIMEOUT {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response.headers_mut().insert(PROXY_ERROR, HeaderValue::from_static(kind.label()));
    response
}

/// gRPC over HTTP/2, `Status-Message`: printable ASCII but `%` stands for itself.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::error::Kind;

    #[test]
    fn grpc_callers_get_a_status_they_understand() {
        let response = error(&Error::new(Kind::NoEndpoints), true);
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(14)));
    }

    #[test]
    fn every_proxy_made_response_says_why() {
        let response = error(&Error::new(Kind::NoEndpoints), false);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[PROXY_ERROR], "no-endpoints");
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(percent_encode("a%b\u{e9}\n"), "a%25b%C3%A9%0A");
    }
}
