//! What breaks, and how it is mended.

use std::time::Duration;

use anyhow::{Context as _, Result};
use keyferry_testbed::{Answer, Mode, Proxy};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use crate::stage::{Set, patiently};

/// What a way between two programs does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// All connections break once.
    Drop,
    /// Every piece of an answer is so many milliseconds late.
    Slow(u64),
    Refuse,
    Cut,
    Hang,
    /// Every request is answered with this status.
    Says(u16),
    /// Every write is answered with a conflict.
    Conflicts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Seal,
    KillVault,
    /// Every token that a login obtained is revoked.
    Revoke,
    /// Vault limits the rate of requests.
    Quota,
    /// The policy allows nothing.
    Deny,
    VaultWire(Wire),
    KillApiServer,
    KillEtcd,
    /// Between one replica and the API server, or both.
    ApiWire(Option<usize>, Wire),
    /// The leader is cut off, for longer than its lease if the time is long.
    CutLeader,
    Terminate(usize),
    Kill(usize),
    KillBoth,
    /// A replica's time stands still.
    Pause(usize),
    /// The ClusterSecretStore is deleted, and comes back.
    StoreGone,
    /// The ClusterSecretStore names another way to Vault.
    StoreMoved,
    /// The ClusterSecretStore is written in a way that must serve nobody.
    StoreWrong(Wrong),
    /// The key of the hashes is lost, or another one stands in its place.
    KeyGone,
    KeyReplaced,
}

/// How a store is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is for other namespaces, and cannot be read.
    Malformed,
    /// It is for other namespaces.
    Narrowed,
    /// Its path is a folder inside of the mount, where nothing is found.
    Folder,
}

type Kind = fn(&mut StdRng) -> Fault;

impl Fault {
    /// Faults of different kinds do not undo each other.
    pub const KINDS: [Kind; 7] = [
        |rng| {
            let all = [Self::Seal, Self::KillVault, Self::Revoke, Self::Quota, Self::Deny];
            *all.choose(rng).unwrap_or(&Self::Seal)
        },
        |rng| {
            let slow = Wire::Slow(rng.random_range(20..400));
            let says = Wire::Says(*[429, 500, 502, 503].choose(rng).unwrap_or(&503));
            let all = [Wire::Drop, slow, Wire::Refuse, Wire::Cut, Wire::Hang, says];
            Self::VaultWire(*all.choose(rng).unwrap_or(&Wire::Drop))
        },
        |rng| {
            if rng.random_bool(0.6) {
                Self::KillApiServer
            } else {
                Self::KillEtcd
            }
        },
        |rng| {
            let slow = Wire::Slow(rng.random_range(20..200));
            let says = Wire::Says(*[429, 500, 503].choose(rng).unwrap_or(&429));
            let all = [
                Wire::Drop,
                slow,
                Wire::Refuse,
                Wire::Hang,
                says,
                Wire::Conflicts,
                Wire::Conflicts,
            ];
            let who = [Some(0), Some(1), None].choose(rng).copied().flatten();
            let wire = *all.choose(rng).unwrap_or(&Wire::Drop);
            if rng.random_bool(0.3) {
                Self::CutLeader
            } else {
                Self::ApiWire(who, wire)
            }
        },
        |rng| {
            let who = rng.random_range(0..2);
            let all = [
                Self::Terminate(who),
                Self::Kill(who),
                Self::KillBoth,
                Self::Pause(who),
            ];
            *all.choose(rng).unwrap_or(&Self::KillBoth)
        },
        |rng| {
            let all = [
                Self::StoreGone,
                Self::StoreMoved,
                Self::StoreWrong(Wrong::Malformed),
                Self::StoreWrong(Wrong::Narrowed),
                Self::StoreWrong(Wrong::Folder),
            ];
            *all.choose(rng).unwrap_or(&Self::StoreGone)
        },
        |rng| {
            if rng.random_bool(0.5) {
                Self::KeyGone
            } else {
                Self::KeyReplaced
            }
        },
    ];

    /// Milliseconds.
    pub fn longest(self) -> u64 {
        match self {
            Self::Revoke | Self::StoreMoved | Self::KillApiServer | Self::KeyGone | Self::KeyReplaced => 500,
            Self::KillEtcd | Self::Kill(_) | Self::KillBoth | Self::Terminate(_) => 3_000,
            Self::Pause(_) | Self::CutLeader => 9_000,
            _ => 5_000,
        }
    }

    /// Breaks it, for a time, and mends it.
    pub async fn strike(self, set: &Set<'_>, length: Duration) -> Result<()> {
        set.note(format!("fault {self:?} for {length:?}"));
        let story = async {
            self.begin(set, length).await?;
            tokio::time::sleep(length).await;
            self.end(set).await
        };
        story.await.with_context(|| format!("fault {self:?}"))?;
        set.note(format!("fault {self:?} is mended"));
        Ok(())
    }

    async fn begin(self, set: &Set<'_>, length: Duration) -> Result<()> {
        match self {
            Self::Seal => {
                patiently("the seal", || async {
                    set.stage.vault.api("PUT", "sys/seal", &json!({})).await
                })
                .await?;
            }
            Self::KillVault => set.stage.vault.kill()?,
            Self::Revoke => patiently("the revocation", || set.stage.vault.revoke_logins()).await?,
            Self::Quota => quota(set, "POST", &json!({"rate": 8, "interval": "1s"})).await?,
            Self::Deny => policy(set, "path \"secret/data/nothing\" { capabilities = [\"deny\"] }").await?,
            Self::VaultWire(wire) => set
                .vault_wires
                .iter()
                .for_each(|proxy| proxy.set(vault_mode(wire))),
            Self::KillApiServer => set.stage.cluster.restart_api_server().await?,
            Self::KillEtcd => set.stage.cluster.restart_etcd(length).await?,
            Self::ApiWire(who, wire) => {
                let mode = set.stage.api_mode(wire);
                let those = set.api_wires.iter().enumerate();
                let those = those.filter(|(number, _)| who.is_none_or(|who| who == *number));
                those.for_each(|(_, proxy)| proxy.set(mode.clone()));
            }
            Self::CutLeader => {
                if let Some(leader) = set.leader().await {
                    set.note(format!("the leader is {leader}"));
                    set.api_wires[leader].set(Mode::Hang);
                }
            }
            Self::Terminate(who) => set.stop(who, true).await?,
            Self::Kill(who) => set.stop(who, false).await?,
            Self::KillBoth => {
                set.stop(0, false).await?;
                set.stop(1, false).await?;
            }
            Self::Pause(who) => set.pause(who, true).await?,
            Self::StoreGone => set.delete_store().await?,
            Self::StoreMoved => set.move_store().await?,
            Self::StoreWrong(wrong) => set.spoil_store(wrong).await?,
            Self::KeyGone => set.replace_key(None).await?,
            Self::KeyReplaced => set.replace_key(Some(rand::random())).await?,
        }
        Ok(())
    }

    async fn end(self, set: &Set<'_>) -> Result<()> {
        let pass = |proxies: &[Proxy]| proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
        match self {
            Self::Seal => patiently("the unseal", || set.stage.vault.unseal()).await?,
            Self::KillVault => {
                set.stage.vault.start_sealed().await?;
                patiently("the unseal", || set.stage.vault.unseal()).await?;
            }
            Self::Quota => quota(set, "DELETE", &Value::Null).await?,
            Self::Deny => {
                policy(set, keyferry_testbed::vault::POLICY).await?;
                // What was denied was denied to the object.
                set.world().unsettle();
            }
            Self::VaultWire(_) => pass(&set.vault_wires),
            Self::ApiWire(..) | Self::CutLeader => pass(&set.api_wires),
            Self::Terminate(who) | Self::Kill(who) => set.start(who).await?,
            Self::KillBoth => {
                set.start(0).await?;
                set.start(1).await?;
            }
            Self::Pause(who) => set.pause(who, false).await?,
            Self::StoreGone => set.apply_store().await?,
            Self::StoreWrong(wrong) => {
                set.apply_store().await?;
                if wrong == Wrong::Folder {
                    // That nothing is found there is told of the object.
                    set.world().unsettle();
                }
            }
            Self::Revoke | Self::KillApiServer | Self::KillEtcd | Self::StoreMoved => {}
            Self::KeyGone | Self::KeyReplaced => {}
        }
        Ok(())
    }
}

fn vault_mode(wire: Wire) -> Mode {
    match wire {
        Wire::Drop | Wire::Conflicts => Mode::Pass,
        Wire::Slow(millis) => Mode::Delay(Duration::from_millis(millis)),
        Wire::Refuse => Mode::Refuse,
        Wire::Cut => Mode::Cut,
        Wire::Hang => Mode::Hang,
        Wire::Says(status) => Mode::Http(status, "Retry-After: 1".into(), r#"{"errors":["soak"]}"#.into()),
    }
}

/// What the API server seems to answer.
pub fn answers(wire: Wire) -> Vec<Answer> {
    let status = |code: u16, reason: &str| {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": "the soak says so",
        });
        (
            code,
            "Content-Type: application/json\nRetry-After: 1",
            body.to_string(),
        )
    };
    match wire {
        Wire::Conflicts => {
            let (code, headers, body) = status(409, "Conflict");
            let writes = ["PUT", "POST", "PATCH", "DELETE"].iter();
            writes
                .map(|method| Answer::http("", code, headers, &body).only(method))
                .collect()
        }
        Wire::Says(code) => {
            let (code, headers, body) = status(
                code,
                if code == 429 {
                    "TooManyRequests"
                } else {
                    "InternalError"
                },
            );
            vec![Answer::http("", code, headers, body)]
        }
        _ => Vec::new(),
    }
}

async fn quota(set: &Set<'_>, method: &str, body: &Value) -> Result<()> {
    patiently("the quota", || async {
        set.stage
            .vault
            .api(method, "sys/quotas/rate-limit/soak", body)
            .await
            .map(drop)
    })
    .await
}

async fn policy(set: &Set<'_>, policy: &str) -> Result<()> {
    let body = json!({"policy": policy});
    patiently("the policy", || async {
        set.stage
            .vault
            .api("PUT", "sys/policies/acl/eso-reader", &body)
            .await
            .map(drop)
    })
    .await
}
