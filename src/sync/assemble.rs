//! What the target must hold, made of the answers to the reads of a [`Plan`]. All or nothing: one entry that
//! fails fails the sync, so that no target is ever half new.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{self, DecodeError, NullByteError};
use super::keys::{self, KeyError};
use super::plan::{Destination, Entry, Plan, WhenMissing};
use super::property::{self, PropertyError};
use crate::secret::SecretBytes;
use crate::vault::json::Json;

/// What a store answered to one read. Anything else than these two is an error of the read and never comes
/// here.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The secret.
    Found(Arc<Json>),
    /// The store is sure that there is no such secret.
    Missing,
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
    /// Nobody answered the read of this entry.
    #[error("the plan was carried out without this read; this is a fault of keyferry, please report it")]
    NotRead,
    /// The property.
    #[error(transparent)]
    Property(#[from] PropertyError),
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

/// Makes the target's data of the answers, which stand in the order of [`Plan::reads`].
pub fn assemble(plan: &Plan, answers: &[Answer]) -> Result<Assembled, AssembleError> {
    let mut assembled = Assembled::default();
    for entry in &plan.entries {
        let failed = |fault| AssembleError {
            entry: entry.label(),
            fault,
        };
        match answers.get(entry.read) {
            Some(Answer::Found(secret)) => {
                assembled.data.extend(values(entry, secret).map_err(failed)?);
                assembled.found += 1;
            }
            Some(Answer::Missing) if plan.when_missing == WhenMissing::Skip => {
                assembled.missing.push(entry.label())
            }
            Some(Answer::Missing) => return Err(failed(Fault::Missing)),
            None => return Err(failed(Fault::NotRead)),
        }
    }
    Ok(assembled)
}

/// The keys and values of one entry.
fn values(entry: &Entry, secret: &Json) -> Result<BTreeMap<String, SecretBytes>, Fault> {
    let property = entry.property.as_deref();
    match &entry.into {
        Destination::Key(key) => {
            let value = finish(entry, property::value(secret, property)?, "the value")?;
            Ok(BTreeMap::from([(key.clone(), value)]))
        }
        Destination::OwnKeys(strategy) => {
            let members = keys::convert(property::members(secret, property)?, *strategy)?;
            let members = keys::validate(members)?.into_iter();
            let finished = members.map(|(key, value)| {
                let value = finish(entry, value, &format!("the value of key {key:?}"))?;
                Ok((key, value))
            });
            finished.collect()
        }
    }
}

fn finish(entry: &Entry, value: SecretBytes, what: &str) -> Result<SecretBytes, Fault> {
    let value = decode::decode(value, entry.decoding, what)?;
    decode::check_null_bytes(&value, entry.null_bytes, what)?;
    Ok(value)
}

#[cfg(test)]
mod tests;
