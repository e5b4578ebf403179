//! Asks many proxies at once, each over its private socket, all within one deadline; those that fail are named.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{Instant, timeout_at},
};

use super::{
    Unreachable, View,
    decode::{self, Report},
    pods::{self, Pod},
};
use crate::units::duration;

/// For all proxies together: who is not there by then is reported as missing.
const DEADLINE: Duration = Duration::from_secs(2);
/// Proxies asked at the same time.
const CONCURRENCY: usize = 64;
/// The largest exposition that is read.
const MAX_BODY: usize = 64 << 20;

/// The way to a proxy's private admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A local mesh's socket.
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to its proxy")]
    Connect(#[source] io::Error),
    #[error("its proxy broke off")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("its proxy answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("its proxy did not answer within {}", duration::format(DEADLINE))]
    Deadline,
    #[error(transparent)]
    Decode(#[from] decode::Error),
}

/// The pods of the local mesh in `dir` and what their proxies report of the last `window`.
///
/// # Errors
/// When the directory cannot be read; a proxy that does not answer is part of the view.
pub(crate) async fn local(dir: &Path, window: Duration) -> io::Result<View> {
    Ok(scrape(pods::local(dir)?, window).await)
}

/// Asks the proxies of `pods`.
pub(crate) async fn scrape(pods: Vec<Pod>, window: Duration) -> View {
    let deadline = Instant::now() + DEADLINE;
    let asked = stream::iter(pods).map(async |pod| {
        let answer = match &pod.source {
            Some(source) => Some(timeout_at(deadline, ask(source, window)).await.unwrap_or(Err(Error::Deadline))),
            None => None,
        };
        (pod, answer)
    });
    let mut view = View::default();
    for (pod, answer) in asked.buffered(CONCURRENCY).collect::<Vec<_>>().await {
        match answer {
            None => view.pods.push((pod, None)),
            Some(Ok(report)) => view.pods.push((named(pod, &report), Some(report))),
            // A socket that nobody listens at and no slice names is what a killed proxy left behind.
            Some(Err(Error::Connect(_))) if !pod.is_listed => {}
            Some(Err(error)) => {
                let missing = (pod.namespace.clone(), pod.name.clone());
                view.unreachable.push(Unreachable { namespace: missing.0, pod: missing.1, error: chain(&error) });
                view.pods.push((pod, None));
            }
        }
    }
    view
}

/// What no slice said, the proxy says itself.
fn named(pod: Pod, report: &Report) -> Pod {
    if pod.is_listed {
        return Pod { workload: pod.workload.clone().or_else(|| report.workload.clone()), ..pod };
    }
    let name = if report.pod.is_empty() { pod.name } else { report.pod.clone() };
    Pod { namespace: report.namespace.clone(), workload: report.workload.clone(), name, ..pod }
}

async fn ask(source: &Source, window: Duration) -> Result<Report, Error> {
    let text = match source {
        Source::Unix(path) => fetch(UnixStream::connect(path).await.map_err(Error::Connect)?, window).await?,
    };
    Ok(decode::report(&text)?)
}

async fn fetch(stream: impl AsyncRead + AsyncWrite + Unpin, window: Duration) -> Result<String, Error> {
    let broken = |error: hyper::Error| Error::Exchange(error.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async move {
        let request = Request::get(format!("/stats?window={}", duration::format(window)))
            .header(header::HOST, "localhost")
            .header("mesh-admin", "1")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Error::Exchange(error.into()))?;
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(Error::Exchange)?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        match head.status {
            StatusCode::OK => Ok(text),
            status => Err(Error::Refused { status, body: text.trim().chars().take(200).collect() }),
        }
    };
    // The connection turns until the sender is gone, that is until the exchange is over.
    let (_, text) = future::join(connection, exchange).await;
    text
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        task::JoinSet,
    };

    use super::*;

    fn pod(name: &str, dir: &Path, is_listed: bool) -> Pod {
        let source = Some(Source::Unix(dir.join(name)));
        Pod { name: name.to_owned(), namespace: "shop".to_owned(), source, is_listed, ..Pod::default() }
    }

    #[tokio::test(flavor = "local")]
    async fn who_answers_is_counted_and_who_does_not_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("good")).expect("bound");
        let _silent = UnixListener::bind(dir.path().join("silent")).expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            stream.read_buf(&mut Vec::with_capacity(4096)).await.expect("a request");
            let body =
                "mesh_proxy_info{namespace=\"shop\",workload=\"deploy/web\",pod=\"good\"} 1\nmesh_scrape_samples 1\n";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("open");
        });
        let pods = vec![
            pod("good", dir.path(), false),
            pod("silent", dir.path(), true),
            pod("gone", dir.path(), true),
            pod("left", dir.path(), false),
        ];
        let view = scrape(pods, Duration::from_secs(60)).await;
        let found: Vec<_> = view.pods.iter().map(|(pod, report)| (pod.name.as_str(), report.is_some())).collect();
        assert_eq!(found, [("good", true), ("silent", false), ("gone", false)]);
        assert_eq!(view.pods[0].0.workload, "shop/deploy/web".parse().ok());
        let errors: Vec<_> = view.unreachable.iter().map(|it| it.error.as_str()).collect();
        assert_eq!(errors[0], "its proxy did not answer within 2s");
        assert!(errors[1].starts_with("cannot connect to its proxy: "), "{errors:?}");
    }
}
