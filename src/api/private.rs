//! The controller's private side in a local mesh: `DIR/.mesh/controller.json`, and HTTP/1.1 on `DIR/.mesh/controller.sock`.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/join` [`JoinRequest`] | [`JoinAnswer`] |
//! | `GET /ready` | 200 or 503 |
//! | `GET /status` | [`Status`] |

use serde::{Deserialize, Serialize};

/// `DIR/.mesh/controller.json`: there while the controller is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ControllerFile {
    pub(crate) schema: String,
    /// `IP:PORT`.
    pub(crate) api: String,
    pub(crate) pid: u32,
    pub(crate) trust_domain: String,
    pub(crate) name: String,
}

impl ControllerFile {
    pub(crate) const SCHEMA: &str = "mesh.dev/controller/v1";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    pub(crate) token: String,
}

/// What the controller knows, for a person or a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) schema: String,
    pub(crate) files: usize,
    pub(crate) services: usize,
    pub(crate) endpoint_slices: usize,
    /// Streams open now.
    pub(crate) streams: usize,
    /// Files whose last good state is in use instead of what they say.
    pub(crate) errors: Vec<FileError>,
}

impl Status {
    pub(crate) const SCHEMA: &str = "mesh.dev/controller-status/v1";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileError {
    /// Relative to the source directory.
    pub(crate) file: String,
    /// From 1; 0 where the error is not at a line.
    pub(crate) line: usize,
    pub(crate) error: String,
}
