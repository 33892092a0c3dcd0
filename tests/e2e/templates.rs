//! Templates of targets: what reads them, what keeps them still, and what is said of a faulty one.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::scene::{SOON, Scene, one, play};

/// An ExternalSecret that is refreshed once an hour, so that whatever happens sooner was caused.
fn spec(template: &Value) -> Value {
    json!({
        "refreshInterval": "1h", "target": {"template": template},
        "data": [one("user", "app", "user"), one("password", "app", "password")],
    })
}

async fn with_app(name: &str) -> Result<Scene> {
    let scene = Scene::new(name).await?;
    scene
        .vault
        .put("app", json!({"user": "admin", "password": "hunter2"}))
        .await?;
    Ok(scene)
}

async fn template_map(scene: &Scene, kind: &str, name: &str, text: &str) -> Result<()> {
    let data = if kind == "Secret" { "stringData" } else { "data" };
    let object = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"namespace": scene.namespace, "name": name}, data: {"tpl": text},
    });
    scene.cluster.apply(&object.to_string()).await.map(drop)
}

#[test]
fn a_target_is_rendered_anew_at_once_when_a_config_map_or_secret_with_its_template_changes() {
    play(async {
        let scene = with_app("template-watch").await?;
        let from = json!({"templateFrom": [
            {"configMap": {"name": "from-map", "items": [{"key": "tpl", "templateAs": "KeysAndValues"}]}},
            {"secret": {"name": "from-secret", "items": [{"key": "tpl"}]}},
        ]});
        scene.external_secret("app", spec(&from)).await?;
        // It says what is missing, and is synced as soon as that is there.
        let message = scene
            .wait_ready("externalsecret", "app", "False", "does not exist")
            .await?;
        assert!(message.contains("from-map"), "{message}");
        template_map(&scene, "ConfigMap", "from-map", "url: '{{ .user }}@one'").await?;
        scene
            .wait_ready("externalsecret", "app", "False", "from-secret")
            .await?;
        template_map(&scene, "Secret", "from-secret", "pw={{ .password }}").await?;
        scene.wait_value("app", "url", "admin@one").await?;
        scene.wait_value("app", "tpl", "pw=hunter2").await?;
        template_map(&scene, "ConfigMap", "from-map", "url: '{{ .user }}@two'").await?;
        scene.wait_value("app", "url", "admin@two").await?;
        template_map(&scene, "Secret", "from-secret", "pw2={{ .password }}").await?;
        scene.wait_value("app", "tpl", "pw2=hunter2").await?;
        // A template that is gone harms nothing.
        let args = ["delete", "configmap", "from-map", "-n", &scene.namespace];
        scene.cluster.kubectl(&args, "").await?;
        scene
            .wait_ready("externalsecret", "app", "False", "from-map")
            .await?;
        scene.wait_value("app", "url", "admin@two").await
    });
}

#[test]
fn random_functions_do_not_make_the_target_flap_and_give_something_new_when_an_input_changes() {
    play(async {
        let scene = with_app("template-random").await?;
        let template = json!({
            "metadata": {"annotations": {"made": "{{ now | unixEpoch }}"}},
            "data": {
                "session": "{{ randAlphaNum 32 }}", "user": "{{ .user }}",
                "auth": "{{ htpasswd .user .password \"bcrypt\" }}",
            },
        });
        scene.external_secret("app", spec(&template)).await?;
        scene.wait_value("app", "user", "admin").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        let made = scene.get("secret", "app").await?;
        for _ in 0..3 {
            let synced = scene.get("externalsecret", "app").await?["status"]["syncedResourceVersion"].clone();
            scene.force_sync("app").await?;
            wait_synced(&scene, &synced).await?;
        }
        let still = scene.get("secret", "app").await?;
        assert_eq!(
            still["metadata"]["resourceVersion"],
            made["metadata"]["resourceVersion"]
        );
        // A value that changes makes it anew, and so does its deletion.
        scene.vault.patch("app", json!({"user": "root"})).await?;
        scene.force_sync("app").await?;
        scene.wait_value("app", "user", "root").await?;
        let changed = scene.get("secret", "app").await?;
        assert_ne!(changed["data"]["session"], made["data"]["session"]);
        let args = ["delete", "secret", "app", "-n", &scene.namespace];
        scene.cluster.kubectl(&args, "").await?;
        scene.wait_value("app", "user", "root").await?;
        let anew = scene.get("secret", "app").await?;
        assert_ne!(anew["data"]["session"], changed["data"]["session"]);
        Ok(())
    });
}

async fn wait_synced(scene: &Scene, before: &Value) -> Result<()> {
    keyferry_testbed::wait_for("the forced sync", SOON, || async {
        let object = scene.get("externalsecret", "app").await?;
        Ok((object["status"]["syncedResourceVersion"] != *before).then_some(()))
    })
    .await
}

#[test]
fn a_faulty_template_says_where_it_is_wrong_and_never_shows_a_value() {
    play(async {
        let scene = with_app("template-faults").await?;
        for (name, template, words) in [
            (
                "parse",
                json!({"data": {"k": "ok\n{{ if }}"}}),
                vec!["spec.target.template.data[\"k\"]", "k:2"],
            ),
            (
                "func",
                json!({"data": {"k": "{{ env \"HOME\" }}"}}),
                vec!["function \"env\" not defined"],
            ),
            (
                "exec",
                json!({"data": {"k": "{{ .nope }}"}}),
                vec!["k:1:", "nope"],
            ),
            (
                "value",
                json!({"data": {"k": "{{ .password | atoi | add .password | fail }}"}}),
                vec!["k:1:"],
            ),
            (
                "label",
                json!({"metadata": {"labels": {"l": "{{ .password }} !"}}}),
                vec!["no valid label"],
            ),
            (
                "map",
                json!({"templateFrom": [{"literal": "{{ .password }}"}]}),
                vec!["map"],
            ),
            (
                "size",
                json!({"data": {"k": "{{ repeat 9000000 .password }}"}}),
                vec!["k:1:"],
            ),
            (
                "endless",
                json!({"data": {"k": "{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}"}}),
                vec!["k:1:"],
            ),
        ] {
            scene.external_secret(name, spec(&template)).await?;
            for word in words {
                let message = scene.wait_ready("externalsecret", name, "False", word).await?;
                ensure!(message.contains("could not apply template"), "{name}: {message}");
                ensure!(!message.contains("hunter2"), "{name}: {message}");
            }
        }
        assert!(!scene.operator().logs().contains("hunter2"));
        // Others are not harmed.
        let good = json!({"data": {"k": "{{ .user }}"}});
        scene.external_secret("good", spec(&good)).await?;
        scene.wait_value("good", "k", "admin").await
    });
}

#[test]
fn a_value_that_a_template_needs_and_that_is_gone_leaves_the_secret_as_it_was() {
    play(async {
        let scene = with_app("template-harm").await?;
        let template = json!({"data": {"url": "{{ .user }}:{{ .password }}"}});
        let mut retained = spec(&template);
        retained["dataFrom"] = json!([{"extract": {"key": "app"}}]);
        retained["data"] = json!([]);
        scene.external_secret("app", retained).await?;
        scene.wait_value("app", "url", "admin:hunter2").await?;
        scene.vault.put("app", json!({"user": "admin"})).await?;
        scene.force_sync("app").await?;
        scene
            .wait_ready("externalsecret", "app", "False", "password")
            .await?;
        scene.wait_value("app", "url", "admin:hunter2").await?;
        scene
            .vault
            .put("app", json!({"user": "admin", "password": "new"}))
            .await?;
        // It comes back by itself.
        scene.wait_value("app", "url", "admin:new").await
    });
}

#[test]
fn the_type_of_a_target_cannot_be_changed_and_its_deletion_has_it_made_anew() {
    play(async {
        let scene = with_app("template-type").await?;
        scene.external_secret("app", spec(&json!({}))).await?;
        scene.wait_value("app", "user", "admin").await?;
        let basic = json!({
            "type": "kubernetes.io/basic-auth", "data": {"username": "{{ .user }}", "password": "{{ .password }}"},
        });
        scene.external_secret("app", spec(&basic)).await?;
        scene
            .wait_ready("externalsecret", "app", "False", "delete it to have it made anew")
            .await?;
        scene.wait_value("app", "user", "admin").await?;
        let args = ["delete", "secret", "app", "-n", &scene.namespace];
        scene.cluster.kubectl(&args, "").await?;
        scene.wait_value("app", "username", "admin").await?;
        assert_eq!(
            scene.get("secret", "app").await?["type"],
            "kubernetes.io/basic-auth"
        );
        Ok(())
    });
}

#[test]
fn other_delimiters_are_a_flag() {
    play(async {
        let mut scene = Scene::without_operator("template-delims").await?;
        scene
            .vault
            .put("app", json!({"user": "admin", "password": "x"}))
            .await?;
        scene.store(scene.vault.address()).await?;
        let flags = ["--template-left-delimiter=<<", "--template-right-delimiter=>>"];
        scene.start_operator(&flags).await?;
        let template = json!({"data": {"k": "{{ .user }} << .user >>"}});
        scene.external_secret("app", spec(&template)).await?;
        scene.wait_value("app", "k", "{{ .user }} admin").await
    });
}

#[test]
fn stale_labels_annotations_and_keys_of_a_template_are_removed() {
    play(async {
        let scene = with_app("template-stale").await?;
        let first = json!({
            "metadata": {"labels": {"a": "1", "b": "1"}, "annotations": {"x": "1"}}, "data": {"k": "1", "l": "1"},
        });
        // A name of 28 to 63 characters, with which ESO forgets labels.
        let name = "an-external-secret-with-a-long-name";
        scene.external_secret(name, spec(&first)).await?;
        scene.wait_value(name, "l", "1").await?;
        let second = json!({"metadata": {"labels": {"a": "2"}}, "data": {"k": "2"}});
        scene.external_secret(name, spec(&second)).await?;
        scene.wait_value(name, "k", "2").await?;
        sleep(Duration::from_millis(200)).await;
        let secret = scene.get("secret", name).await?;
        assert_eq!(secret["metadata"]["labels"]["a"], "2");
        assert!(secret["metadata"]["labels"].get("b").is_none());
        assert!(secret["metadata"]["annotations"].get("x").is_none());
        assert!(secret["data"].get("l").is_none());
        Ok(())
    });
}
