//! Logins against a server of a few lines that writes down what it was asked.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::api::store::{SecretStoreSpec, StoreKey};
use crate::secret::SecretBytes;
use crate::store::credentials::{Jwt, JwtSource};
use crate::store::scope::SecretKey;
use crate::store::settings::{Served, resolve};
use crate::telemetry::metrics::Metrics;
use crate::vault::transport::Server;

/// One request: path, namespace, body.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct Seen {
    pub(in crate::store) path: String,
    namespace: String,
    body: Value,
}

pub(in crate::store) type Answer = fn(&Seen) -> (u16, Value);

/// A token for each login, and a good word for the rest.
fn kind(seen: &Seen) -> (u16, Value) {
    let auth = json!({"client_token": "t", "lease_duration": 60, "renewable": true, "token_type": "service"});
    match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => (200, json!({"data": {"ttl": 60, "renewable": true}})),
        _ => (200, json!({"auth": auth})),
    }
}

pub(in crate::store) async fn server(answer: Answer) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let serve = move |request: Request| {
        let notes = notes.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let namespace = parts.headers.get("x-vault-namespace");
            let request = Seen {
                path: parts.uri.path().to_owned(),
                namespace: namespace
                    .map(|name| name.to_str().unwrap().to_owned())
                    .unwrap_or_default(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let (status, body) = answer(&request);
            notes.lock().unwrap().push(request);
            (StatusCode::from_u16(status).unwrap(), body.to_string())
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(serve)).await });
    (url, seen)
}

/// Secrets by `namespace/name/key`. For one of the name `away` the API server does not answer.
struct Secrets(HashMap<&'static str, &'static str>);

#[async_trait]
impl Credentials for Secrets {
    async fn secret(&self, key: &SecretKey, identity: &Identity) -> Result<SecretBytes, CredentialError> {
        if key.name == "away" {
            return Err(CredentialError::Unreachable("the API server is away".into()));
        }
        let place = format!("{}/{}", key.place(identity), key.key);
        let missing = || "no such Secret".to_owned();
        let value = self.0.get(place.as_str()).ok_or_else(missing)?;
        Ok(SecretBytes::from(*value))
    }

    async fn config_map(&self, _key: &SecretKey) -> Result<String, CredentialError> {
        Err("no such ConfigMap".to_owned().into())
    }

    async fn jwt(&self, source: &JwtSource, identity: &Identity) -> Result<Jwt, CredentialError> {
        let jwt = match source {
            JwtSource::Secret(key) => self.secret(key, identity).await?,
            source => SecretBytes::from(format!("{source:?}").as_str()),
        };
        Ok(Jwt {
            jwt,
            whose: "a test".into(),
        })
    }

    async fn annotations(
        &self,
        _namespace: Option<&str>,
        _name: &str,
        _identity: &Identity,
    ) -> Result<BTreeMap<String, String>, CredentialError> {
        Err("no such ServiceAccount".to_owned().into())
    }
}

fn settings(url: &str, auth: &Value) -> Settings {
    let spec: SecretStoreSpec = serde_json::from_value(json!({"provider": {"vault": {
        "server": url, "path": "secret", "version": "v2", "namespace": "team", "auth": auth,
    }}}))
    .unwrap();
    let key: StoreKey = StoreKey {
        kind: crate::api::external_secret::StoreKind::SecretStore,
        namespace: Some("apps".into()),
        name: "vault".into(),
    };
    match resolve(&key, &spec, "").unwrap() {
        Served::Vault(settings) => *settings,
        Served::Fake(_) | Served::OtherClass => unreachable!("no class is asked for"),
    }
}

pub(in crate::store) fn login(url: &str, auth: &Value, secrets: &[(&'static str, &'static str)]) -> Login {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = settings(url, auth);
    let server = Server {
        url: settings.url.clone(),
        namespace: settings.namespace.clone(),
        ..Server::default()
    };
    Login::new(
        1,
        Connection::new(server, 1, Arc::new(Metrics::default())).unwrap(),
        Arc::new(settings),
        Identity { referent: None },
        Arc::new(Secrets(secrets.iter().copied().collect())),
        mpsc::unbounded_channel().0,
    )
}

/// The connection that a login goes over.
pub(in crate::store) fn connection_of(login: &Login) -> Arc<Connection> {
    login.connection.clone()
}

pub(in crate::store) fn user_pass() -> Value {
    json!({"userPass": {"path": "userpass", "username": "alice", "secretRef": {"name": "s", "key": "p"}}})
}

/// What one login sends.
async fn sent(auth: &Value, secrets: &[(&'static str, &'static str)]) -> Seen {
    let (url, seen) = server(kind).await;
    login(&url, auth, secrets).ensure().await.unwrap();
    let seen = seen.lock().unwrap().clone();
    let [request] = &seen[..] else {
        unreachable!("more than a login: {seen:?}")
    };
    request.clone()
}

#[tokio::test]
async fn a_token_stays_in_the_namespace_that_it_was_obtained_in() {
    let (url, seen) = server(kind).await;
    let mut auth = user_pass();
    auth["namespace"] = json!("people");
    let login = login(&url, &auth, &[("apps/s/p", "pw")]);
    login.ensure().await.unwrap();
    login.renew().await.unwrap();
    assert!(login.is_living(&*login.state.lock().await).await);
    login.close().await;
    let seen = seen.lock().unwrap();
    let asked: Vec<_> = seen
        .iter()
        .map(|s| (s.path.as_str(), s.namespace.as_str()))
        .collect();
    assert_eq!(
        asked,
        [
            ("/v1/auth/userpass/login/alice", "people"),
            ("/v1/auth/token/renew-self", "people"),
            ("/v1/auth/token/lookup-self", "people"),
            ("/v1/auth/token/revoke-self", "people"),
        ]
    );
}

#[tokio::test]
async fn without_a_namespace_of_its_own_a_login_goes_to_that_of_the_store() {
    let request = sent(&user_pass(), &[("apps/s/p", "pw")]).await;
    assert_eq!(request.namespace, "team");
}

#[tokio::test]
async fn a_password_goes_byte_for_byte_and_ids_and_tokens_without_the_newline_of_echo() {
    let request = sent(&user_pass(), &[("apps/s/p", " pw\n")]).await;
    assert_eq!(request.body, json!({"password": " pw\n"}));
    let auth = json!({"appRole": {"path": "team/a/approle", "roleRef": {"name": "r", "key": "id"},
        "secretRef": {"name": "s", "key": "p"}}});
    let request = sent(&auth, &[("apps/s/p", "sid\n"), ("apps/r/id", "rid\n")]).await;
    assert_eq!(request.path, "/v1/auth/team/a/approle/login");
    assert_eq!(request.body, json!({"role_id": "rid", "secret_id": "sid"}));
    let auth = json!({"jwt": {"role": " r ", "secretRef": {"name": "s", "key": "p"}}});
    let request = sent(&auth, &[("apps/s/p", "a.b.c\n")]).await;
    assert_eq!(
        (request.path.as_str(), request.body),
        ("/v1/auth/jwt/login", json!({"role": "r", "jwt": "a.b.c"}))
    );
}

#[tokio::test]
async fn a_role_id_in_the_store_wins_over_one_in_a_secret() {
    let auth = json!({"appRole": {"path": "approle", "roleId": "own", "roleRef": {"name": "r", "key": "id"},
        "secretRef": {"name": "s", "key": "p"}}});
    let request = sent(&auth, &[("apps/s/p", "sid")]).await;
    assert_eq!(request.body, json!({"role_id": "own", "secret_id": "sid"}));
}

#[tokio::test]
async fn the_name_of_a_user_cannot_leave_its_place_in_the_path() {
    for (name, path) in [
        ("a b?c#d%2e", "/v1/auth/ldap/login/a%20b%3Fc%23d%252e"),
        (r"CORP\alice", "/v1/auth/ldap/login/CORP%5Calice"),
        ("ou/alice", "/v1/auth/ldap/login/ou/alice"),
    ] {
        let auth = json!({"ldap": {"username": name, "secretRef": {"name": "s", "key": "p"}}});
        assert_eq!(sent(&auth, &[("apps/s/p", "pw")]).await.path, path, "{name}");
    }
}

#[tokio::test]
async fn audiences_of_both_places_are_asked_for_and_vault_if_none_is_named() {
    let account = json!({"name": "reader", "audiences": ["own"]});
    for (token, wanted) in [
        (
            json!({"serviceAccountRef": account}),
            r#"audiences: ["own", "vault"], seconds: 600"#,
        ),
        (
            json!({"serviceAccountRef": account, "audiences": ["a", "b"], "expirationSeconds": 900}),
            r#"audiences: ["own", "a", "b"], seconds: 900"#,
        ),
        (
            json!({"serviceAccountRef": {"name": "reader"}, "audiences": []}),
            "audiences: [], seconds: 600",
        ),
    ] {
        let auth = json!({"jwt": {"role": "r", "kubernetesServiceAccountToken": token}});
        let request = sent(&auth, &[]).await;
        let jwt = request.body["jwt"].as_str().unwrap();
        assert!(jwt.contains(wanted), "{jwt}");
    }
}

#[tokio::test]
async fn a_password_that_ends_with_a_newline_is_told_when_vault_refuses_it() {
    let refuse = |_: &Seen| (400, json!({"errors": ["invalid username or password"]}));
    let (url, _) = server(refuse).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "hunter2\n")]);
    let Err(LoginError::Refused(Refusal { message, .. })) = login.ensure().await else {
        unreachable!("it was not refused")
    };
    assert_eq!(
        message,
        format!(
            "login to Vault {url} with user 'alice' (mount 'userpass') and the password in Secret apps/s, which ends \
             with a newline, failed: Vault answered 400 (invalid username or password); check the user's name, and put \
             the present password into the Secret"
        )
    );
}

#[tokio::test]
async fn a_secret_id_that_vault_echoes_reaches_no_message() {
    let echo = |seen: &Seen| {
        let error = format!("invalid secret_id {}", seen.body["secret_id"]);
        (400, json!({"errors": [error]}))
    };
    let (url, _) = server(echo).await;
    let auth = json!({"appRole": {"path": "approle", "roleId": "r", "secretRef": {"name": "s", "key": "p"}}});
    let login = login(&url, &auth, &[("apps/s/p", "hunter2")]);
    let Err(LoginError::Refused(Refusal { message, .. })) = login.ensure().await else {
        unreachable!("it was not refused")
    };
    assert!(message.contains("(invalid secret_id)"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn a_proof_that_the_api_server_did_not_give_is_no_denial_by_vault() {
    let (url, seen) = server(kind).await;
    let refusal = async |secret: &str| {
        let auth = json!({"userPass": {"username": "alice", "secretRef": {"name": secret, "key": "p"}}});
        match login(&url, &auth, &[]).ensure().await {
            Err(LoginError::Refused(refusal)) => refusal,
            other => unreachable!("{other:?}"),
        }
    };
    let away = refusal("away").await;
    assert_eq!(
        (away.fault.reason(), away.message.as_str()),
        ("APIServerFailing", "the API server is away")
    );
    assert_eq!(refusal("missing").await.fault.reason(), "VaultDenied");
    assert!(seen.lock().unwrap().is_empty(), "Vault was asked without a proof");
}

#[test]
fn the_third_wrong_password_waits_until_vault_has_forgotten_the_others() {
    let pauses = |fault| {
        let message = "no".into();
        let (mut state, refusal) = (State::default(), Refusal { message, fault });
        let mut pauses = Vec::new();
        for _ in 0..6 {
            state.refuse(&refusal);
            pauses.push(state.refused.as_ref().unwrap().pause.as_secs());
        }
        pauses
    };
    assert_eq!(pauses(Fault::Counted), [30, 60, 960, 960, 960, 960]);
    assert_eq!(pauses(Fault::Identity), [30, 60, 120, 240, 300, 300]);
    // What is not the identity's fault is over soon.
    assert_eq!(pauses(Fault::Server), [5, 10, 20, 40, 60, 60]);
    assert_eq!(pauses(Fault::Proof), [2, 4, 8, 16, 32, 64]);
    assert_eq!(pauses(Fault::Cluster), [1, 2, 4, 8, 15, 15]);
}

#[tokio::test]
async fn a_life_beyond_all_clocks_has_no_end() {
    let endless = |_: &Seen| {
        let auth = json!({"client_token": "t", "lease_duration": u64::MAX, "renewable": true});
        (200, json!({"auth": auth}))
    };
    let (url, _) = server(endless).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    login.ensure().await.unwrap();
    assert!(!login.is_due());
}

#[tokio::test]
async fn a_used_up_secret_id_is_not_tried_with_every_path_that_is_denied() {
    let once = |seen: &Seen| match &seen.body["secret_id"] {
        Value::Null => kind(seen),
        Value::String(id) if id == "fresh" => kind(seen),
        _ => (400, json!({"errors": ["invalid role or secret ID"]})),
    };
    let (url, seen) = server(once).await;
    let auth = json!({"appRole": {"path": "approle", "roleId": "r", "secretRef": {"name": "s", "key": "p"}}});
    let login = login(&url, &auth, &[("apps/s/p", "used up")]);
    let lease = Lease {
        revocable: true,
        ..Lease::given(Token::new(&SecretBytes::from("living")).unwrap())
    };
    login.state.lock().await.held = Some(Held::new(lease));
    let denied = VaultError::Denied {
        phrase: Some("permission denied"),
    };
    for _ in 0..5 {
        login.state.lock().await.relogin_pause = Duration::ZERO;
        assert!(login.after_403(0, &denied).await.unwrap().is_none());
    }
    assert!(login.token().await.is_ok(), "the token that lives was lost");
    let seen = seen.lock().unwrap();
    let logins = seen.iter().filter(|s| s.path == "/v1/auth/approle/login").count();
    assert_eq!(logins, 1);
}

#[tokio::test]
async fn keys_of_aws_become_a_signed_request_and_none_of_them_is_sent() {
    let key = |key: &str| json!({"name": "aws", "key": key});
    let auth = json!({"iam": {"path": "team/aws", "vaultRole": "dev", "secretRef": {
        "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret"),
    }}});
    let secrets = [("apps/aws/id", "AKIDEXAMPLE\n"), ("apps/aws/secret", "hunter2\n")];
    let request = sent(&auth, &secrets).await;
    assert_eq!(request.path, "/v1/auth/team/aws/login");
    let body = request.body.as_object().unwrap();
    assert_eq!(
        body.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "iam_http_request_method",
            "iam_request_body",
            "iam_request_headers",
            "iam_request_url",
            "role"
        ]
    );
    assert_eq!(
        (&body["role"], &body["iam_http_request_method"]),
        (&json!("dev"), &json!("POST"))
    );
    for field in ["iam_request_body", "iam_request_headers", "iam_request_url"] {
        let bytes = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            body[field].as_str().unwrap(),
        );
        let text = String::from_utf8(bytes.unwrap()).unwrap();
        assert!(!text.is_empty() && !text.contains("hunter2"), "{field}");
    }
}

#[tokio::test]
async fn the_key_of_a_google_service_account_becomes_a_jwt_and_is_not_sent() {
    use rsa::pkcs8::EncodePrivateKey as _;
    let key = rsa::PrivateKey::new(&mut rand::rng(), 2048).unwrap();
    let pem = key.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    let file = json!({"client_email": "a@b", "private_key_id": "k1", "private_key": pem.as_str()});
    let reference = json!({"secretAccessKeySecretRef": {"name": "google", "key": "file"}});
    let auth = json!({"gcp": {"path": "team/gcp", "role": "dev", "secretRef": reference}});
    let request = sent(&auth, &[("apps/google/file", file.to_string().leak())]).await;
    assert_eq!(request.path, "/v1/auth/team/gcp/login");
    assert_eq!(request.body["role"], "dev");
    assert_eq!(request.body["jwt"].as_str().unwrap().split('.').count(), 3);
    assert_eq!(request.body.as_object().unwrap().len(), 2);
}
