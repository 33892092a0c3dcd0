//! Real inputs to begin with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::golden;
pub use crate::golden::{Case, Data};

/// The cases of the golden corpus; the slow ones, which make keys, only if they are asked for.
pub fn cases(slow: bool) -> Vec<Case> {
    let areas = golden::areas().unwrap().into_iter();
    let areas = areas.filter(|area| slow || area.name != "slow");
    areas.flat_map(|area| area.cases).collect()
}

#[derive(Deserialize)]
struct Fixtures {
    texts: Vec<Option<String>>,
    calls: Vec<Fixture>,
}

#[derive(Deserialize)]
struct Fixture {
    name: String,
    function: String,
    args: Vec<usize>,
}

/// A call of a function of keys, certificates or stores.
pub struct Call {
    pub function: String,
    pub args: Vec<Vec<u8>>,
}

/// The calls of `tests/golden/eso`, without those that derive a key for seconds.
pub fn calls() -> Vec<Call> {
    let fixtures: Fixtures = golden::load("eso/fixtures.json").unwrap();
    let text = |index: &usize| {
        let text = fixtures.texts[*index].as_deref().unwrap_or_default();
        STANDARD.decode(text).unwrap()
    };
    let quick = fixtures
        .calls
        .iter()
        .filter(|call| !call.name.contains("many iterations"));
    quick
        .map(|call| Call {
            function: call.function.clone(),
            args: call.args.iter().map(text).collect(),
        })
        .collect()
}

pub const PATHS: &[&str] = &[
    "user",
    "nested.k.deep",
    "tags.#",
    "tags.1",
    "tags.#(==\"b\")",
    "list.#(a>1)#.b",
    "list.#.a",
    "*",
    "n*d.?",
    "@this",
    "@reverse|@flatten",
    "{user,port}",
    "[user,nested.k]",
    "tags|0",
    "@pretty:{\"sortKeys\":true}",
    "list.#(b%\"x*\").a",
    "{\"a\":user,\"b\":@keys}",
    "!\"text\"",
    "a\\.b",
    "list.#(a=={\"x\":1})",
    "@values|#",
    "@tostr|@fromstr",
    "..0.user",
    "@ugly",
    "@valid",
    "@join",
    "@group",
    "@dig:k",
];

pub const JSON: &[&str] = &[
    r#"{"user":"admin","port":5432,"ratio":0.5,"big":12345678901234567890,"tags":["a","b",null],"nested":{"k":{"deep":true}},"html":"<a&b>","a.b":1}"#,
    r#"{"list":[{"a":1,"b":"x1"},{"a":2.50,"b":"x2"},{"a":null,"b":"\ud83d\ude00\u00fc"}],"":"","e":1e-7,"esc":"\"\\\/\b\f\n\r\t"}"#,
    r#"{"blob":"{\"user\":\"u\",\"pin\":0.10}","o":{},"l":[],"deep":[[[[[[[[1]]]]]]]]}"#,
];

pub const PATTERNS: &[&str] = &[
    r"^(?P<name>[a-z]+)-(\d{1,3})$",
    r"(?i)app/(.*)/([^/]+)",
    r"[[:alpha:]_]+|\p{Greek}*?",
    r"\Qa.b\E+(?:x|y){2,5}",
    r"(?s)^.*\z",
    r"\bword\B|[^\w\s]",
    r"((a{10}){10}){10}",
    r"[\x{41}-\x{5A}\pL\D]",
    r"(a*)*b|(?U)x+",
    r"$1${name}$$",
];

pub const YAML: &[&str] = &[
    "user: admin\nport: 5432\nyes: no\nnull: ~\n",
    "a: &x\n  k: v\nb: *x\nc:\n  <<: *x\n",
    "- 1\n- [a, {b: c}]\n- |\n  text\n  more\n- >-\n  folded\n",
    "? complex\n: \"quoted \\u00fc \\x41\"\n'single ''quote''': !!binary aGk=\n",
    "--- # comment\nx: 0x1F\ny: 1_000\nz: 2001-01-01\n...\n---\nsecond: 1\n",
    "{a: [1, 2, {b: .inf}], \"c\": !!str 1, d: -.INF}\n",
];

/// Bodies of Vault's answers.
pub const ANSWERS: &[&str] = &[
    r#"{"request_id":"1","lease_id":"","renewable":false,"data":{"data":{"user":"u","pin":12},"metadata":{"created_time":"2024-01-01T00:00:00Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":3}},"warnings":null}"#,
    r#"{"data":{"keys":["a","b/","c"]}}"#,
    r#"{"data":{"created_time":"2024-01-01T00:00:00Z","current_version":2,"delete_version_after":"0s","custom_metadata":{"team":"x"},"versions":{"1":{}}}}"#,
    r#"{"errors":[]}"#,
    r#"{"errors":["permission denied"]}"#,
    r#"{"data":{"data":null,"metadata":{"deletion_time":"2024-01-01T00:00:00Z"}}}"#,
    r#"{"data":{"user":"u"}}"#,
    r#"{"warnings":["Invalid path for a versioned K/V secrets engine"]}"#,
];

pub const DURATIONS: &[&str] = &[
    "1h30m",
    "15s",
    "-1.5h",
    "0",
    "1h-5m",
    "100µs2ns",
    "9223372036s",
    ".5m",
];
