//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;

/// Serves `/metrics` until the process ends.
///
/// # Errors
/// If the address cannot be bound; the message names it.
pub async fn serve_metrics(address: SocketAddr, metrics: Arc<Metrics>) -> Result<(), String> {
    serve(
        address,
        Router::new().route("/metrics", get(text)).with_state(metrics),
    )
    .await
}

/// Serves `/healthz` (the process runs) and `/readyz` (its watches are in sync) until the process ends.
///
/// # Errors
/// If the address cannot be bound; the message names it.
pub async fn serve_health(
    address: SocketAddr,
    ready: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) -> Result<(), String> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .with_state((ready, metrics));
    serve(address, router).await
}

async fn serve(address: SocketAddr, router: Router) -> Result<(), String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}"))?;
    axum::serve(listener, router)
        .await
        .map_err(|e| format!("serving on {address} ended: {e}"))
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        metrics.text(),
    )
}

async fn readyz(State((ready, metrics)): State<(watch::Receiver<bool>, Arc<Metrics>)>) -> impl IntoResponse {
    let (status, first) = if *ready.borrow() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "watches are not in sync yet")
    };
    let notes = metrics.notes();
    let lines: Vec<&str> = std::iter::once(first)
        .chain(notes.iter().map(String::as_str))
        .collect();
    (status, lines.join("\n"))
}
