//! What is told of an object that cannot be read: which field it is, and what should be there. What is there may be a
//! value that nobody else may know, such as that of a store of the provider fake.

/// A path is told as far as this.
const PATH_MAX: usize = 200;

/// What is wrong with a text, as far as the reader knows.
#[must_use]
pub fn tell(text: &str, error: &serde_json::Error) -> String {
    let why = without_values(&error.to_string());
    match path_at(text, offset(text, error.line(), error.column())) {
        path if path.is_empty() => why,
        path => format!("{path}: {why}"),
    }
}

/// Where a line and a column, both counted from one, are.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    before.saturating_add(column)
}

/// The reader's words without what it found.
fn without_values(error: &str) -> String {
    let said = error.rsplit_once(" at line ").map_or(error, |(said, _)| said);
    let found = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant `",
        "unknown field `",
    ];
    let whole = [
        "missing field `",
        "duplicate field `",
        "recursion limit exceeded",
        "number out of range",
        "data did not match any variant",
    ];
    if found.iter().any(|start| said.starts_with(start)) {
        // What was found may hold these words too; what was expected is ours, and the last.
        let expected = said.rsplit_once(", expected ").map(|(_, expected)| expected);
        return expected.map_or_else(
            || "it has another form".into(),
            |expected| format!("expected {expected}"),
        );
    }
    if whole.iter().any(|start| said.starts_with(start)) {
        return said.into();
    }
    "it has another form than its definition asks for".into()
}

/// Where one is in a text.
enum Step {
    /// In an object, at this key.
    Key(String),
    /// In an array.
    Index(usize),
}

/// The path of the field at an offset.
fn path_at(text: &str, offset: usize) -> String {
    let mut steps: Vec<Step> = Vec::new();
    let mut awaits_key = false;
    let mut rest = text.as_bytes().iter().take(offset).copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                let string = string(&mut rest);
                if awaits_key && let Some(Step::Key(key)) = steps.last_mut() {
                    *key = string;
                    awaits_key = false;
                }
            }
            b'{' => {
                steps.push(Step::Key(String::new()));
                awaits_key = true;
            }
            b'[' => {
                steps.push(Step::Index(0));
                awaits_key = false;
            }
            b'}' | b']' => {
                steps.pop();
                awaits_key = false;
            }
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                _ => awaits_key = true,
            },
            _ => {}
        }
    }
    shown(&steps)
}

/// What follows a quotation mark, up to the next.
fn string(rest: &mut impl Iterator<Item = u8>) -> String {
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => break,
            b'\\' => bytes.extend(rest.next()),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shown(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
        if path.len() > PATH_MAX {
            return path.chars().take(PATH_MAX).chain("…".chars()).collect();
        }
    }
    path
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Whole {
        spec: Spec,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Spec {
        number: i32,
        #[serde(default)]
        list: Vec<Kind>,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        A,
        B,
    }

    #[test]
    fn the_field_is_named_and_what_should_be_there_and_never_what_is_there() {
        for (text, told) in [
            (r#"{"spec":{"number":99999999999}}"#, "spec.number: expected i32"),
            (
                r#"{"spec":{"number":"s3cr3t, expected s3cr3t"}}"#,
                "spec.number: expected i32",
            ),
            (
                "{\"spec\":\n{\"number\":\n\"s3cr3t\"}}",
                "spec.number: expected i32",
            ),
            (
                r#"{"spec":{"x":"s3\"cr3t{","number":true}}"#,
                "spec.number: expected i32",
            ),
            (
                r#"{"spec":{"number":1,"list":["A","s3cr3t"]}}"#,
                "spec.list[1]: expected `A` or `B`",
            ),
            (r#"{"spec":{"list":[]}}"#, "spec: missing field `number`"),
        ] {
            let error = serde_json::from_str::<Whole>(text).unwrap_err();
            assert_eq!(tell(text, &error), told, "{error}");
        }
    }

    #[test]
    fn words_that_nobody_knows_are_not_told() {
        assert!(!without_values("s3cr3t is no duration").contains("s3cr3t"));
        assert!(!without_values("invalid type: s3cr3t at line 1 column 2").contains("s3cr3t"));
    }

    #[test]
    fn a_path_has_a_bound() {
        let text = format!("{}1", r#"{"key":"#.repeat(9_000));
        assert!(path_at(&text, text.len()).len() <= PATH_MAX + "…".len());
    }
}
