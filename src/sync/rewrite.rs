//! `dataFrom.rewrite`: keys are rewritten, or whole objects merged, step by step, before anything else is done to
//! them. Keys that are rewritten are not converted.

mod merge;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::merge::MergeError;
use crate::api::external_secret::{MergeStrategy, Rewrite};
use crate::secret::SecretBytes;
use crate::template::{Delims, MissingKey, Template, re2};

/// How long all steps may take for all keys together; in a template each key has the template's own limits, too.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of all keys that a step makes.
const MAX_KEYS: usize = 8 << 20;
/// Places of a pattern times bytes of all keys; matching takes a few seconds at most for so many.
const MAX_PLACES: u64 = 500_000_000;

/// Keys and their values.
pub type Map = BTreeMap<String, SecretBytes>;

/// A step that failed; never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error applying rewrite to keys: failed rewrite operation[{step}]: {fault}")]
pub struct RewriteError {
    step: usize,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Spec(String),
    #[error(
        "the keys {first:?} and {second:?} both become {key:?}; change the rewrite so that every key keeps a name of \
         its own"
    )]
    Collision {
        first: String,
        second: String,
        key: String,
    },
    #[error("what key {0:?} becomes is not valid UTF-8; change the rewrite")]
    Utf8(String),
    #[error("transform failed with failed to execute template for key {key:?}: {error}")]
    Transform { key: String, error: String },
    #[error("it and the steps before take longer than {} s for all keys; simplify them", TIME.as_secs())]
    TooSlow,
    #[error("it makes more than {} MiB of keys; simplify it", MAX_KEYS >> 20)]
    TooLarge,
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// One step, ready for use.
enum Step<'a> {
    Regexp(regex::bytes::Regex, &'a str),
    Transform(Template),
    Merge(&'a crate::api::external_secret::RewriteMerge),
}

impl<'a> Step<'a> {
    /// Makes a step ready; the error is the field that is to blame, and why.
    fn new(rewrite: &'a Rewrite) -> Result<Self, (&'static str, String)> {
        match (&rewrite.regexp, &rewrite.transform, &rewrite.merge) {
            (Some(regexp), None, None) => match re2::compile(&regexp.source) {
                Ok(compiled) => Ok(Self::Regexp(compiled, &regexp.target)),
                Err(error) => Err((
                    ".regexp.source",
                    format!("is no regular expression of RE2: {error}"),
                )),
            },
            (None, Some(transform), None) => {
                match Template::parse("transform", &transform.template, &Delims::default()) {
                    Ok(template) => Ok(Self::Transform(template)),
                    Err(error) => Err((".transform.template", format!("is no template: {error}"))),
                }
            }
            (None, None, Some(merge)) => {
                let into = merge.into.as_deref().unwrap_or_default();
                if merge.strategy == Some(MergeStrategy::Json) && into.is_empty() {
                    let problem = "is missing, and strategy JSON needs it; name the key that receives the merged object";
                    return Err((".merge.into", problem.to_owned()));
                }
                Ok(Self::Merge(merge))
            }
            _ => Err((
                "",
                "must be exactly one of regexp, transform and merge".to_owned(),
            )),
        }
    }

    fn apply(&self, map: Map, end: Instant) -> Result<Map, Fault> {
        in_time(end)?;
        match self {
            Self::Regexp(regexp, target) => {
                let size: usize = map.keys().map(String::len).sum();
                if re2::places(regexp).saturating_mul(size as u64) > MAX_PLACES {
                    return Err(Fault::TooSlow);
                }
                rename(map, end, |key| replaced(regexp, target, key, end))
            }
            Self::Transform(template) => rename(map, end, |key| transformed(template, key)),
            Self::Merge(merge) => Ok(merge::merge(merge, map)?),
        }
    }
}

fn in_time(end: Instant) -> Result<(), Fault> {
    if Instant::now() > end {
        return Err(Fault::TooSlow);
    }
    Ok(())
}

/// A match may read the key to its end, and the target may repeat it.
fn replaced(regexp: &regex::bytes::Regex, target: &str, key: &str, end: Instant) -> Result<Vec<u8>, Fault> {
    re2::replace_all(regexp, key.as_bytes(), target, |size| {
        if size > MAX_KEYS {
            return Err(Fault::TooLarge);
        }
        in_time(end)
    })
}

fn transformed(template: &Template, key: &str) -> Result<Vec<u8>, Fault> {
    let data = BTreeMap::from([("value".to_owned(), SecretBytes::from(key))]);
    let name = template.render(&data, MissingKey::Invalid);
    name.map(|name| name.expose().to_vec())
        .map_err(|error| Fault::Transform {
            key: key.to_owned(),
            error: error.to_string(),
        })
}

/// Checks every step; the error is the field below `rewrite` that is to blame, and why.
pub fn check(rewrites: &[Rewrite]) -> Result<(), (String, String)> {
    for (position, rewrite) in rewrites.iter().enumerate() {
        Step::new(rewrite).map_err(|(field, problem)| (format!("[{position}]{field}"), problem))?;
    }
    Ok(())
}

/// Does all steps, first to last.
pub fn apply(rewrites: &[Rewrite], map: Map) -> Result<Map, RewriteError> {
    apply_until(rewrites, map, Instant::now() + TIME)
}

fn apply_until(rewrites: &[Rewrite], map: Map, end: Instant) -> Result<Map, RewriteError> {
    rewrites.iter().enumerate().try_fold(map, |map, (step, rewrite)| {
        Step::new(rewrite)
            .map_err(|(field, problem)| Fault::Spec(format!("{field} {problem}")))
            .and_then(|step| step.apply(map, end))
            .map_err(|fault| RewriteError { step, fault })
    })
}

/// Gives every key a new name. One that is left without any is left out, which is how keys are dropped; two that get
/// the same are an error (in ESO chance decides between them).
fn rename(map: Map, end: Instant, new_name: impl Fn(&str) -> Result<Vec<u8>, Fault>) -> Result<Map, Fault> {
    let mut renamed: BTreeMap<String, (String, SecretBytes)> = BTreeMap::new();
    let mut size = 0;
    for (old, value) in map {
        in_time(end)?;
        let new = new_name(&old)?;
        size += new.len();
        if size > MAX_KEYS {
            return Err(Fault::TooLarge);
        }
        let new = String::from_utf8(new).map_err(|_| Fault::Utf8(old.clone()))?;
        if new.is_empty() {
            continue;
        }
        if let Some((first, _)) = renamed.get(&new) {
            return Err(Fault::Collision {
                first: first.clone(),
                second: old,
                key: new,
            });
        }
        renamed.insert(new, (old, value));
    }
    Ok(renamed
        .into_iter()
        .map(|(new, (_, value))| (new, value))
        .collect())
}

#[cfg(test)]
mod tests;
