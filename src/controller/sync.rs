//! One sync: what the target must hold is read, and written if it is not what the target holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use tokio::time::Instant;

use super::brake;
use super::context::{Context, reference};
use super::fetch::{self, read_all};
use super::gates;
use super::index::{ObjectKey, target_of};
use super::manifests;
use super::outcome::{self, Failure};
use super::room::Room;
use super::targets::State;
use super::templates::{self, Rendering};
use crate::api::external_secret::{CreationPolicy, DeletionPolicy, ExternalSecret};
use crate::memory;
use crate::secret::SecretBytes;
use crate::store::Store;
use crate::store::hold::Hold;
use crate::store::place::Place;
use crate::sync::assemble::Assembled;
use crate::sync::plan::Plan;
use crate::sync::shape::Sources;
use crate::target::apply::{self, Applied};
use crate::target::hash::Fingerprint;
use crate::target::order::Looked;
use crate::target::plan::{Outcome, Wanted};
use crate::target::undone::Undone;

/// What one sync works with.
pub struct Sync<'a> {
    /// The ExternalSecret's name.
    pub key: &'a ObjectKey,
    /// The ExternalSecret.
    pub object: &'a Arc<ExternalSecret>,
    /// What has to be read.
    pub plan: &'a Plan,
    /// From where, in the order of the reads.
    pub stores: &'a [Arc<Store>],
    /// What is known of the target.
    pub target: State,
    /// `syncedResourceVersion` that the sync leaves.
    pub version: &'a str,
    /// Whether it only sets back what somebody else did to the target.
    pub repair: bool,
    /// Whether it most likely changes nothing. Then the target is got from the API server only if what was read says
    /// otherwise: an unchanged refresh asks Vault once and the API server nothing. When the status is due to be
    /// written anyway ([`HEARTBEAT`](super::status::HEARTBEAT)), the target is looked at too, should a watch ever have
    /// lost what was done to it.
    pub routine: bool,
}

/// What a sync came to.
pub struct Ran {
    /// What is said of it.
    pub outcome: Outcome,
    /// Name for `status.binding`, or nothing if what is there stays.
    pub binding: Option<String>,
    /// What a write undid of what others did.
    pub undone: Option<Undone>,
    /// The keys that were written, if others write the target too.
    pub keys: Option<Arc<BTreeSet<String>>>,
    /// What the target is made of now.
    pub made_of: Option<Fingerprint>,
}

/// Times that the values are read in one sync, because somebody else wrote the target meanwhile.
const READS: usize = 4;

/// What is known of a Secret before the values are read.
enum Before {
    /// It was got.
    Got(Box<Option<Secret>>),
    /// It has this resourceVersion. It is got while they are read, or, if they most likely change nothing, only afterwards
    /// and if need be.
    Version(Box<str>),
}

impl Before {
    /// Whether what there is now, if it was got meanwhile, was there before; otherwise it becomes what was got before.
    fn compare(self, existing: &mut Option<Secret>) -> bool {
        match self {
            Self::Got(secret) => {
                *existing = *secret;
                true
            }
            Self::Version(version) => {
                let now = existing
                    .as_ref()
                    .and_then(|secret| secret.metadata.resource_version.as_deref());
                now == Some(&*version)
            }
        }
    }
}

/// Bytes of what it holds.
fn size_of_data(secret: &Secret) -> usize {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| key.len() + value.0.len()).sum()
}

fn size_of_values(values: &BTreeMap<String, SecretBytes>) -> usize {
    let values = values.iter();
    values.map(|(key, value)| key.len() + value.expose().len()).sum()
}

/// Whether a Secret takes no other data.
fn is_frozen(secret: Option<&Secret>) -> bool {
    secret.is_some_and(|secret| secret.immutable == Some(true))
}

impl Sync<'_> {
    /// Does it.
    ///
    /// # Errors
    /// If something could not be read, rendered or written.
    pub async fn run(&self, ctx: &Arc<Context>, place: &Place) -> Result<Ran, Failure> {
        let mut bytes = ctx.remember(self.key, |memory| memory.room);
        loop {
            let room = Room::take(ctx, self.key, place, bytes).await;
            let done = self.rounds(ctx, place, &room).await;
            if matches!(done, Err(Failure::Cramped)) {
                bytes = room.larger()?;
                continue;
            }
            let needed = room.needed(done.is_ok());
            ctx.remember(self.key, |memory| memory.room = needed);
            return done;
        }
    }

    /// As often as somebody else writes the target meanwhile, within bounds.
    async fn rounds(&self, ctx: &Arc<Context>, place: &Place, room: &Room) -> Result<Ran, Failure> {
        let before = self.before(ctx, room).await?;
        let mut done = self.round(ctx, place, before, room).await;
        for _ in 1..READS {
            let Err(Failure::Overtaken(_)) = done else { break };
            room.empty();
            let before = Before::Got(Box::new(self.got(ctx, room).await?));
            done = self.round(ctx, place, before, room).await;
        }
        done
    }

    /// Reads, renders and writes, once.
    async fn round(
        &self,
        ctx: &Arc<Context>,
        place: &Place,
        before: Before,
        room: &Room,
    ) -> Result<Ran, Failure> {
        let (target, since) = (target_of(self.object), Instant::now());
        let generic = Looked::before(manifests::look(ctx, self.key, self.object).await?);
        let is_known = matches!(before, Before::Version(_));
        let fetch = self.fetch(ctx, is_known && !self.routine, room);
        let (mut fetched, sources, holds) = place.left_for(fetch).await?;
        let fingerprint = self.fingerprint(ctx, &fetched.assembled, &sources);
        if is_known && self.routine {
            if fingerprint.is_some_and(|fingerprint| ctx.targets().holds(&target, &fingerprint)) {
                self.tell_missing(ctx, &fetched.assembled);
                ctx.keep_leases(self.key, self.object, holds, Outcome::Synced);
                return Ok(Ran {
                    outcome: Outcome::Synced,
                    binding: None,
                    undone: None,
                    keys: None,
                    made_of: fingerprint,
                });
            }
            fetched.existing = self.existing(ctx, room).await?;
        }
        let unchanged = before.compare(&mut fetched.existing);
        let frozen = is_frozen(fetched.existing.as_ref());
        if !frozen && !self.object.spec.is_immutable() {
            fetched.assembled.leased_until = ctx.leased_until(self.key, &target, &holds);
        }
        let templated = self.object.spec.template().is_some();
        let rendering = templates::render(ctx, self.key, self.object, fetched, sources);
        let mut rendered = match templated {
            // It may take seconds, and wait for others of its namespace.
            true => place.left_for(rendering).await?,
            false => rendering.await?,
        };
        // The request, its text and the answer.
        room.hold(3 * size_of_values(rendered.wanted().values()))?;
        let shared = ctx.index().writers_of(&target).len() > 1;
        let keys = shared.then(|| Arc::new(rendered.wanted().keys()));
        let secret = Looked {
            object: rendered.existing.take(),
            before: unchanged,
        };
        let applied = self.write(ctx, rendered, (secret, generic), since).await?;
        let became = if frozen {
            Outcome::Retained
        } else {
            applied.outcome
        };
        ctx.keep_leases(self.key, self.object, holds, became);
        if let (Outcome::Synced, Some(secret), Some(fingerprint)) =
            (applied.outcome, &applied.secret, fingerprint)
        {
            ctx.targets().made_of(&target, &secret.metadata, fingerprint);
        }
        Ok(Ran {
            outcome: applied.outcome,
            binding: applied.binding,
            undone: applied.undone,
            keys,
            made_of: fingerprint,
        })
    }

    /// What was read, under which leases, and, if it is asked for, what the target holds.
    async fn fetch(
        &self,
        ctx: &Context,
        with_target: bool,
        room: &Room,
    ) -> Result<(Rendering, Sources, Vec<Hold>), Failure> {
        let template = self.object.spec.template();
        // The target is fetched while Vault is asked: it is not needed before, and not cached (promise 5).
        let (answers, existing, sources) = tokio::join!(
            read_all(ctx, self.key, self.plan, self.stores, room),
            async {
                match with_target {
                    true => self.existing(ctx, room).await,
                    false => Ok(None),
                }
            },
            templates::read_sources(ctx, self.key, template),
        );
        let ((answers, holds), sources, existing) = (answers?, sources?, existing?);
        room.hold(sources.values().map(size_of_values).sum())?;
        let assembled = fetch::assembled(ctx, self.key, self.plan, answers).await?;
        room.hold(size_of_values(&assembled.data))?;
        let fetched = Rendering {
            assembled,
            existing,
            shaped: None,
        };
        Ok((fetched, sources, holds))
    }

    /// What is known of a Secret before the values are read that it is to hold.
    async fn before(&self, ctx: &Context, room: &Room) -> Result<Before, Failure> {
        let version = ctx.targets().version(&target_of(self.object));
        match version.filter(|_| self.is_expected()) {
            Some(version) => Ok(Before::Version(version)),
            None => Ok(Before::Got(Box::new(self.existing(ctx, room).await?))),
        }
    }

    /// Whether the target is a Secret that may be there. One of Merge is somebody else's until the first merge, and not
    /// among those that are watched; and of one that is to be deleted it must be known whose it is.
    fn is_expected(&self) -> bool {
        let spec = &self.object.spec;
        spec.manifest().is_none()
            && (self.target != State::Absent
                || spec.creation_policy() == CreationPolicy::Merge
                || spec.deletion_policy() == DeletionPolicy::Delete)
    }

    /// The Secret as it is, if it may be there.
    async fn existing(&self, ctx: &Context, room: &Room) -> Result<Option<Secret>, Failure> {
        match self.is_expected() {
            true => self.got(ctx, room).await,
            false => Ok(None),
        }
    }

    /// The Secret as it is, also one that does not bear our label.
    async fn got(&self, ctx: &Context, room: &Room) -> Result<Option<Secret>, Failure> {
        if self.object.spec.manifest().is_some() {
            return Ok(None);
        }
        let target = target_of(self.object);
        let get = apply::get(&ctx.client, &target.namespace, &target.name);
        let got = memory::getting(&target.namespace, get).await?;
        room.hold(got.as_ref().map_or(0, size_of_data))?;
        Ok(got)
    }

    /// Of all that the target is made of, beside what it holds itself.
    fn fingerprint(&self, ctx: &Context, assembled: &Assembled, sources: &Sources) -> Option<Fingerprint> {
        let uid = self.object.uid().unwrap_or_default();
        let found = assembled.found.to_string();
        let own = [("uid", &uid), ("found", &found)];
        let own = own.map(|(name, text)| (name.to_owned(), text.as_bytes()));
        // The version stands for the spec, the labels and the annotations.
        let version = [("version".to_owned(), self.version.as_bytes())];
        // A source without entries is another thing than none.
        let there = sources
            .keys()
            .map(|source| (format!("{source:?}"), [].as_slice()));
        let named = templates::named(&assembled.data, sources);
        ctx.hasher()?
            .fingerprint(own.into_iter().chain(version).chain(there).chain(named))
    }

    async fn write(
        &self,
        ctx: &Arc<Context>,
        rendered: Rendering,
        (secret, generic): (Looked<Secret>, Looked<DynamicObject>),
        since: Instant,
    ) -> Result<Applied, Failure> {
        gates::may_write(ctx, self.key, self.plan).await?;
        let wanted = rendered.wanted();
        let applied = match self.object.spec.manifest() {
            Some(manifest) => manifests::write(ctx, self.object, wanted, (manifest, generic)).await?,
            None => write_secret(ctx, self.object, wanted, secret, since).await?,
        };
        self.tell_missing(ctx, &rendered.assembled);
        Ok(applied)
    }

    fn tell_missing(&self, ctx: &Context, assembled: &Assembled) {
        for missing in &assembled.missing {
            ctx.recorder.send(
                reference(self.object.as_ref()),
                false,
                "MissingProviderSecret",
                &format!("secret does not exist at provider using {missing}"),
            );
        }
    }
}

async fn write_secret(
    ctx: &Arc<Context>,
    object: &Arc<ExternalSecret>,
    wanted: Wanted<'_>,
    looked: Looked<Secret>,
    since: Instant,
) -> Result<Applied, Failure> {
    let hasher = ctx.hasher().ok_or(Failure::NotLeading)?;
    let may_go = || brake::ask(ctx, object);
    let applied = apply::apply(&ctx.client, &ctx.fence, &hasher, object, wanted, looked, &may_go)
        .await
        .map_err(Failure::from)?;
    remember_target(ctx, &target_of(object), &applied, since);
    if object.spec.creation_policy() == CreationPolicy::Owner && applied.holds(wanted) {
        outcome::delete_orphans(ctx, object).await?;
    }
    if applied.wrote {
        outcome::tell_written(ctx, object, &applied);
    }
    Ok(applied)
}

fn remember_target(ctx: &Context, target: &ObjectKey, applied: &Applied, since: Instant) {
    match &applied.secret {
        Some(secret) => ctx.verified(secret, true, since),
        None if applied.deleted => ctx.targets().remove(target),
        None => {}
    }
}
