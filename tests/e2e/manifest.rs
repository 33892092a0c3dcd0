//! Generic targets: ConfigMaps and a kind of our own, with the rights that the chart gives.

use anyhow::Result;
use keyferry_testbed::{repository, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shops.keyferry.example}
spec:
  group: keyferry.example
  names: {kind: Shop, plural: shops}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                replicas: {type: integer, default: 1}
                data: {type: object, additionalProperties: {type: string, maxLength: 20}}
                config: {type: object, x-kubernetes-preserve-unknown-fields: true}
                rules: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;
pub const FLAG: &str = "--unsafe-allow-generic-targets";

/// A scene whose operator may write ConfigMaps and Shops in its namespace.
pub async fn stage(name: &str, flags: &[&str]) -> Result<Scene> {
    let mut scene = Scene::without_operator(name).await?;
    scene.store(scene.vault.address()).await?;
    scene
        .vault
        .put("app", json!({"level": "info", "url": "https://one"}))
        .await?;
    scene.cluster.apply(CRD).await?;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd/shops.keyferry.example",
        "--timeout=30s",
    ];
    scene.cluster.kubectl(&established, "").await?;
    let chart = repository().join("deploy/chart").display().to_string();
    let resources = json!([{"apiGroup": "keyferry.example", "resources": ["shops"], "verbs": ["get", "create", "update", "delete"]}]);
    let rights = scene
        .cluster
        .helm(&[
            "template",
            name,
            &chart,
            "-n",
            "security",
            "-s",
            "templates/rbac.yaml",
            "--set",
            "serviceAccount.name=keyferry,scopedRBAC=true,genericTargets.enabled=true",
            "--set",
            &format!("scopedNamespaces={{{}}}", scene.namespace),
            "--set-json",
            &format!("genericTargets.resources={resources}"),
        ])
        .await?;
    scene.cluster.apply(&rights).await?;
    scene.start_operator(flags).await?;
    Ok(scene)
}

pub fn spec(kind: (&str, &str), further: &Value) -> Value {
    let mut target = json!({"manifest": {"apiVersion": kind.0, "kind": kind.1}});
    if let (Some(target), Some(further)) = (target.as_object_mut(), further.as_object()) {
        target.extend(further.clone());
    }
    json!({
        "refreshInterval": "1s", "target": target, "data": [one("level", "app", "level"), one("url", "app", "url")],
    })
}

const CONFIG_MAP: (&str, &str) = ("v1", "ConfigMap");

async fn wait_content(scene: &Scene, kind: &str, name: &str, wanted: Value) -> Result<Value> {
    wait_for(&format!("{kind} {name} with {wanted}"), SOON, || async {
        let object = scene.get(kind, name).await?;
        let content = if kind == "configmap" {
            &object["data"]
        } else {
            &object["spec"]
        };
        anyhow::ensure!(*content == wanted, "it has {content}");
        Ok(Some(object))
    })
    .await
    .map_err(|error| error.context(scene.story()))
}

#[test]
fn a_config_map_is_made_updated_and_repaired_and_goes_with_its_owner() {
    play(async {
        let scene = stage("manifest", &[FLAG]).await?;
        scene
            .external_secret("app", spec(CONFIG_MAP, &json!({"name": "config"})))
            .await?;
        let made = wait_content(
            &scene,
            "configmap",
            "config",
            json!({"level": "info", "url": "https://one"}),
        )
        .await?;
        assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "app");
        scene
            .wait_ready("externalsecret", "app", "True", "ResourceSynced")
            .await?;
        scene.vault.patch("app", json!({"level": "debug"})).await?;
        let wanted = json!({"level": "debug", "url": "https://one"});
        let updated = wait_content(&scene, "configmap", "config", wanted.clone()).await?;
        let patch = r#"{"data": {"level": "by hand", "added": "x"}}"#;
        scene
            .cluster
            .kubectl(
                &[
                    "patch",
                    "configmap",
                    "config",
                    "-n",
                    &scene.namespace,
                    "-p",
                    patch,
                ],
                "",
            )
            .await?;
        let repaired = wait_content(&scene, "configmap", "config", wanted.clone()).await?;
        assert_eq!(repaired["metadata"]["uid"], updated["metadata"]["uid"]);
        scene
            .cluster
            .kubectl(&["delete", "configmap", "config", "-n", &scene.namespace], "")
            .await?;
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let again = wait_content(&scene, "configmap", "config", wanted).await?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let later = scene.get("configmap", "config").await?;
        assert_eq!(
            version(&later),
            version(&again),
            "a refresh without news wrote the target"
        );
        scene
            .cluster
            .kubectl(&["delete", "externalsecret", "app", "-n", &scene.namespace], "")
            .await?;
        scene.wait_gone("configmap", "config").await
    });
}

#[test]
fn merge_waits_for_its_config_map_and_leaves_the_keys_of_others() {
    play(async {
        let scene = stage("manifest-merge", &[FLAG]).await?;
        let target = json!({"name": "config", "creationPolicy": "Merge", "deletionPolicy": "Merge"});
        scene.external_secret("app", spec(CONFIG_MAP, &target)).await?;
        scene
            .wait_ready("externalsecret", "app", "True", "ResourceMissing")
            .await?;
        let foreign = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config", "namespace": scene.namespace},
            "data": {"theirs": "kept", "level": "theirs"},
        });
        scene.cluster.apply(&foreign.to_string()).await?;
        let merged = json!({"theirs": "kept", "level": "info", "url": "https://one"});
        let object = wait_content(&scene, "configmap", "config", merged.clone()).await?;
        assert!(object["metadata"]["ownerReferences"].is_null());
        // Who would own what is there is refused, and what is there stays.
        scene
            .external_secret("owner", spec(CONFIG_MAP, &json!({"name": "config"})))
            .await?;
        scene
            .wait_ready(
                "externalsecret",
                "owner",
                "False",
                "was not made by this ExternalSecret",
            )
            .await?;
        wait_content(&scene, "configmap", "config", merged).await?;
        assert_eq!(
            scene.ready("externalsecret", "owner").await?.1,
            "ResourceSyncedError"
        );
        scene.vault.delete("app").await?;
        wait_content(&scene, "configmap", "config", json!({"theirs": "kept"})).await?;
        Ok(())
    });
}

#[test]
fn a_generic_target_that_is_gone_at_its_source_is_deleted_and_two_owners_do_not_fight() {
    play(async {
        let scene = stage("manifest-delete", &[FLAG]).await?;
        let target = json!({"name": "shop", "deletionPolicy": "Delete"});
        let shop = ("keyferry.example/v1", "Shop");
        scene.external_secret("app", spec(shop, &target)).await?;
        let wanted = json!({"replicas": 1, "data": {"level": "info", "url": "https://one"}});
        wait_content(&scene, "shop", "shop", wanted.clone()).await?;
        scene.external_secret("second", spec(shop, &target)).await?;
        scene
            .wait_ready(
                "externalsecret",
                "second",
                "False",
                "owned by another ExternalSecret",
            )
            .await?;
        // The API server's message would quote it.
        let canary = "canary-that-is-longer-than-twenty";
        scene.vault.patch("app", json!({"level": canary})).await?;
        let message = scene
            .wait_ready("externalsecret", "app", "False", "spec.data.level")
            .await?;
        assert!(!message.contains(canary), "{message}");
        assert!(!scene.operator().logs().contains(canary));
        wait_content(&scene, "shop", "shop", wanted).await?;
        scene.vault.delete("app").await?;
        scene.wait_gone("shop", "shop").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "ResourceDeleted")
            .await
            .map(drop)
    });
}

#[test]
fn templates_are_rendered_into_paths_and_a_refresh_without_news_writes_nothing() {
    play(async {
        let scene = stage("manifest-paths", &[FLAG]).await?;
        let template = json!({
            "metadata": {"labels": {"app": "shop"}},
            "templateFrom": [
                {"target": "spec.config", "literal": "level: {{ .level }}\nport: 80\nflags: [a, true]\n"},
                {"target": "spec.config", "literal": "url: {{ .url | quote }}"},
                {"target": "spec.rules[1].host", "literal": "{{ .url }}"},
                {"target": "spec.rules[0]", "literal": "host: first"},
            ],
        });
        let target = json!({"name": "shop", "template": template});
        scene
            .external_secret("app", spec(("keyferry.example/v1", "Shop"), &target))
            .await?;
        let wanted = |level: &str| {
            json!({
                "replicas": 1, "rules": [{"host": "first"}, {"host": "https://one"}],
                "config": {"level": level, "port": 80, "flags": ["a", true], "url": "https://one"},
            })
        };
        let made = wait_content(&scene, "shop", "shop", wanted("info")).await?;
        assert_eq!(made["metadata"]["labels"]["app"], "shop");
        // The default of replicas is not ours, and the object is sent without it at every refresh.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let later = scene.get("shop", "shop").await?;
        assert_eq!(
            later["metadata"]["resourceVersion"],
            made["metadata"]["resourceVersion"]
        );
        scene.vault.patch("app", json!({"level": "debug"})).await?;
        wait_content(&scene, "shop", "shop", wanted("debug"))
            .await
            .map(drop)
    });
}

#[test]
fn generic_targets_are_refused_without_the_flag_and_some_kinds_always() {
    play(async {
        let mut scene = stage("manifest-off", &[]).await?;
        scene
            .external_secret("config", spec(CONFIG_MAP, &json!({})))
            .await?;
        scene
            .wait_ready("externalsecret", "config", "False", "invalid generic target")
            .await?;
        assert!(scene.get("configmap", "config").await.is_err());
        scene.operator().terminate()?;
        scene.start_operator(&[FLAG]).await?;
        wait_content(
            &scene,
            "configmap",
            "config",
            json!({"level": "info", "url": "https://one"}),
        )
        .await?;
        for (name, kind, word) in [
            ("secret", ("v1", "Secret"), "a Secret is what is written without"),
            ("role", ("rbac.authorization.k8s.io/v1", "Role"), "gives rights"),
            ("account", ("v1", "ServiceAccount"), "gives rights"),
            (
                "external",
                ("external-secrets.io/v1", "ExternalSecret"),
                "is never written",
            ),
            ("node", ("v1", "Node"), "belongs to no namespace"),
            ("unknown", ("keyferry.example/v1", "Nothing"), "knows no kind"),
            ("group", ("nowhere.example/v1", "Nothing"), "knows no kind"),
            ("right", ("apps/v1", "Deployment"), "genericTargets.resources"),
        ] {
            scene.external_secret(name, spec(kind, &json!({}))).await?;
            scene.wait_ready("externalsecret", name, "False", word).await?;
        }
        Ok(())
    });
}
