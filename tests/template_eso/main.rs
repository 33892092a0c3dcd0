//! The template functions of keys, certificates and stores, against what Go and openssl make of the same input.
//!
//! `tests/golden/eso` makes the fixtures. What we make ourselves is read by openssl, which has to be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod any_input;
mod certificates;
mod secrets;
mod stores;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry::template::funcs::{self, Answer};
use keyferry::template::limits::Limits;
use keyferry::template::value::Value;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    texts: Vec<Option<String>>,
    calls: Vec<Call>,
    keys: BTreeMap<String, String>,
    chain: Vec<String>,
    made: Vec<Made>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    function: String,
    args: Vec<usize>,
    output: usize,
    list: Option<Vec<String>>,
    #[serde(default)]
    error: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    function: String,
    key: String,
    #[serde(default)]
    ca: String,
    #[serde(default)]
    ca_key: String,
    cert: String,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../golden/eso/fixtures.json")).unwrap()
}

impl Fixtures {
    fn text(&self, index: usize) -> Vec<u8> {
        STANDARD
            .decode(self.texts[index].as_deref().unwrap_or_default())
            .unwrap()
    }
}

fn call_with(limits: &mut Limits, function: &str, args: &[Value]) -> Answer {
    (funcs::find(function).unwrap().call)(limits, args)
}

fn call(function: &str, args: &[&[u8]]) -> Answer {
    let args: Vec<Value> = args.iter().map(Value::text).collect();
    call_with(&mut Limits::default(), function, &args)
}

fn bytes(answer: Answer) -> Vec<u8> {
    match answer {
        Ok(Value::Text(text)) => text.to_vec(),
        Ok(_) => panic!("no text"),
        Err(fault) => panic!("{}", fault.0),
    }
}

fn text(answer: Answer) -> String {
    String::from_utf8(bytes(answer)).unwrap()
}

fn openssl(args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn text_of(function: &str, args: &[&[u8]]) -> String {
    text(call(function, args))
}

#[test]
fn every_fixture_gives_what_go_gives() {
    let fixtures = fixtures();
    let mut wrong = Vec::new();
    for case in &fixtures.calls {
        let args: Vec<Vec<u8>> = case.args.iter().map(|index| fixtures.text(*index)).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let answer = call(&case.function, &args);
        let same = match (&answer, &case.list) {
            (Err(_), _) => case.error,
            (Ok(_), _) if case.error => false,
            (Ok(Value::Text(text)), None) => text.as_ref() == fixtures.text(case.output),
            (Ok(Value::List(list)), Some(wanted)) => {
                let found = list.items.iter().map(|item| match item {
                    Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    _ => "no text".into(),
                });
                found.eq(wanted.iter().cloned())
            }
            _ => false,
        };
        if !same {
            let got = match answer {
                Ok(Value::Text(text)) => String::from_utf8_lossy(&text).into_owned(),
                Ok(_) => "another value".into(),
                Err(fault) => fault.0.into_owned(),
            };
            let wanted = if case.error {
                "an error".into()
            } else {
                fixtures.text(case.output)
            };
            wrong.push(format!(
                "{}: got {got}\nwanted {}",
                case.name,
                String::from_utf8_lossy(&wanted)
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        fixtures.calls.len(),
        wrong.join("\n")
    );
}

#[test]
fn errors_hold_nothing_of_the_input() {
    let fixtures = fixtures();
    for case in fixtures.calls.iter().filter(|case| case.error) {
        let args: Vec<Vec<u8>> = case.args.iter().map(|index| fixtures.text(*index)).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let Err(fault) = call(&case.function, &args) else {
            panic!("{}: no error", case.name);
        };
        for arg in args.iter().filter(|arg| arg.len() > 12) {
            let arg = String::from_utf8_lossy(arg);
            assert!(!fault.0.contains(arg.as_ref()), "{}: {}", case.name, fault.0);
        }
    }
}

#[test]
fn a_wrong_password_says_that_the_store_cannot_be_decoded() {
    let fixtures = fixtures();
    let case = fixtures
        .calls
        .iter()
        .find(|case| case.name == "pkcs12keyPass: modern, rsa")
        .unwrap();
    let store = fixtures.text(case.args[1]);
    let Err(fault) = call("pkcs12keyPass", &[b"wrong", &store]) else {
        panic!("no error");
    };
    assert_eq!(
        fault.0,
        "unable to decode pkcs12 with password: the password is wrong, or the store is damaged"
    );
}
