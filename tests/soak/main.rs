//! Objects, Secrets and Vault are changed at random while Vault, the API server, etcd, the ways between them and
//! the operator's replicas fail at random. At every quiet point everything must be as a model says, and in
//! between no Secret may ever have been seen in a state that it must not have.
//!
//! `KEYFERRY_SOAK_SEEDS` is the number of seeds, `KEYFERRY_SOAK_SECONDS` how long each acts, and
//! `KEYFERRY_SOAK_FIRST_SEED` the first of them; without them there are few, so that it is done in three minutes. The
//! same seed does the same acts in the same order; when a fault strikes within them is a matter of time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod act;
mod faults;
mod judge;
mod model;
mod observe;
mod plan;
mod quiet;
mod stage;
mod world;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::{join_all, try_join3};
use tokio::time::{Instant, sleep};

use crate::judge::Judge;
use crate::observe::Observer;
use crate::plan::{Planner, Round};
use crate::stage::{Set, Stage};

/// Without the environment variables: seeds in which every kind of fault strikes.
const FIRST_SEED: u64 = 1;
const SEEDS: u64 = 3;
const SECONDS: u64 = 16;
/// Between two quiet points.
const ROUND: Duration = Duration::from_secs(8);
/// Lines of the operator's log that are told of a failure.
const LINES: usize = 60;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_happens_at_random_harms_a_secret_and_everything_comes_right() {
    let first = number("KEYFERRY_SOAK_FIRST_SEED", FIRST_SEED);
    let seeds = number("KEYFERRY_SOAK_SEEDS", SEEDS);
    let seconds = number("KEYFERRY_SOAK_SECONDS", SECONDS);
    let stage = Stage::new().await.unwrap();
    let mut failures = Vec::new();
    for seed in first..first + seeds {
        let begun = Instant::now();
        match play(&stage, seed, seconds).await {
            Ok(slowest) => println!(
                "seed {seed}: right after {slowest:.1?}, {:.0?} in all",
                begun.elapsed()
            ),
            Err(error) => {
                println!("seed {seed} failed: {error:#}");
                failures.push(seed);
            }
        }
    }
    assert!(
        failures.is_empty(),
        "seeds {failures:?} failed; KEYFERRY_SOAK_FIRST_SEED=N KEYFERRY_SOAK_SEEDS=1 does one again"
    );
}

/// Plays one seed; the answer is how long the slowest return to order took, without and with a trigger.
async fn play(stage: &Stage, seed: u64, seconds: u64) -> Result<[Duration; 2]> {
    let set = Set::new(stage, seed).await?;
    let played = rounds(&set, seconds).await;
    let logs = set.logs().await;
    let cleared = set.clear().await;
    match played {
        Ok(slowest) => {
            cleared?;
            // Values are told in the journal, never in the log.
            ensure!(
                !logs.contains(&format!("v-soak-{seed}-")),
                "a value is in the log"
            );
            ensure!(!logs.contains("panicked at"), "the operator panicked");
            Ok(slowest)
        }
        Err(error) => {
            let text = format!("{error:#}");
            let journal = set.journal();
            Err(error).with_context(|| format!("{journal}\n{}", told(&set, &text, &logs)))
        }
    }
}

async fn rounds(set: &Set<'_>, seconds: u64) -> Result<[Duration; 2]> {
    let observer = Observer::start(set);
    let (mut judge, mut planner) = (Judge::default(), Planner::new(set.seed));
    act_out(set, &planner.first()).await?;
    let mut slowest = quiet::check(set, &observer, &mut judge).await?;
    let millis = u64::try_from(ROUND.as_millis())?;
    for _ in 0..(seconds * 1000).div_ceil(millis) {
        act_out(set, &planner.next(millis)).await?;
        let took = quiet::check(set, &observer, &mut judge).await?;
        slowest = [slowest[0].max(took[0]), slowest[1].max(took[1])];
    }
    Ok(slowest)
}

/// Does everything of a round, each kind beside the others.
async fn act_out(set: &Set<'_>, round: &Round) -> Result<()> {
    let lanes = round.faults.iter().map(async |lane| {
        for (fault, length) in lane {
            sleep(fault.pause).await;
            fault.act.strike(set, *length).await?;
        }
        anyhow::Ok(())
    });
    let faults = async { join_all(lanes).await.into_iter().collect::<Result<()>>() };
    let (vault, kubernetes) = (
        act::change_vault(set, &round.vault),
        act::change_kubernetes(set, &round.kube),
    );
    try_join3(vault, kubernetes, faults).await.map(drop)
}

/// The end of the operator's log, and what it says of the objects that failed.
fn told(set: &Set<'_>, failure: &str, logs: &str) -> String {
    let lines: Vec<&str> = logs.lines().collect();
    let world = set.world();
    let named = quiet::named_in(&world, failure);
    let of_them = lines.iter().filter(|line| {
        named
            .iter()
            .any(|(namespace, name)| line.contains(namespace.as_str()) && line.contains(name.as_str()))
    });
    let of_them: Vec<&str> = of_them.copied().collect();
    let last = |lines: &[&str]| lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!(
        "the operator said of them:\n{}\nand at last:\n{}",
        last(&of_them),
        last(&lines)
    )
}
