//! What may no longer be read serves nobody, from that moment on.

use std::time::Duration;

use keyferry_testbed::{Mode, Proxy};
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{Scene, login, one, play};

#[test]
fn a_store_that_becomes_malformed_or_is_deleted_serves_nobody_and_serves_again_when_it_is_mended() {
    play(async {
        let scene = Scene::new("closed").await?;
        scene.vault.put("app", json!({"k": "old"})).await?;
        let interval = json!({"refreshInterval": "1h", "data": [one("k", "app", "k")]});
        scene.external_secret("app", interval).await?;
        scene.wait_value("app", "k", "old").await?;
        scene.wait_ready("externalsecret", "app", "True", "").await?;
        // One edit: the namespace is left out, and a number is beyond what can be read.
        let fine = scene.store_manifest(scene.vault.address(), &login());
        let mut narrowed = fine.clone();
        narrowed["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        narrowed["spec"]["refreshInterval"] = json!(99_999_999_999_i64);
        scene.cluster.apply(&narrowed.to_string()).await?;
        scene.wait_store("False", "spec.refreshInterval").await?;
        scene
            .wait_ready("externalsecret", "app", "False", "cannot be read")
            .await?;
        scene.vault.put("app", json!({"k": "new"})).await?;
        scene.force_sync("app").await?;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("old"));
        let mut mended = fine.clone();
        mended["spec"]["refreshInterval"] = json!(300);
        scene.cluster.apply(&mended.to_string()).await?;
        scene.wait_store("True", "Valid").await?;
        scene.wait_value("app", "k", "new").await?;
        scene.wait_ready("externalsecret", "app", "True", "").await?;
        // It is not due for an hour, and told all the same.
        let name = fine["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        scene
            .cluster
            .kubectl(&["delete", "clustersecretstore", &name], "")
            .await?;
        scene
            .wait_ready("externalsecret", "app", "False", "does not exist")
            .await?;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("new"));
        scene.cluster.apply(&fine.to_string()).await?;
        scene
            .wait_ready("externalsecret", "app", "True", "")
            .await
            .map(drop)
    });
}

#[test]
fn what_a_store_denies_while_it_is_read_is_not_written() {
    play(async {
        let scene = Scene::new("denied-midway").await?;
        let address = scene
            .vault
            .address()
            .split("//")
            .nth(1)
            .unwrap_or_default()
            .parse()?;
        let proxy = Proxy::start(address).await?;
        let mut store = scene.store_manifest(&format!("http://{}", proxy.address()), &login());
        scene.cluster.apply(&store.to_string()).await?;
        scene.vault.put("app", json!({"k": "old"})).await?;
        let spec = json!({"refreshInterval": "1h", "data": [one("k", "app", "k")]});
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "k", "old").await?;
        scene.vault.put("app", json!({"k": "new"})).await?;
        let mark = scene.vault.audit_mark();
        proxy.set(Mode::Delay(Duration::from_secs(4)));
        scene.force_sync("app").await?;
        // Vault has answered, and the answer is on its way.
        for _ in 0..40 {
            if scene.vault.requests_since(mark)?.contains_key("secret/data/app") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        store["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        scene.cluster.apply(&store.to_string()).await?;
        sleep(Duration::from_secs(5)).await;
        proxy.set(Mode::Pass);
        scene
            .wait_ready("externalsecret", "app", "False", "denied by spec.condition")
            .await?;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("old"));
        Ok(())
    });
}
