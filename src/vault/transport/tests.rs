#![allow(clippy::unwrap_used)]

use super::*;
use vaultrs::api::kv2::requests::{ListSecretsRequest, ReadSecretRequest};
use vaultrs::api::token::requests::RenewTokenSelfRequest;

fn server(url: &str) -> Server {
    Server {
        url: url.into(),
        namespace: None,
        headers: vec![],
        ca_pem: None,
        client_pem: None,
        consistency: Consistency::Eventual,
    }
}

fn open(server: &Server) -> Result<Transport, VaultError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Transport::new(server, Connections::Pooled, Arc::default())
}

fn refused(server: &Server) -> String {
    open(server)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

fn url_for(base: &str, mount: &str, path: &str) -> String {
    let request = ReadSecretRequest::builder()
        .mount(mount)
        .path(path)
        .build()
        .unwrap();
    Call::new(&request).unwrap().url(base)
}

#[test]
fn a_base_url_with_a_path_keeps_it_in_front() {
    assert_eq!(
        url_for("http://h:1/vault/", "secret", "a"),
        "http://h:1/vault/v1/secret/data/a"
    );
}

#[test]
fn keys_are_escaped_as_path_segments() {
    assert_eq!(
        url_for("http://h:1", "secret", "/a b/50%/é?#"),
        "http://h:1/v1/secret/data/a%20b/50%25/%C3%A9%3F%23"
    );
}

#[test]
fn a_folder_is_listed_with_a_method_that_every_proxy_knows() {
    let request = ListSecretsRequest::builder()
        .mount("secret")
        .path("a b?")
        .build()
        .unwrap();
    let call = Call::new(&request).unwrap().as_list().unwrap();
    assert_eq!(call.request.method(), http::Method::GET);
    assert_eq!(
        call.url("http://h:1"),
        "http://h:1/v1/secret/metadata/a%20b%3F?list=true"
    );
}

#[test]
fn the_path_of_a_renewal_has_no_stray_characters() {
    let call = Call::new(&RenewTokenSelfRequest::builder().build().unwrap()).unwrap();
    assert_eq!(call.url("http://h:1"), "http://h:1/v1/auth/token/renew-self");
}

#[test]
fn a_login_is_posted_with_its_fields_and_leaves_no_copy_of_them() {
    let odd = "p\"\\\n\u{1}\u{e9}";
    let fields = [("role", "r"), ("password", odd)];
    let call = Call::login("a b/login/x?", &fields).unwrap();
    assert_eq!(call.request.method(), http::Method::POST);
    assert_eq!(call.url("http://h:1"), "http://h:1/v1/auth/a%20b/login/x%3F");
    let sent: serde_json::Value = serde_json::from_slice(call.body()).unwrap();
    assert_eq!(sent, serde_json::json!({"role": "r", "password": odd}));
    assert_eq!(&**object_of(&[]).unwrap(), b"{}");
    // The buffer did not grow, and the copies of a call share it.
    let worst = "\u{1}".repeat(1_000);
    let body = object_of(&[("a", worst.as_str())]).unwrap();
    assert!(body.len() > 6_000 && body.capacity() == 6 * 1_001 + 6 + 2);
    assert_eq!(call.clone().body().as_ptr(), call.body().as_ptr());
}

#[test]
fn a_token_with_a_trailing_newline_is_trimmed_and_one_with_a_newline_inside_is_refused() {
    assert!(Token::new(&"hvs.abc\n".into()).is_ok());
    assert!(Token::new(&"hvs.\nabc".into()).is_err());
    assert!(Token::new(&" \n".into()).is_err());
}

#[test]
fn a_server_that_is_no_plain_url_is_refused_and_its_password_not_shown() {
    for (url, said) in [
        ("vault:8200/x y", "must begin with http://"),
        ("unix:///run/vault.sock", "must begin with http://"),
        ("", "is not a URL, for example http://vault.security.svc:8200"),
        (
            "https://joe:canary@vault",
            "must not hold a user name or a password",
        ),
        ("https://vault/?x=1", "no '?'"),
    ] {
        let error = refused(&server(url));
        assert!(
            error.contains(said) && !error.contains("canary"),
            "{url}: {error}"
        );
    }
    for url in [
        "http://vault:8200",
        "https://[::1]:8200/a/b/",
        "http://vault.test",
    ] {
        assert_eq!(refused(&server(url)), "", "{url}");
    }
}

#[test]
fn a_header_that_cannot_be_sent_is_named_and_its_value_is_not() {
    for (name, value, said) in [
        ("a b", "canary", "'a b' is no header name"),
        ("", "canary", "'' is no header name"),
        ("X-Team", "canary\nX-Other: 1", "the value of header 'X-Team'"),
        (
            "Content-Length",
            "1",
            "'Content-Length' is set by the connection itself",
        ),
        (
            "transfer-encoding",
            "chunked",
            "'transfer-encoding' is set by the connection itself",
        ),
    ] {
        let mut server = server("http://h:1");
        server.headers = vec![(name.into(), value.into())];
        let error = refused(&server);
        assert!(
            error.contains(said) && !error.contains("canary"),
            "{name}: {error}"
        );
        assert!(error.contains("spec.provider.vault.headers"), "{error}");
    }
    let mut server = server("http://h:1");
    server.namespace = Some("a\nb".into());
    assert!(refused(&server).contains("the namespace has characters"));
}

#[test]
fn a_node_that_stays_behind_is_asked_for_less_than_two_seconds() {
    assert!(BEHIND_PAUSES.iter().sum::<u64>() < 2000);
}

#[test]
fn what_listens_on_loopback_is_asked_without_a_proxy() {
    let loopback = |url: &str| is_loopback(&Url::parse(url).unwrap());
    for url in [
        "http://localhost:8200",
        "http://127.0.0.7:1",
        "https://[::1]:1",
        "http://[::ffff:127.0.0.1]",
    ] {
        assert!(loopback(url), "{url}");
    }
    for url in [
        "http://localhost.example",
        "http://10.0.0.1",
        "https://[::2]",
        "http://vault.security.svc",
    ] {
        assert!(!loopback(url), "{url}");
    }
}
