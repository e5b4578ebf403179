//! Servers inside the test: for bytes, for HTTP/1.1 with full say over what is sent, and for HTTP/2.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::wire::{Message, Wire};

/// Listens until it is dropped; its connections are closed then, too.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Each connection is given to `serve`.
    pub(crate) async fn tcp<F>(serve: impl Fn(Wire) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::streams(move |stream| serve(Wire::over(stream))).await
    }

    /// Each request is answered by the bytes that `answer` makes of it; the connection is kept.
    pub(crate) async fn http1<F>(answer: impl Fn(Message) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        Self::tcp(move |mut wire| {
            let answer = answer.clone();
            async move {
                while let Some(request) = wire.request().await {
                    if !wire.try_send(answer(request).await).await {
                        break;
                    }
                }
            }
        })
        .await
    }

    /// HTTP/2 with prior knowledge.
    pub(crate) async fn http2<F, B>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        Self::streams(move |stream| {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            async move {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // An error here is the client's end of the connection.
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Each connection is given to `serve` as the socket that it is.
    pub(crate) async fn streams<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at(TcpListener::bind("127.0.0.1:0").await.expect("a loopback address"), serve)
    }

    /// The same as [`tcp`](Self::tcp), on a listener that was made elsewhere.
    pub(crate) fn on<F>(listener: std::net::TcpListener, serve: impl Fn(Wire) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        Self::at(listener, move |stream| serve(Wire::over(stream)))
    }

    fn at<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().expect("a bound socket");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (mut tasks, count) = (JoinSet::new(), accepted.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listening socket");
                stream.set_nodelay(true).expect("a TCP socket");
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream));
            }
        });
        Self { addr, accepted, _tasks: tasks }
    }

    /// How many connections it was given so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A whole `200` response with this body.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}
