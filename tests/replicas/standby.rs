//! Replicas that wait: what they say, and what they know of the installation's key.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Secret};
use keyferry::api::external_secret::ExternalSecret;
use keyferry_testbed::{Cluster, Operator, SHORT_LEASE, Vault, wait_for};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::scene::{SOON, one};
use crate::{external, kv, play, replica, store};

/// Waits until it leads.
pub async fn leads(operator: &Operator) -> Result<()> {
    wait_for("a leader", SOON, || async {
        let metrics = operator.metrics().await?;
        Ok(metrics.contains("\nkeyferry_leader 1\n").then_some(()))
    })
    .await
}

/// Waits until `/readyz` says this, and gives all of it.
async fn says(operator: &Operator, part: &str) -> Result<String> {
    wait_for(part, SOON, || async {
        let said = operator.readyz().await?;
        Ok(said.contains(part).then_some(said))
    })
    .await
}

#[test]
fn a_standby_says_who_leads_and_one_of_another_class_warns_on_its_pod() {
    play(async {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let first = replica(&cluster, "first", &SHORT_LEASE, None).await?;
        leads(&first).await?;
        let second = replica(&cluster, "second", &SHORT_LEASE, None).await?;
        let blue = [&SHORT_LEASE[..], &["--controller-class=blue"]].concat();
        let third = replica(&cluster, "third", &blue, None).await?;
        let said = says(&second, "standing by: first leads since 20").await?;
        ensure!(said.starts_with("ok"), "{said}");
        says(
            &third,
            "is held by first, which serves class default in all namespaces",
        )
        .await?;
        for (operator, standing_by) in [(&first, false), (&second, true), (&third, true)] {
            let metrics = operator.metrics().await?;
            ensure!(
                metrics.contains("keyferry_leader_info{identity=\"first\"} 1"),
                "{metrics}"
            );
            ensure!(operator.logs().matches("standing by").count() == usize::from(standing_by));
        }
        let events: Api<Event> = Api::namespaced(cluster.client(), "security");
        let warned = || async {
            let all = events.list(&ListParams::default()).await?;
            let about = all.items.into_iter().filter(|event| {
                event.reason.as_deref() == Some("StandsBehindAnother")
                    && event.type_.as_deref() == Some("Warning")
            });
            anyhow::Ok(
                about
                    .filter_map(|event| event.involved_object.name)
                    .collect::<Vec<_>>(),
            )
        };
        wait_for("the warning", SOON, || async {
            let warned: Vec<String> = warned().await?;
            Ok((!warned.is_empty()).then_some(()))
        })
        .await?;
        // Who comes next says it in turn, and the note of who leads now is gone.
        first.terminate()?;
        leads(&second).await?;
        let said = second.readyz().await?;
        ensure!(said == "ok", "{said}");
        says(&third, "is held by second").await?;
        let warned = warned().await?;
        ensure!(warned.iter().all(|pod| pod == "third"), "{warned:?}");
        Ok(())
    });
}

const KEY: &str = "keyferry-installation-key";

#[test]
fn replicas_with_different_keys_in_memory_make_nothing_up_anew_when_they_take_over() {
    play(async {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let vault = Vault::start(&cluster).await?;
        vault.put("app", json!({"user": "admin"})).await?;
        cluster.apply(&store(&kv(&vault)).to_string()).await?;
        let mut names = Vec::new();
        for (name, immutable) in [("made-up", false), ("frozen", true)] {
            let further = json!({
                "refreshInterval": "0", "data": [one("user", "app", "user")],
                "target": {"immutable": immutable, "template": {"data": {"password": "{{ randAlphaNum 24 }}"}}},
            });
            let object = external(name, &further);
            cluster.apply(&object.to_string()).await?;
            names.push(name);
        }
        let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
        let own: Api<Secret> = Api::namespaced(cluster.client(), "security");
        let made = || async {
            let mut all = Vec::new();
            for name in &names {
                let secret = wait_for(name, SOON, || async { Ok(secrets.get_opt(name).await?) }).await?;
                all.push(secret.data.context("no data")?);
            }
            anyhow::Ok(all)
        };
        let (first, second) = (
            replica(&cluster, "first", &SHORT_LEASE, None).await?,
            replica(&cluster, "second", &SHORT_LEASE, None).await?,
        );
        let leader = wait_for("a leader", SOON, || async {
            for (one, other) in [(&first, &second), (&second, &first)] {
                if one.metrics().await?.contains("\nkeyferry_leader 1\n") {
                    return Ok(Some((one, other)));
                }
            }
            Ok(None)
        })
        .await?;
        let before = made().await?;
        let (mut leader, mut next) = leader;
        for round in 0..4 {
            // The one that stands still keeps the key in memory; the next begins with another.
            leader.pause(true)?;
            let known = stored(&own).await?;
            replace_key(&own).await?;
            leads(next).await?;
            ensure!(stored(&own).await? != known, "the key is the one of before");
            force(&cluster, &names, &round.to_string()).await?;
            ensure!(made().await? == before, "made up anew in round {round}");
            leader.pause(false)?;
            std::mem::swap(&mut leader, &mut next);
        }
        Ok(())
    });
}

/// The key as it is stored.
async fn stored(own: &Api<Secret>) -> Result<Vec<u8>> {
    let mut data = own.get(KEY).await?.data.context("no data")?;
    Ok(data.remove("key").context("no key")?.0)
}

/// Puts another key in its place, as who rotates it does. If the next leader is faster, it has made another one too.
async fn replace_key(own: &Api<Secret>) -> Result<()> {
    own.delete(KEY, &DeleteParams::default()).await?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(KEY.into()),
            ..ObjectMeta::default()
        },
        data: Some([("key".into(), ByteString(rand::random::<[u8; 32]>().to_vec()))].into()),
        immutable: Some(true),
        ..Secret::default()
    };
    match own.create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => Ok(created.map(drop)?),
    }
}

/// Has all of them synced, and waits until that is told.
async fn force(cluster: &Cluster, names: &[&str], mark: &str) -> Result<()> {
    let externals: Api<ExternalSecret> = Api::namespaced(cluster.client(), "default");
    let synced = |object: &ExternalSecret| {
        object
            .status
            .as_ref()
            .and_then(|s| s.synced_resource_version.clone())
    };
    for name in names {
        let before = synced(&externals.get(name).await?);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"force-sync": mark}}}));
        externals.patch(name, &PatchParams::default(), &patch).await?;
        wait_for("a forced sync", SOON, || async {
            let after = synced(&externals.get(name).await?);
            Ok((after != before).then_some(()))
        })
        .await?;
    }
    Ok(())
}
