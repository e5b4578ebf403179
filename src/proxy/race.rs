//! Who speaks first on a port whose protocol nobody described: the client, or, once it has been silent for a few
//! milliseconds, the server at the other end of a connection that is opened on speculation.

use std::{future::Future, io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use super::detect::{self, Client, Server};

/// What was found out.
pub(crate) enum Outcome<C> {
    /// The client's bytes decided. The speculative connection, when one is open, has carried no byte to the server; what
    /// the server said meanwhile comes with it.
    Client { verdict: Client, bytes: Bytes, speculative: Option<(C, Bytes)> },
    /// The server spoke, and not HTTP.
    Server { connection: C, bytes: Bytes },
}

/// How the bytes are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Silence of the client before the server is asked.
    pub(crate) silence: Duration,
    /// For a client that began something worth waiting for to finish it.
    pub(crate) opening: Duration,
    /// For a client that may be about to speak HTTP to say anything at all.
    pub(crate) idle: Duration,
}

/// A word that is no known method and ends in the middle: longer than this, and it is no slow HTTP client's.
const AMBIGUOUS: Duration = Duration::from_millis(200);

/// For a client that may be HTTP to speak when there is nobody to hear it.
const UNREACHED: Duration = Duration::from_secs(1);

/// What a client may send before the verdict; a ClientHello of 16 KiB fits.
const MAX_OPENING: usize = 17 << 10;
/// What a server may say before it is asked.
const MAX_GREETING: usize = 16 << 10;

/// Listens to both sides until one decides.
///
/// # Errors
/// The client's socket broke, or it said nothing for the idle time.
pub(crate) async fn race<C, F, E>(
    client: &mut (impl AsyncRead + Unpin),
    patience: Patience,
    connect: impl FnOnce() -> F,
) -> io::Result<Outcome<C>>
where
    C: AsyncRead + Unpin,
    F: Future<Output = Result<C, E>>,
{
    let mut opening = BytesMut::new();
    let silent = timeout_at(Instant::now() + patience.silence, client.read_buf(&mut opening)).await;
    if let Ok(read) = silent {
        read?;
        return decide(client, opening, patience, None).await;
    }
    let mut connecting = std::pin::pin!(connect());
    let connection = tokio::select! {
        biased;
        read = client.read_buf(&mut opening) => {
            read?;
            // What is connecting is given up: the client decides where it goes.
            return decide(client, opening, patience, None).await;
        }
        connected = &mut connecting => connected.ok(),
    };
    match connection {
        Some(connection) => both(client, opening, connection, patience).await,
        // Nobody there. An HTTP client can still be told so; any other must not wait for what will not come.
        None => {
            // Where servers spoke first lately, the client waits for just that.
            let wait = if patience.silence.is_zero() { Duration::ZERO } else { UNREACHED.min(patience.opening) };
            timeout_at(Instant::now() + wait, client.read_buf(&mut opening)).await??;
            decide(client, opening, patience, None).await
        }
    }
}

/// The connection is open and both are silent: the first to speak decides, but for a server that may be HTTP.
async fn both<C: AsyncRead + Unpin>(
    client: &mut (impl AsyncRead + Unpin),
    mut opening: BytesMut,
    mut connection: C,
    patience: Patience,
) -> io::Result<Outcome<C>> {
    let mut greeting = BytesMut::new();
    let mut listening = true;
    let deadline = Instant::now() + patience.idle;
    loop {
        tokio::select! {
            biased;
            read = client.read_buf(&mut opening) => {
                read?;
                return decide(client, opening, patience, Some((connection, greeting.freeze()))).await;
            }
            read = connection.read_buf(&mut greeting), if listening => {
                let ended = read.unwrap_or(0) == 0;
                match detect::server(&greeting) {
                    Server::Opaque => return Ok(Outcome::Server { connection, bytes: greeting.freeze() }),
                    Server::NeedMore if ended => return Ok(Outcome::Server { connection, bytes: greeting.freeze() }),
                    Server::MaybeHttp | Server::NeedMore => listening = !ended && greeting.len() < MAX_GREETING,
                }
            }
            () = tokio::time::sleep_until(deadline) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The client has spoken: reads on until it is clear what.
async fn decide<C>(
    client: &mut (impl AsyncRead + Unpin),
    mut bytes: BytesMut,
    patience: Patience,
    speculative: Option<(C, Bytes)>,
) -> io::Result<Outcome<C>> {
    let start = Instant::now();
    let verdict = loop {
        let worth_waiting = match detect::client(&bytes) {
            // A client that closed without a word: bytes, of which there are none.
            Client::NeedMore { .. } if bytes.is_empty() => break Client::Opaque,
            Client::NeedMore { worth_waiting } => worth_waiting,
            verdict => break verdict,
        };
        let wait = if worth_waiting { patience.opening } else { AMBIGUOUS.min(patience.opening) };
        let read = timeout_at(start + wait, client.read_buf(&mut bytes)).await;
        let ended = !matches!(read, Ok(Ok(1..)));
        if ended || bytes.len() > MAX_OPENING {
            // The HTTP server says what is wrong with half a request line (408, 400); half a ClientHello is just bytes.
            break if worth_waiting && bytes.first() != Some(&TLS_HANDSHAKE) { Client::Http1 } else { Client::Opaque };
        }
    };
    Ok(Outcome::Client { verdict, bytes: bytes.freeze(), speculative })
}

/// The content type of a TLS record with a handshake message (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience =
        Patience { silence: Duration::from_millis(5), opening: Duration::from_secs(10), idle: Duration::from_secs(60) };

    async fn run(client: &mut DuplexStream, server: DuplexStream) -> io::Result<Outcome<DuplexStream>> {
        race(client, PATIENCE, || async { Ok::<_, Infallible>(server) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_greets_is_heard_after_a_few_milliseconds() -> io::Result<()> {
        let ((mut client, _app), (server, mut mysql)) = (duplex(64), duplex(64));
        mysql.write_all(b"\x4a\0\0\0\x0a5.5").await?;
        let start = Instant::now();
        let outcome = run(&mut client, server).await?;
        assert!(matches!(outcome, Outcome::Server { bytes, .. } if bytes.starts_with(b"\x4a")));
        assert_eq!(start.elapsed(), PATIENCE.silence);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn settings_first_and_a_client_two_seconds_late_is_still_http2() -> io::Result<()> {
        let ((mut client, mut app), (server, mut grpc)) = (duplex(64), duplex(64));
        grpc.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        let speak = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            app.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await
        };
        let (outcome, spoke) = tokio::join!(run(&mut client, server), speak);
        spoke?;
        assert!(matches!(outcome?, Outcome::Client { verdict: Client::Http2, .. }));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_client_with_an_upper_case_word_does_not_wait_long() -> io::Result<()> {
        let ((mut client, mut app), (server, _echo)) = (duplex(64), duplex(64));
        app.write_all(b"HELLO").await?;
        let start = Instant::now();
        let outcome = run(&mut client, server).await?;
        assert!(matches!(outcome, Outcome::Client { verdict: Client::Opaque, .. }));
        assert!(start.elapsed() <= AMBIGUOUS);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_client_decides_before_anything_is_opened() -> io::Result<()> {
        let (mut client, mut app) = duplex(64);
        app.write_all(b"GET / HTTP/1.1\r\n").await?;
        let outcome = race(&mut client, PATIENCE, || async { Err::<DuplexStream, _>(()) }).await?;
        assert!(matches!(outcome, Outcome::Client { verdict: Client::Http1, speculative: None, .. }));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_for_nobody_only_while_it_may_be_http() {
        for (silence, waited) in [(PATIENCE.silence, PATIENCE.silence + UNREACHED), (Duration::ZERO, Duration::ZERO)] {
            let ((mut client, _app), start) = (duplex(64), Instant::now());
            let patience = Patience { silence, ..PATIENCE };
            let outcome = race(&mut client, patience, || async { Err::<DuplexStream, _>(()) }).await;
            assert_eq!(outcome.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
            assert!(start.elapsed() <= waited + Duration::from_millis(5), "{:?}", start.elapsed());
        }
    }
}
