//! One sync: what the target must hold is read, and written if it is not what the target holds.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::context::{Context, Place, reference};
use super::fetch::{self, read_all};
use super::index::{ObjectKey, target_of};
use super::manifests;
use super::outcome::{self, Failure};
use super::targets::State;
use super::templates::{self, Rendering};
use crate::api::external_secret::{CreationPolicy, DeletionPolicy, ExternalSecret};
use crate::store::Store;
use crate::sync::assemble::Assembled;
use crate::sync::plan::Plan;
use crate::sync::shape::Sources;
use crate::target::apply::{self, Applied};
use crate::target::hash::Fingerprint;
use crate::target::plan::Outcome;

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
    /// Whether it most likely changes nothing. Then the target is got from the API server only if what was read says
    /// otherwise: an unchanged refresh asks Vault once and the API server nothing. When the status is due to be
    /// written anyway ([`HEARTBEAT`](super::status::HEARTBEAT)), the target is looked at too, should a watch ever have
    /// lost what was done to it.
    pub routine: bool,
}

impl Sync<'_> {
    /// Does it. Gives what is said of it, and the name for `status.binding`, or nothing if what is there stays.
    ///
    /// # Errors
    /// If something could not be read, rendered or written.
    pub async fn run(
        &self,
        ctx: &Arc<Context>,
        place: &mut Place,
    ) -> Result<(Outcome, Option<String>), Failure> {
        let (target, since) = (target_of(self.object), Instant::now());
        let (mut fetched, sources) = place.left_for(self.fetch(ctx)).await?;
        let fingerprint = self.fingerprint(ctx, &fetched.assembled, &sources);
        if self.routine {
            if fingerprint.is_some_and(|fingerprint| ctx.targets().holds(&target, &fingerprint)) {
                self.tell_missing(ctx, &fetched.assembled);
                return Ok((Outcome::Synced, None));
            }
            fetched.existing = self.existing(ctx).await?;
        }
        let templated = self.object.spec.template().is_some();
        let rendering = templates::render(ctx, self.key, self.object, fetched, sources);
        let rendered = match templated {
            // It may take seconds, and wait for others of its namespace.
            true => place.left_for(rendering).await?,
            false => rendering.await?,
        };
        let applied = self.write(ctx, rendered, since).await?;
        if let (Outcome::Synced, Some(secret), Some(fingerprint)) =
            (applied.outcome, &applied.secret, fingerprint)
        {
            ctx.targets().made_of(&target, &secret.metadata, fingerprint);
        }
        Ok((applied.outcome, applied.binding))
    }

    /// What was read, and what the target holds.
    async fn fetch(&self, ctx: &Context) -> Result<(Rendering, Sources), Failure> {
        let template = self.object.spec.template();
        // The target is fetched while Vault is asked: it is not needed before, and not cached (promise 5).
        let (answers, existing, sources) = tokio::join!(
            read_all(ctx, self.key, self.plan, self.stores),
            async {
                match self.routine {
                    true => Ok(None),
                    false => self.existing(ctx).await,
                }
            },
            templates::read_sources(ctx, self.key, template),
        );
        let fetched = Rendering {
            assembled: fetch::assembled(ctx, self.key, self.plan, answers?).await?,
            existing: existing?,
            shaped: None,
        };
        Ok((fetched, sources?))
    }

    /// The target as it is, if it may be there.
    async fn existing(&self, ctx: &Context) -> Result<Option<Secret>, Failure> {
        let spec = &self.object.spec;
        // A target of Merge is somebody else's until the first merge, and not among those that are watched;
        // and of one that is to be deleted it must be known whose it is.
        let expected = spec.manifest().is_none()
            && (self.target != State::Absent
                || spec.creation_policy() == CreationPolicy::Merge
                || spec.deletion_policy() == DeletionPolicy::Delete);
        if !expected {
            return Ok(None);
        }
        let target = target_of(self.object);
        let got = apply::get(&ctx.client, &target.namespace, &target.name).await;
        got.map_err(Failure::from)
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
        mut rendered: Rendering,
        since: Instant,
    ) -> Result<Applied, Failure> {
        let applied = match self.object.spec.manifest() {
            Some(manifest) => manifests::write(ctx, self.object, manifest, rendered.wanted()).await?,
            None => write_secret(ctx, self.object, &mut rendered, since).await?,
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
    rendered: &mut Rendering,
    since: Instant,
) -> Result<Applied, Failure> {
    let hasher = ctx.hasher().ok_or(Failure::NotLeading)?;
    let existing = rendered.existing.take();
    let wanted = rendered.wanted();
    let applied = apply::apply(&ctx.client, &ctx.fence, hasher, object, wanted, existing)
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
