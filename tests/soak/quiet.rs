//! A quiet point: nothing is broken any more, and soon everything must be as the model says.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use crate::act;
use crate::judge::Judge;
use crate::model::Creation;
use crate::observe::{Observer, Scene, look};
use crate::stage::Set;
use crate::world::{Expected, External, Id, World, owner_of};

/// In this time everything comes right after the last fault; a loaded machine included.
const CONVERGES: Duration = Duration::from_secs(45);
/// What takes longer is told, also if all is right in the end.
const SLOW: Duration = Duration::from_secs(10);
/// What was right stays so.
const STAYS: Duration = Duration::from_millis(700);

/// Waits until all is right without a further trigger, and then with one; the answer is how long both took.
pub async fn check(set: &Set<'_>, observer: &Observer, judge: &mut Judge) -> Result<[Duration; 2]> {
    let unforced = converge(set, false).await?;
    verdict(set, observer, judge)?;
    let living: Vec<Id> = set.world().living().map(|(id, _)| id.clone()).collect();
    for id in &living {
        act::force(set, id).await?;
    }
    let forced = converge(set, true).await?;
    verdict(set, observer, judge)?;
    set.world().settle();
    Ok([unforced, forced])
}

async fn converge(set: &Set<'_>, forced: bool) -> Result<Duration> {
    let (sure, living) = {
        let world = set.world();
        let unsure =
            |(id, external): &(&Id, &External)| world.expected(id, external, forced) == Expected::Anything;
        (
            world.living().filter(|one| !unsure(one)).count(),
            world.living().count(),
        )
    };
    let what = if forced { "forced" } else { "mended" };
    set.note(format!(
        "all is {what}; of {living} ExternalSecrets {sure} are known"
    ));
    let begun = Instant::now();
    let (mut right_since, mut last_wrong) = (None, String::new());
    loop {
        let scene = look(set).await?;
        let faults = faults(&set.world(), &scene, forced);
        if faults.is_empty() {
            let since = *right_since.get_or_insert_with(|| begun.elapsed());
            if begun.elapsed() > since + STAYS {
                set.all_run().await?;
                set.note(format!("all is right since {since:.1?}"));
                if since > SLOW {
                    println!(
                        "seed {}: {since:.1?}, the last that was wrong: {last_wrong}",
                        set.seed
                    );
                }
                return Ok(since);
            }
        } else {
            right_since = None;
            last_wrong = faults.join("\n");
        }
        if begun.elapsed() > CONVERGES {
            bail!(
                "{CONVERGES:?} after {}: {}",
                if forced { "a trigger" } else { "the last fault" },
                last_wrong
            );
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Judges all states that were seen since the last time.
fn verdict(set: &Set<'_>, observer: &Observer, judge: &mut Judge) -> Result<()> {
    let (world, states) = (set.world(), observer.take());
    set.note(format!("{} states of Secrets were seen", states.len()));
    let mut faults = Vec::new();
    for seen in states {
        if let Some(fault) = judge.judge(&world, &seen) {
            let seconds = Duration::from_millis(seen.at).as_secs_f64();
            faults.push(format!(
                "Secret {}/{} at {seconds:.2} s: {fault}",
                seen.id.0, seen.id.1
            ));
        }
    }
    if !faults.is_empty() {
        bail!("harm was done: {}", faults.join("\n"));
    }
    Ok(())
}

fn faults(world: &World, scene: &Scene, forced: bool) -> Vec<String> {
    let all = world.externals.iter();
    all.filter_map(|(id, external)| {
        let fault = fault(world, scene, id, external, forced)?;
        Some(format!("{}/{}: {fault}; wish {:?}", id.0, id.1, external.spec()))
    })
    .collect()
}

fn fault(world: &World, scene: &Scene, id: &Id, external: &External, forced: bool) -> Option<String> {
    let target = world.target(id);
    let secret = scene.secrets.get(&target);
    let data = secret.and_then(|secret| secret.data.as_ref());
    let found = scene.externals.get(id);
    let ready = found.map(|found| &found.ready);
    let ready_is = |status: bool, reasons: &[&str]| {
        ready.is_some_and(|(is, why, _)| {
            *is == if status { "True" } else { "False" } && reasons.contains(&why.as_str())
        })
    };
    let expected = world.expected(id, external, forced);
    let right = match &expected {
        Expected::Anything => true,
        // What is owned goes by Kubernetes' own garbage collector, in its own time: after failures of the API server
        // that may be a minute.
        Expected::Gone => found.is_none(),
        Expected::Exactly(wanted, status, reason) => data == wanted.as_ref() && ready_is(*status, &[reason]),
        Expected::ReadSince(since) => {
            world.read_since(external, data, *since)
                && ready_is(true, &["SecretSynced", "SecretDeleted", "SecretMissing"])
        }
        Expected::Failing => ready_is(false, &["SecretSyncedError"]),
    };
    if !right {
        return Some(format!(
            "wanted {expected:?}, found data {data:?}, Ready {ready:?}"
        ));
    }
    let (_, other) = owner_of(&target);
    if data.is_some()
        && external
            .spec()
            .is_some_and(|spec| spec.creation == Creation::Owner)
    {
        let old = scene
            .secrets
            .get(&other)
            .filter(|_| expected != Expected::Anything);
        if let Some(old) = old.filter(|_| ready_is(true, &["SecretSynced"])) {
            return Some(format!("{} is still there, with {:?}", other.1, old.data));
        }
    }
    // Whom a Secret belongs to is sure as soon as it was written.
    let owner = secret.and_then(|secret| secret.controller.clone());
    let written = matches!(
        expected,
        Expected::Exactly(Some(_), true, _) | Expected::ReadSince(_)
    );
    let uid = found.map(|found| found.uid.clone());
    let ours = external
        .spec()
        .is_some_and(|spec| spec.creation == Creation::Owner);
    let wanted = uid
        .filter(|_| ours)
        .map(|uid| ("ExternalSecret".to_string(), uid));
    (written && data.is_some() && owner != wanted)
        .then(|| format!("it is controlled by {owner:?}, not by {wanted:?}"))
}

/// The objects that a failure speaks of, for the search in the log.
pub fn named_in(world: &World, text: &str) -> Vec<Id> {
    let is_named = |(namespace, name): &&Id| {
        let ends = [":", " at"].map(|end| format!("{namespace}/{name}{end}"));
        ends.iter().any(|named| text.contains(named))
    };
    world.externals.keys().filter(is_named).cloned().collect()
}
