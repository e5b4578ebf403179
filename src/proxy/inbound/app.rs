//! The application behind the proxy, on one of its ports.

use std::rc::Rc;

use http::Version;

use crate::proxy::{
    connect::Remote,
    context::Context,
    http::{
        Request, Response,
        body::Holds,
        http1_client::{self, Unanswered},
        http2_client, upgrade,
    },
};

pub(crate) struct App {
    /// For labels.
    pub(crate) port: Rc<str>,
    pub(crate) remote: Remote,
    pub(crate) http1: Rc<http1_client::Pool>,
    pub(crate) http2: Rc<http2_client::Connections>,
}

impl App {
    /// Sends a request to the application as what its client sent it as.
    pub(crate) async fn send(&self, request: Request, cx: &Rc<Context>) -> Result<(Response, Holds), Unanswered> {
        if upgrade::is_asked_for(&request) {
            // Boxed, because it is rare: a request's future is moved into place for every request.
            let response = Box::pin(upgrade::forward(request, &self.remote, cx)).await?;
            return Ok((response, Holds::Nothing));
        }
        if request.version() == Version::HTTP_2 {
            let (response, stream) = self.http2.send(request, &self.remote, cx).await?;
            return Ok((response, Holds::Stream(stream)));
        }
        let (response, returning) = self.http1.send(request, &self.remote, cx).await?;
        Ok((response, Holds::Connection(returning)))
    }
}
