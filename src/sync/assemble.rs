//! What the target must hold, made of the answers to the reads of a [`Plan`]. All or nothing: one entry that
//! fails fails the sync, so that no target is ever half new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use super::decode::{self, DecodeError, NullByteError};
use super::keys::{self, KeyError};
use super::plan::{Destination, Entry, Plan, What, WhenMissing};
use super::property::{self, PropertyError};
use super::rewrite::{self, RewriteError};
use crate::secret::SecretBytes;
use crate::vault::json::Json;

/// What a store answered to one read. Anything else than these is an error of the read and never comes here.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The secret, or its metadata.
    Found(Arc<Json>),
    /// A secret that is text as it stands, whether or not it is JSON too.
    Text(Arc<SecretBytes>),
    /// What a search found: secrets as JSON, by name. None is an answer too: the folder is there, and nothing
    /// in it fits.
    Many(BTreeMap<String, SecretBytes>),
    /// The store is sure that there is no such secret, or no such folder.
    Missing,
}

impl Answer {
    /// How many bytes it takes up, about.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Found(json) => json.size(),
            Self::Text(text) => text.expose().len(),
            Self::Many(found) => found
                .iter()
                .map(|(name, value)| name.len() + value.expose().len())
                .sum(),
            Self::Missing => 0,
        }
    }
}

/// What the target must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Key and value.
    pub data: BTreeMap<String, SecretBytes>,
    /// The entries that were left out because their secret does not exist, as [`Entry::label`] names them.
    pub missing: Vec<String>,
    /// How many entries had a secret. Tells a target that is gone at its source from one that is merely empty:
    /// only the first may lead to a deletion.
    pub found: usize,
    /// Until when the values live, if they are leased.
    pub leased_until: Option<Timestamp>,
}

/// One entry failed, and with it the sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error processing {entry}, err: {fault}")]
pub struct AssembleError {
    /// The entry, as [`Entry::label`] names it.
    pub entry: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with an entry; never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The secret does not exist.
    #[error(
        "Secret does not exist; create it in the store or correct the key. With target.deletionPolicy Delete or \
         Merge a secret that is gone is no error"
    )]
    Missing,
    /// Its metadata do not exist. As in ESO no deletion policy applies: metadata are not what is synced.
    #[error("secret not found: there are no metadata at this path; create the secret, or correct the key")]
    NoMetadata,
    /// It takes too long.
    #[error(
        "they take longer than {} s to work out; take fewer entries, properties of smaller \
         secrets, or properties without wildcards",
        TIME.as_secs()
    )]
    TooSlow,
    /// Nobody answered the read of this entry.
    #[error("the plan was carried out without this read; this is a fault of keyferry, please report it")]
    NotRead,
    /// The property.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// A rewrite of keys.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encoding of a value.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A null byte.
    #[error(transparent)]
    NullByte(#[from] NullByteError),
}

/// How long it may take in all: ten thousand properties of a large secret would take minutes.
const TIME: Duration = Duration::from_secs(5);

/// Makes the target's data of the answers, which stand in the order of [`Plan::reads`].
pub fn assemble(plan: &Plan, answers: &[Answer]) -> Result<Assembled, AssembleError> {
    let end = Instant::now() + TIME;
    let mut assembled = Assembled::default();
    for entry in &plan.entries {
        let failed = |fault| AssembleError {
            entry: entry.label(),
            fault,
        };
        if Instant::now() > end {
            // By no entry's name: which one it meets is chance, and a message that changes is news each time.
            return Err(AssembleError {
                entry: "all entries".into(),
                fault: Fault::TooSlow,
            });
        }
        let answer = answers.get(entry.read).ok_or_else(|| failed(Fault::NotRead))?;
        let Some((values, found)) = values(entry, answer).map_err(failed)? else {
            let metadata = plan
                .reads
                .get(entry.read)
                .is_some_and(|read| read.what == What::Metadata);
            match plan.when_missing {
                _ if metadata => return Err(failed(Fault::NoMetadata)),
                WhenMissing::Skip => assembled.missing.push(entry.label()),
                WhenMissing::Fail => return Err(failed(Fault::Missing)),
            }
            continue;
        };
        assembled.data.extend(values);
        assembled.found += found;
    }
    Ok(assembled)
}

type Values = BTreeMap<String, SecretBytes>;

/// The keys and values of one entry, and of how many secrets they are; none if it is missing.
fn values(entry: &Entry, answer: &Answer) -> Result<Option<(Values, usize)>, Fault> {
    let property = entry.property.as_deref();
    let (members, found) = match (answer, &entry.into) {
        (Answer::Missing, _) => return Ok(None),
        (Answer::Found(secret), Destination::Key(key)) => {
            let value = finish(entry, property::value(secret, property)?, "the value")?;
            return Ok(Some((BTreeMap::from([(key.clone(), value)]), 1)));
        }
        (Answer::Text(secret), Destination::Key(key)) => {
            let value = finish(entry, property::value_of_text(secret, property)?, "the value")?;
            return Ok(Some((BTreeMap::from([(key.clone(), value)]), 1)));
        }
        (Answer::Many(_), Destination::Key(_)) => return Err(Fault::NotRead),
        (Answer::Found(secret), _) => (property::members(secret, property)?, 1),
        (Answer::Text(secret), _) => (property::members_of_text(secret, property)?, 1),
        (Answer::Many(secrets), _) => (secrets.clone(), secrets.len()),
    };
    let named = match &entry.into {
        Destination::Rewritten(rewrites) => rewrite::apply(rewrites, members)?,
        Destination::OwnKeys(strategy) => keys::convert(members, *strategy)?,
        Destination::Key(_) => members,
    };
    let finished = keys::validate(named)?.into_iter().map(|(key, value)| {
        let value = finish(entry, value, &format!("the value of key {key:?}"))?;
        Ok((key, value))
    });
    Ok(Some((finished.collect::<Result<_, Fault>>()?, found)))
}

fn finish(entry: &Entry, value: SecretBytes, what: &str) -> Result<SecretBytes, Fault> {
    let value = decode::decode(value, entry.decoding, what)?;
    decode::check_null_bytes(&value, entry.null_bytes, what)?;
    Ok(value)
}

#[cfg(test)]
mod tests;
