//! `inventory`: gRPC over HTTP/2, called by the catalog. Both sides of it.

use std::{cell::RefCell, convert::Infallible, future::Future, io, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    client::SendRequest,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    grpc::{self, Status, StockReply, StockRequest},
    latency::Latency,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect to inventory")]
    Connect(#[from] io::Error),
    #[error("the connection to inventory broke off")]
    Http(#[from] h2::Error),
    #[error("inventory's answer is malformed")]
    Message(#[from] grpc::Error),
    #[error("inventory answered with grpc-status {0}")]
    Status(String),
    #[error("inventory did not answer within {}s", DEADLINE.as_secs())]
    Deadline,
}

pub(super) async fn serve(listener: TcpListener, latency: Latency) -> io::Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            // A client that goes away is its own affair.
            let _ = serve_connection(stream, latency).await;
        });
    }
}

async fn serve_connection(stream: TcpStream, latency: Latency) -> Result<(), h2::Error> {
    let mut connection = server::handshake(stream).await?;
    let mut calls = JoinSet::new();
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        while calls.try_join_next().is_some() {}
        calls.spawn_local(async move {
            let _ = answer(request, respond, latency).await;
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    latency: Latency,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    let outcome = if head.uri.path() == grpc::STOCK {
        grpc::unframe(body).and_then(|message| StockRequest::decode(&message)).map_err(|_| Status::InvalidArgument)
    } else {
        Err(Status::Unimplemented)
    };
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
    match outcome {
        Ok(request) => {
            latency.pass().await;
            let count = u32::try_from(request.sku.len()).unwrap_or(0) * 7;
            let reply = StockReply { sku: request.sku, count };
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(grpc::frame(&reply.encode()), false)?;
            stream.send_trailers(trailers(Status::Ok))
        }
        // "Trailers-Only": the status goes with the head.
        Err(status) => {
            response.headers_mut().extend(trailers(status));
            respond.send_response(response, true).map(drop)
        }
    }
}

fn trailers(status: Status) -> HeaderMap {
    HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from(status as u16))])
}

async fn read(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        whole.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(whole.freeze())
}

/// Asks for stock over one connection, which is opened anew when it breaks.
#[derive(Debug)]
pub(super) struct Client {
    addr: String,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    connections: RefCell<JoinSet<()>>,
}

impl Client {
    pub(super) fn new(addr: String) -> Self {
        Self { addr, sender: RefCell::default(), connections: RefCell::default() }
    }

    pub(super) async fn stock(&self, sku: &str) -> Result<StockReply, Error> {
        let result = timeout(DEADLINE, self.call(grpc::STOCK, sku)).await.map_err(|_| Error::Deadline)?;
        if matches!(result, Err(Error::Http(_))) {
            self.sender.take();
        }
        result
    }

    async fn call(&self, method: &str, sku: &str) -> Result<StockReply, Error> {
        let mut sender = self.sender().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://inventory{method}").parse().unwrap_or_default();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(grpc::frame(&StockRequest { sku: sku.to_owned() }.encode()), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            message.extend_from_slice(&chunk);
            body.flow_control().release_capacity(chunk.len())?;
        }
        let trailers = body.trailers().await?;
        let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
        match status.map(HeaderValue::as_bytes) {
            Some(b"0") => Ok(StockReply::decode(&grpc::unframe(message.freeze())?)?),
            status => {
                let code = status.map(|code| String::from_utf8_lossy(code).into_owned());
                Err(Error::Status(code.unwrap_or_else(|| format!("missing, HTTP {}", head.status))))
            }
        }
    }

    fn keep(&self, connection: impl Future<Output = Result<(), h2::Error>> + 'static) {
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            // The calls on it have heard of its end.
            let _ = connection.await;
        });
    }

    async fn sender(&self) -> Result<SendRequest<Bytes>, Error> {
        let known = self.sender.borrow().clone();
        if let Some(known) = known
            && let Ok(ready) = known.ready().await
        {
            return Ok(ready);
        }
        let stream = TcpStream::connect(&self.addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        self.keep(connection);
        self.sender.replace(Some(sender.clone()));
        Ok(sender.ready().await?)
    }
}

const DEADLINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_call_makes_the_round_trip_and_a_wrong_method_is_told_so() {
        LocalSet::new()
            .run_until(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let client = Client::new(listener.local_addr().unwrap().to_string());
                let script = async {
                    assert_eq!(client.stock("tea").await.unwrap(), StockReply { sku: "tea".into(), count: 21 });
                    let error = client.call("/shop.Inventory/Nope", "tea").await.unwrap_err();
                    assert_eq!(error.to_string(), "inventory answered with grpc-status 12");
                };
                tokio::select! {
                    ended = serve(listener, Latency::new(Duration::ZERO)) => match ended.unwrap() {},
                    () = script => {}
                }
            })
            .await;
    }
}
