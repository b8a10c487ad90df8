//! `/healthz`, `/readyz` and `/metrics`, on a thread and a runtime of their own: they answer
//! however busy, or stuck, the worker's runtime is.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;

use super::health::Health;
use super::meters::Meters;

/// The content type of the metrics: OpenMetrics.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The address for probes and metrics cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for probes and metrics ({source}): choose another --health-addr"
)]
pub struct ListenError {
    pub address: SocketAddr,
    pub source: io::Error,
}

#[derive(Clone)]
struct Shown {
    health: Arc<Health>,
    meters: Arc<Meters>,
}

/// Serves until the process ends. Returns the address, whose port was chosen if 0 was asked for.
///
/// # Errors
/// The address is taken, or does not belong to this machine.
pub fn serve_http(
    address: SocketAddr,
    health: Arc<Health>,
    meters: Arc<Meters>,
) -> Result<SocketAddr, ListenError> {
    let fail = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let local = listener.local_addr().map_err(fail)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let serve = move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router(Shown { health, meters })).await
        });
        if let Err(error) = served {
            tracing::error!(%error, "probes and metrics are no longer served");
        }
    };
    std::thread::Builder::new().name("observe".into()).spawn(serve).map_err(fail)?;
    Ok(local)
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn healthz(State(shown): State<Shown>) -> Response {
    match shown.health.silent_for() {
        None => "ok\n".into_response(),
        Some(silent) => {
            let text = format!("the runtime has run no task for {} s\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let readiness = shown.health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let meters = shown.meters;
    match tokio::task::spawn_blocking(move || meters.render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
