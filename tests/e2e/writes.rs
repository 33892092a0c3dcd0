//! Writes of Secrets that others touch too, and writes that Kubernetes refuses.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyferry_testbed::{Mode, Proxy, wait_for};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::manifest::{self, FLAG, stage};
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

/// Somebody who writes a value of his own whenever it is not there; gives how often.
async fn rival(scene: &Scene, secret: &str, lasts: Duration) -> Result<usize> {
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let manager = PatchParams {
        field_manager: Some("rival".into()),
        ..PatchParams::default()
    };
    let (end, mut count) = (Instant::now() + lasts, 0);
    while Instant::now() < end {
        if scene.value(secret, "password").await?.as_deref() == Some("one") {
            let patch = json!({"stringData": {"password": format!("rival-{count}")}});
            secrets.patch(secret, &manager, &Patch::Merge(patch)).await?;
            count += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(count)
}

#[test]
fn a_tug_of_war_is_slowed_down_and_told_and_slows_nobody_else() {
    play(async {
        let scene = Scene::new("tug").await?;
        scene.vault.put("app", json!({"password": "one"})).await?;
        let spec = json!({"refreshInterval": "1h", "data": [one("password", "app", "password")]});
        scene.external_secret("app", spec.clone()).await?;
        scene.wait_value("app", "password", "one").await?;
        scene.wait_ready(ES, "app", "True", "secret synced").await?;
        let mark = scene.vault.audit_mark();
        let war = async {
            let count = rival(&scene, "app", Duration::from_secs(20)).await?;
            let reads = scene.vault.requests_since(mark)?;
            anyhow::Ok((count, reads.get("secret/data/app").copied().unwrap_or_default()))
        };
        let beside = async {
            let told = "field manager \"rival\" keeps changing its key password of Secret";
            scene.wait_ready(ES, "app", "True", told).await?;
            scene.vault.put("other", json!({"value": "x"})).await?;
            let other = json!({"refreshInterval": "1h", "data": [one("value", "other", "value")]});
            scene.external_secret("other", other).await?;
            scene.wait_value("other", "value", "x").await
        };
        let (war, beside) = tokio::join!(war, beside);
        beside?;
        let (count, reads) = war?;
        println!("{count} repairs in 20 s, {reads} reads");
        ensure!((4..=12).contains(&count), "{count} repairs in 20 s");
        ensure!(reads <= count + 2, "{reads} reads for {count} repairs");
        let args = ["get", "events", "-n", &scene.namespace, "-o", "json"];
        let events: Value = serde_json::from_str(&scene.cluster.kubectl(&args, "").await?)?;
        let events = events["items"].as_array().context("no events")?;
        let told = events.iter().filter(|event| event["reason"] == "TargetContested");
        ensure!(told.count() == 1, "it is not told once");
        // Who asks for it is served.
        scene.vault.put("app", json!({"password": "two"})).await?;
        scene.force_sync("app").await?;
        scene.wait_value("app", "password", "two").await
    });
}

#[test]
fn a_label_of_somebody_elses_stays_and_costs_no_write() {
    play(async {
        let scene = Scene::new("foreign-label").await?;
        scene.vault.put("app", json!({"password": "one"})).await?;
        let spec = json!({"refreshInterval": "2s", "data": [one("password", "app", "password")]});
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "password", "one").await?;
        scene.wait_ready(ES, "app", "True", "secret synced").await?;
        let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
        for number in 0..5 {
            let patch = json!({"metadata": {"labels": {"example.com/adopted": number.to_string()}}});
            let written = secrets
                .patch("app", &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            let mark = scene.vault.audit_mark();
            wait_for("the next refreshes", SOON, || async {
                let reads = scene.vault.requests_since(mark)?;
                Ok((reads.get("secret/data/app").is_some_and(|reads| *reads >= 2)).then_some(()))
            })
            .await?;
            let now = secrets.get("app").await?;
            ensure!(
                now.resource_version() == written.resource_version(),
                "it was written"
            );
        }
        Ok(())
    });
}

#[test]
fn a_generic_target_that_somebody_else_changes_all_the_time_says_so() {
    play(async {
        let scene = stage("tug-generic", &[FLAG]).await?;
        let mut spec = manifest::spec(("v1", "ConfigMap"), &json!({"name": "config"}));
        spec["refreshInterval"] = json!("1s");
        scene.external_secret("app", spec).await?;
        let maps: Api<ConfigMap> = Api::namespaced(scene.cluster.client(), &scene.namespace);
        let manager = PatchParams {
            field_manager: Some("rival".into()),
            ..PatchParams::default()
        };
        let told = "field manager \"rival\" keeps changing its key data.level of ConfigMap";
        wait_for("the rival's name", SOON, || async {
            if maps.get_opt("config").await?.is_some() {
                let patch = Patch::Merge(json!({"data": {"level": "theirs"}}));
                maps.patch("config", &manager, &patch).await?;
            }
            let (status, _, message) = scene.ready(ES, "app").await?;
            Ok((status == "True" && message.contains(told)).then_some(()))
        })
        .await
        .with_context(|| scene.story())
    });
}

#[test]
fn external_secrets_that_write_the_same_keys_say_so_and_others_do_not() {
    play(async {
        let scene = Scene::new("shared").await?;
        scene.vault.put("one", json!({"a": "1", "b": "1"})).await?;
        scene.vault.put("two", json!({"b": "2"})).await?;
        scene
            .write_secret(&scene.namespace, "base", json!({"own": "x"}))
            .await?;
        let merged = |key: &str, path: &str| {
            json!({"refreshInterval": "1h", "data": [one(key, path, key)],
            "target": {"name": "base", "creationPolicy": "Merge"}})
        };
        let alone = async |name: &str| {
            let message = scene.wait_ready(ES, name, "True", "secret synced").await?;
            ensure!(message == "secret synced", "{name}: {message}");
            anyhow::Ok(())
        };
        scene.external_secret("a", merged("a", "one")).await?;
        scene.wait_value("base", "a", "1").await?;
        scene.external_secret("b", merged("b", "one")).await?;
        alone("a").await?;
        alone("b").await?;
        scene.external_secret("c", merged("b", "two")).await?;
        for (name, other) in [("c", "b"), ("b", "c")] {
            let told = format!("ExternalSecret {other} writes the same keys (b) of Secret");
            scene.wait_ready(ES, name, "True", &told).await?;
        }
        // The last one won, and wakes nobody.
        ensure!(scene.value("base", "b").await?.as_deref() == Some("2"));
        alone("a").await?;
        let args = ["get", "events", "-n", &scene.namespace, "-o", "json"];
        let events: Value = serde_json::from_str(&scene.cluster.kubectl(&args, "").await?)?;
        let told = events["items"].as_array().into_iter().flatten();
        let mut told: Vec<&str> = told
            .filter(|event| event["reason"] == "TargetShared")
            .filter_map(|event| event["involvedObject"]["name"].as_str())
            .collect();
        told.sort_unstable();
        ensure!(told == ["b", "c"], "told were {told:?}");
        scene
            .cluster
            .kubectl(&["delete", "externalsecret", "c", "-n", &scene.namespace], "")
            .await?;
        wait_for("the end of it", SOON, || async {
            Ok((scene.ready(ES, "b").await?.2 == "secret synced").then_some(()))
        })
        .await?;
        // Of these nothing is known but what they write.
        for (name, path) in [("old", "one"), ("new", "two")] {
            let spec = json!({"refreshInterval": "1h", "dataFrom": [{"extract": {"key": path}}],
                "target": {"name": "both", "creationPolicy": "Orphan"}});
            scene.external_secret(name, spec).await?;
            scene.wait_ready(ES, name, "True", "secret synced").await?;
        }
        scene
            .wait_ready(ES, "new", "True", "ExternalSecret old writes the same keys")
            .await?;
        scene
            .wait_ready(ES, "old", "True", "ExternalSecret new writes the same keys")
            .await
            .map(drop)
    });
}

#[test]
fn an_object_that_fails_is_not_tried_as_often_as_somebody_touches_its_target() {
    play(async {
        let scene = Scene::new("touched").await?;
        scene.vault.put("app", json!({"password": "one"})).await?;
        let spec = |path: &str| json!({"refreshInterval": "1h", "data": [one("password", path, "password")]});
        scene.external_secret("app", spec("app")).await?;
        scene.wait_value("app", "password", "one").await?;
        scene.external_secret("app", spec("none")).await?;
        scene.wait_ready(ES, "app", "False", "none").await?;
        let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
        let (mark, begun) = (scene.vault.audit_mark(), Instant::now());
        for number in 0..100 {
            let patch = json!({"metadata": {"labels": {"example.com/touched": number.to_string()}}});
            secrets
                .patch("app", &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            sleep(Duration::from_millis(50)).await;
        }
        let reads = scene
            .vault
            .requests_since(mark)?
            .get("secret/data/none")
            .copied()
            .unwrap_or_default();
        // Pauses that double from a second, of which each may be a fifth shorter.
        let tries = (begun.elapsed().as_secs_f64() / 0.8 + 1.0).log2() + 2.0;
        println!("{reads} reads in {:.1?}", begun.elapsed());
        ensure!((reads as f64) <= tries, "{reads} reads in {:?}", begun.elapsed());
        // What is corrected is tried at once.
        scene.external_secret("app", spec("app")).await?;
        scene
            .wait_ready(ES, "app", "True", "secret synced")
            .await
            .map(drop)
    });
}
