//! gjson paths: the crate `gjson`, with Go's printing of numbers, the modifiers that the crate lacks, and
//! bounds, because a path is written by a tenant and evaluated in a process that serves all of them.
//!
//! What the crate reads differently from Go and we cannot mend is refused, never answered with another value.

mod bounds;
mod syntax;

use zeroize::Zeroizing;

use self::syntax::{OwnModifier, Step};
use super::number;
use crate::secret::SecretBytes;
use crate::vault::json::{Json, go_string};

/// Why a path cannot be followed; never holds any of the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is too long.
    #[error("the path is longer than {} bytes; shorten it", bounds::MAX_PATH)]
    TooLong,
    /// Its evaluation could need too much time or memory.
    #[error(
        "the path could need too much time or memory on a secret of this size; use fewer `*`, brackets or modifiers"
    )]
    TooCostly,
    /// It uses a part of the language that is not served.
    #[error("`{0}` is not served at this place of a gjson path; write the path without it")]
    NotServed(String),
    /// The evaluation broke down.
    #[error("the path does not lead to valid text; simplify it")]
    Garbled,
}

/// Follows the path in valid JSON, and gives what Go's `Result.String()` gives; `None` if nothing is there.
pub fn get(json: &str, path: &str) -> Result<Option<SecretBytes>, PathError> {
    bounds::check(json, path)?;
    let steps = syntax::steps(path)?;
    let Some((last, before)) = steps.split_last() else {
        return Ok(None);
    };
    let mut raw = Zeroizing::new(json.to_owned());
    for step in before {
        match follow(step, &raw)? {
            Some(next) => raw = next,
            None => return Ok(None),
        }
    }
    match last {
        Step::Path(path) => text(&gjson::get(&raw, path)),
        Step::Own(modifier) => match modify(*modifier, &raw)? {
            Some(raw) => text(&gjson::parse(&raw)),
            None => Ok(None),
        },
    }
}

/// The JSON text that a step leads to.
fn follow(step: &Step, json: &str) -> Result<Option<Zeroizing<String>>, PathError> {
    match step {
        Step::Path(path) => {
            let value = gjson::get(json, path);
            if !value.exists() {
                return Ok(None);
            }
            let raw = Zeroizing::new(checked(value.json())?.to_owned());
            bounds::check_size(raw.len())?;
            Ok(Some(raw))
        }
        Step::Own(modifier) => modify(*modifier, json),
    }
}

/// The crate builds strings without checking them, and a path may cut an escape in the middle of a character:
/// everything that leaves it is checked here.
fn checked(text: &str) -> Result<&str, PathError> {
    std::str::from_utf8(text.as_bytes()).map_err(|_| PathError::Garbled)
}

/// Integers are printed as they were written, other numbers as Go prints floats.
fn text(value: &gjson::Value<'_>) -> Result<Option<SecretBytes>, PathError> {
    if !value.exists() {
        return Ok(None);
    }
    let bytes = match value.kind() {
        gjson::Kind::Number => number::plain(checked(value.json())?).as_str().into(),
        _ => checked(value.str())?.into(),
    };
    Ok(Some(bytes))
}

/// The modifiers of Go's gjson that the crate lacks.
fn modify(modifier: OwnModifier, json: &str) -> Result<Option<Zeroizing<String>>, PathError> {
    let changed = match modifier {
        OwnModifier::ToStr => go_string(json),
        OwnModifier::FromStr => match from_str(json)? {
            Some(text) => text,
            None => return Ok(None),
        },
        OwnModifier::Keys | OwnModifier::Values => members(modifier, json)?,
    };
    bounds::check_size(changed.len())?;
    Ok(Some(changed))
}

/// The JSON that a JSON string holds; nothing if it holds something else.
fn from_str(json: &str) -> Result<Option<Zeroizing<String>>, PathError> {
    let value = gjson::parse(json);
    let Some(text) = text(&value)? else {
        return Ok(None);
    };
    match (Json::parse(text.expose()), std::str::from_utf8(text.expose())) {
        (Ok(_), Ok(text)) => Ok(Some(Zeroizing::new(text.to_owned()))),
        _ => Ok(None),
    }
}

/// The keys or the values of an object, as an array; of an array the values are the array itself, and its keys
/// are nulls.
fn members(modifier: OwnModifier, json: &str) -> Result<Zeroizing<String>, PathError> {
    let value = gjson::parse(json);
    let is_array = value.kind() == gjson::Kind::Array;
    if is_array && modifier == OwnModifier::Values {
        return Ok(Zeroizing::new(json.to_owned()));
    }
    let mut out = Zeroizing::new(String::with_capacity(json.len() * 2 + 2));
    out.push('[');
    if is_array || value.kind() == gjson::Kind::Object {
        value.each(|key, member| {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(match modifier {
                OwnModifier::Values => member.json(),
                _ if is_array => "null",
                _ => key.json(),
            });
            true
        });
    }
    out.push(']');
    checked(&out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
