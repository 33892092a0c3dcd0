//! Every creationPolicy × deletionPolicy × refreshPolicy × state of the target, side by side on a real API
//! server, against the rules in `model`.

mod model;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::model::{Case, Creation, KEY, Owner, State, Target, World};
use crate::scene::{SOON, Scene, one, play};

/// Long enough that what must not change would have changed.
const SETTLE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;
const BYSTANDER: &str = "bystander";

/// The stage: one namespace per creationPolicy.
struct Table {
    scene: Scene,
    namespaces: HashMap<String, String>,
    worlds: Vec<World>,
    /// What did not come out as the model says.
    faults: Vec<String>,
    /// resourceVersion of the targets at an earlier time.
    versions: HashMap<String, Option<String>>,
}

/// What a combination looks like on the API server.
#[derive(Debug)]
struct Seen {
    ready: (String, String, String),
    target: Option<Target>,
    version: Option<String>,
}

fn namespace_key(case: &Case) -> String {
    format!("{:?}", case.creation).to_lowercase()
}

impl Table {
    async fn new() -> Result<Self> {
        let mut scene = Scene::without_operator("table").await?;
        scene.store(scene.vault.address()).await?;
        let cases = Case::all();
        let mut namespaces = HashMap::new();
        let keys: BTreeSet<String> = cases.iter().map(namespace_key).collect();
        for key in keys {
            let namespace = scene.cluster.namespace(&format!("table-{key}")).await?;
            namespaces.insert(key, namespace);
        }
        let all: Vec<&str> = namespaces.values().map(String::as_str).collect();
        let scope = format!("--namespace={}", all.join(","));
        scene.start_operator(&[&scope, "--loglevel=info"]).await?;
        let worlds = cases.into_iter().filter(|case| case.refused().is_none());
        Ok(Self {
            scene,
            namespaces,
            worlds: worlds.map(World::new).collect(),
            faults: Vec::new(),
            versions: HashMap::new(),
        })
    }

    fn namespace(&self, case: &Case) -> &str {
        &self.namespaces[&namespace_key(case)]
    }

    fn externals(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret");
        let resource = ApiResource::from_gvk_with_plural(&kind, "externalsecrets");
        Api::namespaced_with(self.scene.cluster.client(), namespace, &resource)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.scene.cluster.client(), namespace)
    }

    fn manifest(&self, case: &Case) -> Result<DynamicObject> {
        let manifest = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"name": case.name(), "labels": {"table": "policies"}},
            "spec": {
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": self.scene.class},
                "refreshInterval": "1h", "refreshPolicy": format!("{:?}", case.refresh),
                "target": {
                    "creationPolicy": format!("{:?}", case.creation), "deletionPolicy": format!("{:?}", case.deletion),
                },
                "data": [one(KEY, &path(case.state), "value")],
            },
        });
        Ok(serde_json::from_value(manifest)?)
    }

    /// What the API server must refuse, it refuses.
    async fn refusals(&mut self) -> Result<()> {
        for case in Case::all() {
            let Some(word) = case.refused() else { continue };
            let manifest = self.manifest(&case)?;
            let made = self
                .externals(self.namespace(&case))
                .create(&PostParams::default(), &manifest)
                .await;
            match made {
                Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(word) => {}
                other => self
                    .faults
                    .push(format!("{}: not refused with '{word}': {other:?}", case.name())),
            }
        }
        Ok(())
    }

    /// Puts every combination's Secret where it must be before the ExternalSecret comes.
    async fn set_up(&self) -> Result<()> {
        let mut owners = HashMap::new();
        for namespace in self.namespaces.values() {
            // It only has to exist: the garbage collector deletes what has no living owner.
            let bystander = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": BYSTANDER},
                "spec": {"secretStoreRef": {"name": "none"}, "data": [one("x", "x", "x")]},
            });
            let made = self
                .externals(namespace)
                .create(&PostParams::default(), &serde_json::from_value(bystander)?)
                .await?;
            owners.insert(namespace.clone(), made.uid().unwrap_or_default());
        }
        let made = self.worlds.iter().filter_map(|world| {
            let target = world.target.as_ref()?;
            let namespace = self.namespace(&world.case);
            Some((namespace, secret(&world.case.name(), target, &owners[namespace])))
        });
        let made: Vec<_> = made.collect();
        side_by_side(made, async |(namespace, secret)| {
            let secret: Secret = serde_json::from_value(secret)?;
            self.secrets(namespace)
                .create(&PostParams::default(), &secret)
                .await?;
            Ok(())
        })
        .await
    }

    async fn vault(&self, value: Option<&str>) -> Result<()> {
        for state in model::STATES {
            match value {
                Some(value) => {
                    self.scene
                        .vault
                        .put(&path(state), json!({"value": value}))
                        .await?
                }
                None => self.scene.vault.delete(&path(state)).await?,
            }
        }
        Ok(())
    }

    async fn create(&self) -> Result<()> {
        side_by_side(self.cases(|_| true), async |case| {
            let manifest = self.manifest(&case)?;
            self.externals(self.namespace(&case))
                .create(&PostParams::default(), &manifest)
                .await
                .with_context(|| case.name())?;
            Ok(())
        })
        .await
    }

    async fn force_sync(&self, stamp: &str) -> Result<()> {
        self.patch(
            |_| true,
            json!({"metadata": {"annotations": {"force-sync": stamp}}}),
        )
        .await
    }

    /// Has the intact ones synced again by a change that the target has no part in.
    async fn sync_without_news(&self) -> Result<()> {
        self.patch(
            |case| case.state == State::Intact,
            json!({"spec": {"refreshInterval": "2h"}}),
        )
        .await
    }

    async fn patch(&self, which: impl Fn(&Case) -> bool, patch: Value) -> Result<()> {
        side_by_side(self.cases(which), async |case| {
            self.externals(self.namespace(&case))
                .patch(&case.name(), &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
            Ok(())
        })
        .await
    }

    async fn edit(&self) -> Result<()> {
        let patch = json!({"stringData": {KEY: "by hand", "added": "by hand"}});
        side_by_side(self.cases(|case| case.state == State::Edited), async |case| {
            let params = PatchParams {
                field_manager: Some("somebody".into()),
                ..PatchParams::default()
            };
            let edited = self
                .secrets(self.namespace(&case))
                .patch(&case.name(), &params, &Patch::Merge(&patch))
                .await;
            match edited {
                // The comparison tells it.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                edited => Ok(edited.map(drop)?),
            }
        })
        .await
    }

    async fn delete(&self) -> Result<()> {
        for namespace in self.namespaces.values() {
            let all = ListParams::default().labels("table=policies");
            self.externals(namespace)
                .delete_collection(&DeleteParams::default(), &all)
                .await?;
        }
        Ok(())
    }

    fn cases(&self, which: impl Fn(&Case) -> bool) -> Vec<Case> {
        self.worlds.iter().map(|world| world.case).filter(which).collect()
    }

    /// Every combination, as it is now.
    async fn look(&self) -> Result<HashMap<String, Seen>> {
        let (mut secrets, mut externals) = (HashMap::new(), HashMap::new());
        for namespace in self.namespaces.values() {
            for secret in self.secrets(namespace).list(&ListParams::default()).await? {
                secrets.insert(secret.name_any(), secret);
            }
            for external in self.externals(namespace).list(&ListParams::default()).await? {
                externals.insert(external.name_any(), external);
            }
        }
        let seen = self.worlds.iter().map(|world| {
            let name = world.case.name();
            let target = secrets.get(&name);
            let seen = Seen {
                ready: ready(externals.get(&name)),
                target: target.map(|target| shape(&name, target)),
                version: target.and_then(ResourceExt::resource_version),
            };
            (name, seen)
        });
        Ok(seen.collect())
    }

    /// Waits until all is as the model says and stays so; notes what is not.
    async fn compare(&mut self, phase: &str, conditions: bool) -> Result<()> {
        let end = Instant::now() + SOON;
        let mut settled = false;
        let faults = loop {
            let seen = self.look().await?;
            let faults: Vec<String> = self
                .worlds
                .iter()
                .filter_map(|world| fault(world, &seen[&world.case.name()], conditions))
                .collect();
            if Instant::now() > end || (settled && faults.is_empty()) {
                break faults;
            }
            settled = faults.is_empty();
            sleep(if settled {
                SETTLE
            } else {
                Duration::from_millis(250)
            })
            .await;
        };
        self.faults
            .extend(faults.iter().map(|fault| format!("{phase}: {fault}")));
        Ok(())
    }

    fn imagine(&mut self, change: impl Fn(&mut World)) {
        self.worlds.iter_mut().for_each(change);
    }

    async fn remember_versions(&mut self) -> Result<()> {
        let seen = self.look().await?;
        self.versions = seen
            .into_iter()
            .map(|(name, seen)| (name, seen.version))
            .collect();
        Ok(())
    }

    /// A sync that finds nothing new writes nothing.
    async fn unchanged(&mut self) -> Result<()> {
        let seen = self.look().await?;
        for case in self.cases(|case| case.state == State::Intact) {
            let name = case.name();
            if seen[&name].version != self.versions[&name] {
                self.faults
                    .push(format!("{name}: a sync without news wrote the target"));
            }
        }
        Ok(())
    }
}

fn path(state: State) -> String {
    format!("table/{state:?}").to_lowercase()
}

async fn side_by_side<T, F>(items: Vec<T>, act: impl Fn(T) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(items.into_iter().map(anyhow::Ok))
        .try_for_each_concurrent(AT_ONCE, act)
        .await
}

/// A Secret that somebody else made.
fn secret(name: &str, target: &Target, another: &str) -> Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": target.data,
        "immutable": target.immutable,
    });
    if target.owner == Owner::Another {
        secret["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": BYSTANDER, "uid": another,
            "controller": true, "blockOwnerDeletion": true,
        }]);
    }
    if target.managed {
        secret["metadata"]["labels"] = json!({"reconcile.external-secrets.io/managed": "true"});
    }
    secret
}

fn shape(name: &str, secret: &Secret) -> Target {
    let data: BTreeMap<String, String> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect();
    let controller = secret
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    Target {
        data,
        owner: match controller {
            None => Owner::Nobody,
            Some(owner) if owner.name == name => Owner::Us,
            Some(_) => Owner::Another,
        },
        managed: secret
            .labels()
            .get("reconcile.external-secrets.io/managed")
            .is_some_and(|value| value == "true"),
        immutable: secret.immutable.unwrap_or_default(),
    }
}

fn ready(object: Option<&DynamicObject>) -> (String, String, String) {
    let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
    let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
    let text = |key: &str| {
        ready
            .and_then(|ready| ready[key].as_str())
            .unwrap_or_default()
            .to_string()
    };
    (text("status"), text("reason"), text("message"))
}

fn fault(world: &World, seen: &Seen, conditions: bool) -> Option<String> {
    let name = world.case.name();
    let (status, reason, message) = &seen.ready;
    let wanted = world.ready;
    if conditions && (status != wanted.0 || reason != wanted.1 || !message.contains(wanted.2)) {
        return Some(format!("{name}: wanted {wanted:?}, found {:?}", seen.ready));
    }
    (seen.target != world.target)
        .then(|| format!("{name}: wanted {:?}, found {:?}", world.target, seen.target))
}

#[test]
fn every_combination_of_policies_does_what_esos_rules_say() {
    play(async {
        let mut table = Table::new().await?;
        table.refusals().await?;
        table.set_up().await?;
        table.vault(Some("one")).await?;
        table.create().await?;
        table.imagine(|world| world.reconcile(Some("one"), true));
        table.compare("first sync", true).await?;

        table.remember_versions().await?;
        table.edit().await?;
        table.sync_without_news().await?;
        table.imagine(|world| match world.case.state {
            State::Edited => {
                world.edit();
                world.reconcile(Some("one"), false);
            }
            State::Intact => world.reconcile(Some("one"), true),
            _ => {}
        });
        table.compare("edited by hand", true).await?;
        table.unchanged().await?;

        table.vault(Some("two")).await?;
        table.force_sync("two").await?;
        table.imagine(|world| world.reconcile(Some("two"), true));
        table.compare("changed in Vault", true).await?;

        table.vault(None).await?;
        table.force_sync("gone").await?;
        table.imagine(|world| world.reconcile(None, true));
        table.compare("deleted in Vault", true).await?;

        table.delete().await?;
        table.imagine(World::delete);
        table.compare("ExternalSecret deleted", false).await?;
        ensure!(
            table.worlds.len() > 200 && table.cases(|case| case.creation == Creation::None).len() == 21,
            "the table lost rows"
        );
        if !table.faults.is_empty() {
            bail!(
                "{} disagreements:\n{}\n{}",
                table.faults.len(),
                table.faults.join("\n"),
                table.scene.story()
            );
        }
        Ok(())
    });
}

#[test]
fn a_target_of_merge_that_comes_later_is_merged_under_every_refresh_policy() {
    play(async {
        let scene = Scene::new("later").await?;
        scene.vault.put("app", json!({"value": "one"})).await?;
        for policy in ["Periodic", "OnChange", "CreatedOnce"] {
            let name = policy.to_lowercase();
            let spec = json!({
                "refreshInterval": "1s", "refreshPolicy": policy, "target": {"creationPolicy": "Merge"},
                "data": [one(KEY, "app", "value")],
            });
            scene.external_secret(&name, spec).await?;
            scene
                .wait_ready("externalsecret", &name, "True", "SecretMissing")
                .await?;
            let args = [
                "create",
                "secret",
                "generic",
                &name,
                "-n",
                &scene.namespace,
                "--from-literal=theirs=kept",
            ];
            scene.cluster.kubectl(&args, "").await?;
            scene.wait_value(&name, KEY, "one").await?;
            scene.wait_value(&name, "theirs", "kept").await?;
        }
        Ok(())
    });
}

#[test]
fn a_secret_that_was_there_before_is_not_deleted_when_nothing_was_ever_read() {
    play(async {
        let scene = Scene::new("before").await?;
        let args = [
            "create",
            "secret",
            "generic",
            "app",
            "-n",
            &scene.namespace,
            "--from-literal=theirs=kept",
        ];
        scene.cluster.kubectl(&args, "").await?;
        let spec =
            json!({"target": {"deletionPolicy": "Delete"}, "data": [one(KEY, "no/such/path", "value")]});
        scene.external_secret("app", spec).await?;
        scene
            .wait_ready("externalsecret", "app", "False", "could not delete secret")
            .await?;
        scene.wait_value("app", "theirs", "kept").await
    });
}
