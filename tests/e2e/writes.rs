//! Writes of Secrets that others touch too, and writes that Kubernetes refuses.

use anyhow::ensure;
use serde_json::json;

use crate::scene::{Scene, one, play};

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
        let es = "externalsecret";
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
            scene.wait_ready(es, name, "False", word).await?;
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
