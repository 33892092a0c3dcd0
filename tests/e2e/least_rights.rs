//! Two tenants on one store with the least rights, and stores that nobody may use: on clusters of their own.

use anyhow::{Context as _, Result, bail, ensure};
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, homelab, repository, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, login, one, play};
use crate::tenants::ANNOTATION;

/// A cluster of its own, for what concerns all of it.
pub struct Own {
    pub cluster: Cluster,
    pub vault: Vault,
}

impl Own {
    pub async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let vault = Vault::start(&cluster).await?;
        Ok(Self { cluster, vault })
    }

    pub async fn operator(&self) -> Result<Operator> {
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

    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let args = ["get", kind, name, "-n", namespace, "-o", "json"];
        Ok(serde_json::from_str(&self.cluster.kubectl(&args, "").await?)?)
    }

    pub async fn wait_ready(
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
        let operator = own.operator().await?;
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
            "add security/vault-reviewer to the chart's rbac.serviceAccountTokens, or bind a Role in namespace security to \
             ServiceAccount security/keyferry, with the rule {apiGroups: [\"\"], ",
            "resources: [\"serviceaccounts/token\"], resourceNames: [\"vault-reviewer\"], verbs: [\"create\"]",
        ] {
            ensure!(message.contains(part), "{message}");
        }
        let mut given: Value = serde_saphyr::from_str(&text)?;
        let token = json!({"name": "token", "key": "token", "namespace": "default"});
        given["spec"]["provider"]["vault"]["auth"] = json!({ "tokenSecretRef": token });
        cluster.apply(&given.to_string()).await?;
        let rule = "a Role in namespace default to ServiceAccount security/keyferry, with the rule {apiGroups: [\"\"], resources: [\"secrets\"], \
                    resourceNames: [\"token\"], verbs: [\"get\", \"list\", \"watch\"]}";
        own.wait_ready("clustersecretstore", "", "teams", "False", rule)
            .await?;
        let more = "rbac.serviceAccountTokens={security/eso-vault-auth,security/vault-reviewer}";
        cluster.install_chart(&["-f", &values, "--set", more]).await?;
        cluster.apply(&store).await?;
        // The right is there; that Vault's role does not know the account is another matter.
        own.wait_ready(
            "clustersecretstore",
            "",
            "teams",
            "False",
            "does not allow ServiceAccount",
        )
        .await?;
        cluster.apply(&text).await?;
        own.wait_ready("clustersecretstore", "", "teams", "True", "store validated")
            .await?;
        let elsewhere = own.get("externalsecret", "default", "elsewhere").await?;
        ensure!(elsewhere["status"].is_null(), "{elsewhere}");
        // Rights that somebody else wrote, without the namespaces: labels are unknown, and that is said.
        operator.terminate()?;
        let rule = r#"[{"op": "remove", "path": "/rules/0"}]"#;
        let role = [
            "patch",
            "clusterrole",
            "keyferry-controller-stores",
            "--type=json",
            "-p",
            rule,
        ];
        cluster.kubectl(&role, "").await?;
        let _operator = own.operator().await?;
        wait(
            "team-a",
            "database",
            "False",
            "its labels are unknown: allow the operator to get, list and watch",
        )
        .await?;
        ensure!(keys("team-a", "database").await?.len() == 2);
        Ok(())
    });
}

#[test]
fn the_readme_shows_the_values_and_the_annotation_that_are_tested() {
    play(async {
        let readme = std::fs::read_to_string(repository().join("README.md"))?;
        let example =
            |file: &str| std::fs::read_to_string(repository().join("deploy/examples/tenants").join(file));
        let block = readme
            .split("```yaml\n")
            .find(|block| block.starts_with("scopedRBAC"))
            .and_then(|block| block.split("```").next());
        let shown: Value = serde_saphyr::from_str(block.context("the README has no such values")?)?;
        assert_eq!(shown, serde_saphyr::from_str::<Value>(&example("values.yaml")?)?);
        let annotation = |text: &str| {
            let lines = text
                .lines()
                .skip_while(|line| !line.trim_start().starts_with(ANNOTATION));
            lines
                .take_while(|line| *line != "spec:")
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert!(annotation(&readme).len() > 3);
        assert_eq!(annotation(&example("store.yaml")?), annotation(&readme));
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

#[test]
fn tokens_beyond_the_narrow_form_name_the_entry_that_is_missing_and_one_entry_cures_it() {
    play(async {
        let own = Own::start().await?;
        let narrow = async |list: &str| {
            let set = format!("rbac.serviceAccountTokens={{{list}}}");
            own.cluster.install_chart(&["--set", &set]).await
        };
        let notes = own.cluster.install_chart(&[]).await?;
        ensure!(
            notes.contains("Tokens may be requested for every ServiceAccount of the cluster")
                && notes.contains("--set 'rbac.serviceAccountTokens={security/"),
            "{notes}"
        );
        let notes = narrow("default/app").await?;
        ensure!(
            notes.contains("ServiceAccounts (namespace/name) and all of these namespaces: default/app"),
            "{notes}"
        );
        let _operator = own.operator().await?;
        let store = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "teams"},
            "spec": {"provider": {"vault": {"server": own.vault.address(), "path": "secret", "auth": login()}}},
        });
        own.cluster.apply(&store.to_string()).await?;
        let wait = async |status: &str, word: &str| {
            own.wait_ready("clustersecretstore", "", "teams", status, word)
                .await
        };
        let message = wait("False", "the operator may not").await?;
        for part in [
            "cannot create a token for ServiceAccount security/eso-vault-auth",
            "add security/eso-vault-auth to the chart's rbac.serviceAccountTokens, or bind a Role in namespace security to \
             ServiceAccount security/keyferry, with the rule",
            "{apiGroups: [\"\"], resources: [\"serviceaccounts/token\"], resourceNames: [\"eso-vault-auth\"], verbs: \
             [\"create\"]}",
        ] {
            ensure!(message.contains(part), "{message}");
        }
        narrow("default/app,security/eso-vault-auth").await?;
        wait("True", "store validated").await?;
        // A whole namespace, and not the ones beside it.
        narrow("default").await?;
        let may = async |namespace: &str| {
            let args = [
                "auth",
                "can-i",
                "create",
                "serviceaccounts/anybody",
                "--subresource=token",
                "-n",
                namespace,
                "--as=system:serviceaccount:security:keyferry",
            ];
            let answer = own.cluster.kubectl(&args, "").await;
            answer.is_ok_and(|answer| answer.trim() == "yes")
        };
        ensure!(may("default").await && !may("security").await);
        Ok(())
    });
}
