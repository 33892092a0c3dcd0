//! What the condition of an object that is synced says beside that: who else writes its target. Ready stays True, as
//! with ESO: the Secret held what it must when it was written, and who waits for Ready, or is woken by False, waits for
//! values that are there. An event tells it at once.

use std::sync::Arc;

use tokio::time::Instant;

use super::contest::LONGEST;
use super::context::{Context, reference};
use super::index::ObjectKey;
use super::outcome::{self, Failure};
use super::reconcile::Next;
use super::sharing;
use super::status::{self, Ready};
use super::sync::Ran;
use crate::api::external_secret::ExternalSecret;
use crate::target::names;
use crate::target::plan::Outcome;

/// Takes note of a sync that wrote although it was made of the same as the one before: somebody else had changed the
/// target. One that was begun for that reason (`repair`) was counted when it began.
pub fn took_back(ctx: &Context, key: &ObjectKey, object: &ExternalSecret, ran: &Ran, repair: bool) {
    let now = Instant::now();
    let generic = object.spec.manifest().is_some();
    let contested = ctx.remember(key, |memory| {
        let same = ran.made_of.is_some() && memory.made_of == ran.made_of;
        memory.made_of = ran.made_of;
        let Some(undone) = &ran.undone else { return None };
        let managers = &undone.managers;
        // What a template makes anew each time is nobody's deed, and of other ExternalSecrets it is told as such.
        let nobodys = generic && managers.is_empty();
        let shared = !managers.is_empty() && managers.iter().all(|manager| names::is_field_manager(manager));
        if !repair && same && !nobodys && !shared {
            memory.contest.get_or_insert_default().repair(now);
        }
        let contest = memory.contest.as_mut().filter(|contest| contest.end(now).is_some())?;
        let told = format!(
            "{} of {}; it is set back, and after a pause that grows to {} minutes; let only one of them write it",
            undone.sentence(),
            outcome::named(object),
            LONGEST.as_secs() / 60
        );
        contest.name(&told).then_some(told)
    });
    if let Some(told) = contested {
        tracing::warn!(
            namespace = &*key.namespace,
            name = &*key.name,
            contest = told,
            "target is contested"
        );
        ctx.recorder
            .send(reference(object), true, "TargetContested", &told);
    }
}

/// What is said beside.
fn aside(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> Option<Box<str>> {
    let contest = ctx.memory(key).contest;
    let contest = contest.filter(|contest| contest.end(Instant::now()).is_some());
    let rival = contest.and_then(|contest| contest.rival().map(String::from));
    let said: Vec<String> = rival
        .into_iter()
        .chain(sharing::aside(ctx, key, object))
        .collect();
    (!said.is_empty()).then(|| said.join("; ").into())
}

/// The condition of a success.
#[must_use]
pub fn ready(ctx: &Context, key: &ObjectKey, object: &ExternalSecret, outcome: Outcome) -> Ready {
    let aside = aside(ctx, key, object);
    let ready = composed(object, outcome, aside.as_deref());
    if ctx.memory(key).aside != aside {
        ctx.remember(key, |memory| memory.aside = aside);
    }
    ready
}

fn composed(object: &ExternalSecret, outcome: Outcome, aside: Option<&str>) -> Ready {
    let (reason, message) = outcome::said(object, outcome);
    match aside {
        Some(aside) => Ready::yes(reason, format!("{message}; {aside}")),
        None => Ready::yes(reason, message),
    }
}

/// Writes the condition anew if only what is said beside has changed, and says when that may change by itself.
///
/// # Errors
/// If it could not be written.
pub async fn retell(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    next: Next,
) -> Result<Next, Failure> {
    let (old, new) = (ctx.memory(key).aside, aside(ctx, key, object));
    if old != new {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let said = composed(object, Outcome::Synced, old.as_deref());
        let is_said = |message: &Option<String>| message.as_ref() == Some(&said.message);
        let stands = conditions
            .filter(|condition| condition.type_ == status::READY && condition.status == "True")
            .any(|condition| is_said(&condition.message));
        if stands {
            let ready = composed(object, Outcome::Synced, new.as_deref());
            Box::pin(outcome::write_status(ctx, key, object, &ready, None)).await?;
        }
        ctx.remember(key, |memory| memory.aside = new);
    }
    Ok(sooner(next, contest_end(ctx, key)))
}

/// When a tug of war that goes on is over, if nothing happens.
#[must_use]
pub fn contest_end(ctx: &Context, key: &ObjectKey) -> Option<Instant> {
    ctx.memory(key).contest?.end(Instant::now())
}

/// The earlier of two.
#[must_use]
pub fn sooner(next: Next, end: Option<Instant>) -> Next {
    match (next, end) {
        (Next::At(at), Some(end)) => Next::At(at.min(end)),
        (Next::Nothing, Some(end)) => Next::At(end),
        (next, _) => next,
    }
}
