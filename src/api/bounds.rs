//! How large the parts of an object may be. The definitions carry the bounds, so that the API server refuses what
//! exceeds them; and what is older than they are, or came by other definitions, is held against the same bounds here,
//! as they are read out of the definitions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::ser::{self, Serialize};
use serde_json::{Value, json};

use super::crds;
use super::external_secret::ExternalSecretSpec;
use super::store::SecretStoreSpec;

/// Characters of a text that has no bound of its own: a name, a path, an expression.
const TEXT: u64 = 4_096;
/// Entries of a list or map that has no bound of its own.
const ENTRIES: u64 = 1_000;
/// Characters of a template. A Secret holds 1 MiB, and an object of the API not much more.
const TEMPLATE: u64 = 512 << 10;
/// Characters of certificates, and of a value of a fake store.
const LARGE: u64 = 1 << 20;

/// Bounds of their own: `[]` is each item of a list, `{}` each value of a map.
const EXTERNAL_SECRET: &[(&str, u64)] = &[
    ("data", 10_000),
    ("dataFrom", 2_000),
    ("dataFrom[].rewrite", 100),
    ("dataFrom[].rewrite[].transform.template", TEMPLATE),
    ("syncWindows.windows", 100),
    ("syncWindows.windows[].schedule", 256),
    ("target.template.data", 2_000),
    ("target.template.data{}", TEMPLATE),
    ("target.template.metadata.annotations{}", 256 << 10),
    ("target.template.metadata.finalizers", 100),
    ("target.template.templateFrom", 200),
    ("target.template.templateFrom[].literal", TEMPLATE),
];
const STORE: &[(&str, u64)] = &[
    ("conditions", 200),
    ("conditions[].namespaceRegexes", 100),
    ("provider.fake.data", 10_000),
    ("provider.fake.data[].value", LARGE),
    ("provider.openBao.caBundle", LARGE),
    ("provider.vault.caBundle", LARGE),
    ("provider.vault.headers", 100),
    ("provider.vault.headers{}", 8_192),
];

/// Bounds everything in the spec of an ExternalSecret.
pub fn external_secret(schema: &mut Value) {
    bound(&mut schema["properties"]["spec"], "", EXTERNAL_SECRET);
}

/// Bounds everything in the spec of a store.
pub fn store(schema: &mut Value) {
    bound(&mut schema["properties"]["spec"], "", STORE);
}

fn bound(schema: &mut Value, path: &str, own: &[(&str, u64)]) {
    let own_bound = own
        .iter()
        .find(|(place, _)| *place == path)
        .map(|(_, most)| *most);
    let (keyword, usual) = match schema["type"].as_str() {
        Some("string") if schema.get("enum").is_none() => ("maxLength", TEXT),
        Some("array") => ("maxItems", ENTRIES),
        Some("object") if schema.get("additionalProperties").is_some() => ("maxProperties", ENTRIES),
        _ => ("", 0),
    };
    if let Some(schema) = schema.as_object_mut()
        && !keyword.is_empty()
    {
        schema.entry(keyword).or_insert(json!(own_bound.unwrap_or(usual)));
    }
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in fields {
            let dot = if path.is_empty() { "" } else { "." };
            bound(field, &format!("{path}{dot}{name}"), own);
        }
    }
    for (below, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(each) = schema.get_mut(below).filter(|each| each.is_object()) {
            bound(each, &format!("{path}{sign}"), own);
        }
    }
}

/// A part of an object that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Where it stands, for example `spec.data`.
    pub field: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Holds an ExternalSecret against the bounds.
///
/// # Errors
/// The first part that is too large.
pub fn check_external_secret(spec: &ExternalSecretSpec) -> Result<(), Exceeded> {
    check(spec, BOUNDS.first())
}

/// Holds a store against the bounds.
///
/// # Errors
/// The first part that is too large.
pub fn check_store(spec: &SecretStoreSpec) -> Result<(), Exceeded> {
    check(spec, BOUNDS.get(1))
}

/// Of the specs of ExternalSecrets and of stores.
static BOUNDS: LazyLock<Vec<Bounds>> = LazyLock::new(|| {
    let specs = crds::all().into_iter().filter_map(|crd| {
        let version = serde_json::to_value(crd.spec.versions.into_iter().next()?).ok()?;
        version
            .pointer("/schema/openAPIV3Schema/properties/spec")
            .map(Bounds::read)
    });
    specs.collect()
});

/// The bounds of a part and of what is in it.
#[derive(Default)]
struct Bounds {
    most: Option<usize>,
    fields: BTreeMap<String, Bounds>,
    each: Option<Box<Bounds>>,
}

impl Bounds {
    fn read(schema: &Value) -> Self {
        let keyword = |name| schema.get(name).and_then(Value::as_u64);
        let most = keyword("maxLength")
            .or(keyword("maxItems"))
            .or(keyword("maxProperties").filter(|_| schema.get("additionalProperties").is_some()));
        let fields = schema.get("properties").and_then(Value::as_object);
        let each = schema
            .get("items")
            .or(schema.get("additionalProperties"))
            .filter(|each| each.is_object());
        Self {
            most: most.and_then(|most| usize::try_from(most).ok()),
            fields: fields
                .into_iter()
                .flatten()
                .map(|(name, field)| (name.clone(), Self::read(field)))
                .collect(),
            each: each.map(|each| Box::new(Self::read(each))),
        }
    }
}

fn check(spec: &impl Serialize, bounds: Option<&Bounds>) -> Result<(), Exceeded> {
    let Some(bounds) = bounds else { return Ok(()) };
    let part = Part {
        bounds: Some(bounds),
        place: &Place::Spec,
    };
    match spec.serialize(part) {
        Err(Stop::Exceeded(exceeded)) => Err(exceeded),
        // What cannot be written down is no question of size.
        Ok(()) | Err(Stop::Other) => Ok(()),
    }
}

/// Where a part stands.
enum Place<'a> {
    Spec,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec => f.write_str("spec"),
            Self::Field(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, number) => write!(f, "{of}[{number}]"),
        }
    }
}

#[derive(Debug)]
enum Stop {
    Exceeded(Exceeded),
    Other,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part is too large")
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

/// A part of an object, on the way through it. What the definition does not know is not looked into.
#[derive(Clone, Copy)]
struct Part<'a> {
    bounds: Option<&'a Bounds>,
    place: &'a Place<'a>,
}

impl Part<'_> {
    fn at_most(&self, size: usize, of: &str) -> Result<(), Stop> {
        match self.bounds.and_then(|bounds| bounds.most) {
            Some(most) if size > most => Err(Stop::Exceeded(Exceeded {
                field: self.place.to_string(),
                problem: format!(
                    "has {size} {of}, and at most {most} are served; shorten it, or make several objects of it"
                ),
            })),
            _ => Ok(()),
        }
    }
}

/// The parts of a part.
struct Parts<'a> {
    of: Part<'a>,
    count: usize,
    key: String,
}

impl<'a> Parts<'a> {
    fn new(of: Part<'a>) -> Self {
        Self {
            of,
            count: 0,
            key: String::new(),
        }
    }

    fn item(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Stop> {
        let Some(bounds) = self.of.bounds else {
            return Ok(());
        };
        let place = Place::Item(self.of.place, self.count);
        self.count += 1;
        value.serialize(Part {
            bounds: bounds.each.as_deref(),
            place: &place,
        })
    }

    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Stop> {
        let Some(bounds) = self.of.bounds else {
            return Ok(());
        };
        self.count += 1;
        value.serialize(Part {
            bounds: bounds.fields.get(name).or(bounds.each.as_deref()),
            place: &Place::Field(self.of.place, name),
        })
    }
}

#[path = "bounds_walk.rs"]
mod walk;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "bounds_tests.rs"]
mod tests;
