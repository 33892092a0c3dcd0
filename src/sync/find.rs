//! `dataFrom.find`: a search through folders. Pure: it says what to ask, is told the answers, and ends with the
//! secrets that fit.
//!
//! A folder or a secret that may not be read never comes here: it fails the search, and with it the sync, as in ESO.
//! To leave it out would drop a key from a Secret that is good, or make one that lacks it (promise 1); the message
//! names the path and the policy that is missing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::assemble::Answer;
use crate::secret::SecretBytes;
use crate::template::re2;
use crate::vault::json::Json;

/// Folders within folders.
const MAX_DEPTH: usize = 32;
/// Names of secrets and folders that are looked at.
const MAX_NAMES: usize = 10_000;
/// Secrets that are read.
const MAX_SECRETS: usize = 2_000;
/// Bytes of all that is found; a Secret holds 1 MiB, and decoding or merging makes less of it.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of a name, with its folders, that an expression is held against; Vault's own limits are far below.
const MAX_NAME: usize = 4_096;
/// Places of an expression times bytes of a name: what one comparison may cost.
const MAX_COMPARISON: u64 = 50_000_000;
/// How long the names of one search may be compared.
const TIME: Duration = Duration::from_secs(5);

/// An expression, compiled. Two are the same if their texts are.
#[derive(Clone, Debug)]
struct Expression {
    text: String,
    regex: Regex,
    places: u64,
}

impl Expression {
    fn compile(text: String) -> Result<Self, String> {
        let regex = re2::compile(&text).map_err(|error| error.to_string())?;
        let places = re2::places(&regex);
        Ok(Self { text, regex, places })
    }

    /// Whether the name matches; `end` is when it must be known.
    fn is_match(&self, name: &str, end: Instant) -> Result<bool, FindError> {
        if name.len() > MAX_NAME {
            return Err(FindError::LongName);
        }
        if self.places.saturating_mul(name.len() as u64) > MAX_COMPARISON || Instant::now() > end {
            return Err(FindError::Costly);
        }
        Ok(re2::is_match(&self.regex, name.as_bytes()))
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl PartialOrd for Expression {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Expression {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Which secrets to take. As in ESO, tags do not count beside a name: manifests rely on the keys they get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    regexp: Option<Expression>,
    tags: BTreeMap<String, String>,
}

impl Filter {
    /// Those whose name matches, else those with all of these tags, else all.
    ///
    /// # Errors
    /// If the expression is none that Go's `regexp` takes; says why.
    pub fn new(regexp: Option<String>, tags: Option<BTreeMap<String, String>>) -> Result<Self, String> {
        Ok(Self {
            regexp: regexp.map(Expression::compile).transpose()?,
            tags: tags.unwrap_or_default(),
        })
    }

    /// Whether names are compared with an expression, which may take long.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.regexp.is_some()
    }

    /// Whether tags were given, which only KV v2 has.
    #[must_use]
    pub fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }
}

/// A search among secrets that are all at hand.
///
/// # Errors
/// If no name is given, which is all that they can be told by, too many fit, or it takes too long.
pub fn among<'a>(
    filter: &Filter,
    secrets: impl Iterator<Item = (&'a str, &'a SecretBytes)>,
) -> Result<Answer, FindError> {
    let regexp = filter.regexp.as_ref().ok_or(FindError::OnlyNames)?;
    let end = Instant::now() + TIME;
    let mut found = BTreeMap::new();
    for (name, value) in secrets {
        if regexp.is_match(name, end)? {
            found.insert(name.to_owned(), value.clone());
        }
    }
    if found.len() > MAX_SECRETS {
        return Err(FindError::TooManySecrets);
    }
    Ok(Answer::Many(found))
}

/// A question of a search; the path is relative to the folder that is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The names in this folder.
    Names(String),
    /// The metadata of this secret.
    Metadata(String),
    /// This secret.
    Value(String),
}

/// Why a search cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No name.
    #[error("this store can only be searched by find.name; set find.name.regexp")]
    OnlyNames,
    /// A name that is none.
    #[error(
        "there is a name of more than {MAX_NAME} bytes with its folders; set find.path to a folder without it"
    )]
    LongName,
    /// The expression takes too long.
    #[error(
        "find.name.regexp takes too long: more than {} s for all names, or too much for one name; simplify the \
         expression, or set find.path to a smaller folder",
        TIME.as_secs()
    )]
    Costly,
    /// Folders within folders.
    #[error(
        "folder {0:?} is more than {MAX_DEPTH} folders deep; set find.path to a folder nearer to the secrets"
    )]
    TooDeep(String),
    /// Names.
    #[error(
        "there are more than {MAX_NAMES} secrets and folders to look through; set find.path to a smaller folder"
    )]
    TooManyNames,
    /// Secrets.
    #[error("more than {MAX_SECRETS} secrets match; set find.path or find.name.regexp to take fewer")]
    TooManySecrets,
    /// Bytes.
    #[error(
        "the secrets that match hold more than {} MiB, and a Secret at most one; set find.path or find.name.regexp to \
         take fewer",
        MAX_BYTES >> 20
    )]
    TooLarge,
    /// Metadata are gone, which were there when the folder was listed.
    #[error("the metadata of {0:?}: secret not found; it was deleted meanwhile, and the search begins again")]
    NoMetadata(String),
    /// The answer does not fit the question.
    #[error(
        "the answer about {0:?} does not fit the question; this is a fault of keyferry, please report it"
    )]
    Odd(String),
}

/// A search under way.
pub struct Search {
    path: String,
    filter: Filter,
    names: usize,
    secrets: usize,
    bytes: usize,
    /// How long names may still be compared.
    left: Duration,
    found: BTreeMap<String, SecretBytes>,
    missing: bool,
}

impl Search {
    /// A search through this folder, named as the user wrote it, and what to ask first.
    #[must_use]
    pub fn begin(path: &str, filter: &Filter) -> (Self, Ask) {
        let search = Self {
            path: path.to_owned(),
            filter: filter.clone(),
            names: 0,
            secrets: 0,
            bytes: 0,
            left: TIME,
            found: BTreeMap::new(),
            missing: false,
        };
        (search, Ask::Names(String::new()))
    }

    /// Takes an answer; returns what to ask now.
    ///
    /// # Errors
    /// If a bound is hit, or the answer fails the whole search.
    pub fn tell(&mut self, ask: Ask, answer: Answer) -> Result<Vec<Ask>, FindError> {
        match (ask, answer) {
            (Ask::Names(folder), Answer::Found(names)) => self.look_through(&folder, &names),
            // Only the folder that is searched can be missing; others may have gone since they were seen.
            (Ask::Names(folder), Answer::Missing) => {
                self.missing = folder.is_empty();
                Ok(Vec::new())
            }
            (Ask::Metadata(secret), Answer::Found(metadata)) => {
                let fits = |(key, value): (&String, &String)| {
                    metadata.get(key).and_then(Json::as_str) == Some(value.as_str())
                };
                if self.filter.tags.iter().all(fits) {
                    Ok(vec![self.read(secret)?])
                } else {
                    Ok(Vec::new())
                }
            }
            (Ask::Metadata(secret), Answer::Missing) => Err(FindError::NoMetadata(self.name(&secret))),
            (Ask::Value(secret), Answer::Found(value)) => {
                let (name, value) = (
                    self.name(&secret),
                    SecretBytes::new(value.to_go_string().into_bytes()),
                );
                self.bytes += name.len() + value.expose().len();
                if self.bytes > MAX_BYTES {
                    return Err(FindError::TooLarge);
                }
                self.found.insert(name, value);
                Ok(Vec::new())
            }
            // Deleted secrets are still listed by KV v2.
            (Ask::Value(_), Answer::Missing) => Ok(Vec::new()),
            (
                Ask::Names(path) | Ask::Metadata(path) | Ask::Value(path),
                Answer::Many(_) | Answer::Text(_),
            ) => Err(FindError::Odd(self.name(&path))),
        }
    }

    /// What was found, when nothing is left to ask.
    #[must_use]
    pub fn end(self) -> Answer {
        if self.missing {
            Answer::Missing
        } else {
            Answer::Many(self.found)
        }
    }

    fn look_through(&mut self, folder: &str, names: &Json) -> Result<Vec<Ask>, FindError> {
        let begin = Instant::now();
        let asks = self.compare(folder, names, begin + self.left);
        self.left = self.left.saturating_sub(begin.elapsed());
        asks
    }

    fn compare(&mut self, folder: &str, names: &Json, end: Instant) -> Result<Vec<Ask>, FindError> {
        let Json::Array(names) = names else {
            return Err(FindError::Odd(self.name(folder)));
        };
        self.names = self.names.saturating_add(names.len());
        if self.names > MAX_NAMES {
            return Err(FindError::TooManyNames);
        }
        let mut asks = Vec::new();
        for name in names {
            let name = name.as_str().unwrap_or_default();
            if name.trim_matches('/').is_empty() {
                continue;
            }
            let path = format!("{folder}{name}");
            if path.ends_with('/') {
                if path.matches('/').count() > MAX_DEPTH {
                    return Err(FindError::TooDeep(self.name(&path)));
                }
                asks.push(Ask::Names(path));
            } else if let Some(regexp) = &self.filter.regexp {
                if regexp.is_match(&self.name(&path), end)? {
                    asks.push(self.read(path)?);
                }
            } else if self.filter.tags.is_empty() {
                asks.push(self.read(path)?);
            } else {
                asks.push(Ask::Metadata(path));
            }
        }
        Ok(asks)
    }

    fn read(&mut self, secret: String) -> Result<Ask, FindError> {
        self.secrets += 1;
        if self.secrets > MAX_SECRETS {
            return Err(FindError::TooManySecrets);
        }
        Ok(Ask::Value(secret))
    }

    /// The name as ESO gives it: it begins with find.path, and not below it.
    fn name(&self, path: &str) -> String {
        if self.path.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.path)
        }
    }
}

#[cfg(test)]
mod tests;
