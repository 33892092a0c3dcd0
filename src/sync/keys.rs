//! Keys of the target: conversion of what a store may call them into what a Secret may hold.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::api::external_secret::ConversionStrategy;
use crate::api::meta::is_object_name;

/// The longest key that a Secret may have, in bytes.
const MAX_KEY: usize = 253;

/// A key that cannot become a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Two keys became one.
    #[error(
        "error applying conversion strategy {strategy} to keys: secret name collision during conversion: {key}; \
         rename one of the keys in the store, or take them one by one with spec.data"
    )]
    Collision {
        /// The key after conversion.
        key: String,
        /// The strategy that did it.
        strategy: &'static str,
    },
    /// A key is too long.
    #[error(
        "invalid secret keys: a key is {length} bytes long, {MAX_KEY} are allowed; it begins with {start:?}"
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// Its first characters.
        start: String,
    },
    /// A key has a character that is not allowed.
    #[error(
        "invalid secret keys (TIP: use rewrite or conversionStrategy to change keys): key has invalid character \
         {character:?}, only alphanumeric, '-', '.' and '_' are allowed: {key}"
    )]
    Character {
        /// The character.
        character: char,
        /// The key.
        key: String,
    },
    /// A key has a letter or digit beyond ASCII.
    #[error(
        "invalid secret keys: key {key:?} has the character {character:?}: Kubernetes allows only ASCII letters and \
         digits, '-', '.' and '_' in the keys of a Secret, and conversionStrategy keeps letters and digits of every \
         script; rename the key in the store, or take it with spec.data under a secretKey of its own"
    )]
    NotAscii {
        /// The character.
        character: char,
        /// The key.
        key: String,
    },
    /// A key could be taken for a path.
    #[error(
        "invalid secret keys: Kubernetes does not allow the key {key:?} in a Secret (it could be taken for a \
         path); rename it in the store"
    )]
    Dots {
        /// The key.
        key: String,
    },
}

/// Applies the conversion strategy to every key.
pub fn convert<V>(
    map: BTreeMap<String, V>,
    strategy: ConversionStrategy,
) -> Result<BTreeMap<String, V>, KeyError> {
    let mut converted = BTreeMap::new();
    for (key, value) in map {
        let key = convert_key(&key, strategy);
        if converted.contains_key(&key) {
            let strategy = match strategy {
                ConversionStrategy::Default => "Default",
                ConversionStrategy::Unicode => "Unicode",
            };
            return Err(KeyError::Collision { key, strategy });
        }
        converted.insert(key, value);
    }
    Ok(converted)
}

fn convert_key(key: &str, strategy: ConversionStrategy) -> String {
    let mut converted = String::with_capacity(key.len());
    for c in key.chars() {
        match strategy {
            _ if is_kept(c) => converted.push(c),
            ConversionStrategy::Default => converted.push('_'),
            ConversionStrategy::Unicode => converted.push_str(&format!("_U{:04x}_", u32::from(c))),
        }
    }
    converted
}

/// Checks every key; a key without any character is dropped, as ESO does.
pub fn validate<V>(mut map: BTreeMap<String, V>) -> Result<BTreeMap<String, V>, KeyError> {
    map.remove("");
    map.keys().try_for_each(|key| validate_key(key))?;
    Ok(map)
}

fn ends_in_letter_or_digit(text: &str) -> bool {
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    outer(text.chars().next()) && outer(text.chars().last())
}

/// Whether this may be the name in the key of a label or annotation, or a label's value that is not empty.
#[must_use]
pub fn is_label_text(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && ends_in_letter_or_digit(text) && text.chars().all(inner)
}

/// Whether this may be the key of a label or annotation. The API server quotes one that is not.
#[must_use]
pub fn is_metadata_key(key: &str) -> bool {
    match key.split_once('/') {
        // The prefix is a DNS subdomain, as names of objects are.
        Some((prefix, name)) => is_object_name(prefix) && is_label_text(name),
        None => is_label_text(key),
    }
}

/// Checks one key by the rules of the API server, which would otherwise refuse the whole Secret.
pub fn validate_key(key: &str) -> Result<(), KeyError> {
    if key.len() > MAX_KEY {
        return Err(KeyError::TooLong {
            length: key.len(),
            start: key.chars().take(32).collect(),
        });
    }
    for character in key.chars() {
        let key = || key.to_owned();
        if !is_kept(character) {
            return Err(KeyError::Character {
                character,
                key: key(),
            });
        }
        if !character.is_ascii() {
            return Err(KeyError::NotAscii {
                character,
                key: key(),
            });
        }
    }
    if key == "." || key.starts_with("..") {
        return Err(KeyError::Dots { key: key.to_owned() });
    }
    Ok(())
}

/// Go's `unicode.IsLetter` and `unicode.IsNumber` (the categories L and N; `char::is_alphanumeric` has more).
static LETTER_OR_NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}]$").ok());

fn is_kept(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    }
    LETTER_OR_NUMBER
        .as_ref()
        .is_some_and(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converted(keys: &[&str], strategy: ConversionStrategy) -> Result<Vec<String>, KeyError> {
        let map = keys.iter().map(|key| ((*key).to_owned(), ())).collect();
        convert(map, strategy).map(|map| map.into_keys().collect())
    }

    #[test]
    fn default_turns_every_invalid_character_into_an_underscore() {
        assert_eq!(
            converted(&["foo$bar%baz*bing"], ConversionStrategy::Default).unwrap(),
            ["foo_bar_baz_bing"]
        );
        assert_eq!(
            converted(&["/foo/bar/baz/bing"], ConversionStrategy::Default).unwrap(),
            ["_foo_bar_baz_bing"]
        );
    }

    #[test]
    fn unicode_turns_every_invalid_character_into_its_code_point() {
        assert_eq!(
            converted(&["😀foo😁bar😂baz😈bing"], ConversionStrategy::Unicode).unwrap(),
            ["_U1f600_foo_U1f601_bar_U1f602_baz_U1f608_bing"]
        );
        assert_eq!(
            converted(&["some-array[0].entity"], ConversionStrategy::Unicode).unwrap(),
            ["some-array_U005b_0_U005d_.entity"]
        );
    }

    #[test]
    fn two_keys_that_become_one_are_an_error() {
        let error = converted(
            &["foo_bar_baz$bing", "foo$bar%baz*bing"],
            ConversionStrategy::Default,
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("secret name collision during conversion: foo_bar_baz_bing")
        );
    }

    #[test]
    fn letters_and_numbers_are_those_of_go() {
        assert_eq!(
            converted(&["aé٣Ⅷ²中"], ConversionStrategy::Default).unwrap(),
            ["aé٣Ⅷ²中"]
        );
        // A circled letter and a combining vowel sign are alphabetic for Rust, but not letters for Go.
        assert_eq!(
            converted(&["aⒶ\u{93e}"], ConversionStrategy::Default).unwrap(),
            ["a__"]
        );
    }

    #[test]
    fn a_key_that_kubernetes_refuses_is_refused_with_the_reason() {
        assert!(matches!(
            validate_key("a/b"),
            Err(KeyError::Character { character: '/', .. })
        ));
        assert!(matches!(
            validate_key("passé"),
            Err(KeyError::NotAscii { character: 'é', .. })
        ));
        assert!(matches!(
            validate_key(&"a".repeat(254)),
            Err(KeyError::TooLong { length: 254, .. })
        ));
        assert!(matches!(validate_key(".."), Err(KeyError::Dots { .. })));
        assert!(matches!(validate_key("..a"), Err(KeyError::Dots { .. })));
        assert!(matches!(validate_key("."), Err(KeyError::Dots { .. })));
        assert_eq!(validate_key(&"a".repeat(253)), Ok(()));
        assert_eq!(validate_key(".dockerconfigjson"), Ok(()));
    }

    #[test]
    fn a_key_without_characters_is_dropped() {
        let map = BTreeMap::from([(String::new(), 1), ("a".to_owned(), 2)]);
        assert_eq!(validate(map).unwrap(), BTreeMap::from([("a".to_owned(), 2)]));
    }

    proptest! {
        #[test]
        fn a_converted_key_never_has_an_invalid_ascii_character(key in any::<String>()) {
            for strategy in [ConversionStrategy::Default, ConversionStrategy::Unicode] {
                let key = convert_key(&key, strategy);
                prop_assert!(key.chars().all(|c| !c.is_ascii() || is_kept(c)));
            }
        }

        #[test]
        fn converting_twice_changes_nothing_more(key in any::<String>()) {
            for strategy in [ConversionStrategy::Default, ConversionStrategy::Unicode] {
                let once = convert_key(&key, strategy);
                prop_assert_eq!(convert_key(&once, strategy), once);
            }
        }

        #[test]
        fn a_valid_key_is_one_that_the_api_server_takes(key in any::<String>()) {
            let taken = key.len() <= 253 && key != "." && !key.starts_with("..")
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            prop_assert_eq!(validate_key(&key).is_ok(), taken);
        }
    }
}
