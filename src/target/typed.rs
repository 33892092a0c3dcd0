//! What Kubernetes asks of the data of a Secret of a known type, looked at before the write: the API server's own
//! complaint quotes characters of the value.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::de::IgnoredAny;

/// What is wrong with the data; names a key and never a character of its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A key is missing.
    #[error("it needs the key {0:?}; add it to spec.data or to spec.target.template.data")]
    NoKey(&'static str),
    /// One of two keys is missing.
    #[error("it needs the key {0:?} or {1:?}; add one to spec.data or to spec.target.template.data")]
    NeitherKey(&'static str, &'static str),
    /// A value is empty.
    #[error("the value of its key {0:?} must not be empty; correct it in Vault, or the template")]
    Empty(&'static str),
    /// A value is no JSON.
    #[error(
        "the value of its key {key:?} is not JSON (line {line}, column {column}); correct it in Vault, or the template"
    )]
    NotJson {
        /// The key.
        key: &'static str,
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// A value is JSON, but not an object.
    #[error(
        "the value of its key {0:?} is JSON, but no object in braces; correct it in Vault, or the template"
    )]
    NoObject(&'static str),
}

type Data = BTreeMap<String, ByteString>;

/// Looks for what the API server would refuse, and takes all that it takes.
pub(super) fn check(type_: &str, data: &Data) -> Result<(), Misfit> {
    let needs = |key| data.get(key).ok_or(Misfit::NoKey(key));
    match type_ {
        "kubernetes.io/dockercfg" => json_object(".dockercfg", needs(".dockercfg")?),
        "kubernetes.io/dockerconfigjson" => json_object(".dockerconfigjson", needs(".dockerconfigjson")?),
        "kubernetes.io/tls" => needs("tls.crt").and_then(|_| needs("tls.key")).map(drop),
        "kubernetes.io/ssh-auth" => match needs("ssh-privatekey")?.0.is_empty() {
            true => Err(Misfit::Empty("ssh-privatekey")),
            false => Ok(()),
        },
        "kubernetes.io/basic-auth" => {
            let (user, password) = ("username", "password");
            let has_one = data.contains_key(user) || data.contains_key(password);
            has_one.then_some(()).ok_or(Misfit::NeitherKey(user, password))
        }
        _ => Ok(()),
    }
}

/// Go, which the API server is written in, takes bytes that are not UTF-8, and `null` for an object.
fn json_object(key: &'static str, value: &ByteString) -> Result<(), Misfit> {
    let text = String::from_utf8_lossy(&value.0);
    // Without a tree, and so without a bound of depth: the API server has its own.
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| Misfit::NotJson {
        key,
        line: error.line(),
        column: error.column(),
    })?;
    let text = text.trim();
    if text.starts_with('{') || text == "null" {
        return Ok(());
    }
    Err(Misfit::NoObject(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_would_refuse_is_told_by_key_and_place() {
        let (docker, config) = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson");
        let (tls, ssh, basic) = (
            "kubernetes.io/tls",
            "kubernetes.io/ssh-auth",
            "kubernetes.io/basic-auth",
        );
        let not_json = |key, line, column| Err(Misfit::NotJson { key, line, column });
        for (type_, data, wanted) in [
            (docker, vec![("other", "{}")], Err(Misfit::NoKey(".dockercfg"))),
            (
                docker,
                vec![(".dockercfg", "Q9canary")],
                not_json(".dockercfg", 1, 1),
            ),
            (docker, vec![(".dockercfg", "{}")], Ok(())),
            (
                config,
                vec![(".dockerconfigjson", "")],
                not_json(".dockerconfigjson", 1, 0),
            ),
            (
                config,
                vec![(".dockerconfigjson", "{\n\"auths\":Z9}")],
                not_json(".dockerconfigjson", 2, 9),
            ),
            (
                config,
                vec![(".dockerconfigjson", "[]")],
                Err(Misfit::NoObject(".dockerconfigjson")),
            ),
            (config, vec![(".dockerconfigjson", " null ")], Ok(())),
            (config, vec![(".dockerconfigjson", r#"{"a":"\ud800"}"#)], Ok(())),
            (tls, vec![("tls.crt", "")], Err(Misfit::NoKey("tls.key"))),
            (tls, vec![("tls.crt", ""), ("tls.key", "")], Ok(())),
            (
                ssh,
                vec![("ssh-privatekey", "")],
                Err(Misfit::Empty("ssh-privatekey")),
            ),
            (ssh, vec![], Err(Misfit::NoKey("ssh-privatekey"))),
            (ssh, vec![("ssh-privatekey", "x")], Ok(())),
            (
                basic,
                vec![("user", "x")],
                Err(Misfit::NeitherKey("username", "password")),
            ),
            (basic, vec![("password", "")], Ok(())),
            ("Opaque", vec![], Ok(())),
            ("example.com/own", vec![], Ok(())),
        ] {
            let map = data
                .iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString((*value).into())));
            let found = check(type_, &map.collect());
            assert_eq!(found, wanted, "{type_} {data:?}");
            let text = found.err().map(|misfit| misfit.to_string()).unwrap_or_default();
            assert!(!text.contains("Q9") && !text.contains("Z9"), "{text}");
        }
    }

    #[test]
    fn bytes_and_depths_that_the_api_server_takes_are_taken() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        for value in [deep.as_bytes(), b"{\"a\": \"\xff\"}"] {
            let data = Data::from([(".dockercfg".to_owned(), ByteString(value.to_vec()))]);
            assert_eq!(check("kubernetes.io/dockercfg", &data), Ok(()));
        }
    }
}
