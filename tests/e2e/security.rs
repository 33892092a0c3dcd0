//! Nobody's deputy, and no value outside of a Secret.

use std::time::Duration;

use keyferry_testbed::{Mode, Proxy, wait_for};
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{SOON, Scene, login, one, play};

const CANARY: &str = "c4n4ry-h0nk";

#[test]
fn a_secret_value_exists_in_a_secret_and_nowhere_else() {
    play(async {
        let scene = Scene::new("canary").await?;
        let value =
            json!({"good": CANARY, "json": format!("{{\"broken\": \"{CANARY}"), "object": {"a": CANARY}});
        scene.vault.put("app", value).await?;
        let spec = |data| json!({"refreshInterval": "1s", "data": [data]});
        scene
            .external_secret("good", spec(one("value", "app", "good")))
            .await?;
        scene
            .external_secret("missing", spec(one("value", "app", "nothing")))
            .await?;
        scene
            .external_secret("path", spec(one("value", "app", "object.#(a==\"x\").b")))
            .await?;
        let mut decoding = one("value", "app", "good");
        decoding["remoteRef"]["decodingStrategy"] = json!("Base64");
        scene.external_secret("decoding", spec(decoding)).await?;
        scene
            .external_secret(
                "extract",
                json!({"dataFrom": [{"extract": {"key": "app", "property": "json"}}]}),
            )
            .await?;
        scene.wait_value("good", "value", CANARY).await?;
        for name in ["missing", "path", "decoding", "extract"] {
            scene
                .wait_ready("externalsecret", name, "False", "error processing")
                .await?;
        }
        // Answers that hold the value where it should not be.
        let address = scene
            .vault
            .address()
            .split("//")
            .nth(1)
            .unwrap_or_default()
            .parse()?;
        let proxy = Proxy::start(address).await?;
        scene.store(&format!("http://{}", proxy.address())).await?;
        scene.wait_store("True", "Valid").await?;
        for (status, body) in [
            (400, format!(r#"{{"errors":["cannot parse {CANARY}"]}}"#)),
            (200, format!(r#"{{"data": {{"data": "{CANARY}"}}}}"#)),
            (200, format!(r#"{{"data": "{CANARY}"#)),
            (500, CANARY.to_string()),
            (403, CANARY.to_string()),
        ] {
            proxy.set(Mode::Http(status, String::new(), body));
            scene.force_sync("good").await?;
            sleep(Duration::from_millis(1500)).await;
        }
        let logs = scene.operator().logs();
        assert!(
            logs.contains("INFO") && logs.contains("WARN"),
            "nothing was said: {logs}"
        );
        let mut seen = vec![("logs", logs), ("metrics", scene.operator().metrics().await?)];
        for kind in ["externalsecrets", "events", "clustersecretstores"] {
            let text = scene
                .cluster
                .kubectl(&["get", kind, "-n", &scene.namespace, "-o", "yaml"], "")
                .await?;
            seen.push((kind, text));
        }
        for (place, text) in seen {
            assert!(!text.contains(CANARY), "the canary was found in {place}");
            assert!(!text.contains("hvs."), "a token was found in {place}");
            assert!(
                !text.contains("eyJhbGciOi"),
                "a ServiceAccount token was found in {place}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_namespaced_store_stays_in_its_namespace() {
    play(async {
        let scene = Scene::new("stay").await?;
        let mut store = scene.store_manifest(scene.vault.address(), &json!({}));
        store["kind"] = json!("SecretStore");
        store["metadata"] = json!({"name": "own", "namespace": scene.namespace});
        for auth in [
            json!({"kubernetes": {"role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"}}}),
            json!({"tokenSecretRef": {"name": "t", "key": "k", "namespace": "security"}}),
        ] {
            store["spec"]["provider"]["vault"]["auth"] = auth;
            scene.cluster.apply(&store.to_string()).await?;
            let message = scene
                .wait_ready("secretstore", "own", "False", "InvalidProviderConfig")
                .await?;
            assert!(
                message.contains("match the namespace of the SecretStore"),
                "{message}"
            );
            scene
                .cluster
                .kubectl(&["delete", "secretstore", "own", "-n", &scene.namespace], "")
                .await?;
        }
        Ok(())
    });
}

#[test]
fn a_cluster_stores_conditions_are_enforced_before_anything_is_read() {
    play(async {
        let scene = Scene::new("conditions").await?;
        let mut store = scene.store_manifest(scene.vault.address(), &json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}));
        store["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        scene.cluster.apply(&store.to_string()).await?;
        scene.wait_store("True", "Valid").await?;
        let mark = scene.vault.audit_mark();
        scene.many("app", 1, "1h").await?;
        scene
            .wait_ready("externalsecret", "app-0", "False", "denied by spec.condition")
            .await?;
        assert_eq!(scene.vault.requests_since(mark)?.get("secret/data/app/0"), None);
        store["spec"]["conditions"] = json!([{"namespaces": [scene.namespace]}]);
        scene.cluster.apply(&store.to_string()).await?;
        scene.wait_value("app-0", "value", "app-0").await
    });
}

#[test]
fn other_providers_are_named_and_stores_of_another_class_are_left_alone() {
    play(async {
        let scene = Scene::new("providers").await?;
        let mut store = scene.store_manifest(scene.vault.address(), &json!({}));
        store["metadata"]["name"] = json!(format!("{}-aws", scene.class));
        store["spec"]["provider"] =
            json!({"aws": {"service": "SecretsManager", "region": "eu-west-1", "auth": {"x": [1, 2.5]}}});
        scene.cluster.apply(&store.to_string()).await?;
        let name = format!("{}-aws", scene.class);
        let message = scene
            .wait_ready("clustersecretstore", &name, "False", "InvalidProviderConfig")
            .await?;
        assert!(
            message.contains("provider aws is not served by Keyferry"),
            "{message}"
        );
        let kept = scene.get("clustersecretstore", &name).await?;
        assert_eq!(
            kept["spec"]["provider"]["aws"]["auth"]["x"][0], 1,
            "the provider was pruned"
        );
        store["spec"]["controller"] = json!("somebody-else");
        store["metadata"]["name"] = json!(format!("{}-other", scene.class));
        scene.cluster.apply(&store.to_string()).await?;
        let spec = json!({
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": format!("{}-other", scene.class)},
            "data": [one("value", "app", "value")],
        });
        scene.external_secret("theirs", spec).await?;
        sleep(Duration::from_secs(2)).await;
        let other = scene
            .get("clustersecretstore", &format!("{}-other", scene.class))
            .await?;
        assert!(
            other["status"].is_null() && scene.get("externalsecret", "theirs").await?["status"].is_null()
        );
        Ok(())
    });
}

#[test]
fn memory_does_not_follow_other_peoples_secrets() {
    play(async {
        let scene = Scene::new("memory").await?;
        scene.many("app", 1, "1h").await?;
        scene.wait_value("app-0", "value", "app-0").await?;
        let before = scene.operator().rss_mib()?;
        let big = "x".repeat(32 * 1024);
        let mut yaml = String::new();
        for i in 0..400 {
            yaml += &format!(
                "---\n{}\n",
                json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": scene.namespace, "name": format!("big-{i}")},
                    "stringData": {"big": big},
                })
            );
        }
        scene.cluster.kubectl(&["create", "-f", "-"], &yaml).await?;
        sleep(Duration::from_secs(2)).await;
        let grown = scene.operator().rss_mib()? - before;
        assert!(
            grown < 5.0,
            "RSS grew by {grown:.1} MiB with 400 unrelated Secrets of 32 KiB"
        );
        Ok(())
    });
}

#[test]
fn where_audiences_are_required_a_token_for_the_api_server_goes_to_no_server() {
    play(async {
        let mut scene = Scene::without_operator("audience").await?;
        let (vault, mark) = (scene.vault.clone(), scene.vault.audit_mark());
        scene.store(vault.address()).await?;
        scene.start_operator(&["--require-token-audience"]).await?;
        let message = scene.wait_store("False", "InvalidProviderConfig").await?;
        assert!(
            message.contains("auth.kubernetes.serviceAccountRef.audiences"),
            "{message}"
        );
        assert_eq!(vault.requests_since(mark)?.get("auth/kubernetes/login"), None);
        let mut auth = login();
        auth["kubernetes"]["serviceAccountRef"]["audiences"] = json!(["vault"]);
        scene.store_with(vault.address(), &auth).await?;
        scene.wait_store("True", "Valid").await.map(drop)
    });
}

#[test]
fn a_server_outside_of_the_cluster_without_tls_is_told_once() {
    play(async {
        let scene = Scene::new("plain-http").await?;
        let mut store = scene.store_manifest("http://vault.outside.invalid:8200", &login());
        let name = format!("{}-outside", scene.class);
        store["metadata"]["name"] = json!(name);
        scene.cluster.apply(&store.to_string()).await?;
        let events = async |of: &str| {
            let fields = format!("--field-selector=reason=PlainHTTP,involvedObject.name={of}");
            let args = ["get", "events", "-A", &fields, "-o", "name"];
            let names = scene.cluster.kubectl(&args, "").await?;
            anyhow::Ok(names.lines().count())
        };
        wait_for("the event", SOON, || async {
            Ok((events(&name).await? == 1).then_some(()))
        })
        .await?;
        // Another check of the same store says nothing new, and nothing is said of what is safe.
        scene
            .wait_ready("clustersecretstore", &name, "False", "VaultDNSFailure")
            .await?;
        assert_eq!((events(&name).await?, events(&scene.class).await?), (1, 0));
        Ok(())
    });
}
