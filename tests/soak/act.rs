//! Does in Vault and Kubernetes what was planned, and tells the model. Whatever fails by a fault is tried again:
//! every act may be done twice.

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::model::{JOINED, PROPERTIES, Refresh, Source, Spec, Values};
use crate::plan::{Harm, KubeAct, Timed, VaultAct, Write};
use crate::stage::{MANAGER, Set, gone, patiently};
use crate::world::{Before, Id, target_of};

/// Changes Vault, one act after the other.
pub async fn change_vault(set: &Set<'_>, acts: &[Timed<VaultAct>]) -> Result<()> {
    for Timed { pause, act } in acts {
        sleep(*pause).await;
        set.note(format!("vault {:?} {} -> {:?}", act.write, act.path, act.values));
        let now = set.now();
        set.world().write_begins(&act.path, act.values.clone(), now);
        patiently(&act.path, || write(set, act)).await?;
        let now = set.now();
        set.world().write_done(&act.path, now);
        set.note(format!("vault {} is done", act.path));
    }
    Ok(())
}

async fn write(set: &Set<'_>, act: &VaultAct) -> Result<()> {
    let (vault, path) = (&set.stage.vault, act.path.as_str());
    let metadata = format!("secret/metadata/{path}");
    match &act.write {
        Write::Put => vault.put(path, json!(act.values)).await,
        Write::Patch(property) => {
            let value = act.values.as_ref().and_then(|values| values.get(property));
            vault.patch(path, json!({property: value})).await
        }
        Write::Delete => vault.delete(path).await,
        Write::Destroy => {
            let known = vault.api("GET", &metadata, &Value::Null).await?;
            let latest = known["data"]["current_version"].as_u64().context("no version")?;
            let body = json!({"versions": [latest]});
            vault
                .api("PUT", &format!("secret/destroy/{path}"), &body)
                .await
                .map(drop)
        }
        Write::Wipe => vault.api("DELETE", &metadata, &Value::Null).await.map(drop),
    }
}

/// Changes Kubernetes, one act after the other.
pub async fn change_kubernetes(set: &Set<'_>, acts: &[Timed<KubeAct>]) -> Result<()> {
    for Timed { pause, act } in acts {
        sleep(*pause).await;
        set.note(format!("kube {act:?}"));
        perform(set, act).await.with_context(|| format!("{act:?}"))?;
    }
    Ok(())
}

async fn perform(set: &Set<'_>, act: &KubeAct) -> Result<()> {
    let now = set.now();
    match act {
        KubeAct::Create(id, spec, before) => {
            prepare(set, id, before).await?;
            let now = set.now();
            set.world().create(id, spec.clone(), before.clone(), now);
            apply(set, id, spec).await
        }
        KubeAct::Change(id, spec) => {
            set.world().change(id, spec.clone(), now);
            apply(set, id, spec).await
        }
        KubeAct::Force(id) => force(set, id).await,
        KubeAct::Remove(id) => {
            set.world().remove(id, now);
            remove(set, id).await
        }
        KubeAct::Remake(id) => {
            set.world().remake(id, now);
            remove(set, id).await?;
            let spec = set
                .world()
                .externals
                .get(id)
                .and_then(|external| external.spec().cloned());
            apply(set, id, &spec.context("no such ExternalSecret")?).await
        }
        KubeAct::Harm(id, how) => harm(set, id, how).await,
        KubeAct::DeleteSecret(id) => {
            set.world().delete_secret(id, now);
            let target = set.world().target(id);
            patiently("the end of a Secret", || async {
                gone(
                    set.secrets(&id.0)
                        .delete(&target.1, &DeleteParams::default())
                        .await,
                )
            })
            .await
        }
        KubeAct::UsersWrite(id, values) => users_write(set, id, values).await,
        KubeAct::DeleteNamespace(name) => {
            set.world().gone.insert(name.clone(), now);
            let api: Api<Namespace> = Api::all(set.stage.cluster.client());
            patiently("the end of a namespace", || async {
                gone(api.delete(name, &DeleteParams::default()).await)
            })
            .await
        }
    }
}

/// Has an ExternalSecret read again.
pub async fn force(set: &Set<'_>, id: &Id) -> Result<()> {
    let now = set.now();
    set.world().force(id, now);
    let patch = json!({"metadata": {"annotations": {"force-sync": now.to_string()}}});
    patiently("a forced sync", || async {
        let api = set.externals(&id.0);
        api.patch(&id.1, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    })
    .await
}

async fn apply(set: &Set<'_>, id: &Id, spec: &Spec) -> Result<()> {
    let manifest = manifest(set, id, spec);
    patiently("an ExternalSecret", || async {
        let (api, params) = (set.externals(&id.0), PatchParams::apply(MANAGER).force());
        api.patch(&id.1, &params, &Patch::Apply(&manifest)).await?;
        Ok(())
    })
    .await
}

async fn remove(set: &Set<'_>, id: &Id) -> Result<()> {
    patiently("the end of an ExternalSecret", || async {
        gone(set.externals(&id.0).delete(&id.1, &DeleteParams::default()).await)
    })
    .await
}

fn manifest(set: &Set<'_>, id: &Id, spec: &Spec) -> Value {
    let (mut data, mut data_from) = (Vec::new(), Vec::new());
    for source in &spec.sources {
        match source {
            Source::Data { key, path, property } => {
                data.push(json!({"secretKey": key, "remoteRef": {"key": path, "property": property}}));
            }
            Source::Extract { path } => data_from.push(json!({"extract": {"key": path}})),
        }
    }
    let (policy, interval) = match spec.refresh {
        Refresh::Soon => ("Periodic", "3s"),
        Refresh::Hourly => ("Periodic", "1h"),
        Refresh::Zero => ("Periodic", "0"),
        Refresh::OnChange => ("OnChange", "1h"),
        Refresh::CreatedOnce => ("CreatedOnce", "1h"),
    };
    let mut target = json!({
        "creationPolicy": format!("{:?}", spec.creation), "deletionPolicy": format!("{:?}", spec.deletion),
    });
    if spec.renamed {
        target["name"] = json!(target_of(id, spec).1);
    }
    if spec.template {
        let [a, b] = PROPERTIES;
        target["template"] = json!({"data": {JOINED: format!("{{{{ .{a} }}}}/{{{{ .{b} }}}}")}});
    }
    let store = if spec.cluster_store {
        json!({"kind": "ClusterSecretStore", "name": set.store_name()})
    } else {
        json!({"kind": "SecretStore", "name": "local"})
    };
    let mut wish = json!({
        "secretStoreRef": store, "refreshPolicy": policy, "refreshInterval": interval, "target": target,
    });
    // An empty list is refused by the schema or means something else.
    for (field, entries) in [("data", data), ("dataFrom", data_from)] {
        if !entries.is_empty() {
            wish[field] = json!(entries);
        }
    }
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"namespace": id.0, "name": id.1}, "spec": wish,
    })
}

/// Makes the Secret that is there before the ExternalSecret.
async fn prepare(set: &Set<'_>, id: &Id, before: &Before) -> Result<()> {
    match before {
        Before::Nothing => Ok(()),
        Before::Users(values) => write_secret(set, id, values, &Value::Null).await,
        Before::Foreign(values) => {
            let name = format!("owner-{}", id.1);
            let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            let uid = patiently("an owner", || async {
                let api: Api<ConfigMap> = Api::namespaced(set.stage.cluster.client(), &id.0);
                let params = PatchParams::apply(MANAGER).force();
                Ok(api.patch(&name, &params, &Patch::Apply(&manifest)).await?.uid())
            })
            .await?;
            let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": true});
            write_secret(set, id, values, &json!([owner])).await
        }
    }
}

/// Makes a Secret, or writes some of its keys.
async fn write_secret(set: &Set<'_>, id: &Id, values: &Values, owners: &Value) -> Result<()> {
    let mut manifest = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": id.1}, "stringData": values,
    });
    if !owners.is_null() {
        manifest["metadata"]["ownerReferences"] = owners.clone();
    }
    patiently("a Secret", || async {
        let api = set.secrets(&id.0);
        let patch = Patch::Merge(&manifest);
        match api.patch(&id.1, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let secret = serde_json::from_value(manifest.clone())?;
                api.create(&PostParams::default(), &secret).await?;
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    })
    .await
}

async fn users_write(set: &Set<'_>, id: &Id, values: &Values) -> Result<()> {
    set.world().users_write(id, values);
    write_secret(set, id, values, &Value::Null).await
}

async fn harm(set: &Set<'_>, id: &Id, how: &Harm) -> Result<()> {
    let known = set.world().externals.get(id).cloned();
    let external = known.context("no such ExternalSecret")?;
    let spec = external.spec().context("no wish")?;
    if external.foreign.is_some() {
        set.note("it is somebody else's");
        return Ok(());
    }
    let target = target_of(id, spec);
    // A target that is not there yet cannot be harmed; one of Merge that is not there must not come by this.
    set.world().harm(id);
    let key = match spec.sources.first() {
        _ if spec.template => JOINED,
        Some(Source::Data { key, .. }) => key,
        _ => PROPERTIES[0],
    };
    let patch = match how {
        Harm::Edit(value) => json!({"stringData": {key: value}}),
        Harm::Add(value) => json!({"stringData": {"added": value}}),
        Harm::Unlabel => json!({"metadata": {"labels": {"reconcile.external-secrets.io/managed": null}}}),
        Harm::Replace(value) => return replace(set, &target, value).await,
    };
    patiently("an edit", || async {
        gone(
            set.secrets(&target.0)
                .patch(&target.1, &PatchParams::default(), &Patch::Merge(&patch))
                .await,
        )
    })
    .await
}

async fn replace(set: &Set<'_>, id: &Id, value: &str) -> Result<()> {
    patiently("an edit", || async {
        let api = set.secrets(&id.0);
        let Some(mut secret) = api.get_opt(&id.1).await? else {
            return Ok(());
        };
        secret.data = Some([("by-hand".to_string(), ByteString(value.as_bytes().to_vec()))].into());
        gone(api.replace(&id.1, &PostParams::default(), &secret).await)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Creation, Deletion};
    use crate::plan::Planner;

    #[test]
    fn a_plan_asks_for_nothing_that_the_schema_or_the_model_refuses() {
        for seed in 0..200 {
            let mut planner = Planner::new(seed);
            let rounds = [planner.first(), planner.next(10_000)];
            for act in rounds.iter().flat_map(|round| &round.kube) {
                let (KubeAct::Create(_, spec, _) | KubeAct::Change(_, spec)) = &act.act else {
                    continue;
                };
                assert!(!spec.sources.is_empty(), "{spec:?}");
                let owns = spec.creation == Creation::Owner;
                assert!(owns || spec.deletion != Deletion::Delete, "{spec:?}");
                assert!(!spec.template || spec.sources.len() == 1, "{spec:?}");
            }
        }
    }
}
