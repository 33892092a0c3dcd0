//! Paths into an object, as `templateFrom[].target` names them: `spec.config`, `a.b[0].c`.

use serde_json::{Map, Value};

/// Highest index, and the highest sum of those of one path: lists grow up to them, and must not eat the memory.
const INDEX_MAX: usize = 10_000;
/// Keys and indexes of a path. Whoever writes, reads or drops an object goes as deep as it is nested, and the API
/// client reads none deeper than 128: a path and what is rendered for it stay below that together.
const STEPS_MAX: usize = 32;
/// Bytes of a path.
const LENGTH_MAX: usize = 4096;
/// Bytes of a path that a message shows.
const SHOWN_MAX: usize = 100;

/// A place in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// What is wrong with a path; names it, and never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {problem}")]
pub struct PathError {
    /// The path.
    pub path: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// If it is none, or leads to what a template must not set.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let wrong = |problem: String| PathError {
            path: shown(text),
            problem,
        };
        if text.len() > LENGTH_MAX {
            return Err(wrong(format!("is longer than {LENGTH_MAX} bytes; shorten it")));
        }
        let mut steps = Vec::new();
        for segment in text.split('.') {
            let (name, indexes) = match segment.split_once('[') {
                Some((name, rest)) => (name, Some(rest)),
                None => (segment, None),
            };
            // As in ESO, `a.[0]` is `a[0]`.
            if !name.is_empty() {
                steps.push(Step::Key(name.to_string()));
            } else if indexes.is_none() || steps.is_empty() {
                return Err(wrong(
                    "has an empty part; write keys between dots, as in a.b[0].c".into(),
                ));
            }
            if let Some(indexes) = indexes {
                steps.extend(read_indexes(indexes).map_err(wrong)?);
            }
            if steps.len() > STEPS_MAX {
                return Err(wrong(format!(
                    "has more than {STEPS_MAX} keys and indexes; render a map for a place nearer to the root"
                )));
            }
        }
        let indexes = steps.iter().map(|step| match step {
            Step::Index(index) => *index,
            Step::Key(_) => 0,
        });
        if indexes.sum::<usize>() > INDEX_MAX {
            return Err(wrong(format!("has indexes of more than {INDEX_MAX} together")));
        }
        let path = Self {
            text: text.to_string(),
            steps,
        };
        path.refuse_what_is_not_content()?;
        Ok(path)
    }

    /// Identity, ownership and state are not the template's to set.
    fn refuse_what_is_not_content(&self) -> Result<(), PathError> {
        let key = |position: usize| match self.steps.get(position) {
            Some(Step::Key(key)) => Some(key.as_str()),
            _ => None,
        };
        match (key(0), key(1)) {
            (Some("metadata"), Some("labels" | "annotations")) => Ok(()),
            (Some(field @ ("apiVersion" | "kind" | "metadata" | "status")), _) => Err(self.wrong(format!(
                "leads into {field}, which no template sets; choose a place such as spec or data, or metadata.labels"
            ))),
            _ => Ok(()),
        }
    }

    fn wrong(&self, problem: String) -> PathError {
        PathError {
            path: shown(&self.text),
            problem,
        }
    }

    /// Puts a value at this place and makes what is missing on the way. A map is merged into a map that is
    /// there, one level deep, as in ESO.
    ///
    /// # Errors
    /// If something else than a map or a list stands in the way.
    pub fn put(&self, object: &mut Value, value: Value) -> Result<(), PathError> {
        let mut node = object;
        for step in &self.steps {
            node = match step {
                Step::Key(key) => self.map(node, key)?.entry(key.clone()).or_insert(Value::Null),
                Step::Index(index) => self.item(node, *index)?,
            };
        }
        match (node, value) {
            (Value::Object(there), Value::Object(new)) => there.extend(new),
            (node, value) => *node = value,
        }
        Ok(())
    }

    fn map<'a>(&self, node: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>, PathError> {
        if node.is_null() {
            *node = Value::Object(Map::new());
        }
        match node {
            Value::Object(map) => Ok(map),
            _ => Err(self.wrong(format!("finds no map in which to set {key:?}; correct the path"))),
        }
    }

    fn item<'a>(&self, node: &'a mut Value, index: usize) -> Result<&'a mut Value, PathError> {
        if node.is_null() {
            *node = Value::Array(Vec::new());
        }
        let nothing = || {
            self.wrong(format!(
                "finds no list in which to set [{index}]; correct the path"
            ))
        };
        let Value::Array(items) = node else {
            return Err(nothing());
        };
        if items.len() <= index {
            items.resize(index + 1, Value::Null);
        }
        items.get_mut(index).ok_or_else(nothing)
    }
}

/// As much of a path as a message shows.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}

/// The rest of a segment after its first `[`: `0]` or `0][1]`.
fn read_indexes(text: &str) -> Result<Vec<Step>, String> {
    let inner = text
        .strip_suffix(']')
        .ok_or("has a [ without its ] at the end of a part; write it as a.b[0].c")?;
    inner
        .split("][")
        .map(|index| match index.parse::<usize>() {
            Ok(number) if number <= INDEX_MAX && index.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Step::Index(number))
            }
            _ => Err(format!(
                "has the index {index:?}; write a whole number from 0 to {INDEX_MAX}"
            )),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn put(object: Value, path: &str, value: Value) -> Result<Value, PathError> {
        let mut object = object;
        Path::parse(path)?.put(&mut object, value)?;
        Ok(object)
    }

    #[test]
    fn dots_and_indexes_lead_to_a_place_and_make_the_way() {
        for (path, wanted) in [
            ("spec", json!({"spec": "v"})),
            ("spec.config.deep", json!({"spec": {"config": {"deep": "v"}}})),
            ("a.b[0].c", json!({"a": {"b": [{"c": "v"}]}})),
            ("a[1].[0]", json!({"a": [null, ["v"]]})),
            (
                "spec.customRequestHeaders",
                json!({"spec": {"customRequestHeaders": "v"}}),
            ),
            (
                "metadata.labels.app",
                json!({"metadata": {"labels": {"app": "v"}}}),
            ),
        ] {
            assert_eq!(put(json!({}), path, json!("v")).unwrap(), wanted, "{path}");
        }
    }

    #[test]
    fn a_map_is_merged_one_level_deep_and_anything_else_replaced() {
        let object = json!({"spec": {"a": {"x": 1}, "b": 1}});
        let merged = put(object.clone(), "spec", json!({"a": {"y": 2}, "c": 3})).unwrap();
        assert_eq!(merged, json!({"spec": {"a": {"y": 2}, "b": 1, "c": 3}}));
        assert_eq!(
            put(object, "spec.a", json!("text")).unwrap(),
            json!({"spec": {"a": "text", "b": 1}})
        );
    }

    #[test]
    fn list_items_of_others_stay() {
        let object = json!({"spec": {"rules": [{"theirs": 1}, {"theirs": 2}]}});
        assert_eq!(
            put(object, "spec.rules[1].ours", json!("v")).unwrap(),
            json!({"spec": {"rules": [{"theirs": 1}, {"theirs": 2, "ours": "v"}]}})
        );
    }

    #[test]
    fn what_is_no_path_is_refused_and_named() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "[0]",
            "a[",
            "a[]",
            "a[0",
            "a[-1]",
            "a[+1]",
            "a[x]",
            "a[0]b",
            "a[10001]",
            "a[99999999999999999999]",
            "a[0][",
            "a]b[0",
        ] {
            let error = Path::parse(bad).unwrap_err();
            assert_eq!(error.path, bad);
        }
        assert!(Path::parse("a[10000]").is_ok());
    }

    #[test]
    fn a_path_is_as_deep_and_as_long_as_an_object_may_be_nested() {
        let deep = |count: usize| vec!["a"; count].join(".");
        let lists = |count: usize| format!("a{}", "[0]".repeat(count));
        let mut object = json!({});
        Path::parse(&deep(STEPS_MAX))
            .unwrap()
            .put(&mut object, json!("v"))
            .unwrap();
        assert!(serde_json::from_str::<Value>(&object.to_string()).is_ok());
        assert!(Path::parse(&lists(STEPS_MAX - 1)).is_ok());
        for bad in [
            deep(STEPS_MAX + 1),
            lists(STEPS_MAX),
            deep(1_000_000),
            lists(1_000_000),
            "a".repeat(LENGTH_MAX + 1),
            "a[6000][6000]".into(),
        ] {
            // It is read where an overflow would be seen: on the stack of a worker.
            let error = Path::parse(&bad).unwrap_err();
            assert!(error.path.len() < 2 * SHOWN_MAX, "{} bytes", error.path.len());
        }
    }

    #[test]
    fn identity_ownership_and_state_cannot_be_set() {
        for bad in [
            "apiVersion",
            "kind",
            "metadata",
            "metadata.name",
            "metadata.ownerReferences[0].uid",
            "metadata.finalizers[0]",
            "status.phase",
        ] {
            assert!(
                Path::parse(bad).unwrap_err().problem.contains("no template sets"),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told_without_its_value() {
        for path in ["spec.text.key", "spec.text[0]", "spec.list.key"] {
            let object = json!({"spec": {"text": "hunter2", "list": ["hunter2"]}});
            let error = put(object, path, json!("v")).unwrap_err().to_string();
            assert!(error.contains(path) && !error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_path_panic(path in "[a-c.\\[\\]0-9]{0,12}", value in "[a-z]{0,3}") {
            let mut object = json!({"a": {"b": [1, {"c": 2}]}, "b": "text"});
            if let Ok(path) = Path::parse(&path) {
                let _ = path.put(&mut object, json!(value));
            }
        }
    }
}
