//! What `target.template` makes of the values that were read: the target's data, labels and annotations.
//!
//! The order is ESO's: `templateFrom` in its order (in each entry ConfigMap, Secret, literal), then `data`,
//! then the labels and annotations of `metadata`; later ones win.

mod around;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::decode::{self, DecodeError};
use super::keys::{self, KeyError};
use super::sources as held;
pub use super::sources::{SourceKind, SourceRef, Sources, sources};
use crate::api::external_secret::{
    DecodingStrategy, ExternalSecretTemplate, TemplateFrom, TemplateMergePolicy, TemplateRef, TemplateScope,
};
use crate::secret::SecretBytes;
use crate::template::funcs::yaml::string_map;
use crate::template::{Delims, Template, TemplateError};

/// What the target must hold. Also its labels and annotations are made of values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Shaped {
    /// Its data.
    pub data: BTreeMap<String, SecretBytes>,
    /// Labels that the template sets.
    pub labels: BTreeMap<String, String>,
    /// Annotations that the template sets.
    pub annotations: BTreeMap<String, String>,
    /// What was rendered for a path of a generic target (`target.manifest`), in order.
    pub paths: Vec<(String, Value)>,
}

impl fmt::Debug for Shaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (data, labels, annotations) = (self.data.keys(), self.labels.keys(), self.annotations.keys());
        write!(
            f,
            "Shaped({data:?}, labels {labels:?}, annotations {annotations:?})"
        )
    }
}

/// Why the template cannot be rendered; never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not apply template: {field}: {problem}")]
pub struct ShapeError {
    /// The field that holds the template, for example `spec.target.template.data["tls.crt"]`.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub problem: Problem,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not a template, or it failed.
    #[error(transparent)]
    Template(TemplateError),
    /// All are too much together.
    #[error("{0}")]
    TooMuch(&'static str),
    /// The object that holds it does not exist.
    #[error("{} {name:?} does not exist in this namespace; create it, and the target is rendered at once", kind.name())]
    NoSource {
        /// Its kind.
        kind: SourceKind,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("{} {name:?} has no key {key:?}; add it, and the target is rendered at once", kind.name())]
    NoKey {
        /// The object's kind.
        kind: SourceKind,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// It does not render to keys and values.
    #[error("{0}; it must render to a YAML map of keys and values")]
    NotAMap(String),
    /// A key that a Secret cannot have.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key that a Secret, label or annotation cannot have and that the template made: it is not shown, because it
    /// may be a value.
    #[error(
        "it renders a key of {length} bytes that is no key of {of}; is a value not quoted, or a line not indented? Write \
         values as {{{{ .name | quote }}}}"
    )]
    MadeKey {
        /// The key's length in bytes.
        length: usize,
        /// What cannot have it.
        of: &'static str,
    },
    /// What was rendered for a path of a generic target is no YAML.
    #[error("what it renders for path {0:?} is not YAML ({1}); correct the template")]
    NotYaml(String, String),
    /// A value that is not what the decoding strategy says.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A label or annotation that the API server would refuse, quoting its value.
    #[error("{0}")]
    Metadata(String),
}

/// Where the results of a template go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Data,
    Labels,
    Annotations,
    Path(String),
}

/// One template, ready to render.
struct Item {
    field: String,
    place: Place,
    /// The key that gets the result; without one, the result is keys and values.
    key: Option<String>,
    decoding: DecodingStrategy,
    template: Template,
}

/// A template of a target, parsed.
pub struct Shape {
    items: Vec<Item>,
    keeps_values: bool,
}

/// Parses what stands in the ExternalSecret itself, so that a mistake is told before anything is read.
///
/// # Errors
/// If a template cannot be parsed.
pub fn check(template: &ExternalSecretTemplate, delims: &Delims) -> Result<(), ShapeError> {
    let mut items = Vec::new();
    for (position, from) in template.template_from.iter().enumerate() {
        literal(&mut items, position, from, Place::Data, delims)?;
    }
    own(&mut items, template, delims)
}

impl Shape {
    /// Parses the templates of a target. For a generic target (`manifest`), `templateFrom[].target` is a
    /// path.
    ///
    /// # Errors
    /// If a template is missing or cannot be parsed.
    pub fn prepare(
        template: &ExternalSecretTemplate,
        manifest: bool,
        contents: &Sources,
        delims: &Delims,
    ) -> Result<Self, ShapeError> {
        held::check_size(template, contents).map_err(|why| ShapeError {
            field: "spec.target.template".into(),
            problem: Problem::TooMuch(why),
        })?;
        let mut items = Vec::new();
        for (position, from) in template.template_from.iter().enumerate() {
            let place = place(from, manifest, position)?;
            for (kind, reference) in [
                (SourceKind::ConfigMap, &from.config_map),
                (SourceKind::Secret, &from.secret),
            ] {
                if let Some(reference) = reference {
                    let source = Source {
                        kind,
                        reference,
                        position,
                        from,
                    };
                    source.items(&mut items, &place, contents, delims)?;
                }
            }
            literal(&mut items, position, from, place, delims)?;
        }
        own(&mut items, template, delims)?;
        let renders =
            template.data.as_ref().is_some_and(|data| !data.is_empty()) || !template.template_from.is_empty();
        Ok(Self {
            items,
            keeps_values: !renders || template.merge_policy == Some(TemplateMergePolicy::Merge),
        })
    }

    /// Whether the same values always give the same result.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        self.items.iter().all(|item| item.template.is_stable())
    }

    /// Renders.
    ///
    /// # Errors
    /// If a template fails, or its result does not fit its place.
    pub fn render(&self, values: &BTreeMap<String, SecretBytes>) -> Result<Shaped, ShapeError> {
        self.render_around(&Shaped::default(), values)
    }
}

impl Item {
    fn put(&self, shaped: &mut Shaped, rendered: SecretBytes) -> Result<(), Problem> {
        if let Place::Path(path) = &self.place {
            let rendered = decode::decode(rendered, self.decoding, "the rendered template")?;
            let rendered = match &self.key {
                // One key of a map is a map with this key.
                Some(key) => serde_json::json!({key: text(&format!("key {key}"), rendered)?}),
                None => yaml(path, &rendered)?,
            };
            shaped.paths.push((path.clone(), rendered));
            return Ok(());
        }
        let pairs = match &self.key {
            Some(key) => BTreeMap::from([(key.clone(), rendered)]),
            None => keys_and_values(&rendered)?,
        };
        for (key, value) in pairs {
            let name = self.name_of(&key);
            let what = format!("rendered template value for {name}");
            let value = decode::decode(value, self.decoding, &what)?;
            match &self.place {
                Place::Labels => {
                    self.metadata_key(&key, "a label")?;
                    shaped.labels.insert(key, label(&name, value)?);
                }
                Place::Annotations => {
                    self.metadata_key(&key, "an annotation")?;
                    shaped.annotations.insert(key, text(&name, value)?);
                }
                Place::Data | Place::Path(_) => {
                    keys::validate_key(&key).map_err(|error| match self.shows(&key) {
                        true => Problem::Key(error),
                        false => made_key(&key, "a Secret"),
                    })?;
                    shaped.data.insert(key, value);
                }
            }
        }
        Ok(())
    }

    /// Whether a key may be shown: it stands in the ExternalSecret or in the template, and is no value.
    fn shows(&self, key: &str) -> bool {
        self.key.is_some() || self.template.contains(key)
    }

    fn name_of(&self, key: &str) -> String {
        if self.shows(key) {
            format!("key {key}")
        } else {
            "a key that the template makes".to_owned()
        }
    }

    fn metadata_key(&self, key: &str, of: &'static str) -> Result<(), Problem> {
        match (keys::is_metadata_key(key), self.shows(key)) {
            (true, _) => Ok(()),
            (false, true) => Err(Problem::Metadata(format!(
                "{key:?} is no key of {of}: at most 63 letters, digits, '-', '_' and '.', the first and last a letter \
                 or digit, and before it, if anything, a DNS name and '/'"
            ))),
            (false, false) => Err(made_key(key, of)),
        }
    }
}

/// What was rendered for a path of a generic target.
///
/// # Errors
/// If it is no YAML, or too deep.
pub fn yaml(path: &str, rendered: &SecretBytes) -> Result<Value, Problem> {
    let failed = |at: String| Problem::NotYaml(path.to_string(), at);
    let text = std::str::from_utf8(rendered.expose()).map_err(|_| failed("it is not UTF-8".into()))?;
    // The error's own text may quote the line.
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        failed(place.map_or_else(
            || "it cannot be parsed".into(),
            |at| format!("line {}, column {}", at.line(), at.column()),
        ))
    })
}

/// The templates of an object that an entry of `templateFrom` names.
struct Source<'a> {
    kind: SourceKind,
    reference: &'a TemplateRef,
    position: usize,
    from: &'a TemplateFrom,
}

impl Source<'_> {
    fn items(
        &self,
        items: &mut Vec<Item>,
        place: &Place,
        sources: &Sources,
        delims: &Delims,
    ) -> Result<(), ShapeError> {
        let (kind, name) = (self.kind, self.reference.name.clone());
        let field = format!(
            "spec.target.template.templateFrom[{}].{}",
            self.position,
            match kind {
                SourceKind::ConfigMap => "configMap",
                SourceKind::Secret => "secret",
            }
        );
        let failed = |problem| ShapeError {
            field: field.clone(),
            problem,
        };
        let source = SourceRef {
            kind,
            name: name.clone(),
        };
        let content = sources.get(&source);
        let content = content.ok_or_else(|| {
            failed(Problem::NoSource {
                kind,
                name: name.clone(),
            })
        })?;
        for wanted in &self.reference.items {
            let text = content.get(&wanted.key).ok_or_else(|| {
                failed(Problem::NoKey {
                    kind,
                    name: name.clone(),
                    key: wanted.key.clone(),
                })
            })?;
            let values = wanted.template_as.unwrap_or_default() == TemplateScope::Values;
            let field = format!("{field} (key {:?} of {} {name:?})", wanted.key, kind.name());
            items.push(Item {
                template: parse(&field, &wanted.key, text.expose(), delims)?,
                field,
                place: place.clone(),
                key: values.then(|| wanted.key.clone()),
                decoding: self.from.values_decoding_strategy.unwrap_or_default(),
            });
        }
        Ok(())
    }
}

fn parse(field: &str, name: &str, text: &[u8], delims: &Delims) -> Result<Template, ShapeError> {
    // A template that is not UTF-8 is refused where its first such byte stands: U+FFFD is no valid action.
    Template::parse(name, &String::from_utf8_lossy(text), delims).map_err(|error| ShapeError {
        field: field.to_owned(),
        problem: Problem::Template(error),
    })
}

fn literal(
    items: &mut Vec<Item>,
    position: usize,
    from: &TemplateFrom,
    place: Place,
    delims: &Delims,
) -> Result<(), ShapeError> {
    let Some(text) = &from.literal else { return Ok(()) };
    let field = format!("spec.target.template.templateFrom[{position}].literal");
    items.push(Item {
        template: parse(&field, "literal", text.as_bytes(), delims)?,
        field,
        place,
        key: None,
        decoding: from.values_decoding_strategy.unwrap_or_default(),
    });
    Ok(())
}

/// The templates that stand in the ExternalSecret by key.
fn own(items: &mut Vec<Item>, template: &ExternalSecretTemplate, delims: &Delims) -> Result<(), ShapeError> {
    let metadata = template.metadata.as_ref();
    let maps = [
        ("data", Place::Data, template.data.as_ref()),
        (
            "metadata.labels",
            Place::Labels,
            metadata.and_then(|metadata| metadata.labels.as_ref()),
        ),
        (
            "metadata.annotations",
            Place::Annotations,
            metadata.and_then(|metadata| metadata.annotations.as_ref()),
        ),
    ];
    for (name, place, map) in maps {
        for (key, text) in map.into_iter().flatten() {
            let field = format!("spec.target.template.{name}[{key:?}]");
            items.push(Item {
                template: parse(&field, key, text.as_bytes(), delims)?,
                field,
                place: place.clone(),
                key: Some(key.clone()),
                decoding: DecodingStrategy::None,
            });
        }
    }
    Ok(())
}

/// Only data, labels and annotations of a Secret may be made by a template: ESO's rule, which keeps
/// tenants from setting its type or owner.
fn place(from: &TemplateFrom, manifest: bool, position: usize) -> Result<Place, ShapeError> {
    let target = from.target.as_deref().unwrap_or_default();
    let lower = target.to_ascii_lowercase();
    // A Secret's parts bear the same names in any other kind; what else there is, is named by a path.
    if manifest && !matches!(lower.as_str(), "" | "data" | "labels" | "annotations") {
        return Ok(Place::Path(target.to_owned()));
    }
    match lower.as_str() {
        "" | "data" => Ok(Place::Data),
        "labels" => Ok(Place::Labels),
        "annotations" => Ok(Place::Annotations),
        _ => Err(ShapeError {
            field: format!("spec.target.template.templateFrom[{position}].target"),
            problem: Problem::Metadata(format!(
                "templateFrom target={target:?} is not allowed when targeting a Secret, must be one of \"Data\", \
                 \"Annotations\" or \"Labels\""
            )),
        }),
    }
}

fn keys_and_values(rendered: &SecretBytes) -> Result<BTreeMap<String, SecretBytes>, Problem> {
    let pairs = string_map(rendered.expose()).map_err(|fault| Problem::NotAMap(fault.0.into_owned()))?;
    pairs
        .into_iter()
        .map(|(key, value)| {
            let key =
                String::from_utf8(key).map_err(|_| Problem::NotAMap("a key is not UTF-8".to_owned()))?;
            Ok((key, SecretBytes::new(value)))
        })
        .collect()
}

fn made_key(key: &str, of: &'static str) -> Problem {
    let length = key.len();
    Problem::MadeKey { length, of }
}

fn text(name: &str, value: SecretBytes) -> Result<String, Problem> {
    String::from_utf8(value.expose().to_vec())
        .map_err(|_| Problem::Metadata(format!("the rendered value for {name} is not UTF-8")))
}

/// The API server quotes a label's value when it refuses it, and the value may be a secret's: so it is
/// checked here.
fn label(name: &str, value: SecretBytes) -> Result<String, Problem> {
    let value = text(name, value)?;
    if value.is_empty() || keys::is_label_text(&value) {
        return Ok(value);
    }
    Err(Problem::Metadata(format!(
        "the rendered value for {name} is no valid label: at most 63 letters, digits, '-', '_' and '.', the \
         first and last a letter or digit"
    )))
}

#[cfg(test)]
mod tests;
