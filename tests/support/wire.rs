//! HTTP/1.1 and bytes as they are on the wire: what was sent is exactly what the test says, and what came is kept as it was.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::condition::within;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection, and what was read of it but not yet used.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    read: Vec<u8>,
}

/// An HTTP/1.1 message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// The request line or status line.
    pub(crate) first: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a connection", PATIENCE, TcpStream::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream)
    }

    pub(crate) fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { io: Box::new(io), read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("room to write", PATIENCE, self.io.write_all(bytes.as_ref())).await;
        sent.expect("an open connection");
    }

    /// Sends as long as the other side takes it; `false` when it has closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to write", PATIENCE, self.io.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that nothing more will be sent; reading goes on.
    pub(crate) async fn finish(&mut self) {
        within("a shutdown", PATIENCE, self.io.shutdown()).await.expect("an open connection");
    }

    /// Exactly `count` bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "closed after {} of {count} bytes: {:?}", self.read.len(), self.text());
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the other side says that nothing more comes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Up to and with `end`; `None` when the connection closes before.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return Some(self.read.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next response that is not `1xx`, with its body.
    pub(crate) async fn response(&mut self) -> Message {
        match self.try_response().await {
            Some(message) => message,
            None => panic!("closed without a response: {:?}", self.text()),
        }
    }

    pub(crate) async fn try_response(&mut self) -> Option<Message> {
        loop {
            let mut message = self.head().await?;
            if message.status >= 200 || message.status == 101 {
                self.body(&mut message).await;
                return Some(message);
            }
        }
    }

    /// A request, with its body.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        self.body(&mut message).await;
        Some(message)
    }

    /// A message's head alone: of an interim response, or of one whose body the test reads itself.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let text = String::from_utf8(self.until(b"\r\n\r\n").await?).expect("an ASCII head");
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default().to_owned();
        let status = first.strip_prefix("HTTP/1.").and_then(|s| s.get(2..5)).and_then(|s| s.parse().ok()).unwrap_or(0);
        Some(Message { first, status, headers: lines.map(header).collect(), ..Message::default() })
    }

    async fn body(&mut self, message: &mut Message) {
        if message.status == 204 || message.status == 304 || message.status == 101 {
            return;
        }
        if message.header("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.until(b"\r\n").await.expect("a chunk's size");
                let size = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(size.trim().split(';').next().unwrap_or_default(), 16);
                match size.expect("a chunk's size") {
                    0 => break,
                    size => message.body.extend(self.bytes(size).await),
                }
                assert_eq!(self.bytes(2).await, b"\r\n", "the end of a chunk");
            }
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await.expect("the end of trailers")).expect("ASCII");
                match line.trim_end() {
                    "" => return,
                    line => message.trailers.push(header(line)),
                }
            }
        }
        match message.header("content-length").map(|length| length.parse().expect("a length")) {
            Some(length) => message.body = self.bytes(length).await,
            None if message.status != 0 => message.body = self.rest().await,
            None => {}
        }
    }

    /// Reads once; `false` at the end.
    async fn more(&mut self) -> bool {
        let before = self.read.len();
        let read = within("bytes from the other side", PATIENCE, self.io.read_buf(&mut self.read)).await;
        read.is_ok() && self.read.len() > before
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

fn header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}
