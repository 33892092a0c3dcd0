//! One ExternalSecret, from its wish to its Secret.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::aside;
use super::brake;
use super::computing::{check_template, planned};
use super::context::{Context, Memory, instant_of};
use super::due::{self, Circumstances, Need};
use super::gates::{open_stores, still_allowed};
use super::index::{ObjectKey, target_of};
use super::manifests;
use super::outcome::{self, Failure};
use super::queue::Work;
use super::references;
use super::seals;
use super::sharing;
use super::status::{self, Ready, Synced};
use super::sync::Sync;
use super::targets::State;
use crate::api::duration::SHORTEST_REFRESH;
use crate::api::external_secret::{CreationPolicy, ExternalSecret};
use crate::api::store::StoreKey;
use crate::store::Gate;
use crate::store::place::Place;
use crate::sync::plan::Plan;
use crate::sync::windows::Windows;
use crate::target::apply;
use crate::target::manifest;
use crate::target::names;
use crate::target::plan::Outcome;
use crate::target::reserved;

/// A sync that is overdue for longer than this comes before the statuses of others: after an outage values are fresh
/// first, and told to be so then.
const LATE: Duration = Duration::from_secs(5);

/// When an object is worked on next, if nothing happens before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Only when something changes.
    Nothing,
    /// Then.
    At(Instant),
    /// When this store changes or comes back, and at the latest then.
    Parked(StoreKey, Option<Instant>),
}

/// What an ExternalSecret asks for, as it is now.
struct Wish {
    plan: Plan,
    /// Zero: once.
    interval: Duration,
    version: String,
}

/// How far a reconcile came.
enum Step {
    /// There was nothing to sync.
    Next(Next),
    /// The target is as it must be; what remains is the status.
    Synced(Box<Done>),
}

/// What a sync leaves to be told.
struct Done {
    ready: Ready,
    synced: Synced,
    interval: Duration,
    windows: Option<Windows>,
    target: State,
}

/// Works on one ExternalSecret and arranges for what comes next.
pub async fn work(ctx: &Arc<Context>, work: &Work<ObjectKey>) {
    let started = Instant::now();
    let depth = ctx.queue.depth();
    ctx.metrics
        .queue(work.queued.elapsed(), depth.waiting, depth.parked);
    if ctx.unserved.contains(&work.key.namespace) {
        // Its stores may be unknown yet. When the namespace is served, all of it is worked on.
        return;
    }
    let Some(object) = ctx.index().get(&work.key) else {
        ctx.forget(&work.key);
        return;
    };
    // In boxes, because many wait for the turn of their status: by then the sync's own memory is free.
    let step = Box::pin(reconcile(ctx, &work.key, &object)).await;
    let next = match step {
        Ok(Step::Next(next)) => Ok(next),
        Ok(Step::Synced(done)) => finish(ctx, &work.key, &object, &done).await,
        Err(failure) => Err(failure),
    };
    let failed = next.is_err();
    let next = match next {
        Ok(next) => next,
        Err(failure) => Box::pin(outcome::fail(ctx, &work.key, &object, failure)).await,
    };
    ctx.metrics
        .objects()
        .reconciled(&work.key.namespace, &work.key.name, started.elapsed(), failed);
    match next {
        Next::Nothing => {}
        Next::At(at) => ctx.queue.push_at(&work.key, at),
        Next::Parked(store, at) => {
            if let Some(at) = at {
                ctx.queue.push_at(&work.key, at);
            }
            park(ctx, &work.key, &store);
        }
    }
    if ctx.index().get(&work.key).is_none() {
        forget_again(ctx, &work.key, &object);
    }
}

/// It went while it was worked on: what was noted of it since then would stay for ever.
fn forget_again(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) {
    ctx.forget(key);
    let target = target_of(object);
    if ctx.index().writers_of(&target).is_empty() {
        ctx.targets().remove(&target);
    }
}

/// Parks, and looks once more: the store may have come back between the failure and the parking, and
/// then nobody would wake the object.
fn park(ctx: &Context, key: &ObjectKey, store: &StoreKey) {
    ctx.queue.park(key, store);
    let labels = ctx.namespaces().get(&*key.namespace).cloned();
    if matches!(ctx.stores.gate(store, &key.namespace, labels.as_ref()), Gate::Open(store) if store.is_up()) {
        ctx.queue
            .push_at(key, Instant::now() + Duration::from_millis(100));
    }
}

async fn reconcile(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
) -> Result<Step, Failure> {
    if object.metadata.deletion_timestamp.is_some() {
        let_go(ctx, key, object).await?;
        return Ok(Step::Next(Next::Nothing));
    }
    manifest::check(object, ctx.generic_targets).map_err(|e| Failure::refused(e.to_string()))?;
    reserved::by_name(object).map_err(|e| Failure::refused(e.to_string()))?;
    ctx.begin(key);
    let wish = Wish {
        plan: planned(ctx, key, object).await?,
        interval: interval_of(object)?,
        version: version_of(object),
    };
    ctx.template_sources.follow(ctx, key, object.spec.template());
    let place = ctx.place(&key.namespace).await;
    let target = target_state(ctx, key, object).await?;
    let overdue_since = match needed(ctx, key, object, &wish, target).await? {
        Need::Sync(since) => since,
        later => {
            let again = seals::renew(ctx, key, object, &wish.plan, wish.interval).await;
            let next = seals::sooner(next_of(later), again);
            return aside::retell(ctx, key, object, next).await.map(Step::Next);
        }
    };
    check_template(ctx, key, object).await?;
    references::refuse_credential(ctx, object).await?;
    let Some(stores) = open_stores(ctx, key, &wish.plan)? else {
        return Ok(Step::Next(Next::Nothing));
    };
    let status = object.status.as_ref();
    let unchanged = target == State::Intact
        && status.and_then(|status| status.synced_resource_version.as_ref()) == Some(&wish.version);
    // Before the read: what is written is at least as new as this.
    let asked = Timestamp::now();
    let late = overdue_since.checked_add(LATE).is_ok_and(|late| late < asked);
    // A refresh of what is there already, in time, keeps no status waiting.
    let making = (!unchanged || late).then(|| ctx.turns.making());
    let sync = Sync {
        key,
        object,
        plan: &wish.plan,
        stores: &stores,
        target,
        version: &wish.version,
        repair: due::is_repair(object, &wish.version, target),
        routine: unchanged
            && !ctx.template_sources.is_changed(key)
            && status.is_some_and(|status| !status::beats(status, asked)),
    };
    let (outcome, synced) = carry_out(ctx, &sync, asked, place).await?;
    drop(making);
    Ok(Step::Synced(Box::new(Done {
        ready: aside::ready(ctx, key, object, outcome),
        synced,
        interval: wish.interval,
        windows: wish.plan.windows,
        target: match outcome {
            Outcome::Missing => State::Absent,
            Outcome::Synced | Outcome::Retained | Outcome::Deleted => State::Intact,
        },
    })))
}

/// Owned targets go by garbage collection. ESO's finalizer must not keep the object for ever.
async fn let_go(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> Result<(), Failure> {
    let _place = ctx.place(&key.namespace).await;
    apply::remove_finalizer(&ctx.client, &ctx.fence, object)
        .await
        .map_err(Failure::from)
}

/// Whether a sync is due, since when, or when it will be; remembers it.
async fn needed(
    ctx: &Context,
    key: &ObjectKey,
    object: &ExternalSecret,
    wish: &Wish,
    target: State,
) -> Result<Need, Failure> {
    let memory = ctx.memory(key);
    let pending = memory.overdue_since.is_some() || memory.failures > 0 || outcome::has_failed(object);
    let known = circumstances(
        ctx,
        key,
        &memory,
        &wish.version,
        wish.plan.windows.as_ref(),
        target,
    );
    let held = known.retry.or(known.pause).is_some();
    let need = due::need(object, wish.interval, &Circumstances { pending, ..known });
    Ok(match need {
        Need::Nothing => need,
        Need::At(_) => {
            still_allowed(ctx, key, &wish.plan).await?;
            if memory.overdue_since.is_some() && !held {
                // Kept back by a window: it is overdue again when that lets it through.
                ctx.remember(key, |memory| memory.overdue_since = None);
            }
            need
        }
        Need::Sync(since) => {
            let since = memory.overdue_since.unwrap_or(since);
            ctx.remember(key, |memory| memory.overdue_since = Some(since));
            Need::Sync(since)
        }
    })
}

/// What decides whether a sync is due, if none is pending.
fn circumstances<'a>(
    ctx: &Context,
    key: &ObjectKey,
    memory: &Memory,
    version: &'a str,
    windows: Option<&'a Windows>,
    target: State,
) -> Circumstances<'a> {
    let template_changed = ctx.template_sources.is_changed(key);
    let news = template_changed || memory.store_changed;
    Circumstances {
        now: Timestamp::now(),
        version,
        retry: memory.retry(version).filter(|_| !news),
        last_success: memory.last_success,
        pending: false,
        template_changed,
        store_changed: memory.store_changed,
        target,
        lease_due: ctx.leases().due(key),
        windows,
        pause: memory.pause(),
    }
}

/// Runs a sync that begins now, at `asked`, and remembers its success.
async fn carry_out(
    ctx: &Arc<Context>,
    sync: &Sync<'_>,
    asked: Timestamp,
    place: Place,
) -> Result<(Outcome, Synced), Failure> {
    // What is read from now on comes from the stores as they are; if it fails, the sync stays overdue.
    ctx.remember(sync.key, |memory| memory.store_changed = false);
    if sync.repair {
        let now = Instant::now();
        ctx.remember(sync.key, |memory| {
            memory.contest.get_or_insert_default().repair(now)
        });
    }
    let ran = sync.run(ctx, &place).await?;
    brake::free(ctx, sync.key);
    aside::took_back(ctx, sync.key, sync.object, &ran, sync.repair);
    sharing::compare(ctx, sync.key, sync.object, &ran);
    ctx.remember(sync.key, |memory| memory.succeeded(asked));
    let synced = Synced {
        at: asked,
        version: sync.version.to_string(),
        binding: ran.binding,
    };
    Ok((ran.outcome, synced))
}

/// From one refresh to the next; zero means never.
fn interval_of(object: &ExternalSecret) -> Result<Duration, Failure> {
    let interval = object.spec.refresh_interval().map_err(|e| {
        Failure::refused(format!(
            "spec.refreshInterval: {e}; write a duration such as 1h or 15m"
        ))
    })?;
    Ok(interval
        .as_std()
        .map(|interval| interval.max(SHORTEST_REFRESH))
        .unwrap_or_default())
}

/// Tells what was synced, and works out when the next sync is due.
async fn finish(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    done: &Done,
) -> Result<Next, Failure> {
    let news = outcome::is_news(ctx, key, object, &done.ready, Some(&done.synced));
    let turn = match news.then(|| ctx.queue.step_aside(key)) {
        None => None,
        Some(None) => ctx.turns.status(false).await,
        Some(Some(called)) => tokio::select! {
            biased;
            turn = ctx.turns.status(true) => turn,
            // Whoever changes the object, or its target, does not wait for the status of what was before.
            () = superseded(ctx, key, done, &called) => {
                ctx.remember(key, |memory| memory.overdue_since = Some(done.synced.at));
                return Ok(Next::Nothing);
            }
        },
    };
    Box::pin(outcome::write_status(
        ctx,
        key,
        object,
        &done.ready,
        Some(&done.synced),
    ))
    .await?;
    drop(turn);
    let memory = ctx.memory(key);
    let known = circumstances(
        ctx,
        key,
        &memory,
        &done.synced.version,
        done.windows.as_ref(),
        done.target,
    );
    let fresh = ctx.index().get(key).unwrap_or_else(|| object.clone());
    let next = next_of(due::need(&fresh, done.interval, &known));
    Ok(aside::sooner(next, aside::contest_end(ctx, key)))
}

fn next_of(need: Need) -> Next {
    match need {
        Need::At(at) => Next::At(instant_of(at)),
        // It took longer than the interval, or a change came meanwhile.
        Need::Sync(_) => Next::At(Instant::now()),
        Need::Nothing => Next::Nothing,
    }
}

/// Waits for work on the object that makes another sync, and so another status, of it.
async fn superseded(ctx: &Context, key: &ObjectKey, done: &Done, called: &Notify) {
    loop {
        called.notified().await;
        let Some(current) = ctx.index().get(key) else {
            return;
        };
        if version_of(&current) != done.synced.version {
            return;
        }
        let news = ctx.memory(key).store_changed || ctx.template_sources.is_changed(key);
        // The watch may have shown our own write before it was answered: that is no other's hand.
        let state = ctx.targets().state(&target_of(&current));
        let touched = state != State::Intact && ctx.memory(key).pause().is_none();
        // A window would keep back a sync that nobody asked for, and nobody would write the status.
        if (news || touched) && done.windows.is_none() {
            return;
        }
    }
}

/// `syncedResourceVersion` that a sync of the object as it is leaves.
#[must_use]
pub fn version_of(object: &ExternalSecret) -> String {
    let metadata = &object.metadata;
    names::synced_resource_version(
        metadata.generation.unwrap_or_default(),
        metadata.annotations.as_ref(),
        metadata.labels.as_ref(),
    )
}

/// What is known of the target; looks at its data if it was changed since it was last looked at.
async fn target_state(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> Result<State, Failure> {
    if object.spec.creation_policy() == CreationPolicy::None {
        return Ok(State::Absent);
    }
    if object.spec.manifest().is_some() {
        return Ok(manifests::state(object));
    }
    let target = target_of(object);
    let state = ctx.targets().state(&target);
    if state != State::Unknown {
        return Ok(state);
    }
    if ctx.memory(key).pause().is_some() {
        // It is not repaired before, whatever it holds: nobody makes us look as often as he writes.
        return Ok(State::Harmed);
    }
    let since = Instant::now();
    let secret = apply::get::<Secret>(&ctx.client, &target.namespace, &target.name)
        .await
        .map_err(Failure::from)?;
    let Some(secret) = secret else {
        ctx.targets().remove(&target);
        return Ok(State::Absent);
    };
    // The scan has taken over what a key signed that is lost; if such a hash appears later, somebody else wrote it.
    let intact = ctx
        .hasher()
        .is_some_and(|hasher| hasher.seal(&secret).is_intact());
    ctx.verified(&secret, intact, since);
    Ok(if intact { State::Intact } else { State::Harmed })
}
