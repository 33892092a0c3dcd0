//! Bytes that must not be seen.

use std::fmt;
use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

/// The value of a secret: wiped when dropped, and never shown by `Debug` (promise 8).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that writes them into a Secret or a header.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl Hash for SecretBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;

    use super::*;
    use crate::sync::assemble::{Answer, Assembled};
    use crate::sync::shape::Shaped;
    use crate::target::plan::{Action, Outcome, Planned};
    use crate::vault::json::Json;

    const CANARY: &str = "c4n4ry-d3bug";

    /// Everything that holds a value and has a `Debug`; what has none needs no test.
    #[test]
    fn no_debug_shows_a_value() {
        let bytes = SecretBytes::from(CANARY);
        let json = Json::parse(format!("{{\"{CANARY}\": [\"{CANARY}\", 1]}}").as_bytes()).unwrap();
        let data = std::collections::BTreeMap::from([("key".to_owned(), bytes.clone())]);
        let texts = std::collections::BTreeMap::from([("key".to_owned(), CANARY.to_owned())]);
        let secret = Secret {
            data: Some([("key".to_owned(), ByteString(CANARY.into()))].into()),
            ..Secret::default()
        };
        let action = Action::Update(Box::new(secret));
        let planned = Planned {
            action: action.clone(),
            outcome: Outcome::Synced,
            binding: None,
            manages: true,
        };
        let shaped = Shaped {
            data: data.clone(),
            labels: texts.clone(),
            annotations: texts,
            paths: vec![("spec.a".into(), CANARY.into())],
        };
        let assembled = Assembled {
            data: data.clone(),
            ..Assembled::default()
        };
        let shown = [
            format!("{bytes:?}"),
            format!("{json:?}"),
            format!("{:?}", Answer::Found(Arc::new(json))),
            format!("{:?}", Answer::Text(Arc::new(bytes))),
            format!("{:?}", Answer::Many(data)),
            format!("{assembled:?}"),
            format!("{shaped:?}"),
            format!("{action:?}"),
            format!("{planned:?}"),
        ];
        let numbers = format!("{:?}", CANARY.as_bytes());
        let numbers = numbers.trim_matches(['[', ']']);
        for text in shown {
            assert!(!text.contains(CANARY) && !text.contains(numbers), "{text}");
        }
    }
}
