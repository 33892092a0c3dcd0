//! The golden corpus, for whoever renders it: the test that compares with Go, the fuzz targets and the bench.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry::secret::SecretBytes;
use keyferry::template::Delims;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub type Data = BTreeMap<String, SecretBytes>;

/// A template and what it is rendered with.
pub struct Case {
    pub template: String,
    pub delims: Delims,
    pub data: Data,
}

/// The cases of one file, in its order.
pub struct Area {
    pub name: String,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Values {
    data: Option<BTreeMap<String, String>>,
    data_base64: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Written {
    template: String,
    #[serde(default)]
    left: String,
    #[serde(default)]
    right: String,
    #[serde(flatten)]
    values: Values,
}

/// The folder of the corpus.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A file of the corpus.
pub fn load<T: DeserializeOwned>(path: &str) -> Result<T> {
    let text = std::fs::read(folder().join(path)).with_context(|| path.to_owned())?;
    serde_json::from_slice(&text).with_context(|| path.to_owned())
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

/// All areas, by name. A case that names no data has that of `data.json`.
pub fn areas() -> Result<Vec<Area>> {
    let standard: Values = load("data.json")?;
    let standard = standard.decode()?.context("data.json is empty")?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder().join("cases"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        names.push(name.context("name of an area")?.to_owned());
    }
    names.sort();
    let case = |written: Written| {
        anyhow::Ok(Case {
            data: written.values.decode()?.unwrap_or_else(|| standard.clone()),
            delims: Delims {
                left: written.left,
                right: written.right,
            },
            template: written.template,
        })
    };
    let area = |name: String| {
        let written: Vec<Written> = load(&format!("cases/{name}.json"))?;
        let cases = written.into_iter().map(case).collect::<Result<_>>()?;
        Ok(Area { name, cases })
    };
    names.into_iter().map(area).collect()
}
