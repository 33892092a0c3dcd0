//! Tenants: which namespaces may use a store, and which paths each may read by it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::scene::{Scene, login, one, play};

pub const ANNOTATION: &str = "keyferry.dev/allowed-paths";

/// The store of a scene with this annotation.
async fn limit(scene: &Scene, patterns: Option<&str>) -> Result<()> {
    let mut store = scene.store_manifest(scene.vault.address(), &login());
    if let Some(patterns) = patterns {
        store["metadata"]["annotations"] = json!({ ANNOTATION: patterns });
    }
    scene.cluster.apply(&store.to_string()).await.map(drop)
}

/// A Vault with what belongs to this scene's tenant, to another one, to both, and to nobody.
async fn stage(name: &str) -> Result<Scene> {
    let mut scene = Scene::without_operator(name).await?;
    let own = format!("tenants/{}", scene.namespace);
    for path in [
        &format!("{own}/db"),
        &format!("{own}/deep/down/key"),
        "tenants/other/db",
        "shared/ca",
        "app",
    ] {
        scene.vault.put(path, json!({"value": path, "a/b": path})).await?;
    }
    limit(&scene, Some("tenants/{{namespace}}/**\nshared/*\n")).await?;
    scene.start_operator(&[]).await?;
    scene.wait_store("True", "Valid").await?;
    Ok(scene)
}

/// What the operator asked Vault's KV engine for, without the engine's own part of the path.
fn asked(scene: &Scene, mark: u64) -> Result<Vec<String>> {
    let requests = scene.vault.requests_since(mark)?;
    let kv = requests.into_keys().filter_map(|path| {
        let rest = path.strip_prefix("secret/").map(String::from);
        // Whether the mount is KV v2, asked when something is not found.
        let of_the_mount = path == "sys/internal/ui/mounts/secret";
        assert!(
            rest.is_some() || of_the_mount || path.starts_with("auth/"),
            "the operator asked for {path}"
        );
        rest
    });
    let mut kv: Vec<String> = kv
        .map(|path| {
            path.split_once('/')
                .map_or(path.clone(), |(_, rest)| rest.to_string())
        })
        .collect();
    kv.sort();
    Ok(kv)
}

#[test]
fn a_tenant_reads_its_own_paths_and_no_others_however_it_asks() {
    play(async {
        let scene = stage("escape").await?;
        let (own, mark) = (format!("tenants/{}", scene.namespace), scene.vault.audit_mark());
        let fine = [
            format!("{own}/db"),
            format!("/secret/data/{own}//db"),
            "shared/ca".into(),
        ];
        for (i, key) in fine.iter().enumerate() {
            scene
                .external_secret(
                    &format!("fine-{i}"),
                    json!({"data": [one("value", key, "value")]}),
                )
                .await?;
        }
        let keys = [
            "tenants/other/db".to_string(),
            "secret/tenants/other/db".into(),
            "secret/data/tenants/other/db".into(),
            "/secret//data/tenants//other/db/".into(),
            "secret/metadata/tenants/other/db".into(),
            format!("{own}/../other/db"),
            format!("{own}/%2e%2e/other/db"),
            format!("{own}/..%2fother/db"),
            format!("{own}%2F..%2Fother%2Fdb"),
            format!("{own}\\..\\other\\db"),
            format!("{own}/./../other/db"),
            format!("{own}?/../../other/db"),
            format!("{own}/\u{ff0e}\u{ff0e}/other/db"),
            own.clone(),
            format!("{own}-x/db"),
            own.to_uppercase() + "/db",
            "tenants/*/db".into(),
            "tenants/{{namespace}}/db".into(),
            "shared/ca/deeper".into(),
            "shared".into(),
            "app".into(),
            "../sys/policies/acl/eso-reader".into(),
            "kv1/app".into(),
        ];
        let mut specs: Vec<Value> = keys
            .iter()
            .map(|key| json!({"data": [one("value", key, "value")]}))
            .collect();
        let other = "tenants/other/db";
        specs.extend([
            json!({"data": [one("value", other, "a/b")]}),
            json!({"data": [{"secretKey": "v", "remoteRef": {"key": other, "version": "1"}}]}),
            json!({"data": [{"secretKey": "v", "remoteRef": {"key": other, "metadataPolicy": "Fetch"}}]}),
            json!({"dataFrom": [{"extract": {"key": other}}]}),
            json!({"dataFrom": [{"find": {"path": "tenants/other", "name": {"regexp": ".*"}}}]}),
            json!({"dataFrom": [{"find": {"path": format!("{own}/../other"), "name": {"regexp": ".*"}}}]}),
            json!({"dataFrom": [{"find": {"name": {"regexp": "^(tenants/other|app).*"}}}]}),
            // Another store at first, and this one for a single entry.
            json!({"secretStoreRef": {"name": "none"}, "data": [{"secretKey": "v", "remoteRef": {"key": other},
                "sourceRef": {"storeRef": {"kind": "ClusterSecretStore", "name": scene.class}}}]}),
        ]);
        let mut yaml = String::new();
        for (i, spec) in specs.iter().enumerate() {
            yaml += &format!(
                "---\n{}\n",
                scene.external_secret_manifest(&format!("escape-{i}"), spec.clone())
            );
        }
        scene.cluster.apply(&yaml).await?;
        for i in 0..fine.len() {
            scene
                .wait_ready("externalsecret", &format!("fine-{i}"), "True", "SecretSynced")
                .await?;
        }
        for i in 0..specs.len() {
            scene
                .wait_ready(
                    "externalsecret",
                    &format!("escape-{i}"),
                    "False",
                    "SecretSyncedError",
                )
                .await?;
        }
        let message = scene.ready("externalsecret", "escape-0").await?.2;
        let wanted = format!(
            "key tenants/other/db: ClusterSecretStore {} does not let namespace {} read the path 'tenants/other/db' (below \
             the mount 'secret'): its annotation {ANNOTATION} has no pattern for it",
            scene.class, scene.namespace
        );
        ensure!(message.ends_with(&wanted), "{message}");
        let secrets = scene.list("secret").await?;
        ensure!(secrets.len() == fine.len(), "{} Secrets were made", secrets.len());
        let within = |path: &String| {
            path.starts_with(&format!("{own}/"))
                || *path == "shared/ca"
                || ["", "tenants/", "shared/"].contains(&path.as_str())
        };
        let beyond: Vec<String> = asked(&scene, mark)?
            .into_iter()
            .filter(|path| !within(path))
            .collect();
        ensure!(beyond.is_empty(), "Vault was asked for {beyond:?}");
        ensure!(
            !asked(&scene, mark)?
                .iter()
                .any(|path| path.split('/').any(|segment| segment == ".."))
        );
        Ok(())
    });
}

#[test]
fn a_search_finds_what_the_tenant_may_read_and_lists_no_folder_of_others() {
    play(async {
        let scene = stage("limitedfind").await?;
        let (own, mark) = (format!("tenants/{}", scene.namespace), scene.vault.audit_mark());
        let find = json!({
            "dataFrom": [{"find": {"name": {"regexp": ".*"}}, "rewrite": [{"regexp": {"source": "[^a-z]", "target": "_"}}]}],
        });
        scene.external_secret("all", find).await?;
        scene
            .wait_ready("externalsecret", "all", "True", "SecretSynced")
            .await?;
        let secret = scene.get("secret", "all").await?;
        let mut found: Vec<&String> = secret["data"].as_object().context("no data")?.keys().collect();
        found.sort();
        let named = |path: &str| path.replace(|c: char| !c.is_ascii_lowercase(), "_");
        let mut wanted = [
            named("shared/ca"),
            named(&format!("{own}/db")),
            named(&format!("{own}/deep/down/key")),
        ];
        wanted.sort();
        assert_eq!(found, wanted.iter().collect::<Vec<_>>());
        let listed = [
            String::new(),
            "shared/".into(),
            "shared/ca".into(),
            "tenants/".into(),
            format!("{own}/"),
            format!("{own}/db"),
            format!("{own}/deep/"),
            format!("{own}/deep/down/"),
            format!("{own}/deep/down/key"),
        ];
        let mut listed = listed.to_vec();
        listed.sort();
        assert_eq!(asked(&scene, mark)?, listed);
        // A Secret is not deleted because the annotation hides what was found before.
        limit(&scene, Some("nothing/**")).await?;
        let spec = json!({"target": {"deletionPolicy": "Delete"}, "dataFrom": [{"find": {"path": "shared", "name": {"regexp": ".*"}}}]});
        scene.external_secret("shared", spec.clone()).await?;
        scene
            .wait_ready(
                "externalsecret",
                "shared",
                "False",
                "secret below the folder 'shared'",
            )
            .await?;
        limit(&scene, Some("shared/*\n")).await?;
        scene
            .wait_ready("externalsecret", "shared", "True", "SecretSynced")
            .await?;
        limit(&scene, Some("shared/x*\n")).await?;
        scene.force_sync("shared").await?;
        scene
            .wait_ready("externalsecret", "shared", "False", "hides the rest")
            .await?;
        ensure!(scene.get("secret", "shared").await.is_ok(), "the Secret is gone");
        Ok(())
    });
}

#[test]
fn a_change_of_the_annotation_takes_effect_at_once_and_leaves_secrets_as_they_are() {
    play(async {
        let scene = stage("annotated").await?;
        let key = format!("tenants/{}/db", scene.namespace);
        scene
            .external_secret(
                "app",
                json!({"refreshInterval": "1h", "data": [one("value", &key, "value")]}),
            )
            .await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        limit(&scene, Some("shared/**\n")).await?;
        let message = scene
            .wait_ready("externalsecret", "app", "False", ANNOTATION)
            .await?;
        ensure!(
            message.contains(&key) && message.contains(&scene.class),
            "{message}"
        );
        assert_eq!(scene.value("app", "value").await?.as_deref(), Some(key.as_str()));
        limit(&scene, Some("tenants/{{namespace}}/*\n")).await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        limit(&scene, Some("shared/**\ntenants/{{ns}}/*\n")).await?;
        let message = scene.wait_store("False", "InvalidProviderConfig").await?;
        ensure!(
            message
                .contains("allowed-paths, line 2: 'tenants/{{ns}}/*' has something else than {{namespace}}"),
            "{message}"
        );
        limit(&scene, Some("# Nobody for now.\n")).await?;
        scene.wait_store("True", "has no patterns").await?;
        scene
            .wait_ready("externalsecret", "app", "False", ANNOTATION)
            .await?;
        limit(&scene, None).await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        Ok(())
    });
}

#[test]
fn a_change_of_a_namespaces_labels_takes_effect_at_once_both_ways() {
    play(async {
        let scene = Scene::new("labels").await?;
        let mut store = scene.store_manifest(scene.vault.address(), &login());
        store["spec"]["conditions"] = json!([
            {"namespaceSelector": {"matchLabels": {"vault": "yes"}, "matchExpressions": [{"key": "closed", "operator": "DoesNotExist"}]}},
            {"namespaceRegexes": ["^never-"]},
        ]);
        scene.cluster.apply(&store.to_string()).await?;
        scene.many("app", 1, "1h").await?;
        scene
            .wait_ready("externalsecret", "app-0", "False", "denied by spec.condition")
            .await?;
        let label = async |label: &str| {
            let args = ["label", "namespace", &scene.namespace, label, "--overwrite"];
            scene.cluster.kubectl(&args, "").await.map(drop)
        };
        for _ in 0..2 {
            label("vault=yes").await?;
            scene
                .wait_ready("externalsecret", "app-0", "True", "SecretSynced")
                .await?;
            label("closed=").await?;
            scene
                .wait_ready("externalsecret", "app-0", "False", "denied by spec.condition")
                .await?;
            assert_eq!(scene.value("app-0", "value").await?.as_deref(), Some("app-0"));
            label("closed-").await?;
            scene
                .wait_ready("externalsecret", "app-0", "True", "SecretSynced")
                .await?;
            label("vault=no").await?;
            scene
                .wait_ready("externalsecret", "app-0", "False", "denied by spec.condition")
                .await?;
        }
        // The conditions themselves count at once, too.
        store["spec"]["conditions"] = json!([{"namespaceRegexes": [format!("^{}$", scene.namespace)]}]);
        scene.cluster.apply(&store.to_string()).await?;
        scene
            .wait_ready("externalsecret", "app-0", "True", "SecretSynced")
            .await?;
        store["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        scene.cluster.apply(&store.to_string()).await?;
        scene
            .wait_ready("externalsecret", "app-0", "False", "denied by spec.condition")
            .await?;
        for (conditions, why) in [
            (
                json!([{"namespaceRegexes": ["("]}]),
                "failed to compile 0th namespace regex in 0th condition: '('",
            ),
            (
                json!([{"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}]),
                "has the operator 'Is'",
            ),
        ] {
            store["spec"]["conditions"] = conditions;
            scene.cluster.apply(&store.to_string()).await?;
            scene.wait_store("False", why).await?;
        }
        Ok(())
    });
}

#[test]
fn settings_of_a_store_that_are_none_are_named_in_its_condition() {
    play(async {
        let scene = Scene::new("settings").await?;
        for (field, value, why) in [
            (
                "retrySettings",
                json!({"maxRetries": -1}),
                "invalid retrySettings.maxRetries",
            ),
            (
                "retrySettings",
                json!({"retryInterval": "soon"}),
                "invalid retrySettings.retryInterval",
            ),
            ("refreshInterval", json!("soon"), "invalid refreshInterval"),
        ] {
            let mut store = scene.store_manifest(scene.vault.address(), &login());
            store["spec"][field] = value;
            scene.cluster.apply(&store.to_string()).await?;
            scene.wait_store("False", why).await?;
        }
        let mut store = scene.store_manifest(scene.vault.address(), &login());
        store["spec"]["retrySettings"] = json!({"maxRetries": 5, "retryInterval": "10s"});
        store["spec"]["refreshInterval"] = json!(60);
        scene.cluster.apply(&store.to_string()).await?;
        scene.wait_store("True", "Valid").await.map(drop)
    });
}

#[test]
fn stores_of_every_kind_are_limited_and_one_without_a_path_by_paths_that_begin_with_the_mount() {
    play(async {
        let scene = stage("kinds").await?;
        let (own, mark) = (format!("tenants/{}", scene.namespace), scene.vault.audit_mark());
        let v1 = json!({"value": "one"});
        scene.vault.api("POST", &format!("kv1/{own}/db"), &v1).await?;
        scene.vault.api("POST", "kv1/tenants/other/db", &v1).await?;
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": scene.namespace},
        });
        scene.cluster.apply(&account.to_string()).await?;
        scene
            .vault
            .write_role("reader", "reader", &scene.namespace, &json!({}))
            .await?;
        for (name, path, version, patterns, fine, bad) in [
            (
                "below",
                Some("secret"),
                "v2",
                "tenants/{{namespace}}/**",
                format!("{own}/db"),
                ["app", "tenants/other/db"],
            ),
            (
                "whole",
                None,
                "v2",
                "secret/tenants/{{namespace}}/*",
                format!("secret/{own}/db"),
                ["secret/app", "tenants/x"],
            ),
            (
                "raw",
                None,
                "v1",
                "kv1/tenants/{{namespace}}/db",
                format!("kv1/{own}/db"),
                ["kv1/tenants/other/db", "sys/mounts"],
            ),
            (
                "one",
                Some("kv1"),
                "v1",
                "*/{{namespace}}/db",
                format!("kv1/{own}/db"),
                ["tenants/other/db", "x"],
            ),
        ] {
            let store = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
                "metadata": {"name": name, "namespace": scene.namespace, "annotations": {ANNOTATION: patterns}},
                "spec": {"controller": scene.class, "provider": {"vault": {
                    "server": scene.vault.address(), "path": path, "version": version,
                    "auth": {"kubernetes": {"role": "reader", "serviceAccountRef": {"name": "reader"}}},
                }}},
            });
            scene.cluster.apply(&store.to_string()).await?;
            let keys = [fine.as_str(), bad[0], bad[1]];
            for (i, key) in keys.iter().enumerate() {
                let spec = json!({"secretStoreRef": {"name": name}, "data": [one("value", key, "value")]});
                scene.external_secret(&format!("{name}-{i}"), spec).await?;
            }
            scene
                .wait_ready("externalsecret", &format!("{name}-0"), "True", "SecretSynced")
                .await?;
            for (i, key) in keys.iter().enumerate().skip(1) {
                let object = format!("{name}-{i}");
                let message = scene
                    .wait_ready("externalsecret", &object, "False", ANNOTATION)
                    .await?;
                ensure!(
                    message.contains(&format!("SecretStore {}/{name}", scene.namespace)),
                    "{message}"
                );
                ensure!(message.contains(&format!("'{key}'")), "{message}");
            }
        }
        let requests = scene.vault.requests_since(mark)?;
        let mut paths: Vec<&String> = requests
            .keys()
            .filter(|path| !path.starts_with("auth/"))
            .collect();
        paths.sort();
        assert_eq!(
            paths,
            [&format!("kv1/{own}/db"), &format!("secret/data/{own}/db")]
        );
        Ok(())
    });
}
