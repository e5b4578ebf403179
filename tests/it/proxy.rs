//! The data plane from outside: real proxies and a real controller on loopback, mutual TLS between them.

mod balance;
mod certificates;
mod detect;
mod foreign;
mod grpc;
mod http1;
mod http2;
mod identity;
mod lifecycle;
mod limits;
mod redirect;
mod tcp;

use crate::support::{
    mesh::{Mesh, Proxy},
    server::Server,
};

/// A client's proxy, a server's proxy, and the mesh they are in. The server's application is the Service `app`.
struct Pair {
    web: Proxy,
    app: Proxy,
    // The last to go: its directory holds what the proxies had to say.
    mesh: Mesh,
}

impl Pair {
    /// `protocol`: the port's `appProtocol`, or empty for one that is detected.
    async fn around(server: &Server, protocol: &str) -> Self {
        let mesh = Mesh::local().await;
        let app = mesh.proxy("app").port(server.addr, protocol).start().await;
        let web = mesh.proxy("web").upstream("app").start().await;
        Self { web, app, mesh }
    }

    /// Where the client goes to reach the application.
    fn addr(&self) -> std::net::SocketAddr {
        self.web.outbound("app")
    }
}
