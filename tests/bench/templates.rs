//! Our template engine beside Go's own, on the golden corpus: the same cases, in the same run, by turns.

#[path = "../golden/corpus.rs"]
mod corpus;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use corpus::Case;
use keyferry::secret::SecretBytes;
use keyferry::template::{MissingKey, Template};
use serde_json::{Value, json};

/// Renderings of the whole corpus per turn, and turns of each engine; the best turn counts.
const ROUNDS: u32 = 20;
const TURNS: usize = 3;
/// Key derivations and key pairs: the engine's share of their time is nothing.
const SLOW: &str = "slow";

/// Nanoseconds per rendering of the whole corpus.
#[derive(Clone, Copy)]
struct Times {
    cases: u64,
    both: f64,
    execute: f64,
}

pub fn run() -> Result<Value> {
    let cases = cases()?;
    let program = build_go()?;
    let (mut go, mut ours): (Vec<Times>, Vec<Times>) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        go.push(run_go(&program)?);
        ours.push(run_ours(&cases)?);
    }
    fs::remove_file(&program)?;
    let (go, ours) = (best(&go), best(&ours));
    ensure!(
        go.cases == ours.cases,
        "Go rendered {} cases and we {}: the corpus does not agree, run the golden test",
        go.cases,
        ours.cases
    );
    let ratio = |ours: f64, go: f64| (ours / go * 1000.0).round() / 1000.0;
    let micros =
        |nanos: f64| (nanos / f64::from(u32::try_from(go.cases).unwrap_or(u32::MAX)) / 10.0).round() / 100.0;
    Ok(json!({
        "cases": go.cases, "go_parse_and_execute_us_per_case": micros(go.both),
        "parse_and_execute_us_per_case": micros(ours.both), "go_execute_us_per_case": micros(go.execute),
        "execute_us_per_case": micros(ours.execute), "ratio_parse_and_execute": ratio(ours.both, go.both),
        "ratio_execute": ratio(ours.execute, go.execute),
    }))
}

fn best(turns: &[Times]) -> Times {
    let least = |of: fn(&Times) -> f64| turns.iter().map(of).fold(f64::INFINITY, f64::min);
    Times {
        cases: turns.first().map_or(0, |times| times.cases),
        both: least(|times| times.both),
        execute: least(|times| times.execute),
    }
}

/// The cases that render; Go's bench takes the same ones.
fn cases() -> Result<Vec<Case>> {
    let areas = corpus::areas()?.into_iter();
    let cases = areas.filter(|area| area.name != SLOW).flat_map(|area| area.cases);
    Ok(cases.filter(|case| render(case).is_some()).collect())
}

fn parse(case: &Case) -> Option<Template> {
    Template::parse("golden", &case.template, &case.delims).ok()
}

fn render(case: &Case) -> Option<SecretBytes> {
    parse(case)?.render(&case.data, MissingKey::Error).ok()
}

fn run_ours(cases: &[Case]) -> Result<Times> {
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for case in cases {
            std::hint::black_box(render(case));
        }
    }
    let both = began.elapsed();
    let parsed: Vec<(Template, &Case)> = cases
        .iter()
        .map(|case| Ok((parse(case).context("a case that rendered does not parse")?, case)))
        .collect::<Result<_>>()?;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for (template, case) in &parsed {
            let _ = std::hint::black_box(template.render(&case.data, MissingKey::Error));
        }
    }
    let execute = began.elapsed();
    let per_round = |time: std::time::Duration| time.as_secs_f64() * 1e9 / f64::from(ROUNDS);
    Ok(Times {
        cases: cases.len() as u64,
        both: per_round(both),
        execute: per_round(execute),
    })
}

fn build_go() -> Result<PathBuf> {
    let cache = keyferry_testbed::programs::cache()?;
    fs::create_dir_all(&cache)?;
    let program = cache.join(format!("keyferry-golden-{}", std::process::id()));
    let status = Command::new("go")
        .current_dir(corpus::folder())
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .status()
        .context("cannot run go; the bench needs Go 1.26")?;
    ensure!(status.success(), "go could not build tests/golden");
    Ok(program)
}

fn run_go(program: &PathBuf) -> Result<Times> {
    let output = Command::new(program)
        .current_dir(corpus::folder())
        .args(["bench", &ROUNDS.to_string()])
        .output()?;
    if !output.status.success() {
        bail!("Go's bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let times: Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| {
        times[key]
            .as_f64()
            .with_context(|| format!("Go's bench gave no {key}"))
    };
    Ok(Times {
        cases: times["cases"]
            .as_u64()
            .context("Go's bench gave no number of cases")?,
        both: number("parse_and_execute_ns")?,
        execute: number("execute_ns")?,
    })
}
