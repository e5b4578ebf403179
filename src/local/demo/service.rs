//! The shop's services, each a process of its own: `mesh demo-service KIND`.
//!
//! A service finds its port and those it calls in the environment, as any application under `mesh run` does.

use std::{convert::Infallible, env, future::Future, io, path::PathBuf, rc::Rc, time::Duration};

use http::{Method, StatusCode};
use rand::RngExt;
use tokio::net::TcpListener;

use super::{
    cart,
    http::{Client, Request, Response, failure, json, serve},
    inventory,
    latency::Latency,
    load,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The front end: calls catalog, cart and orders.
    Web,
    /// Calls payments and shipping.
    Orders,
    Payments,
    /// Fails some of its calls.
    Shipping,
    /// Calls inventory.
    Catalog,
    /// gRPC.
    Inventory,
    /// Lines over TCP; the server speaks first.
    Cart,
    /// Calls web at a steady rate and keeps a log of what it saw.
    Load,
}

#[derive(Clone, Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    kind: Kind,
    /// Typical working time.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Calls to fail with 503, in percent.
    #[arg(long, default_value_t = 0)]
    fail_percent: u32,
    /// What this copy calls itself.
    #[arg(long, default_value = "v1")]
    edition: String,
    /// Requests per second of the load.
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Where the load keeps its log.
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the environment says no {0}")]
    Missing(&'static str),
    #[error("cannot listen on port {port}")]
    Listen { port: String, source: io::Error },
    #[error("cannot accept connections")]
    Accept(#[source] io::Error),
    #[error(transparent)]
    Load(#[from] load::Error),
}

/// Runs one service until the process ends; only the load ends by itself, when it is told to.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let latency = Latency::new(Duration::from_millis(args.delay_ms));
    if args.kind == Kind::Load {
        let options = load::Options { rate: args.rate, report: args.report };
        return Ok(load::run(addr("WEB_ADDR")?, options).await?);
    }
    let port = addr("PORT")?;
    let bound = TcpListener::bind(format!("127.0.0.1:{port}")).await;
    let listener = bound.map_err(|source| Error::Listen { port, source })?;
    let ended = match args.kind {
        Kind::Web => web(listener, latency).await?,
        Kind::Orders => orders(listener, latency).await?,
        Kind::Catalog => catalog(listener, latency, args.edition).await?,
        Kind::Payments | Kind::Shipping => backend(listener, latency, args.fail_percent).await,
        Kind::Inventory => inventory::serve(listener, latency).await,
        Kind::Cart => cart::serve(listener, latency).await,
        Kind::Load => return Ok(()),
    };
    match ended.map_err(Error::Accept)? {}
}

type Ended = io::Result<Infallible>;

/// `GET /`: what is sold, and how full the cart is. `POST /buy`: into the cart, and ordered.
async fn web(listener: TcpListener, latency: Latency) -> Result<Ended, Error> {
    struct Calls {
        catalog: Client,
        orders: Client,
        cart: cart::Client,
    }
    let calls = Rc::new(Calls {
        catalog: Client::new("catalog", addr("CATALOG_ADDR")?),
        orders: Client::new("orders", addr("ORDERS_ADDR")?),
        cart: cart::Client::new(addr("CART_ADDR")?),
    });
    let browse = async |calls: &Calls| {
        let (items, cart) = tokio::join!(calls.catalog.call(Method::GET, "/items"), calls.cart.command("SIZE"));
        let items = passed("catalog", items)?;
        let cart = cart.map_err(Failure::bad_gateway)?;
        Ok::<_, Failure>(json(StatusCode::OK, &serde_json::json!({ "catalog": items, "cart": cart })))
    };
    let buy = async |calls: &Calls| {
        let cart = calls.cart.command("ADD tea").await;
        let cart = cart.map_err(Failure::bad_gateway)?;
        let order = passed("orders", calls.orders.call(Method::POST, "/orders").await)?;
        Ok::<_, Failure>(json(StatusCode::OK, &serde_json::json!({ "cart": cart, "order": order })))
    };
    let answer = move |request: Request| {
        let calls = Rc::clone(&calls);
        async move {
            latency.pass().await;
            let outcome = match (request.method(), request.uri().path()) {
                (&Method::GET, "/") => browse(&calls).await,
                (&Method::POST, "/buy") => buy(&calls).await,
                (method, path) => {
                    Err(Failure { status: StatusCode::NOT_FOUND, why: format!("no {method} {path} in this shop") })
                }
            };
            outcome.unwrap_or_else(Failure::answer)
        }
    };
    Ok(serve(listener, answer).await)
}

/// Charges, then ships; what fails below fails here with the same status.
async fn orders(listener: TcpListener, latency: Latency) -> Result<Ended, Error> {
    let payments = Client::new("payments", addr("PAYMENTS_ADDR")?);
    let shipping = Client::new("shipping", addr("SHIPPING_ADDR")?);
    let calls = Rc::new((payments, shipping));
    let order = async |(payments, shipping): &(Client, Client)| {
        let paid = passed("payments", payments.call(Method::POST, "/charge").await)?;
        let shipped = passed("shipping", shipping.call(Method::POST, "/ship").await)?;
        Ok::<_, Failure>(json(StatusCode::OK, &serde_json::json!({ "paid": paid, "shipped": shipped })))
    };
    let answer = move |_: Request| {
        let calls = Rc::clone(&calls);
        async move {
            latency.pass().await;
            order(&calls).await.unwrap_or_else(Failure::answer)
        }
    };
    Ok(serve(listener, answer).await)
}

/// What is sold, with the stock of one thing.
async fn catalog(listener: TcpListener, latency: Latency, edition: String) -> Result<Ended, Error> {
    let calls = Rc::new((inventory::Client::new(addr("INVENTORY_ADDR")?), edition));
    let answer = move |_: Request| {
        let calls = Rc::clone(&calls);
        async move {
            let (inventory, edition) = &*calls;
            latency.pass().await;
            match inventory.stock("tea").await {
                Ok(stock) => {
                    let items = serde_json::json!([{ "sku": stock.sku, "stock": stock.count }]);
                    json(StatusCode::OK, &serde_json::json!({ "edition": edition, "items": items }))
                }
                Err(error) => failure(StatusCode::BAD_GATEWAY, &error.to_string()),
            }
        }
    };
    Ok(serve(listener, answer).await)
}

/// A service that calls nobody: it works for a while, and fails some of its calls.
fn backend(listener: TcpListener, latency: Latency, fail_percent: u32) -> impl Future<Output = Ended> {
    serve(listener, move |_: Request| async move {
        latency.pass().await;
        if rand::rng().random_range(0..100) < fail_percent {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "not today");
        }
        json(StatusCode::OK, &serde_json::json!({ "done": true }))
    })
}

/// Why a call cannot be answered as it should be.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    why: String,
}

impl Failure {
    fn bad_gateway(error: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, why: error.to_string() }
    }

    fn answer(self) -> Response {
        failure(self.status, &self.why)
    }
}

/// The JSON that a service answered; a failure of its is passed up.
fn passed(
    service: &str,
    outcome: Result<(StatusCode, bytes::Bytes), super::http::Error>,
) -> Result<serde_json::Value, Failure> {
    match outcome {
        Ok((status, body)) if status.is_success() => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        Ok((status, _)) if status.is_server_error() => Err(Failure { status, why: format!("{service} failed") }),
        Ok((status, _)) => Err(Failure::bad_gateway(format!("{service} answered {status}"))),
        Err(error) => Err(Failure::bad_gateway(error)),
    }
}

fn addr(variable: &'static str) -> Result<String, Error> {
    env::var(variable).map_err(|_| Error::Missing(variable))
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_backend_fails_as_often_as_it_is_told() {
        LocalSet::new()
            .run_until(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let client = Client::new("shipping", listener.local_addr().unwrap().to_string());
                let script = async {
                    let mut failed = 0;
                    for _ in 0..400 {
                        let (status, _) = client.call(Method::POST, "/ship").await.unwrap();
                        failed += u32::from(status == StatusCode::SERVICE_UNAVAILABLE);
                    }
                    failed
                };
                tokio::select! {
                    ended = backend(listener, Latency::new(Duration::ZERO), 50) => match ended.unwrap() {},
                    failed = script => assert!((120..280).contains(&failed), "{failed}"),
                }
            })
            .await;
    }

    #[test]
    fn failures_below_are_passed_up_and_other_answers_are_a_bad_gateway() {
        let status = |outcome| passed("orders", outcome).unwrap_err().status;
        assert_eq!(status(Ok((StatusCode::SERVICE_UNAVAILABLE, "".into()))), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(Ok((StatusCode::NOT_FOUND, "".into()))), StatusCode::BAD_GATEWAY);
        assert_eq!(passed("orders", Ok((StatusCode::OK, "{\"done\":true}".into()))).unwrap()["done"], true);
    }
}
