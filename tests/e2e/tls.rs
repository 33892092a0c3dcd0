//! TLS to Vault: whose certificates are trusted, which one is shown, and that a change of either is followed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use keyferry_testbed::Echo;
use keyferry_testbed::pki::{Authority, Pair};
use serde_json::{Value, json};

use crate::scene::{Scene, one, play};

impl Scene {
    /// Writes an object of this scene's namespace with these texts.
    async fn texts(&self, kind: &str, name: &str, data: Value) -> Result<()> {
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": self.namespace}});
        object[field] = data;
        self.cluster.apply(&object.to_string()).await.map(drop)
    }

    async fn client_certificate(&self, name: &str, pair: &Pair) -> Result<()> {
        self.texts(
            "Secret",
            name,
            json!({"tls.crt": pair.certificate, "tls.key": pair.key}),
        )
        .await
    }

    /// Waits for the condition of a store that [`Scene::store_of`] made.
    async fn wait_store_of(&self, store: &Value, status: &str, word: &str) -> Result<String> {
        let name = store["name"].as_str().unwrap_or_default();
        self.wait_ready("clustersecretstore", name, status, word).await
    }

    fn by(&self, kind: &str, name: &str, key: &str) -> Value {
        json!({"caProvider": {"type": kind, "name": name, "key": key, "namespace": self.namespace}})
    }

    fn shown(&self, name: &str) -> Value {
        let key = |key: &str| json!({"name": name, "key": key, "namespace": self.namespace});
        json!({"certSecretRef": key("tls.crt"), "keySecretRef": key("tls.key")})
    }
}

/// Waits until a store is Ready and Secret `app` has this value: sooner than by the next check of a store that is not
/// Ready.
async fn followed(scene: &Scene, store: &Value, value: &str) -> Result<()> {
    let (begun, echo) = (Instant::now(), Echo::start(scene.cluster).await?);
    scene.wait_store_of(store, "True", "validated").await?;
    scene.wait_value("app", "value", value).await?;
    let (took, allowed) = (begun.elapsed(), echo.allows(Duration::from_secs(15)));
    ensure!(took < allowed, "it took {took:?}, {allowed:?} allowed");
    Ok(())
}

#[test]
fn a_ca_of_the_store_replaces_the_roots_of_the_system() {
    play(async {
        let mut scene = Scene::without_operator("roots").await?;
        let other = Authority::new("another")?;
        let system = scene.cluster.folder().join("system-roots.crt");
        std::fs::write(&system, scene.cluster.ca_pem())?;
        let server = scene.vault.tls_address().to_owned();
        let encoded = |pem: &str| json!({"caBundle": BASE64_STANDARD.encode(pem)});
        let both = format!(
            "# two\r\n{}\r\n{}",
            other.pem.replace('\n', "\r\n"),
            scene.cluster.ca_pem()
        );
        scene
            .texts("ConfigMap", "ca", json!({"ca.crt": scene.cluster.ca_pem()}))
            .await?;
        scene.texts("Secret", "ca", json!({"ca.crt": both})).await?;
        let mut options = scene.options(&[]);
        options
            .env
            .push(("SSL_CERT_FILE".into(), system.display().to_string()));
        let operator = keyferry_testbed::Operator::start(scene.cluster, options).await?;
        operator.wait_ready().await?;
        scene.operator = Some(operator);
        let twice = BASE64_STANDARD.encode(BASE64_STANDARD.encode(scene.cluster.ca_pem()));
        for (name, further, ready, said) in [
            ("system", json!({}), "True", "validated"),
            ("bundle", encoded(scene.cluster.ca_pem()), "True", "validated"),
            ("several", encoded(&both), "True", "validated"),
            ("twice", json!({"caBundle": twice}), "True", "validated"),
            (
                "configmap",
                scene.by("ConfigMap", "ca", "ca.crt"),
                "True",
                "validated",
            ),
            ("secret", scene.by("Secret", "ca", "ca.crt"), "True", "validated"),
            // The system's roots would do, but the store names others.
            ("other", encoded(&other.pem), "False", "VaultTLSFailure"),
            (
                "garbage",
                encoded("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "False",
                "holds no valid X.509",
            ),
            (
                "text",
                json!({"caBundle": BASE64_STANDARD.encode("hello")}),
                "False",
                "caBundle is not base64 of a PEM certificate",
            ),
            (
                "no-key",
                scene.by("ConfigMap", "ca", "nope"),
                "False",
                "has no key \"nope\"",
            ),
            (
                "no-map",
                scene.by("ConfigMap", "nope", "ca.crt"),
                "False",
                "it does not exist",
            ),
            (
                "no-namespace",
                json!({"caProvider": {"type": "Secret", "name": "ca", "key": "ca.crt"}}),
                "False",
                "a ClusterSecretStore must name it",
            ),
        ] {
            let store = scene.store_of(name, &server, further).await?;
            scene.wait_store_of(&store, ready, said).await?;
        }
        // A namespaced store reads its own namespace only.
        let mut own = scene.store_manifest(&server, &json!({"tokenSecretRef": {"name": "t", "key": "t"}}));
        own["kind"] = json!("SecretStore");
        own["metadata"] = json!({"name": "own", "namespace": scene.namespace});
        own["spec"]["provider"]["vault"]["caProvider"] =
            json!({"type": "ConfigMap", "name": "ca", "key": "ca.crt", "namespace": "security"});
        scene.cluster.apply(&own.to_string()).await?;
        scene
            .wait_ready(
                "secretstore",
                "own",
                "False",
                "caProvider.namespace: namespace should either be empty or match",
            )
            .await
            .map(drop)
    });
}

#[test]
fn a_new_ca_is_followed_while_the_old_one_is_replaced() {
    play(async {
        let scene = Scene::new("new-ca").await?;
        scene.vault.put("app", json!({"value": "1"})).await?;
        let next = Authority::new("the next")?;
        scene
            .texts("ConfigMap", "ca", json!({"ca.crt": scene.cluster.ca_pem()}))
            .await?;
        let server = scene.vault.tls_address();
        let store = scene
            .store_of("s", server, scene.by("ConfigMap", "ca", "ca.crt"))
            .await?;
        let spec =
            json!({"refreshInterval": "1h", "secretStoreRef": store, "data": [one("value", "app", "value")]});
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "value", "1").await?;

        // As it should be done: both are trusted before the server shows the new certificate.
        let both = format!("{}{}", scene.cluster.ca_pem(), next.pem);
        scene.texts("ConfigMap", "ca", json!({"ca.crt": both})).await?;
        scene.vault.show_certificate(&next.server(&[])?)?;
        let encoded = BASE64_STANDARD.encode(&next.pem);
        let new_only = scene
            .store_of("new", server, json!({"caBundle": encoded}))
            .await?;
        scene.wait_store_of(&new_only, "True", "validated").await?;
        // Connections that are open would go on.
        scene.vault.restart_sealed().await?;
        scene.vault.unseal().await?;
        scene.vault.put("app", json!({"value": "2"})).await?;
        scene.force_sync("app").await?;
        scene.wait_value("app", "value", "2").await?;
        scene.wait_store_of(&store, "True", "validated").await?;

        // As it happens: the server is first.
        let last = Authority::new("the last")?;
        scene.vault.show_certificate(&last.server(&[])?)?;
        scene.vault.restart_sealed().await?;
        scene.vault.unseal().await?;
        scene.vault.put("app", json!({"value": "3"})).await?;
        scene.force_sync("app").await?;
        scene.wait_store_of(&store, "False", "VaultTLSFailure").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "could not be confirmed")
            .await?;
        scene
            .texts("ConfigMap", "ca", json!({"ca.crt": last.pem}))
            .await?;
        followed(&scene, &store, "3").await?;
        Ok(())
    });
}

#[test]
fn a_client_certificate_is_shown_and_its_successor_too() {
    play(async {
        let scene = Scene::new("mtls").await?;
        scene.vault.put("app", json!({"value": "1"})).await?;
        let (old, new) = (
            Authority::new("clients of old")?,
            Authority::new("clients of new")?,
        );
        let server = scene.vault.listen_to_certified(&old.pem).await?;
        scene
            .client_certificate("client", &old.client("keyferry", None)?)
            .await?;
        let ca = json!({"caBundle": BASE64_STANDARD.encode(scene.cluster.ca_pem())});
        let with = |tls: Value| {
            let mut further = ca.clone();
            further["tls"] = tls;
            further
        };
        let store = scene.store_of("s", &server, with(scene.shown("client"))).await?;
        let spec =
            json!({"refreshInterval": "1h", "secretStoreRef": store, "data": [one("value", "app", "value")]});
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "value", "1").await?;

        let stranger = Authority::new("strangers")?.client("keyferry", None)?;
        scene.client_certificate("stranger", &stranger).await?;
        let expired = old.client_expired("keyferry")?;
        scene.client_certificate("expired", &expired).await?;
        let mixed = Pair {
            certificate: stranger.certificate.clone(),
            key: old.client("x", None)?.key,
        };
        scene.client_certificate("mixed", &mixed).await?;
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        scene
            .client_certificate(
                "locked",
                &Pair {
                    key: encrypted.into(),
                    ..stranger.clone()
                },
            )
            .await?;
        let half = json!({"certSecretRef": {"name": "client", "namespace": scene.namespace}});
        for (name, further, said) in [
            ("none", ca.clone(), "VaultTLSFailure"),
            ("stranger", with(scene.shown("stranger")), "VaultTLSFailure"),
            ("expired", with(scene.shown("expired")), "VaultTLSFailure"),
            (
                "mixed",
                with(scene.shown("mixed")),
                "the key of the client certificate (tls.keySecretRef or auth.cert.secretRef) does not belong to it",
            ),
            (
                "locked",
                with(scene.shown("locked")),
                "is encrypted; store it without a passphrase",
            ),
            ("missing", with(scene.shown("missing")), "it does not exist"),
            (
                "half",
                with(half),
                "spec.provider.vault.tls needs both certSecretRef and keySecretRef, or neither",
            ),
        ] {
            let store = scene.store_of(name, &server, further).await?;
            let message = scene.wait_store_of(&store, "False", said).await?;
            ensure!(
                !message.contains("BEGIN") && !message.contains("AAAA"),
                "{message}"
            );
        }

        // The old one is revoked before the new one is there.
        scene.vault.certify_by(&new.pem).await?;
        scene.vault.put("app", json!({"value": "2"})).await?;
        scene.force_sync("app").await?;
        scene.wait_store_of(&store, "False", "VaultTLSFailure").await?;
        scene
            .client_certificate("client", &new.client("keyferry", None)?)
            .await?;
        followed(&scene, &store, "2").await
    });
}
