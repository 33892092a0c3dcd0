//! The README's table of rights is what the chart gives, and what the operator uses.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use keyferry_testbed::{Cluster, repository, wait_for};
use serde_json::{Value, json};

use crate::chart::render;
use crate::least_rights::Own;
use crate::scene::{SOON, login, one, play};

const FINALIZER: &str = "externalsecrets.external-secrets.io/externalsecret-cleanup";
/// Rights that no request shows, with the reason.
const UNSEEN: &[(&str, &str, &str)] = &[(
    "externalsecrets/finalizers",
    "update",
    "an admission plugin asks for it when an owner reference blocks the owner's deletion",
)];

/// One row of the table.
struct Row {
    resource: String,
    named: bool,
    verbs: Vec<String>,
    when: String,
}

fn table() -> Result<Vec<Row>> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let lines = readme
        .lines()
        .skip_while(|line| *line != "| resource | verbs | why | when |")
        .skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [resource, verbs, why, when] = cells[..] else {
            anyhow::bail!("{line} has not four cells");
        };
        ensure!(!why.is_empty(), "{line} gives no reason");
        Ok(Row {
            resource: resource.trim_end_matches(", by name").trim_matches('`').into(),
            named: resource.ends_with(", by name"),
            verbs: verbs
                .split(", ")
                .map(|verb| verb.trim_matches('`').into())
                .collect(),
            when: when.trim_matches('`').into(),
        })
    });
    let rows: Vec<Row> = rows.collect::<Result<_>>()?;
    ensure!(rows.len() > 10, "the README has no table of rights");
    Ok(rows)
}

/// Resource with group, whether limited by name, verb.
type Right = (String, bool, String);

/// What the table says with these options on.
fn said(rows: &[Row], on: &[&str]) -> BTreeSet<Right> {
    let served = rows
        .iter()
        .filter(|row| row.when == "always" || on.contains(&&*row.when));
    served
        .flat_map(|row| {
            row.verbs
                .iter()
                .map(move |verb| (row.resource.clone(), row.named, verb.clone()))
        })
        .collect()
}

/// What the chart gives to the operator.
async fn given(cluster: &Cluster, further: &[&str]) -> Result<BTreeSet<Right>> {
    let mut objects = render(cluster, "rbac.yaml", further).await?;
    // Renders nothing without an election.
    objects.extend(
        render(cluster, "rbac-own-namespace.yaml", further)
            .await
            .unwrap_or_default(),
    );
    let mut rights = BTreeSet::new();
    for rule in objects
        .iter()
        .flat_map(|object| object["rules"].as_array().into_iter().flatten())
    {
        let texts = |what: &str| -> Vec<&str> {
            let all = rule[what].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).collect()
        };
        let named = !texts("resourceNames").is_empty();
        for (group, resource) in texts("apiGroups").iter().flat_map(|group| {
            texts("resources")
                .into_iter()
                .map(move |resource| (*group, resource))
        }) {
            let full = if group.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}.{group}")
            };
            rights.extend(
                texts("verbs")
                    .iter()
                    .map(|verb| (full.clone(), named, (*verb).to_owned())),
            );
        }
    }
    Ok(rights)
}

#[test]
fn the_readmes_table_of_rights_is_what_the_chart_gives() {
    play(async {
        let cluster = crate::scene::cluster().await?;
        let rows = table()?;
        let always = [
            "openshiftFinalizers",
            "processSecretStore",
            "processClusterStore",
            "rbac.serviceAccountTokenCreate",
            "leaderElect",
        ];
        let generic = "genericTargets.enabled";
        assert_eq!(given(cluster, &[]).await?, said(&rows, &always), "default");
        let all = [&always[..], &[generic]].concat();
        let set = format!("{generic}=true");
        assert_eq!(
            given(cluster, &["--set", &set]).await?,
            said(&rows, &all),
            "{set}"
        );
        for off in always {
            let on: Vec<&str> = always.into_iter().filter(|option| *option != off).collect();
            let set = format!("{off}=false");
            assert_eq!(given(cluster, &["--set", &set]).await?, said(&rows, &on), "{set}");
        }
        Ok(())
    });
}

/// What the operator asked for since it was started; a request that was refused is a fault.
fn used(cluster: &Cluster) -> Result<BTreeSet<(String, String)>> {
    let mut used = BTreeSet::new();
    for event in cluster.audit_since(0)? {
        // What is not about an object: the version and the list of APIs.
        if !event.is_operators() || event.resource().is_empty() {
            continue;
        }
        ensure!(event.code() != 403, "refused: {} {}", event.verb, event.uri);
        used.insert((event.resource(), event.verb));
    }
    Ok(used)
}

/// Three stores, two templates, and two ExternalSecrets that ESO left its finalizer on.
fn manifests(own: &Own) -> Vec<Value> {
    let vault = |auth: Value| json!({"provider": {"vault": {"server": own.vault.address(), "path": "secret", "auth": auth}}});
    let token = json!({"tokenSecretRef": {"name": "token", "key": "token"}});
    let items = json!([{"key": "text"}]);
    let templates = json!([{"configMap": {"name": "texts", "items": items}}, {"secret": {"name": "texts", "items": items}}]);
    let object = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "external-secrets.io/v1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": "default"}})
    };
    let external_secret = |name: &str, store: Value, target: Value| {
        let data = json!([one("value", "app", "value")]);
        let spec = json!({"refreshInterval": "1h", "secretStoreRef": store, "data": data, "target": target});
        let mut made = object("ExternalSecret", name, spec);
        made["metadata"]["finalizers"] = json!([FINALIZER]);
        made
    };
    // One that cannot log in: a ServiceAccount is read, and watched until it can.
    let aws = json!({"iam": {"region": "us-east-1", "vaultRole": "reader",
        "jwt": {"serviceAccountRef": {"name": "default", "namespace": "default"}}}});
    let cluster_store = |name: &str, auth: Value| {
        let mut store = object("ClusterSecretStore", name, vault(auth));
        store["metadata"] = json!({"name": name});
        store
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": "default"},
            "stringData": {"token": own.vault.root_token()}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "texts", "namespace": "default"},
            "stringData": {"text": "{{ .value }}"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts", "namespace": "default"},
            "data": {"text": "{{ .value }}"}}),
        cluster_store("shared", login()),
        cluster_store("aws", aws),
        object("SecretStore", "own", vault(token)),
        external_secret(
            "secret",
            json!({"name": "own"}),
            json!({"deletionPolicy": "Delete", "template": {"templateFrom": templates}}),
        ),
        external_secret(
            "map",
            json!({"kind": "ClusterSecretStore", "name": "shared"}),
            json!({"deletionPolicy": "Delete", "manifest": {"apiVersion": "v1", "kind": "ConfigMap"}}),
        ),
    ]
}

/// A Secret and a ConfigMap that come, change and go, by both kinds of store.
async fn broad_scenario(own: &Own) -> Result<()> {
    const TARGETS: [(&str, &str); 2] = [("secret", "secret"), ("configmap", "map")];
    let (cluster, vault) = (&own.cluster, &own.vault);
    vault.put("app", json!({"value": "one"})).await?;
    for manifest in manifests(own) {
        cluster.apply(&manifest.to_string()).await?;
    }
    let force = async |mark: &str| {
        let args = ["annotate", "externalsecret", "--all", "-n", "default", mark];
        cluster.kubectl(&args, "").await
    };
    for (_, name) in TARGETS {
        own.wait_ready("externalsecret", "default", name, "True", "synced")
            .await?;
    }
    vault.put("app", json!({"value": "two"})).await?;
    force("force-sync=1").await?;
    for (kind, name) in TARGETS {
        wait_for("the new value", SOON, || async {
            let data = own.get(kind, "default", name).await?["data"].to_string();
            // A Secret shows it in base64.
            ensure!(
                data.contains("two") || data.contains("dHdv"),
                "{kind} {name} has {data}"
            );
            Ok(Some(()))
        })
        .await?;
    }
    vault.delete("app").await?;
    force("force-sync-again=2").await?;
    for (kind, name) in TARGETS {
        wait_for("the target's end", SOON, || async {
            Ok(own.get(kind, "default", name).await.is_err().then_some(()))
        })
        .await?;
    }
    let args = [
        "delete",
        "externalsecret",
        "--all",
        "-n",
        "default",
        "--timeout=45s",
    ];
    cluster.kubectl(&args, "").await.map(drop)
}

#[test]
fn every_right_of_the_table_is_used_and_no_other_is_asked_for() {
    play(async {
        let own = Own::start().await?;
        own.cluster
            .install_chart(&["--set", "genericTargets.enabled=true"])
            .await?;
        let operator = own.operator().await?;
        broad_scenario(&own).await?;
        let rows = table()?;
        let named: BTreeSet<(String, String)> = rows
            .iter()
            .flat_map(|row| {
                let resource = row
                    .resource
                    .split_once('.')
                    .map_or(&*row.resource, |(short, _)| short);
                row.verbs
                    .iter()
                    .map(move |verb| (resource.to_owned(), verb.clone()))
            })
            .collect();
        let unseen: BTreeSet<(String, String)> = UNSEEN
            .iter()
            .map(|(resource, verb, _)| ((*resource).to_owned(), (*verb).to_owned()))
            .collect();
        // The election's record is renewed only now and then, and watches of what is missing come last.
        wait_for("the use of every right of the table", SOON, || async {
            let used = used(&own.cluster)?;
            let unused: BTreeSet<_> = named.difference(&used).cloned().collect();
            ensure!(
                unused == unseen,
                "never used: {unused:?}, where {unseen:?} are known"
            );
            Ok(Some(()))
        })
        .await?;
        operator.terminate()?;
        let used = used(&own.cluster)?;
        let more: Vec<_> = used.difference(&named).collect();
        ensure!(more.is_empty(), "asked for, and not in the table: {more:?}");
        Ok(())
    });
}
