//! `POST /v1/certify`: a token and a certificate signing request for a certificate.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CertifyRequest {
    /// A projected service account token or a join token. Absent when a certificate that is still valid asks for its
    /// successor over mTLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// PKCS #10, PEM.
    pub(crate) csr: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// Leaf first, then intermediates; PEM.
    pub(crate) chain: String,
    /// The roots to trust, PEM.
    pub(crate) trust_anchors: String,
    /// When the leaf expires, Unix seconds.
    pub(crate) expires_at: i64,
}
