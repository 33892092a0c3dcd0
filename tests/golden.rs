//! Renders the golden corpus and compares it with what Go gave (`tests/golden/README.md`).
//!
//! `GOLDEN_AREA=strings` takes one area only, `GOLDEN_SHOW=50` shows as many disagreements of each area.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry::secret::SecretBytes;
use keyferry::template::{Delims, ErrorKind, MissingKey, Template};
use serde::Deserialize;
use serde::de::DeserializeOwned;

type Data = BTreeMap<String, SecretBytes>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Values {
    data: Option<BTreeMap<String, String>>,
    data_base64: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    #[serde(default)]
    left: String,
    #[serde(default)]
    right: String,
    #[serde(flatten)]
    values: Values,
}

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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

impl Values {
    fn decode(&self) -> Result<Option<Data>> {
        if self.data.is_none() && self.data_base64.is_none() {
            return Ok(None);
        }
        let mut data = Data::new();
        for (key, text) in self.data.iter().flatten() {
            data.insert(key.clone(), SecretBytes::from(text.as_str()));
        }
        for (key, text) in self.data_base64.iter().flatten() {
            data.insert(key.clone(), SecretBytes::new(STANDARD.decode(text)?));
        }
        Ok(Some(data))
    }
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
fn render(case: &Case, standard: &Data) -> Result<(Outcome, String)> {
    let own = case.values.decode()?;
    let delims = Delims {
        left: case.left.clone(),
        right: case.right.clone(),
    };
    let done = Template::parse("golden", &case.template, &delims)
        .and_then(|template| template.render(own.as_ref().unwrap_or(standard), MissingKey::Error));
    Ok(match done {
        Ok(output) => (Outcome::Output(output.expose().to_vec()), String::new()),
        Err(error) => {
            let step = match error.kind() {
                ErrorKind::Parse => "parse",
                ErrorKind::Exec => "exec",
            };
            (Outcome::Failed(step.into()), error.to_string())
        }
    })
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Output(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Outcome::Failed(step) => format!("fails to {step}"),
    }
}

/// Compares one area; how many cases it has, and how many disagree.
fn compare(area: &str, standard: &Data, most: usize) -> Result<(usize, usize)> {
    let cases: Vec<Case> = load(&folder().join("cases").join(format!("{area}.json")))?;
    let results: Vec<Expected> = load(&folder().join("results").join(format!("{area}.json")))?;
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
        let (given, why) = render(case, standard)?;
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
    let standard: Values = load(&folder().join("data.json"))?;
    let standard = standard.decode()?.context("data.json is empty")?;
    let mut areas: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder().join("cases"))? {
        let path = entry?.path();
        let area = path
            .file_stem()
            .and_then(|name| name.to_str())
            .context("name of an area")?;
        areas.push(area.to_owned());
    }
    areas.sort();
    areas.retain(|area| only.as_ref().is_none_or(|only| only == area));
    ensure!(!areas.is_empty(), "no area is named {}", only.unwrap_or_default());
    let (mut total, mut wrong) = (0, 0);
    for area in &areas {
        let (cases, different) = compare(area, &standard, most)?;
        total += cases;
        wrong += different;
    }
    println!("all: {} of {total} agree", total - wrong);
    ensure!(wrong == 0, "{wrong} of {total} templates render differently");
    Ok(())
}
