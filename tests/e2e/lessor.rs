//! What gives leases to tests.
//!
//! The engine is Vault's own KV v1 with `leased_passthrough`, which gives real leases and the same values to everybody.
//! A server in front of it puts the name of the lease in the place of the value, so that a target tells by which lease
//! its value lives.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use keyferry_testbed::Vault;
use serde_json::{Value, json};

pub const LEASED: &str = "leased/creds/app";

/// A server in front of Vault that answers a leased read with the name of its lease. Gives its URL.
pub async fn front(vault: &Arc<Vault>) -> Result<String> {
    let (upstream, http) = (vault.address().to_owned(), reqwest::Client::new());
    let pass_on = move |request: Request| {
        let (upstream, http) = (upstream.clone(), http.clone());
        async move {
            match passed_on(&upstream, &http, request).await {
                Ok((status, body)) => (status, body),
                Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(pass_on)).await });
    Ok(url)
}

async fn passed_on(upstream: &str, http: &reqwest::Client, request: Request) -> Result<(StatusCode, Bytes)> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await?;
    let leases = parts.uri.path().starts_with("/v1/leased/");
    let mut headers = parts.headers;
    headers.remove("host");
    let call = http.request(parts.method, format!("{upstream}{}", parts.uri));
    let answer = call.headers(headers).body(body).send().await?;
    let (status, body) = (answer.status(), answer.bytes().await?);
    if !leases || status != StatusCode::OK {
        return Ok((status, body));
    }
    let mut answer: Value = serde_json::from_slice(&body)?;
    answer["data"] = json!({"lease": answer["lease_id"]});
    Ok((status, answer.to_string().into()))
}

/// The engine, and a role of this life that may read from it. Leases last for so long.
pub async fn engine(vault: &Vault, lasts: &str, role: &Value) -> Result<()> {
    let options = json!({"version": "1", "leased_passthrough": "true"});
    let engine = json!({"type": "kv", "options": options});
    vault.api("POST", "sys/mounts/leased", &engine).await?;
    vault.api("POST", LEASED, &json!({"ttl": lasts})).await?;
    let rule = "path \"leased/creds/*\" { capabilities = [\"read\"] }";
    vault
        .api("PUT", "sys/policies/acl/leased", &json!({"policy": rule}))
        .await?;
    let mut further = json!({"token_policies": ["leased"]});
    if let (Some(further), Some(role)) = (further.as_object_mut(), role.as_object()) {
        further.extend(role.clone());
    }
    vault
        .write_role("leased", "eso-vault-auth", "security", &further)
        .await
}

/// The auth of a store over the engine.
pub fn login() -> Value {
    json!({"kubernetes": {
        "mountPath": "kubernetes", "role": "leased",
        "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
    }})
}

pub async fn lives(vault: &Vault, lease: &str) -> bool {
    let body = json!({"lease_id": lease});
    vault
        .api("PUT", "sys/leases/lookup", &body)
        .await
        .is_ok_and(|found| !found.is_null())
}
