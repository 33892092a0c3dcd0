//! Keys of targets: made valid, or refused by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::api::external_secret::ConversionStrategy;

/// Longest key that the API server takes, in bytes.
const LENGTH_MAX: usize = 253;

/// Makes a key valid: whatever is not a letter, a digit, `-`, `.` or `_` is replaced.
#[must_use]
pub fn convert(key: &str, strategy: ConversionStrategy) -> String {
    let mut converted = String::with_capacity(key.len());
    for c in key.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '.' | '_') {
            converted.push(c);
        } else if strategy == ConversionStrategy::Unicode {
            // Writing to a String cannot fail.
            let _ = write!(converted, "_U{:04x}_", c as u32);
        } else {
            converted.push('_');
        }
    }
    converted
}

/// Converts all keys of a map.
///
/// # Errors
/// As a sentence, if two keys become one.
pub fn convert_all<T>(
    map: BTreeMap<String, T>,
    strategy: ConversionStrategy,
) -> Result<BTreeMap<String, T>, String> {
    let mut converted = BTreeMap::new();
    for (key, value) in map {
        let new = convert(&key, strategy);
        if converted.insert(new.clone(), value).is_some() {
            return Err(format!("secret name collision during conversion: {new}"));
        }
    }
    Ok(converted)
}

/// Checks a key as the API server will. (ESO lets letters outside ASCII pass, and the write fails.)
///
/// # Errors
/// As a sentence that names the key.
pub fn check(key: &str) -> Result<(), String> {
    if key.len() > LENGTH_MAX {
        return Err(format!("key has length {} but max is {LENGTH_MAX}", key.len()));
    }
    if key == "." || key == ".." || key.starts_with("..") {
        return Err(format!("key '{key}' must not begin with '..' or be '.'"));
    }
    match key
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_'))
    {
        Some(c) => Err(format!(
            "key has invalid character '{c}', only letters, digits, '-', '.' and '_' are allowed: {key}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_converted_as_eso_does() {
        use ConversionStrategy::{Default, Unicode};
        for (key, strategy, converted) in [
            ("foo$bar%baz*bing", Default, "foo_bar_baz_bing"),
            ("/foo/bar/baz/bing", Default, "_foo_bar_baz_bing"),
            (
                "😀foo😁bar😂baz😈bing",
                Unicode,
                "_U1f600_foo_U1f601_bar_U1f602_baz_U1f608_bing",
            ),
            (
                "some-array[0].entity",
                Unicode,
                "some-array_U005b_0_U005d_.entity",
            ),
        ] {
            assert_eq!(convert(key, strategy), converted);
        }
    }

    #[test]
    fn two_keys_that_become_one_are_refused() {
        let map = [("foo$bar", 1), ("foo_bar", 2)]
            .map(|(k, v)| (k.to_string(), v))
            .into();
        assert_eq!(
            convert_all(map, ConversionStrategy::Default).unwrap_err(),
            "secret name collision during conversion: foo_bar"
        );
    }

    #[test]
    fn keys_that_the_api_server_refuses_are_refused_by_name() {
        for key in ["a/b", "é", "a b", "..", "..a", &"x".repeat(254)] {
            assert!(check(key).is_err(), "{key}");
        }
        assert!(check("tls.crt").is_ok());
    }
}
