//! How a proxy proves who it is, and where the controller is.

use std::path::PathBuf;

use super::dial::Controller;
use crate::{
    api::join::{self, JoinToken},
    model::name,
};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Local mesh: the token that makes this proxy one workload, and pins the controller.
    #[arg(long, env = "MESH_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) join_token: Option<String>,
    /// The controller's address; with a join token the one in the token by default.
    #[arg(long, env = "MESH_CONTROLLER", value_name = "HOST:PORT")]
    pub(crate) controller: Option<String>,
    /// A file with the controller's present address (`.mesh/controller.json`), read anew at each dial.
    #[arg(long, env = "MESH_CONTROLLER_FILE", value_name = "FILE", conflicts_with = "controller")]
    pub(crate) controller_file: Option<PathBuf>,
    /// Roots by which to know the controller, PEM; with --identity-token-file.
    #[arg(long, env = "MESH_TRUST_ANCHORS", value_name = "FILE")]
    pub(crate) trust_anchors: Option<PathBuf>,
    /// A service account token of our audience, read anew at each use.
    #[arg(long, env = "MESH_IDENTITY_TOKEN_FILE", value_name = "FILE", conflicts_with = "join_token")]
    pub(crate) identity_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) controller: Controller,
}

/// What stands in for a certificate as long as there is none.
#[derive(Clone, Debug)]
pub(crate) enum Bootstrap {
    Join(Box<JoinToken>),
    ServiceAccount { token: PathBuf, trust_anchors: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no identity: give --join-token, or --identity-token-file with --trust-anchors and --controller")]
    Missing,
    #[error("--join-token")]
    Token(#[from] join::Error),
    #[error("the join token is for {token}, not for {asked}")]
    OtherWorkload { token: String, asked: String },
    #[error("namespace or service account")]
    Name(#[from] name::Error),
}

impl Args {
    /// # Errors
    /// When what was given is not enough or does not fit together.
    pub(crate) fn config(self, namespace: &str, service_account: &str) -> Result<Config, Error> {
        name::label(namespace)?;
        name::label(service_account)?;
        let controller = self.controller_file.map(Controller::File).or(self.controller.map(Controller::Fixed));
        let (bootstrap, controller) = match (self.join_token, self.identity_token_file, self.trust_anchors) {
            (Some(token), _, _) => {
                let token: JoinToken = token.parse()?;
                token.pin_bytes()?;
                if (token.ns.as_str(), token.sa.as_str()) != (namespace, service_account) {
                    let (token, asked) =
                        (format!("{}/{}", token.ns, token.sa), format!("{namespace}/{service_account}"));
                    return Err(Error::OtherWorkload { token, asked });
                }
                let controller = controller.unwrap_or_else(|| Controller::Fixed(token.api.clone()));
                (Bootstrap::Join(Box::new(token)), controller)
            }
            (None, Some(token), Some(trust_anchors)) => {
                (Bootstrap::ServiceAccount { token, trust_anchors }, controller.ok_or(Error::Missing)?)
            }
            _ => return Err(Error::Missing),
        };
        Ok(Config {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            bootstrap,
            controller,
        })
    }
}
