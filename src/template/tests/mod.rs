//! Tests of the engine as a whole; what templates must render as is held in `tests/golden`.

mod bounds;
mod random;

use std::collections::BTreeMap;

use super::{Delims, ErrorKind, MissingKey, Template, TemplateError};
use crate::secret::SecretBytes;

fn data(entries: &[(&str, &str)]) -> BTreeMap<String, SecretBytes> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), SecretBytes::from(*value)))
        .collect()
}

fn run(text: &str, entries: &[(&str, &str)], missing: MissingKey) -> Result<String, TemplateError> {
    let template = Template::parse("tls.crt", text, &Delims::default())?;
    let output = template.render(&data(entries), missing)?;
    Ok(String::from_utf8_lossy(output.expose()).into_owned())
}

fn error(text: &str) -> String {
    run(text, &[("word", "hello")], MissingKey::Error)
        .unwrap_err()
        .to_string()
}

#[test]
fn an_error_names_template_line_column_and_cause() {
    assert_eq!(
        error("a\nb\ncert = {{ .unknown }}"),
        r#"template: tls.crt:3:10: executing "tls.crt" at <.unknown>: map has no entry for key "unknown""#
    );
    assert_eq!(
        error("{{ nope }}"),
        r#"template: tls.crt:1:3: function "nope" not defined"#
    );
    assert_eq!(
        error("{{ define \"T\" }}{{ div 1 0 }}{{ end }}\n{{ template \"T\" }}")
            .split(": error")
            .next(),
        Some(r#"template: tls.crt:1:19: executing "T" at <div 1 0>"#)
    );
}

#[test]
fn an_error_of_the_parser_says_what_it_met_and_where() {
    for (text, expected) in [
        ("{{ if true }}", "template: tls.crt:1:13: unexpected EOF"),
        ("x {{ end }}", "template: tls.crt:1:2: unexpected {{end}}"),
        ("{{ \"a }}", "template: tls.crt:1:3: unterminated quoted string"),
        ("{{ .a-b }}", "template: tls.crt:1:3: bad character U+002D '-'"),
        ("{{ $x }}", "template: tls.crt:1:3: undefined variable \"$x\""),
        (
            "{{ break }}",
            "template: tls.crt:1:9: {{break}} outside {{range}}",
        ),
        (
            "{{ 1 | 2 }}",
            "template: tls.crt:1:7: non executable command in pipeline stage 2",
        ),
        ("{{ if }}{{ end }}", "template: tls.crt:1:8: missing value for if"),
        (
            "{{ 'ab' }}",
            "template: tls.crt:1:3: malformed character constant: 'ab'",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn an_error_tells_whether_data_could_help() {
    let kind = |text| run(text, &[], MissingKey::Error).unwrap_err().kind();
    assert_eq!(kind("{{ end }}"), ErrorKind::Parse);
    assert_eq!(kind("{{ .word }}"), ErrorKind::Exec);
}

#[test]
fn no_error_shows_a_value_of_the_data() {
    let secret = [("word", "s3cr3t!")];
    for text in [
        "{{ range .word }}{{ end }}",
        "{{ .word.x }}",
        "{{ .word 1 }}",
        "{{ index .word 99 }}",
        "{{ index .word .word }}",
        "{{ index (dict .word 1) 5 }}",
        "{{ call .word }}",
        "{{ lt .word 1 }}",
        "{{ until .word }}",
        "{{ template \"T\" .word }}",
        "{{ (dict \"a\" .word).a.b }}",
        "{{ (dict .word 1).b }}",
        "{{ mustFromJson .word }}",
        "{{ mustToDate \"2006\" .word }}",
        "{{ mustRegexMatch (print \"(\" .word) \"\" }}",
        "{{ semver .word }}",
        "{{ semverCompare .word \"1.0.0\" }}",
        "{{ urlParse (print \"http://[\" .word) }}",
        "{{ first (dict \"a\" .word) }}",
        "{{ b64dec .word | upper | fail (print 1) }}",
    ] {
        let error = run(text, &secret, MissingKey::Error).unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{text}: {error}");
    }
}

#[test]
fn a_missing_key_is_no_value_where_that_is_asked_for() {
    let run = |text| run(text, &[("a", "1")], MissingKey::Invalid);
    assert_eq!(run("{{ .a }}{{ .b }}").unwrap(), "1<no value>");
    assert_eq!(run("{{ .b.c.d }}").unwrap(), "<no value>");
    assert_eq!(run("{{ .b | default \"x\" }}").unwrap(), "x");
    assert_eq!(
        run("{{ if .b }}yes{{ else }}no{{ end }}{{ range .b }}x{{ end }}").unwrap(),
        "no"
    );
    assert_eq!(run("{{ (dict).x }}").unwrap(), "<no value>");
    assert_eq!(run("{{ keys .b }}").unwrap(), "[]");
    assert!(
        run("{{ .b 1 }}").is_err(),
        "what is no method takes no argument, absent or not"
    );
    assert!(
        run("{{ upper .b }}").is_err(),
        "a function that wants text fails as in Go"
    );
}

#[test]
fn bytes_that_are_no_text_pass_through() {
    let bytes: Vec<u8> = (0..=255).collect();
    let data = BTreeMap::from([("store".to_owned(), SecretBytes::new(bytes.clone()))]);
    for text in [
        "{{ .store }}",
        "{{ print .store }}",
        "{{ printf \"%s\" .store }}",
        "{{ .store | b64enc | b64dec }}",
    ] {
        let template = Template::parse("t", text, &Delims::default()).unwrap();
        let output = template.render(&data, MissingKey::Error).unwrap();
        assert_eq!(output.expose(), bytes, "{text}");
    }
}

#[test]
fn delimiters_are_the_standard_ones_unless_others_are_given() {
    let parse = |left: &str, right: &str, text| {
        let delims = Delims {
            left: left.into(),
            right: right.into(),
        };
        let output = Template::parse("t", text, &delims)
            .unwrap()
            .render(&data(&[("a", "1")]), MissingKey::Error);
        String::from_utf8(output.unwrap().expose().to_vec()).unwrap()
    };
    assert_eq!(parse("", "", "{{ .a }}"), "1");
    assert_eq!(parse("[[", "", "[[ .a }}{{ .a }}"), "1{{ .a }}");
    assert_eq!(parse("<<", ">>", "{{ .a }}<<.a>>"), "{{ .a }}1");
}

#[test]
fn a_template_is_stable_unless_it_names_a_function_that_makes_something_new() {
    let stable = |text| {
        Template::parse("t", text, &Delims::default())
            .unwrap()
            .is_stable()
    };
    assert!(stable(
        "{{ .a | upper | b64enc }}{{ toDate \"2006\" \"2024\" | unixEpoch }}"
    ));
    assert!(!stable("{{ now | date \"2006\" }}"));
    assert!(!stable("{{ if false }}{{ randAlphaNum 5 }}{{ end }}"));
    assert!(!stable("{{ define \"T\" }}{{ uuidv4 }}{{ end }}"));
    assert!(!stable("{{ $x := (genPrivateKey \"ed25519\") }}"));
}

#[test]
fn every_function_that_makes_something_new_exists() {
    for name in crate::template::funcs::UNSTABLE {
        assert!(crate::template::funcs::find(name).is_some(), "{name}");
    }
}

#[test]
fn no_two_functions_have_the_same_name() {
    let mut names: Vec<&str> = crate::template::funcs::TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|f| f.name)
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_template_can_be_shared_by_threads() {
    let template = Template::parse(
        "t",
        "{{ range until 50 }}{{ . }}{{ end }}{{ .a }}",
        &Delims::default(),
    )
    .unwrap();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| template.render(&data(&[("a", "1")]), MissingKey::Error)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect()
    });
    assert!(outputs.windows(2).all(|pair| pair.first() == pair.last()));
}
