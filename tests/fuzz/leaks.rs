//! No error shows a value. Values are replaced by canaries of the same shape: texts and numbers that stand nowhere
//! else, of which no error may hold 8 characters in a row.

use std::collections::HashSet;
use std::fmt::{Debug, Display};
use std::sync::Arc;

use keyferry::controller::templates::failure;
use keyferry::secret::SecretBytes;
use keyferry::sync::assemble::{Answer, assemble};
use keyferry::sync::plan::plan;
use keyferry::sync::shape::{Shape, Sources};
use keyferry::template::funcs::{TABLES, Ty};
use keyferry::template::{Delims, MissingKey, Template};
use keyferry::vault::json::Json;
use serde_json::{Value, json};

use crate::corpus::{self, Data};

/// Characters of a canary that are too many to see.
const PART: usize = 8;

/// Makes canaries, and knows them.
#[derive(Default)]
struct Canaries {
    state: u64,
    parts: HashSet<Vec<u8>>,
}

impl Canaries {
    fn random(&mut self) -> u64 {
        // Knuth's generator: the same canaries in every run.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    fn pick(&mut self, set: &[u8], count: usize) -> String {
        let text: Vec<u8> = (0..count)
            .map(|_| set[self.random() as usize % set.len()])
            .collect();
        self.parts
            .extend(text.windows(PART).map(<[u8]>::to_ascii_lowercase));
        String::from_utf8(text).unwrap()
    }

    fn word(&mut self) -> String {
        self.pick(b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ", 14)
    }

    /// Not longer than an `int`, and not beginning with 0.
    fn number(&mut self) -> String {
        self.pick(b"123456789", 12)
    }

    /// Every word and number of a text replaced, and all between them kept.
    fn shaped(&mut self, text: &str) -> String {
        let mut made = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let class = |c: char| (c.is_alphabetic(), c.is_ascii_digit());
            let end = rest.find(|c| class(c) != class(first)).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            made.push_str(&match class(first) {
                (true, _) => self.word(),
                (_, true) => self.number(),
                _ => run.to_owned(),
            });
            rest = after;
        }
        made
    }

    /// JSON keeps its keys, YAML and PEM their lines, dates their form.
    fn typed(&mut self, text: &str) -> String {
        if let Ok(mut json) = serde_json::from_str::<Value>(text)
            && (json.is_object() || json.is_array())
        {
            self.json(&mut json);
            return json.to_string();
        }
        if text.starts_with("-----BEGIN") {
            let body = self.pick(b"abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 64);
            return format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        }
        let lines = text.lines().map(|line| match line.split_once(": ") {
            Some((key, value)) => format!("{key}: {}", self.shaped(value)),
            None => self.shaped(line),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn json(&mut self, json: &mut Value) {
        match json {
            Value::String(text) => *text = self.word(),
            Value::Number(number) => *number = self.number().parse::<u64>().unwrap().into(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.json(member)),
            _ => {}
        }
    }

    /// The data of a case in several forms.
    fn forms(&mut self, data: &Data) -> Vec<Data> {
        type Form = fn(&mut Canaries, &str) -> String;
        let forms: [Form; 5] = [
            |canaries, _| canaries.word(),
            |canaries, _| canaries.number(),
            |canaries, text| canaries.shaped(text),
            |canaries, text| canaries.typed(text),
            |canaries, _| format!("{}\n{}: [{}", canaries.word(), canaries.word(), canaries.word()),
        ];
        let make = |form: &Form| {
            data.iter()
                .map(|(key, value)| {
                    let made = form(self, &String::from_utf8_lossy(value.expose()));
                    (key.clone(), SecretBytes::from(made.as_str()))
                })
                .collect()
        };
        forms.iter().map(make).collect()
    }

    /// Fails if a message shows a part of a canary.
    fn check(&self, message: &str, of: &str) {
        let bytes = message.to_ascii_lowercase().into_bytes();
        // What stands in the template itself is no value, though a canary may happen to hold it too.
        let own = of.to_ascii_lowercase().into_bytes();
        let mut shown = bytes.windows(PART).filter(|part| self.parts.contains(*part));
        let shown = shown.find(|part| !own.windows(PART).any(|of| of == *part));
        assert!(shown.is_none(), "a value shows in: {message}\nof: {of}");
    }

    fn check_error(&self, error: &(impl Display + Debug), of: &str) {
        self.check(&error.to_string(), of);
        self.check(&format!("{error:?}"), of);
    }
}

fn parse(source: &str, delims: &Delims) -> Option<Template> {
    Template::parse("leaks", source, delims).ok()
}

#[test]
fn no_error_of_the_golden_corpus_shows_a_value() {
    let mut canaries = Canaries::default();
    let mut errors = 0;
    for case in corpus::cases(false) {
        let Some(template) = parse(&case.template, &case.delims) else {
            continue;
        };
        // Else one of so many would stand somewhere by chance.
        canaries.parts.clear();
        for data in canaries.forms(&case.data) {
            for missing in [MissingKey::Error, MissingKey::Invalid] {
                if let Err(error) = template.render(&data, missing) {
                    errors += 1;
                    canaries.check_error(&error, &case.template);
                }
            }
        }
    }
    assert!(errors > 1000, "only {errors} errors");
}

/// Expressions of values, by the type that a function declares.
fn arguments(ty: Ty) -> &'static [&'static str] {
    match ty {
        Ty::Text => &[
            ".w",
            ".n",
            ".m",
            ".j",
            ".p",
            "\"s\"",
            "(b64enc .w)",
            "(hexdec .w)",
        ],
        Ty::Int => &["(atoi .n)", "(int .n)", "(int (sub 0 (atoi .n)))", "1"],
        Ty::Int64 => &["(int64 .n)"],
        Ty::Float => &["(float64 .n)"],
        Ty::Bool => &["(eq .w .n)"],
        Ty::Dict => &["(dict .w .n)", "(dict .w (dict .n .w))", "(fromJson .j)"],
        Ty::List => &["(list .w .n)", "(list)"],
        Ty::Time => &["(now)"],
        Ty::Certificate => &["(buildCustomCert .w .w)"],
        Ty::Any => &[
            ".w",
            "(atoi .n)",
            "(float64 .n)",
            "(list .w)",
            "(dict .w .n)",
            ".",
            "nil",
            "(fromJson .j)",
            "(fromYaml .m)",
            "(list .w (dict .n (list .w)))",
            "(semver \"1.2.3\")",
            "(splitList \"a\" .w)",
            "true",
        ],
    }
}

/// Functions that take long, for they make keys.
const SLOW: &[&str] = &[
    "genPrivateKey",
    "genCA",
    "genSelfSignedCert",
    "genSignedCert",
    "bcrypt",
    "derivePassword",
];

#[test]
fn no_error_of_a_function_that_is_called_with_values_shows_them() {
    let mut canaries = Canaries::default();
    let (word, number, other) = (canaries.word(), canaries.number(), canaries.word());
    let data: Data = [
        ("w", word.clone()),
        ("n", number.clone()),
        ("m", format!("{word}: [{other}\n {number}:")),
        ("j", format!("{{\"{word}\": [\"{other}\", {number}]}}")),
        (
            "p",
            format!("-----BEGIN {word}-----\n{other}\n-----END {word}-----\n"),
        ),
    ]
    .map(|(key, text)| (key.to_owned(), SecretBytes::from(text.as_str())))
    .into();
    let mut errors = 0;
    let functions = TABLES.iter().flat_map(|table| table.iter());
    for function in functions.filter(|function| !SLOW.contains(&function.name)) {
        for _ in 0..120 {
            let more = function.more.map_or(0, |_| canaries.random() as usize % 4);
            let types = function
                .params
                .iter()
                .copied()
                .chain(function.more.into_iter().cycle().take(more));
            let args: String = types
                .map(|ty| {
                    let all = arguments(ty);
                    format!(" {}", all[canaries.random() as usize % all.len()])
                })
                .collect();
            let call = format!("{}{args}", function.name);
            for source in [
                format!("{{{{ {call} }}}}"),
                format!("{{{{ range {call} }}}}{{{{ .x.y }}}}{{{{ end }}}}"),
            ] {
                let Some(template) = parse(&source, &Delims::default()) else {
                    continue;
                };
                if let Err(error) = template.render(&data, MissingKey::Error) {
                    errors += 1;
                    canaries.check_error(&error, &source);
                }
            }
        }
    }
    assert!(errors > 1000, "only {errors} errors");
}

#[test]
fn no_failure_that_a_template_asks_for_shows_a_value() {
    let mut canaries = Canaries::default();
    let data: Data = [("w", canaries.word()), ("n", canaries.number())]
        .map(|(key, text)| (key.to_owned(), SecretBytes::from(text.as_str())))
        .into();
    for source in [
        "{{ fail .w }}",
        "{{ .w | fail }}",
        "{{ mustRegexMatch (cat \"(\" .w) .w }}",
        "{{ mustRegexFindAll (printf \"[z-%s\" .w) .w 1 }}",
        "{{ mustRegexReplaceAll (printf \"(?P<%s\" .w) .w .w }}",
        "{{ regexSplit (printf \"%s**\" .w) .w 1 }}",
        "{{ mustFromJson .w }}",
        "{{ mustFromJson (printf \"{%q:\" .w) }}",
        "{{ mustToDate \"2006-01-02\" .w }}",
        "{{ mustDateModify .w (now) }}",
        "{{ semver .w }}",
        "{{ semverCompare .w \"1.2.3\" }}",
        "{{ index (list 1) (atoi .n) }}",
        "{{ index .w (atoi .n) }}",
        "{{ slice .w (atoi .n) }}",
        "{{ printf .w .n | atoi | index (list) }}",
        "{{ required .w .missing }}",
        "{{ dict .w .n .w | len | index (list) }}",
        "{{ get (dict .w .n) .w | atoi | repeat .n }}",
        "{{ .w.x }}",
        "{{ $x := .w }}{{ $x.y }}",
        "{{ (dict .w .n).missing }}",
        "{{ with .w }}{{ .x }}{{ end }}",
        "{{ call .w }}",
        "{{ len (atoi .n) }}",
        "{{ lt .w (atoi .n) }}",
        "{{ range .w }}{{ end }}",
        "{{ template \"none\" .w }}",
        "{{ define \"T\" }}{{ .w.x }}{{ end }}{{ template \"T\" . }}",
        "{{ block \"B\" .w }}{{ .x }}{{ end }}",
        "{{ include .w . }}",
        "{{ mustDuration .w }}",
        "{{ decryptAES .w .w }}",
        "{{ rsaDecrypt \"RSA-OAEP\" .w .w .w }}",
        "{{ rsaDecrypt .w .w .w .w }}",
        "{{ filterPEM .w .w }}",
        "{{ jwkPublicKeyPem (printf \"{\\\"kty\\\":%q}\" .w) }}",
        "{{ genCAWithKey .w 1 .w }}",
        "{{ genSelfSignedCertWithKey .w (list .w) (list .w) 1 .w }}",
        "{{ urlJoin (dict \"scheme\" .w \"host\" (list .w)) }}",
        "{{ urlParse (printf \"http://[%s\" .w) }}",
        "{{ (urlParse \"http://x\").missing }}",
        "{{ (now).Format (atoi .n) }}",
        "{{ (semver \"1.2.3\").Compare .w }}",
    ] {
        match Template::parse("leaks", source, &Delims::default()) {
            Ok(template) => match template.render(&data, MissingKey::Error) {
                Ok(_) => {}
                Err(error) => canaries.check_error(&error, source),
            },
            Err(error) => canaries.check_error(&error, source),
        }
    }
}

/// What the condition of an ExternalSecret says of a target whose template is this.
fn shape(canaries: &Canaries, template: &Value, manifest: bool, data: &Data) -> bool {
    let parsed = serde_json::from_value(template.clone()).unwrap();
    let Ok(shape) = Shape::prepare(&parsed, manifest, &Sources::new(), &Delims::default()) else {
        panic!("no shape: {template}");
    };
    match shape.render(data) {
        Ok(_) => false,
        Err(error) => {
            canaries.check_error(&error, &template.to_string());
            canaries.check(&format!("{:?}", failure(&error)), &template.to_string());
            true
        }
    }
}

#[test]
fn no_error_of_a_target_shows_a_value() {
    let mut canaries = Canaries::default();
    let data: Data = [("w", canaries.word()), ("n", canaries.number())]
        .map(|(key, text)| (key.to_owned(), SecretBytes::from(text.as_str())))
        .into();
    let literal = |text: &str, target: &str, decoding: &str| {
        let mut from = json!({"literal": text, "target": target});
        if !decoding.is_empty() {
            from["valuesDecodingStrategy"] = decoding.into();
        }
        json!({"templateFrom": [from]})
    };
    let yaml = [
        "{{ .w }}",
        "- {{ .w }}",
        "{{ .w }}: [{{ .n }}]",
        "{{ .w }}: {{ .n }}: {{ .w }}",
        "a: !!int {{ .w }}",
        "? [{{ .w }}]\n: {{ .n }}",
        "~: {{ .w }}",
        "18446744073709551615: {{ .w }}",
        "a: *{{ .w }}",
        "a: &{{ .w }} 1\nb: *{{ .n }}",
        "a: !{{ .w }} [",
        "a: \"\\{{ .w }}\"",
        "\t{{ .w }}",
        "a: {{ .w.x }}",
        "{{ .w }}/x: 1",
        "{{ .w }}é: 1",
        "{{ repeat 20 .w }}: 1",
        "<<: {{ .w }}",
        "a: !!binary {{ .w }}-",
    ];
    for text in yaml {
        assert!(
            shape(&canaries, &literal(text, "Data", ""), false, &data),
            "{text}"
        );
    }
    for (text, decoding) in [
        ("{{ .w }}: \"{{ .n }}-\"", "Base64"),
        ("a: \"{{ .w }}-\"", "Base64"),
        ("{{ .n }}: \"/\"", "Base64URL"),
    ] {
        assert!(
            shape(&canaries, &literal(text, "Data", decoding), false, &data),
            "{text}"
        );
        shape(&canaries, &literal(text, "spec.x", decoding), true, &data);
    }
    for text in [
        "a: \"{{ .w }}-\"",
        "\"{{ .w }}\": \"{{ .n }} -\"",
        "\"{{ .w }} {{ .n }}\": ok",
        "{{ .w }}/{{ .n }}/: ok",
    ] {
        assert!(
            shape(&canaries, &literal(text, "Labels", ""), false, &data),
            "{text}"
        );
    }
    for text in ["\"{{ .w }} {{ .n }}\": ok", "{{ repeat 9 .w }}: ok"] {
        assert!(
            shape(&canaries, &literal(text, "Annotations", ""), false, &data),
            "{text}"
        );
    }
    for place in ["labels", "annotations"] {
        shape(
            &canaries,
            &json!({"metadata": {place: {"a": "{{ .w }} {{ .n }}"}}}),
            false,
            &data,
        );
        shape(
            &canaries,
            &json!({"metadata": {place: {"a": "{{ fail .w }}"}}}),
            false,
            &data,
        );
    }
    assert!(shape(
        &canaries,
        &json!({"data": {"a": "{{ fail .w }}"}}),
        false,
        &data
    ));
}

/// Fails if the error of reading this, with this secret, shows a value.
fn read(canaries: &Canaries, entries: &Value, secret: &str) -> bool {
    let mut spec = entries.clone();
    spec["secretStoreRef"] = json!({"name": "vault"});
    let plan = plan(&serde_json::from_value(spec).unwrap(), "db").unwrap();
    let answers = [Answer::Found(Arc::new(Json::parse(secret.as_bytes()).unwrap()))];
    match assemble(&plan, &answers) {
        Ok(_) => false,
        Err(error) => {
            canaries.check_error(&error, &entries.to_string());
            true
        }
    }
}

#[test]
fn no_error_of_reading_and_rewriting_shows_a_value() {
    let mut canaries = Canaries::default();
    let mut word = || canaries.word();
    let secret = json!({
        "a": word(), "b": {"c": word(), "d": [word(), 1.5]}, "j": format!("{{\"x\": {}", word()),
        "k": format!("{{\"x\": \"{}\", \"y\": \"{}\"}}", word(), word()),
        "l": format!("{{\"x\": \"{}\"}}", word()), "z": format!("{}\u{0}", word()),
    })
    .to_string();
    for path in [
        "a.x",
        "b.x",
        "b.d.9",
        "b.d.#(==\"",
        "@fromstr",
        "a|@fromstr",
        "j|@fromstr.x",
        "b.d|@join.x",
        "a.@base64d",
        "{",
        "a|@dig:x",
    ] {
        let data = json!({"data": [{"secretKey": "s", "remoteRef": {"key": "app", "property": path}}]});
        read(&canaries, &data, &secret);
        let extract = json!({"dataFrom": [{"extract": {"key": "app", "property": path}}]});
        read(&canaries, &extract, &secret);
    }
    for property in ["a", "j", "b.c"] {
        let extract = json!({"dataFrom": [{"extract": {"key": "app", "property": property}}]});
        assert!(read(&canaries, &extract, &secret), "{property}");
    }
    for (field, strategy) in [
        ("decodingStrategy", "Base64"),
        ("decodingStrategy", "Base64URL"),
        ("nullBytePolicy", "Fail"),
    ] {
        let extract = json!({"dataFrom": [{"extract": {"key": "app", field: strategy}}]});
        assert!(read(&canaries, &extract, &secret), "{strategy}");
    }
    for rewrite in [
        json!({"merge": {}}),
        json!({"merge": {"priority": ["k", "l"]}}),
        json!({"merge": {"priority": ["nothing"]}}),
        json!({"merge": {"strategy": "JSON", "into": "all"}}),
        json!({"regexp": {"source": ".*", "target": "same"}}),
        json!({"transform": {"template": "same"}}),
        json!({"transform": {"template": "{{ fail .value }}"}}),
        json!({"transform": {"template": "\\xff{{ hexdec \"ff\" }}"}}),
    ] {
        let extract = json!({"dataFrom": [{"extract": {"key": "app"}, "rewrite": [rewrite]}]});
        assert!(read(&canaries, &extract, &secret), "{rewrite}");
    }
    let objects = json!({"k": {"x": canaries.word()}, "l": {"x": canaries.number()}}).to_string();
    let merge = json!({"dataFrom": [{"extract": {"key": "app"}, "rewrite": [{"merge": {}}]}]});
    assert!(read(&canaries, &merge, &objects));
}
