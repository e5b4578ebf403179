//! `cart`: lines over TCP, and the server speaks first, as in SMTP. Both sides of it.
//!
//! ```text
//! S: 220 cart ready      C: ADD tea      S: 250 1 in the cart      C: QUIT      S: 221 bye
//! ```

use std::{cell::RefCell, convert::Infallible, io, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::latency::Latency;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection to cart broke off")]
    Io(#[from] io::Error),
    #[error("cart answered `{0}`")]
    Refused(String),
    #[error("cart did not answer within {}s", DEADLINE.as_secs())]
    Deadline,
}

pub(super) async fn serve(listener: TcpListener, latency: Latency) -> io::Result<Infallible> {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while sessions.try_join_next().is_some() {}
        sessions.spawn_local(async move {
            // A client that goes away is its own affair.
            let _ = session(BufStream::new(stream), latency).await;
        });
    }
}

async fn session(mut stream: BufStream<TcpStream>, latency: Latency) -> io::Result<()> {
    let mut items = 0_u32;
    say(&mut stream, "220 cart ready").await?;
    while let Some(line) = line(&mut stream).await? {
        latency.pass().await;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ADD", sku) if !sku.is_empty() => {
                items = items.saturating_add(1);
                say(&mut stream, &format!("250 {items} in the cart")).await?;
            }
            ("SIZE", "") => say(&mut stream, &format!("250 {items} in the cart")).await?,
            ("QUIT", "") => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "500 not understood").await?,
        }
    }
    Ok(())
}

async fn say(stream: &mut BufStream<TcpStream>, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    stream.flush().await
}

/// A line without its end; `None` at the end of the stream.
async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = stream.take(MAX_LINE).read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

/// Sessions with the cart. Each serves some commands and is then ended, so that connections come and go.
#[derive(Debug)]
pub(super) struct Client {
    addr: String,
    idle: RefCell<Vec<(BufStream<TcpStream>, u32)>>,
}

impl Client {
    pub(super) fn new(addr: String) -> Self {
        Self { addr, idle: RefCell::default() }
    }

    /// One command and its answer, without the code.
    pub(super) async fn command(&self, command: &str) -> Result<String, Error> {
        timeout(DEADLINE, self.exchange(command)).await.map_err(|_| Error::Deadline)?
    }

    async fn exchange(&self, command: &str) -> Result<String, Error> {
        let idle = self.idle.borrow_mut().pop();
        if let Some((mut stream, used)) = idle
            && let Ok(answer) = Self::ask(&mut stream, command).await
        {
            return self.keep(stream, used + 1, answer).await;
        }
        // The first of a session, or the old one had broken while it lay idle.
        let stream = TcpStream::connect(&self.addr).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufStream::new(stream);
        let greeting = line(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
        if !greeting.starts_with("220 ") {
            return Err(Error::Refused(greeting));
        }
        let answer = Self::ask(&mut stream, command).await?;
        self.keep(stream, 1, answer).await
    }

    async fn ask(stream: &mut BufStream<TcpStream>, command: &str) -> io::Result<String> {
        say(stream, command).await?;
        line(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn keep(&self, mut stream: BufStream<TcpStream>, used: u32, answer: String) -> Result<String, Error> {
        if used < COMMANDS_PER_SESSION {
            self.idle.borrow_mut().push((stream, used));
        } else {
            // The answer is there already; how the session ends changes nothing about it.
            let _ = say(&mut stream, "QUIT").await;
        }
        match answer.strip_prefix("250 ") {
            Some(text) => Ok(text.to_owned()),
            None => Err(Error::Refused(answer)),
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_LINE: u64 = 1024;
const COMMANDS_PER_SESSION: u32 = 50;

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn the_cart_greets_first_and_counts() {
        LocalSet::new()
            .run_until(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = listener.local_addr().unwrap();
                let script = async {
                    let mut silent = BufStream::new(TcpStream::connect(addr).await.unwrap());
                    assert_eq!(line(&mut silent).await.unwrap().unwrap(), "220 cart ready");
                    let client = Client::new(addr.to_string());
                    assert_eq!(client.command("ADD tea").await.unwrap(), "1 in the cart");
                    assert_eq!(client.command("SIZE").await.unwrap(), "1 in the cart");
                    assert!(matches!(client.command("NOPE").await, Err(Error::Refused(_))));
                    for _ in 0..COMMANDS_PER_SESSION {
                        client.command("ADD tea").await.unwrap();
                    }
                    assert_eq!(client.command("SIZE").await.unwrap(), "3 in the cart", "a session of its own by now");
                };
                tokio::select! {
                    ended = serve(listener, Latency::new(Duration::ZERO)) => match ended.unwrap() {},
                    () = script => {}
                }
            })
            .await;
    }
}
