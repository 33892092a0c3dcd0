//! Tenants: which namespaces may use a store, which paths each may read by it, and the least rights to serve them.

use anyhow::{Context as _, Result, bail, ensure};
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, homelab, repository, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

const ANNOTATION: &str = "keyferry.dev/allowed-paths";

fn login() -> Value {
    json!({"kubernetes": {"role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"}}})
}

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
        assert!(
            rest.is_some() || path.starts_with("auth/"),
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

/// A cluster of its own, for what concerns all of it.
struct Own {
    cluster: Cluster,
    vault: Vault,
}

impl Own {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let vault = Vault::start(&cluster).await?;
        Ok(Self { cluster, vault })
    }

    async fn operator(&self) -> Result<Operator> {
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            ..OperatorOptions::default()
        };
        let operator = Operator::start(&self.cluster, options).await?;
        operator.wait_ready().await?;
        Ok(operator)
    }

    /// One of the manifests for tenants, with this Vault's address.
    async fn apply(&self, file: &str) -> Result<String> {
        let text = std::fs::read_to_string(repository().join("deploy/examples/tenants").join(file))?;
        let text = text.replace(homelab::SERVER, self.vault.address());
        self.cluster.apply(&text).await?;
        Ok(text)
    }

    async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let args = ["get", kind, name, "-n", namespace, "-o", "json"];
        Ok(serde_json::from_str(&self.cluster.kubectl(&args, "").await?)?)
    }

    async fn wait_ready(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        status: &str,
        word: &str,
    ) -> Result<String> {
        wait_for(
            &format!("{kind} {name} Ready={status} with '{word}'"),
            SOON,
            || async {
                let object = self.get(kind, namespace, name).await?;
                let ready = &object["status"]["conditions"][0];
                let message = ready["message"].as_str().unwrap_or_default();
                if ready["status"] == status && message.contains(word) {
                    return Ok(Some(message.to_string()));
                }
                bail!("{ready}")
            },
        )
        .await
    }
}

fn external_secret(namespace: &str, name: &str, key: &str) -> Value {
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"namespace": namespace, "name": name},
        "spec": {"secretStoreRef": {"kind": "ClusterSecretStore", "name": "teams"}, "data": [one("value", key, "value")]},
    })
}

#[test]
fn two_tenants_are_served_with_roles_only_and_what_is_missing_is_named() {
    play(async {
        let own = Own::start().await?;
        let (cluster, vault) = (&own.cluster, &own.vault);
        vault
            .put("teams/team-a/database", json!({"password": "a"}))
            .await?;
        vault.put("teams/team-b/queue", json!({"value": "b"})).await?;
        vault.put("shared/ca", json!({"certificate": "PEM"})).await?;
        vault.put("app", json!({"value": "nobody's"})).await?;
        own.apply("namespaces.yaml").await?;
        let values = repository()
            .join("deploy/examples/tenants/values.yaml")
            .display()
            .to_string();
        cluster.install_chart(&["-f", &values]).await?;
        let text = own.apply("store.yaml").await?;
        let _operator = own.operator().await?;
        own.apply("team-a.yaml").await?;
        own.apply("team-b.yaml").await?;
        let wait = async |namespace: &str, name: &str, status: &str, word: &str| {
            own.wait_ready("externalsecret", namespace, name, status, word)
                .await
        };
        wait("team-a", "database", "True", "secret synced").await?;
        wait("team-b", "everything", "True", "secret synced").await?;
        let keys = async |namespace: &str, name: &str| -> Result<Vec<String>> {
            let secret = own.get("secret", namespace, name).await?;
            let mut keys: Vec<String> = secret["data"]
                .as_object()
                .context("no data")?
                .keys()
                .cloned()
                .collect();
            keys.sort();
            Ok(keys)
        };
        assert_eq!(keys("team-a", "database").await?, ["ca.crt", "password"]);
        assert_eq!(keys("team-b", "everything").await?, ["ca", "queue"]);
        for (namespace, key) in [
            ("team-a", "teams/team-b/queue"),
            ("team-b", "teams/team-a/database"),
            ("team-a", "app"),
        ] {
            cluster
                .apply(&external_secret(namespace, "other", key).to_string())
                .await?;
            wait(namespace, "other", "False", &format!("'{key}'")).await?;
        }
        // Labels of the namespaces in scope are seen with the right to these alone.
        cluster
            .kubectl(&["label", "namespace", "team-b", "vault-"], "")
            .await?;
        wait("team-b", "everything", "False", "denied by spec.condition").await?;
        cluster
            .kubectl(&["label", "namespace", "team-b", "vault=teams"], "")
            .await?;
        wait("team-b", "everything", "True", "secret synced").await?;
        rights_are_the_least(cluster).await?;
        // Nothing happens elsewhere.
        let elsewhere = external_secret("default", "elsewhere", "shared/ca");
        cluster.apply(&elsewhere.to_string()).await?;
        // A token of another ServiceAccount may not be had, and the condition says what would allow it.
        let store = text.replace("name: eso-vault-auth", "name: vault-reviewer");
        cluster.apply(&store).await?;
        let message = own
            .wait_ready("clustersecretstore", "", "teams", "False", "the operator may not")
            .await?;
        for part in [
            "cannot create a token for ServiceAccount security/vault-reviewer",
            "add {namespace: security, name: vault-reviewer} to the chart's rbac.serviceAccountTokenNames",
            "a Role in namespace security",
            "resources: [\"serviceaccounts/token\"], resourceNames: [\"vault-reviewer\"], verbs: [\"create\"]",
        ] {
            ensure!(message.contains(part), "{message}");
        }
        let more = "rbac.serviceAccountTokenNames[1].namespace=security,rbac.serviceAccountTokenNames[1].name=vault-reviewer,\
                    rbac.serviceAccountTokenNames[0].namespace=security,rbac.serviceAccountTokenNames[0].name=eso-vault-auth";
        cluster.install_chart(&["-f", &values, "--set", more]).await?;
        // The right is there; that Vault's role does not know the account is another matter.
        own.wait_ready("clustersecretstore", "", "teams", "False", "Vault")
            .await?;
        cluster.apply(&text).await?;
        own.wait_ready("clustersecretstore", "", "teams", "True", "store validated")
            .await?;
        let elsewhere = own.get("externalsecret", "default", "elsewhere").await?;
        ensure!(elsewhere["status"].is_null(), "{elsewhere}");
        Ok(())
    });
}

/// Asks the API server what the operator may do.
async fn rights_are_the_least(cluster: &Cluster) -> Result<()> {
    let account = "--as=system:serviceaccount:security:keyferry";
    let can = async |verb: &str, what: &str, namespace: &str| {
        let (what, subresource) = what.split_once('+').unwrap_or((what, ""));
        let subresource = format!("--subresource={subresource}");
        let args = [
            "auth",
            "can-i",
            verb,
            what,
            &subresource,
            "-n",
            namespace,
            account,
        ];
        cluster
            .kubectl(&args, "")
            .await
            .is_ok_and(|answer| answer.trim() == "yes")
    };
    for (verb, what, namespace) in [
        ("create", "secrets", "team-a"),
        ("create", "serviceaccounts/eso-vault-auth+token", "security"),
        ("get", "secrets/keyferry-installation-key", "security"),
        ("watch", "namespaces/team-b", ""),
    ] {
        ensure!(
            can(verb, what, namespace).await,
            "may not {verb} {what} in {namespace}"
        );
    }
    for (verb, what, namespace) in [
        ("get", "secrets", "default"),
        ("list", "secrets", "security"),
        ("get", "secrets", "kube-system"),
        ("list", "externalsecrets", "default"),
        ("create", "serviceaccounts/vault-reviewer+token", "security"),
        ("create", "serviceaccounts/default+token", "team-a"),
        ("get", "namespaces/default", ""),
        ("list", "namespaces", ""),
    ] {
        ensure!(
            !can(verb, what, namespace).await,
            "may {verb} {what} in {namespace}"
        );
    }
    // No ClusterRole that the chart binds speaks of Secrets.
    let args = [
        "get",
        "clusterroles",
        "-l",
        "app.kubernetes.io/name=keyferry",
        "-o",
        "json",
    ];
    let roles: Value = serde_json::from_str(&cluster.kubectl(&args, "").await?)?;
    let items = roles["items"].as_array().context("no list")?;
    ensure!(
        !items.is_empty() && !roles.to_string().contains("\"secrets\""),
        "{roles}"
    );
    Ok(())
}

#[test]
fn a_store_that_nobody_may_use_says_so_and_is_ready_all_the_same() {
    play(async {
        let own = Own::start().await?;
        own.cluster.install_chart(&[]).await?;
        own.vault.put("app", json!({"value": "one"})).await?;
        let _operator = own.operator().await?;
        let store = |conditions: Value| {
            json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "teams"},
                "spec": {"conditions": conditions, "provider": {"vault": {
                    "server": own.vault.address(), "path": "secret", "auth": login(),
                }}},
            })
        };
        let selector = json!([{"namespaceSelector": {"matchLabels": {"vault": "teams"}}}]);
        own.cluster.apply(&store(selector).to_string()).await?;
        let wait = async |word: &str| {
            own.wait_ready("clustersecretstore", "", "teams", "True", word)
                .await
        };
        let message = wait("nobody may use it").await?;
        ensure!(
            message.starts_with("store validated, but nobody may use it: spec.conditions match none of the "),
            "{message}"
        );
        // A namespace that comes, and one that goes.
        own.apply("namespaces.yaml").await?;
        wait_for("the store's message", SOON, || async {
            Ok((wait("store validated").await? == "store validated").then_some(()))
        })
        .await?;
        own.cluster
            .kubectl(&["label", "namespace", "team-a", "vault-"], "")
            .await?;
        own.cluster
            .kubectl(&["delete", "namespace", "team-b", "--wait=false"], "")
            .await?;
        wait("nobody may use it").await?;
        // Whoever uses it is left out, though others are not.
        own.cluster
            .apply(&external_secret("default", "app", "app").to_string())
            .await?;
        own.wait_ready(
            "externalsecret",
            "default",
            "app",
            "False",
            "denied by spec.condition",
        )
        .await?;
        own.cluster
            .apply(&store(json!([{"namespaces": ["team-a"]}])).to_string())
            .await?;
        wait("match none of the namespaces of its ExternalSecrets (default)").await?;
        own.cluster
            .apply(&store(json!([{"namespaces": ["default"]}])).to_string())
            .await?;
        own.wait_ready("externalsecret", "default", "app", "True", "secret synced")
            .await?;
        Ok(())
    });
}
