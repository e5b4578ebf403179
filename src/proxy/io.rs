//! A connection, whatever it is made of. One closed set instead of generics, so that the pipelines exist once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use crate::net::prefixed::Prefixed;

/// What TLS reads ahead of the deframer, which by itself reads 4 KiB a call (measured: fewer system calls on a busy link).
pub(crate) const READ_AHEAD: usize = 32 << 10;

/// The transport under TLS.
pub(crate) type Raw = BufReader<Prefixed<TcpStream>>;

#[derive(Debug)]
pub(crate) enum Io {
    Tcp(Prefixed<TcpStream>),
    TlsServer(Box<server::TlsStream<Raw>>),
    TlsClient(Box<client::TlsStream<Raw>>),
    /// Any of the above with bytes to be read first.
    Replay(Prefixed<Box<Self>>),
}

impl Io {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(Prefixed::new(Bytes::new(), stream))
    }

    /// `prefix` was read from this connection already and is read again first.
    pub(crate) fn with_prefix(self, prefix: Bytes) -> Self {
        if prefix.is_empty() { self } else { Self::Replay(Prefixed::new(prefix, Box::new(self))) }
    }

    /// The transport for a TLS session on this connection.
    pub(crate) fn raw(stream: TcpStream, prefix: Bytes) -> Raw {
        BufReader::with_capacity(READ_AHEAD, Prefixed::new(prefix, stream))
    }
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($io) => $call,
            Self::TlsServer($io) => $call,
            Self::TlsClient($io) => $call,
            Self::Replay($io) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::TlsServer(io) => io.is_write_vectored(),
            Self::TlsClient(io) => io.is_write_vectored(),
            Self::Replay(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
