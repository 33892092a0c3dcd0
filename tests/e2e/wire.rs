//! What goes over the wire to Vault, and by which way: headers, namespaces, consistency, forward proxies.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use keyferry_testbed::{Operator, Recorded, Recorder, Say, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

const LOGIN: &str = "/v1/auth/kubernetes/login";
const TLS_NAME: &str = "vault.security.svc.cluster.local";

impl Scene {
    /// A recorder in front of this scene's Vault.
    async fn recorder(&self, rule: impl Fn(&Recorded) -> Say + Send + Sync + 'static) -> Result<Recorder> {
        let plain = self.vault.address().trim_start_matches("http://").parse()?;
        let tls = self.vault.tls_address().trim_start_matches("https://").parse()?;
        Recorder::start(plain, tls, rule).await
    }

    /// A ClusterSecretStore of this scene's class, with further fields of `provider.vault`.
    pub async fn store_of(&self, name: &str, server: &str, further: Value) -> Result<Value> {
        let auth = json!({"kubernetes": {
            "mountPath": "kubernetes", "role": "eso-reader",
            "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }});
        let name = format!("{}-{name}", self.class);
        let mut store = self.store_manifest(server, &auth);
        store["metadata"]["name"] = json!(name);
        let (Some(vault), Some(further)) = (
            store["spec"]["provider"]["vault"].as_object_mut(),
            further.as_object(),
        ) else {
            anyhow::bail!("no objects");
        };
        vault.extend(further.clone());
        if let Some(auth) = vault.get_mut("auth")
            && let Some(namespace) = further.get("namespace")
        {
            auth["namespace"] = json!(format!("{}-logins", namespace.as_str().unwrap_or_default()));
        }
        self.cluster.apply(&store.to_string()).await?;
        Ok(json!({"kind": "ClusterSecretStore", "name": name}))
    }

    async fn reader(&self, name: &str, store: &Value, path: &str) -> Result<()> {
        let spec =
            json!({"refreshInterval": "1h", "secretStoreRef": store, "data": [one("value", path, "value")]});
        self.external_secret(name, spec).await
    }
}

/// Those of the requests that went to a path.
fn to<'a>(seen: &'a [Recorded], path: &str) -> Vec<&'a Recorded> {
    seen.iter().filter(|request| request.path() == path).collect()
}

#[test]
fn headers_go_with_every_request_and_namespaces_with_those_that_they_are_for() {
    play(async {
        let mut scene = Scene::without_operator("headers").await?;
        scene.vault.put("app", json!({"value": "1"})).await?;
        // The recorder serves Vault below a path, as an ingress does.
        let recorder = scene
            .recorder(|request| Say::PassAs(request.path().trim_start_matches("/behind/ingress").into()))
            .await?;
        let server = format!("http://{}/behind/ingress/", recorder.address());
        let headers = json!({"X-Team": "db", "x-gateway-key": "g w"});
        let store = scene
            .store_of("s", &server, json!({"headers": headers, "namespace": "team"}))
            .await?;
        scene.start_operator(&[]).await?;
        scene.reader("app", &store, "app").await?;
        scene.wait_value("app", "value", "1").await?;
        scene.operator().terminate()?;

        let seen = recorder.seen();
        for request in &seen {
            let told = format!("{} {}", request.method, request.target);
            ensure!(
                request.all("x-team") == ["db"] && request.all("x-gateway-key") == ["g w"],
                "{told}"
            );
            ensure!(request.all("x-vault-request") == ["true"], "{told}");
            let namespace = match request.path().trim_start_matches("/behind/ingress") {
                "/v1/sys/health" => None,
                "/v1/secret/data/app" => Some("team"),
                LOGIN | "/v1/auth/token/revoke-self" => Some("team-logins"),
                other => anyhow::bail!("nobody should ask for {other}"),
            };
            ensure!(
                request.header("x-vault-namespace") == namespace,
                "{told}: {namespace:?}"
            );
            ensure!(request.all("x-vault-index").is_empty(), "{told}");
        }
        for path in [
            "/v1/sys/health",
            "/v1/secret/data/app",
            LOGIN,
            "/v1/auth/token/revoke-self",
        ] {
            ensure!(
                !to(&seen, &format!("/behind/ingress{path}")).is_empty(),
                "nobody asked for {path}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_header_that_cannot_be_sent_and_a_password_in_the_url_are_refused_by_name() {
    play(async {
        let scene = Scene::new("bad-headers").await?;
        let server = scene.vault.address();
        for (name, server, further, said) in [
            (
                "name",
                server,
                json!({"headers": {"a b": "canary"}}),
                "spec.provider.vault.headers: 'a b'",
            ),
            (
                "value",
                server,
                json!({"headers": {"X-Team": "canary\n"}}),
                "value of header 'X-Team'",
            ),
            (
                "length",
                server,
                json!({"headers": {"Content-Length": "7"}}),
                "'Content-Length' is set by the connection",
            ),
            (
                "user",
                "http://joe:canary@127.0.0.1:8200",
                json!({}),
                "must not hold a user name or a password",
            ),
        ] {
            let store = scene.store_of(name, server, further).await?;
            let store = store["name"].as_str().unwrap_or_default();
            let message = scene
                .wait_ready("clustersecretstore", store, "False", said)
                .await?;
            ensure!(!message.contains("canary"), "{message}");
        }
        ensure!(!scene.operator().logs().contains("canary"), "it was logged");
        Ok(())
    });
}

const BEHIND: &str = "/v1/secret/data/behind";
/// How often a try that is behind is sent, and how many of them there are.
const SENT: usize = 6;
const TRIES: usize = 6;

#[test]
fn a_store_that_asks_for_it_reads_nothing_older_than_it_has_seen() {
    play(async {
        let mut scene = Scene::without_operator("consistency").await?;
        for path in ["app", "late", "behind"] {
            scene.vault.put(path, json!({"value": path})).await?;
        }
        // As a cluster of Vault Enterprise: the state moves on, and a standby is behind for two of the paths.
        let (state, late) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let index = |at: usize| BASE64_STANDARD.encode(format!("v1:cluster:{at}:{at}:0a0b"));
        let recorder = scene
            .recorder(move |request| match request.path() {
                BEHIND => Say::This(412, String::new(), "{\"errors\":[]}".into()),
                "/v1/secret/data/late" if late.fetch_add(1, Ordering::Relaxed) < 3 => {
                    Say::This(412, String::new(), "{\"errors\":[]}".into())
                }
                "/v1/sys/health" => Say::Pass,
                _ => Say::PassWith(format!(
                    "X-Vault-Index: {}",
                    index(state.fetch_add(1, Ordering::Relaxed))
                )),
            })
            .await?;
        let server = format!("http://{}", recorder.address());
        let own = scene
            .store_of("own", &server, json!({"readYourWrites": true}))
            .await?;
        scene.start_operator(&[]).await?;
        scene.reader("app", &own, "app").await?;
        scene.wait_value("app", "value", "app").await?;
        scene.force_sync("app").await?;
        scene.reader("late", &own, "late").await?;
        scene.wait_value("late", "value", "late").await?;
        scene.reader("behind", &own, "behind").await?;
        let said = "Vault answered 412";
        scene
            .wait_ready("externalsecret", "behind", "False", said)
            .await?;
        scene
            .wait_ready(
                "clustersecretstore",
                own["name"].as_str().unwrap_or_default(),
                "True",
                "validated",
            )
            .await?;
        scene
            .wait_ready("externalsecret", "app", "True", "secret synced")
            .await?;

        for _ in 0..TRIES {
            let before = to(&recorder.seen(), BEHIND).len();
            scene.force_sync("behind").await?;
            wait_for("a try that is behind to its end", SOON, || async {
                let further = to(&recorder.seen(), BEHIND).len() - before;
                Ok((further >= SENT).then_some(()))
            })
            .await?;
        }
        let seen = recorder.seen();
        // The store is checked now and then, by what else happens; a suspicion would ask after each try.
        let begun = seen.iter().position(|request| request.path() == BEHIND);
        let since = &seen[begun.context("nothing was behind")?..];
        let (health, tries) = (to(since, "/v1/sys/health").len(), to(since, BEHIND).len() / SENT);
        ensure!(
            2 * health < tries,
            "412 casts no suspicion, but health was asked {health} times beside {tries} tries"
        );
        ensure!(
            to(&seen, LOGIN)[0].all("x-vault-index").is_empty(),
            "nothing was seen before the login"
        );
        let reads = to(&seen, "/v1/secret/data/app");
        let first = reads[0]
            .header("x-vault-index")
            .context("the read has no state")?;
        ensure!(
            BASE64_STANDARD.decode(first)? == b"v1:cluster:1:1:0a0b",
            "it is the login's"
        );
        ensure!(
            to(&seen, "/v1/secret/data/late").len() == 4,
            "three times behind, then read"
        );
        ensure!(
            seen.iter()
                .all(|request| request.all("x-vault-inconsistent").is_empty())
        );
        ensure!(
            to(&seen, "/v1/sys/health")
                .iter()
                .all(|request| request.all("x-vault-index").is_empty())
        );

        // The other setting brings states along, and asks the active node instead of waiting.
        let forwarded = scene
            .store_of("fwd", &server, json!({"forwardInconsistent": true}))
            .await?;
        let before = recorder.seen().len();
        scene.reader("fwd", &forwarded, "app").await?;
        scene.wait_value("fwd", "value", "app").await?;
        let seen = recorder.seen().split_off(before);
        let mine = to(&seen, "/v1/secret/data/app");
        let mine = mine.first().context("it did not read")?;
        ensure!(mine.header("x-vault-inconsistent") == Some("forward-active-node"));
        ensure!(mine.all("x-vault-index").len() == 1);

        // This Vault does not forward, and says so with a 400: it is read all the same.
        let refused = scene
            .store_of(
                "refused",
                scene.vault.address(),
                json!({"forwardInconsistent": true}),
            )
            .await?;
        scene.reader("refused", &refused, "app").await?;
        scene.wait_value("refused", "value", "app").await?;
        let warnings = scene
            .operator()
            .logs()
            .matches("allow_forwarding_via_header")
            .count();
        ensure!(warnings == 1, "{warnings} warnings");
        Ok(())
    });
}

#[test]
fn forward_proxies_of_the_environment_are_used_for_vault_and_not_for_the_api_server() {
    play(async {
        let mut scene = Scene::without_operator("proxies").await?;
        scene.vault.put("app", json!({"value": "1"})).await?;
        let recorder = scene.recorder(|_| Say::Pass).await?;
        let proxy = format!("http://joe:pass@{}", recorder.address());
        // No name server knows this name: only the proxy leads there.
        let plain = scene
            .store_of("plain", "http://vault.test:8200", json!({}))
            .await?;
        let ca = BASE64_STANDARD.encode(scene.cluster.ca_pem());
        let tls = scene
            .store_of(
                "tls",
                &format!("https://{TLS_NAME}:8200"),
                json!({"caBundle": ca}),
            )
            .await?;
        let direct = scene.store_of("direct", scene.vault.address(), json!({})).await?;
        // Nor this one, and it may not ask the proxy.
        let exempt = scene
            .store_of("exempt", "http://exempt.test:8200", json!({}))
            .await?;
        let mut options = scene.options(&[]);
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            options.env.push((name.into(), proxy.clone()));
        }
        options
            .env
            .push(("NO_PROXY".into(), "10.0.0.0/8,exempt.test".into()));
        let operator = Operator::start(scene.cluster, options).await?;
        operator.wait_ready().await?;
        scene.operator = Some(operator);
        for (name, store) in [("plain", &plain), ("tls", &tls), ("direct", &direct)] {
            scene.reader(name, store, "app").await?;
            scene.wait_value(name, "value", "1").await?;
        }
        let exempt = exempt["name"].as_str().unwrap_or_default();
        scene
            .wait_ready("clustersecretstore", exempt, "False", "VaultDNSFailure")
            .await?;
        let seen = recorder.seen();
        let targets: Vec<&str> = seen.iter().map(|request| request.target.as_str()).collect();
        // Health goes the same way as reads.
        for target in [
            "http://vault.test:8200/v1/sys/health",
            "http://vault.test:8200/v1/secret/data/app",
        ] {
            ensure!(targets.contains(&target), "{target} is not in {targets:?}");
        }
        let tunnel = format!("{TLS_NAME}:8200");
        ensure!(
            targets.iter().filter(|target| **target == tunnel).count() >= 2,
            "{targets:?}"
        );
        for request in &seen {
            let through = request.target == tunnel || request.target.starts_with("http://vault.test:8200/");
            ensure!(through, "{}", request.target);
            ensure!(
                request.header("proxy-authorization") == Some("Basic am9lOnBhc3M="),
                "{}",
                request.target
            );
        }
        ensure!(
            !scene.operator().logs().contains("pass@"),
            "the proxy's password was logged"
        );
        Ok(())
    });
}
