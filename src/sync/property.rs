//! `property`: a top-level key, else a gjson path. The values of both as ESO writes them.

use std::collections::BTreeMap;

use crate::secret::SecretBytes;
use crate::vault::json::Json;

/// The value of a property; `None` if there is none. An exact top-level key beats the path reading.
#[must_use]
pub fn single(secret: &Json, property: Option<&str>) -> Option<SecretBytes> {
    let Some(property) = property.filter(|property| !property.is_empty()) else {
        return Some(bytes(secret.to_go_string()));
    };
    if let Json::Object(entries) = secret
        && let Some(value) = entries.get(property)
    {
        return Some(value_of(value));
    }
    path(secret, property).map(bytes)
}

/// Every key of the object that a property leads to, or of the secret itself. `Ok(None)`: no such
/// property.
///
/// # Errors
/// If what is found is not an object.
pub fn extract(
    secret: &Json,
    property: Option<&str>,
) -> Result<Option<BTreeMap<String, SecretBytes>>, NotAnObject> {
    let inner;
    let object = match property.filter(|property| !property.is_empty()) {
        None => secret,
        Some(property) => {
            let Some(text) = single(secret, Some(property)) else {
                return Ok(None);
            };
            inner = Json::parse(text.expose()).map_err(|_| NotAnObject)?;
            &inner
        }
    };
    let Json::Object(entries) = object else {
        return Err(NotAnObject);
    };
    Ok(Some(
        entries
            .iter()
            .map(|(key, value)| (key.clone(), parsed_value_of(value)))
            .collect(),
    ))
}

/// What a property leads to is not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

fn bytes(text: String) -> SecretBytes {
    SecretBytes::new(text.into_bytes())
}

fn value_of(value: &Json) -> SecretBytes {
    match value {
        Json::Null => SecretBytes::default(),
        Json::String(text) => text.as_str().into(),
        other => bytes(other.to_go_string()),
    }
}

/// A value of `extract`: numbers went through a float64, as in ESO, but whole numbers keep their
/// digits, where ESO's lose some beyond 2^53.
fn parsed_value_of(value: &Json) -> SecretBytes {
    match value {
        Json::Number(digits) => bytes(go_float(digits)),
        other => value_of(other),
    }
}

fn is_whole(digits: &str) -> bool {
    digits
        .strip_prefix('-')
        .unwrap_or(digits)
        .bytes()
        .all(|b| b.is_ascii_digit())
}

/// A number as Go's `strconv.FormatFloat(x, 'f', -1, 64)` writes it.
fn go_float(digits: &str) -> String {
    if is_whole(digits) {
        return digits.to_string();
    }
    // Rust's Display of f64 is the shortest form without exponent, as Go's is.
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => format!("{number}"),
        _ => digits.to_string(),
    }
}

/// A gjson path over the secret's text. Modifiers that the crate lacks are applied here when they
/// stand at the end of the path.
fn path(secret: &Json, path: &str) -> Option<String> {
    for (modifier, apply) in MODIFIERS {
        if let Some(before) = path.strip_suffix(modifier) {
            let text = match before.trim_end_matches(['|', '.']) {
                "" => secret.to_go_string(),
                before => raw_path(secret, before)?,
            };
            return apply(&Json::parse(text.as_bytes()).ok()?);
        }
    }
    let text = secret.to_go_string();
    let found = gjson::get(&text, path);
    if !found.exists() {
        return None;
    }
    Some(match found.kind() {
        gjson::Kind::Null => String::new(),
        gjson::Kind::Number => go_float(found.json()),
        gjson::Kind::String => found.str().to_string(),
        gjson::Kind::True | gjson::Kind::False | gjson::Kind::Object | gjson::Kind::Array => {
            found.json().to_string()
        }
    })
}

fn raw_path(secret: &Json, path: &str) -> Option<String> {
    let text = secret.to_go_string();
    let found = gjson::get(&text, path);
    found.exists().then(|| found.json().to_string())
}

type Modifier = fn(&Json) -> Option<String>;

const MODIFIERS: &[(&str, Modifier)] = &[
    ("@keys", |json| match json {
        Json::Object(entries) => Some(
            Json::Array(
                entries
                    .keys()
                    .map(|key| Json::String(key.clone().into()))
                    .collect(),
            )
            .to_go_string(),
        ),
        _ => Some("[]".into()),
    }),
    ("@values", |json| match json {
        Json::Object(entries) => Some(Json::Array(entries.values().cloned().collect()).to_go_string()),
        _ => Some("[]".into()),
    }),
    ("@tostr", |json| Some(json.to_go_string())),
    ("@fromstr", |json| match json {
        Json::String(text) => Json::parse(text.as_bytes())
            .ok()
            .map(|inner| inner.to_go_string()),
        _ => None,
    }),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn one(secret: &str, property: &str) -> Option<String> {
        single(&json(secret), Some(property)).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn without_a_property_the_whole_secret_comes_as_gos_json() {
        let value = single(&json(r#"{"b":1.50,"a":"<"}"#), None).unwrap();
        assert_eq!(value.expose(), br#"{"a":"\u003c","b":1.50}"#);
    }

    #[test]
    fn an_exact_key_beats_the_path() {
        assert_eq!(
            one(
                r#"{"nested.bar":"literal","nested":{"bar":"deep"}}"#,
                "nested.bar"
            )
            .unwrap(),
            "literal"
        );
        assert_eq!(one(r#"{"nested":{"foo":"oke"}}"#, "nested.foo").unwrap(), "oke");
    }

    #[test]
    fn values_are_written_as_eso_writes_them() {
        let secret = r#"{"n":42,"f":1.50,"t":true,"z":null,"o":{"b":1,"a":"<"},"l":["x",1]}"#;
        for (property, value) in [
            ("n", "42"),
            ("f", "1.50"),
            ("t", "true"),
            ("z", ""),
            ("o", r#"{"a":"\u003c","b":1}"#),
            ("l", r#"["x",1]"#),
            ("l.1", "1"),
            ("o.a", "<"),
        ] {
            assert_eq!(one(secret, property).unwrap(), value, "{property}");
        }
    }

    #[test]
    fn lists_are_reached_by_index_wildcard_and_query() {
        let people = r#"{"friends":[{"first":"Dale","age":44},{"first":"Roger","age":68}]}"#;
        assert_eq!(one(people, "friends.1.first").unwrap(), "Roger");
        assert_eq!(one(people, "friends.#").unwrap(), "2");
        assert_eq!(one(people, r#"friends.#(age>50).first"#).unwrap(), "Roger");
        assert_eq!(one(people, "friends.#.first").unwrap(), r#"["Dale","Roger"]"#);
        assert_eq!(one(people, "friends.0|@keys").unwrap(), r#"["age","first"]"#);
    }

    #[test]
    fn a_property_that_is_not_there_is_none() {
        assert_eq!(one(r#"{"a":1}"#, "nop.doesnt.exist"), None);
    }

    #[test]
    fn extract_takes_numbers_through_a_float_and_keeps_whole_ones() {
        let map = extract(
            &json(r#"{"a":1.0,"b":1e3,"c":5432,"d":12345678901234567890,"e":{"x":"<"}}"#),
            None,
        )
        .unwrap()
        .unwrap();
        let text: Vec<_> = map
            .values()
            .map(|v| String::from_utf8(v.expose().to_vec()).unwrap())
            .collect();
        assert_eq!(
            text,
            ["1", "1000", "5432", "12345678901234567890", r#"{"x":"\u003c"}"#]
        );
        assert_eq!(extract(&json(r#"{"a":"x"}"#), Some("a")).err(), Some(NotAnObject));
        assert_eq!(extract(&json(r#"{"a":"x"}"#), Some("b")).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[a-z0-9.#*?@|{}\\[\\]()\\\\\"!:,=<>-]{0,24}") {
            let _ = single(&json(r#"{"a":[1,{"b":"c"}],"d":{"e":null},"f":"g"}"#), Some(&path));
        }
    }
}
