//! Writes of Secrets that others touch too, and writes that Kubernetes refuses.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyferry_testbed::{Mode, Proxy, wait_for};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::manifest::{FLAG, stage};
use crate::scene::{SOON, Scene, login, one, play};

const ES: &str = "externalsecret";
/// How much later one of two writers hears what Vault answered.
const LATE: Duration = Duration::from_secs(3);

/// Two ExternalSecrets of one target, `late` and `quick`, of which one hears late what Vault holds.
struct Order {
    scene: Scene,
    proxy: Proxy,
}

impl Order {
    /// How often the secret was read since a mark.
    fn reads(&self, path: &str, mark: u64) -> Result<usize> {
        let path = format!("secret/data/{path}");
        let mut entries = self.scene.vault.audit_since(mark)?;
        entries.retain(|entry| entry.kind == "response" && entry.operation == "read" && entry.path == path);
        Ok(entries.len())
    }

    async fn wait_reads(&self, path: &str, mark: u64, count: usize) -> Result<()> {
        wait_for(&format!("{count} reads of {path}"), SOON, || async {
            Ok((self.reads(path, mark)? >= count).then_some(()))
        })
        .await
    }

    async fn value(&self, kind: &str, target: &str) -> Result<Option<String>> {
        if kind == "secret" {
            return self.scene.value(target, "value").await;
        }
        let object = self.scene.get(kind, target).await.ok();
        Ok(object.and_then(|object| object["data"]["value"].as_str().map(String::from)))
    }

    async fn wait_value(&self, kind: &str, target: &str, wanted: &str) -> Result<()> {
        wait_for(&format!("{wanted} in {kind} {target}"), SOON, || async {
            Ok((self.value(kind, target).await?.as_deref() == Some(wanted)).then_some(()))
        })
        .await
        .with_context(|| self.scene.story())
    }

    /// `late` reads one value, `quick` reads and writes the next, and then `late` hears of the first.
    async fn play(&self, kind: &str, case: &str, target: Value, interval: &str) -> Result<()> {
        let (scene, path) = (&self.scene, case);
        let (late, quick) = (format!("{case}-late"), format!("{case}-quick"));
        scene.vault.put(path, json!({"value": "zero"})).await?;
        for (name, store, interval) in [
            (&late, format!("{}-late", scene.class), interval),
            (&quick, scene.class.clone(), "1h"),
        ] {
            let mut target = target.clone();
            target["name"] = json!(case);
            let store = json!({"kind": "ClusterSecretStore", "name": store});
            let data = [one("value", path, "value")];
            let spec =
                json!({"refreshInterval": interval, "secretStoreRef": store, "target": target, "data": data});
            scene.external_secret(name, spec).await?;
            scene.wait_ready(ES, name, "True", "ynced").await?;
        }
        self.wait_value(kind, case, "zero").await?;
        self.proxy.set(Mode::Delay(LATE));
        scene.vault.put(path, json!({"value": "one"})).await?;
        let mark = scene.vault.audit_mark();
        if interval == "1h" {
            scene.force_sync(&late).await?;
        }
        self.wait_reads(path, mark, 1).await?;
        scene.vault.put(path, json!({"value": "two"})).await?;
        scene.force_sync(&quick).await?;
        self.wait_value(kind, case, "two").await?;
        // By then what it read first has been written, or has not.
        for _ in 0..30 {
            sleep(2 * LATE / 30).await;
            let value = self.value(kind, case).await?;
            ensure!(
                value.as_deref() == Some("two"),
                "{case}: it holds {value:?} again"
            );
        }
        self.proxy.set(Mode::Pass);
        scene.wait_ready(ES, &late, "True", "ynced").await.map(drop)
    }
}

#[test]
fn what_was_read_before_anothers_write_is_not_written_after_it() {
    play(async {
        let scene = stage("order", &[FLAG]).await?;
        let proxy = Proxy::start(scene.vault.socket()?).await?;
        let mut store = scene.store_manifest(&format!("http://{}", proxy.address()), &login());
        store["metadata"]["name"] = json!(format!("{}-late", scene.class));
        scene.cluster.apply(&store.to_string()).await?;
        let order = Order { scene, proxy };
        let orphan = json!({"creationPolicy": "Orphan"});
        order.play("secret", "forced", orphan.clone(), "1h").await?;
        order.play("secret", "routine", orphan, "4s").await?;
        let generic =
            json!({"creationPolicy": "CreateOrMerge", "manifest": {"apiVersion": "v1", "kind": "ConfigMap"}});
        order.play("configmap", "generic", generic, "1h").await
    });
}

#[test]
fn a_value_that_does_not_fit_its_type_is_told_by_key_and_place_and_none_of_its_characters() {
    play(async {
        let scene = Scene::new("misfit").await?;
        // The first character that is no JSON is Q, and Z.
        let values = json!({"json": "Q9canary", "cfg": "{\"auths\":Z9canary}", "other": "x"});
        scene.vault.put("app", values).await?;
        for (name, type_, key, property) in [
            ("json", "dockerconfigjson", ".dockerconfigjson", "json"),
            ("cfg", "dockercfg", ".dockercfg", "cfg"),
            ("tls", "tls", "tls.crt", "other"),
            ("ssh", "ssh-auth", "key", "other"),
            ("basic", "basic-auth", "user", "other"),
        ] {
            let spec = json!({
                "target": {"template": {"type": format!("kubernetes.io/{type_}")}},
                "data": [one(key, "app", property)],
            });
            scene.external_secret(name, spec).await?;
        }
        for (name, word) in [
            (
                "json",
                "its key \".dockerconfigjson\" is not JSON (line 1, column 1)",
            ),
            ("cfg", "its key \".dockercfg\" is not JSON (line 1, column 10)"),
            ("tls", "it needs the key \"tls.key\""),
            ("ssh", "it needs the key \"ssh-privatekey\""),
            ("basic", "it needs the key \"username\" or \"password\""),
        ] {
            scene.wait_ready(ES, name, "False", word).await?;
        }
        let mut said = scene.operator().logs();
        for kind in ["externalsecrets", "events"] {
            let args = ["get", kind, "-n", &scene.namespace, "-o", "json"];
            said += &scene.cluster.kubectl(&args, "").await?;
        }
        for part in ["Q9", "Z9", "canary", "invalid character", "'Q'", "'Z'"] {
            ensure!(!said.contains(part), "{part:?} is told");
        }
        scene
            .vault
            .put("app", json!({"json": "{}", "cfg": "{}", "other": "x"}))
            .await?;
        scene.force_sync("json").await?;
        scene.wait_value("json", ".dockerconfigjson", "{}").await
    });
}
