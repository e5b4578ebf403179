//! Why a handshake failed, as a bounded set of words for labels and messages.

use std::{error::Error as StdError, io};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use super::verify::Refused;

/// The reason somewhere in an error's chain of causes; `handshake` for a TLS error without a word of its own, and for
/// what is no TLS error at all, what the connection came to. `refused_…` says that the peer refused *our* certificate.
pub(crate) fn reason(error: &io::Error) -> &'static str {
    if let Some(reason) = error.get_ref().and_then(|inner| find(inner)) {
        return reason;
    }
    if let Some(reason) = by_text(error) {
        return reason;
    }
    match error.kind() {
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection_reset",
        io::ErrorKind::UnexpectedEof => "connection_closed",
        _ => "io",
    }
}

/// The same for an error that wraps one of I/O or TLS somewhere below.
pub(crate) fn within(error: &(dyn StdError + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return reason(io);
        }
        cause = inner.source();
    }
    find(error).unwrap_or("protocol")
}

fn find(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(tls) = inner.downcast_ref::<Error>() {
            return Some(of_rustls(tls));
        }
        // An io::Error's source() is its inner error's source: the inner error itself would be skipped.
        cause = match inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(deeper) => Some(deeper),
            None => inner.source(),
        };
    }
    None
}

pub(crate) fn of_rustls(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(certificate) => of_certificate(certificate),
        Error::NoCertificatesPresented => "no_certificate",
        Error::NoApplicationProtocol => "no_common_alpn",
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => NOT_TLS,
        Error::AlertReceived(alert) => {
            REFUSALS.iter().find(|(refusal, _)| refusal == alert).map_or("handshake", |(_, reason)| reason)
        }
        _ => "handshake",
    }
}

/// The peer's first bytes were something else than TLS.
pub(crate) const NOT_TLS: &str = "not_tls";

/// Alerts by which a peer says what it has against us.
const REFUSALS: [(AlertDescription, &str); 8] = [
    (AlertDescription::CertificateExpired, "refused_certificate_expired"),
    (AlertDescription::UnknownCA, "refused_unknown_issuer"),
    (AlertDescription::CertificateRequired, "refused_no_certificate"),
    (AlertDescription::BadCertificate, "refused_certificate"),
    (AlertDescription::CertificateUnknown, "refused_certificate"),
    (AlertDescription::AccessDenied, "refused_certificate"),
    (AlertDescription::DecryptError, "refused_certificate"),
    (AlertDescription::NoApplicationProtocol, "no_common_alpn"),
];

/// In TLS 1.3 a client hears only after its handshake that its certificate was refused, by way of HTTP/2: and h2 keeps
/// nothing of an I/O error but its kind and text.
fn by_text(error: &io::Error) -> Option<&'static str> {
    let text = error.to_string();
    let said = |alert: AlertDescription| text.contains(&Error::AlertReceived(alert).to_string());
    REFUSALS.into_iter().find(|(alert, _)| error.kind() == io::ErrorKind::InvalidData && said(*alert)).map(|(_, r)| r)
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "certificate_not_yet_valid",
        // A root of the same name with another key, as after a new installation, shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_issuer",
        CertificateError::Other(OtherError(other)) => match other.downcast_ref::<Refused>() {
            Some(Refused::NoIdentity) => "no_identity",
            Some(Refused::WrongIdentity) => "wrong_identity",
            Some(Refused::NotPinned) => "not_pinned",
            None => "bad_certificate",
        },
        _ => "bad_certificate",
    }
}

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
