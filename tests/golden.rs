//! Renders the golden corpus and compares it with what Go gave (`tests/golden/README.md`).
//!
//! `GOLDEN_AREA=strings` takes one area only, `GOLDEN_SHOW=50` shows as many disagreements of each area.

#[path = "golden/corpus.rs"]
mod corpus;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corpus::{Area, Case};
use keyferry::template::{ErrorKind, MissingKey, Template};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    output: Option<String>,
    output_base64: Option<String>,
    error: Option<String>,
}

/// A result: the bytes, or the step that failed.
#[derive(PartialEq, Eq)]
enum Outcome {
    Output(Vec<u8>),
    Failed(String),
}

impl Expected {
    fn outcome(self) -> Result<Outcome> {
        Ok(match self {
            Self {
                error: Some(step), ..
            } => Outcome::Failed(step),
            Self {
                output: Some(text), ..
            } => Outcome::Output(text.into_bytes()),
            Self {
                output_base64: Some(text),
                ..
            } => Outcome::Output(STANDARD.decode(text)?),
            _ => bail!("a result is neither output nor error"),
        })
    }
}

/// What our engine gives, and why it failed if it did.
fn render(case: &Case) -> (Outcome, String) {
    let done = Template::parse("golden", &case.template, &case.delims)
        .and_then(|template| template.render(&case.data, MissingKey::Error));
    match done {
        Ok(output) => (Outcome::Output(output.expose().to_vec()), String::new()),
        Err(error) => {
            let step = match error.kind() {
                ErrorKind::Parse => "parse",
                ErrorKind::Exec => "exec",
            };
            (Outcome::Failed(step.into()), error.to_string())
        }
    }
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Output(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Outcome::Failed(step) => format!("fails to {step}"),
    }
}

/// Compares one area; how many cases it has, and how many disagree.
fn compare(area: &Area, most: usize) -> Result<(usize, usize)> {
    let Area { name: area, cases } = area;
    let results: Vec<Expected> = corpus::load(&format!("results/{area}.json"))?;
    ensure!(
        cases.len() == results.len(),
        "{area}: {} cases, {} results",
        cases.len(),
        results.len()
    );
    let count = cases.len();
    let mut wrong = 0;
    for (index, (case, result)) in cases.iter().zip(results).enumerate() {
        let expected = result.outcome()?;
        let (given, why) = render(case);
        if given != expected {
            wrong += 1;
            if wrong <= most {
                let (expected, given) = (show(&expected), show(&given));
                println!(
                    "{area}[{index}] {}\n   Go: {expected}\n   we: {given} {why}",
                    case.template
                );
            }
        }
    }
    println!("{area}: {} of {count} agree", count - wrong);
    Ok((count, wrong))
}

#[test]
fn every_template_of_the_corpus_renders_as_in_go() -> Result<()> {
    let only = std::env::var("GOLDEN_AREA").ok();
    let most = match std::env::var("GOLDEN_SHOW") {
        Ok(number) => number.parse().context("GOLDEN_SHOW")?,
        Err(_) => 5,
    };
    let mut areas = corpus::areas()?;
    areas.retain(|area| only.as_ref().is_none_or(|only| *only == area.name));
    ensure!(!areas.is_empty(), "no area is named {}", only.unwrap_or_default());
    let (mut total, mut wrong) = (0, 0);
    for area in &areas {
        let (cases, different) = compare(area, most)?;
        total += cases;
        wrong += different;
    }
    println!("all: {} of {total} agree", total - wrong);
    ensure!(wrong == 0, "{wrong} of {total} templates render differently");
    Ok(())
}
