//! What `remoteRef.property` takes out of a secret.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::gjson_path::{self, PathError};
use super::number;
use crate::secret::SecretBytes;
use crate::vault::json::{Json, JsonError};

/// Why a property cannot be taken; never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The secret has no such property.
    #[error(
        "cannot find secret data for key: \"{property}\"; the secret exists but has no such property: correct the \
         property, or add it to the secret"
    )]
    NotFound {
        /// The property.
        property: String,
    },
    /// The property is a path that cannot be followed.
    #[error("property \"{property}\": {error}")]
    Path {
        /// The property.
        property: String,
        /// What is wrong with it.
        error: PathError,
    },
    /// `extract` needs an object.
    #[error("{what} is {kind}, but extract needs a JSON object; take it with spec.data instead")]
    NotAnObject {
        /// The secret, or the property of it.
        what: String,
        /// What it is.
        kind: &'static str,
    },
    /// `extract` and `property` need JSON.
    #[error(
        "{what} is not a JSON object, which extract and property need ({error}); take it whole with spec.data"
    )]
    NotJson {
        /// The secret, or the property of it.
        what: String,
        /// What is wrong with it.
        error: JsonError,
    },
}

/// The value for one key of the target, as `data` takes it.
///
/// No property means the whole secret as JSON. A top-level key of that very name wins over the reading as a
/// gjson path, so that keys with dots in them can be named.
pub fn value(secret: &Json, property: Option<&str>) -> Result<SecretBytes, PropertyError> {
    let Some(property) = property else {
        return Ok(SecretBytes::new(secret.to_go_string().into_bytes()));
    };
    if let Some(member) = secret.get(property) {
        return Ok(bytes(member));
    }
    let text = Zeroizing::new(secret.to_go_string());
    match gjson_path::get(&text, property) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(PropertyError::NotFound {
            property: property.to_owned(),
        }),
        Err(error) => Err(PropertyError::Path {
            property: property.to_owned(),
            error,
        }),
    }
}

/// Every member of the object that the property names, as `dataFrom.extract` takes them.
///
/// ESO reads the value of the property a second time, now with numbers as floats; that is visible in the
/// target (`1.0` becomes `1`) and therefore kept, except that integers keep their digits.
pub fn members(
    secret: &Json,
    property: Option<&str>,
) -> Result<BTreeMap<String, SecretBytes>, PropertyError> {
    read_again(&value(secret, property)?, property)
}

/// As [`value`], of a secret that is text: without a property all of it, as it stands.
pub fn value_of_text(secret: &SecretBytes, property: Option<&str>) -> Result<SecretBytes, PropertyError> {
    match property {
        None => Ok(secret.clone()),
        Some(_) => value(&json_of(secret)?, property),
    }
}

/// As [`members`], of a secret that is text.
pub fn members_of_text(
    secret: &SecretBytes,
    property: Option<&str>,
) -> Result<BTreeMap<String, SecretBytes>, PropertyError> {
    read_again(&value_of_text(secret, property)?, property)
}

fn json_of(secret: &SecretBytes) -> Result<Json, PropertyError> {
    Json::parse(secret.expose()).map_err(|error| PropertyError::NotJson {
        what: "the secret".to_owned(),
        error,
    })
}

fn read_again(
    text: &SecretBytes,
    property: Option<&str>,
) -> Result<BTreeMap<String, SecretBytes>, PropertyError> {
    let what = || match property {
        Some(property) => format!("property \"{property}\""),
        None => "the secret".to_owned(),
    };
    let again = Json::parse(text.expose()).map_err(|error| PropertyError::NotJson { what: what(), error })?;
    match again.kind() {
        // Go decodes null into an empty map.
        "null" => Ok(BTreeMap::new()),
        kind => texts(again).ok_or_else(|| PropertyError::NotAnObject { what: what(), kind }),
    }
}

/// The members of an object after Go has read it into a map, each as it is stored in the target.
pub(super) fn texts(json: Json) -> Option<BTreeMap<String, SecretBytes>> {
    let members = through_float(json).into_object()?;
    let texts = members.iter().map(|(key, member)| (key.clone(), bytes(member)));
    Some(texts.collect())
}

/// A value as it is stored in the target.
fn bytes(value: &Json) -> SecretBytes {
    match value {
        Json::String(text) | Json::Number(text) => text.as_str().into(),
        Json::Null => SecretBytes::default(),
        Json::Bool(_) | Json::Array(_) | Json::Object(_) | Json::Nested(_) => {
            SecretBytes::new(value.to_go_string().into_bytes())
        }
    }
}

/// The numbers of an object as Go shows them after decoding into floats: directly in it they are printed
/// plainly, deeper ones as `encoding/json` writes them.
fn through_float(mut json: Json) -> Json {
    if let Json::Object(members) = &mut json {
        for member in members.values_mut() {
            match member {
                Json::Number(text) => *member = Json::Number(number::plain(text)),
                other => nested_through_float(other),
            }
        }
    }
    json
}

/// Every number as `encoding/json` writes it after Go has read it into a float.
pub(super) fn nested_through_float(json: &mut Json) {
    json.change_numbers(number::in_json);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn taken(secret: &str, property: &str) -> Result<String, PropertyError> {
        let property = Some(property).filter(|property| !property.is_empty());
        value(&Json::parse(secret.as_bytes()).unwrap(), property).map(text)
    }

    fn text(bytes: SecretBytes) -> String {
        String::from_utf8(bytes.expose().to_vec()).unwrap()
    }

    fn extracted(secret: &str, property: &str) -> Result<Vec<(String, String)>, PropertyError> {
        let property = Some(property).filter(|property| !property.is_empty());
        let members = members(&Json::parse(secret.as_bytes()).unwrap(), property)?;
        Ok(members
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect())
    }

    const ACCESS: &str = r#"{"access_key":"access_key","access_secret":"access_secret","token":null}"#;
    const NESTED: &str =
        r#"{"nested":{"foo":"oke","bar":"nested value"},"nested.bar":"something different"}"#;

    #[test]
    fn a_property_is_a_top_level_key() {
        assert_eq!(taken(ACCESS, "access_key").unwrap(), "access_key");
    }

    #[test]
    fn without_a_property_the_whole_secret_is_json() {
        assert_eq!(
            taken(ACCESS, "").unwrap(),
            r#"{"access_key":"access_key","access_secret":"access_secret","token":null}"#
        );
        assert_eq!(
            taken(r#"{"b":1.0,"a":"<&>"}"#, "").unwrap(),
            r#"{"a":"\u003c\u0026\u003e","b":1.0}"#
        );
    }

    #[test]
    fn a_property_with_dots_leads_into_nested_objects() {
        assert_eq!(taken(NESTED, "nested.foo").unwrap(), "oke");
    }

    #[test]
    fn a_literal_key_with_dots_wins_over_the_nested_value() {
        assert_eq!(taken(NESTED, "nested.bar").unwrap(), "something different");
    }

    #[test]
    fn a_missing_property_is_an_error_that_names_it() {
        let error = taken(ACCESS, "nop.doesnt.exist").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot find secret data for key: \"nop.doesnt.exist\"")
        );
        assert!(!error.to_string().contains("access_secret"));
    }

    #[test]
    fn every_kind_of_value_has_its_form_in_the_target() {
        let secret = r#"{"s":"a\nb ","n":42,"f":1.50,"t":true,"z":null,"o":{"b":"<","a":1},"a":[1,"x"]}"#;
        for (property, expected) in [
            ("s", "a\nb "),
            ("n", "42"),
            ("f", "1.50"),
            ("t", "true"),
            ("z", ""),
            ("o", r#"{"a":1,"b":"\u003c"}"#),
            ("a", r#"[1,"x"]"#),
        ] {
            assert_eq!(taken(secret, property).unwrap(), expected, "{property}");
        }
    }

    #[test]
    fn extract_takes_every_member() {
        let expected = [
            ("access_key", "access_key"),
            ("access_secret", "access_secret"),
            ("token", ""),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(extracted(ACCESS, "").unwrap(), expected);
    }

    #[test]
    fn extract_leaves_no_html_escapes_in_strings() {
        let secret = r#"{"access_key":"acc<ess_&ke.,y","access_secret":"acce&?ss_s>ecret"}"#;
        assert_eq!(extracted(secret, "").unwrap()[0].1, "acc<ess_&ke.,y");
        assert_eq!(extracted(secret, "").unwrap()[1].1, "acce&?ss_s>ecret");
    }

    #[test]
    fn extract_prints_numbers_as_go_prints_floats_but_keeps_long_integers() {
        let secret = r#"{"a":2.12,"b":2.1234534153423423,"c":42,"d":true,"e":"Zm9vYmFy","f":1.0,"g":1e3,
            "h":9007199254740993,"i":{"x":[1.0,1e21,9007199254740993]}}"#;
        let values: Vec<String> = extracted(secret, "")
            .unwrap()
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(
            values,
            [
                "2.12",
                "2.1234534153423423",
                "42",
                "true",
                "Zm9vYmFy",
                "1",
                "1000",
                "9007199254740993",
                r#"{"x":[1,1e+21,9007199254740993]}"#
            ]
        );
    }

    #[test]
    fn extract_with_a_property_takes_the_members_of_that_object() {
        let secret = r#"{"nested":{"foo":{"oke":"yup","mhkeih":"yada yada"}}}"#;
        assert_eq!(
            extracted(secret, "nested").unwrap(),
            [(
                "foo".to_owned(),
                r#"{"mhkeih":"yada yada","oke":"yup"}"#.to_owned()
            )]
        );
        assert_eq!(
            extracted(secret, "nested.foo").unwrap(),
            [
                ("mhkeih".to_owned(), "yada yada".to_owned()),
                ("oke".to_owned(), "yup".to_owned())
            ]
        );
    }

    #[test]
    fn extract_reads_json_that_is_kept_in_a_string() {
        let secret = r#"{"blob":"{\"user\":\"u\",\"pin\":0.10}"}"#;
        assert_eq!(
            extracted(secret, "blob").unwrap(),
            [
                ("pin".to_owned(), "0.1".to_owned()),
                ("user".to_owned(), "u".to_owned())
            ]
        );
    }

    #[test]
    fn extract_of_something_else_than_an_object_is_an_error_without_the_value() {
        let secret = r#"{"a":"hunter2","b":[1],"c":"","d":7}"#;
        for property in ["a", "b", "c", "d"] {
            let error = extracted(secret, property).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("property \"{property}\" is ")),
                "{error}"
            );
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn extract_of_an_empty_object_is_no_keys() {
        assert_eq!(extracted("{}", "").unwrap(), []);
    }
}
