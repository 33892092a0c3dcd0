//! The template functions of keys, certificates and stores, against what Go and openssl make of the same input.
//!
//! `tests/golden/eso` makes the fixtures. What we make ourselves is read by openssl, which has to be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Decode as _;
use keyferry::template::funcs::{self, Answer};
use keyferry::template::limits::Limits;
use keyferry::template::value::{Certificate, Value};
use proptest::prelude::*;
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
    serde_json::from_str(include_str!("golden/eso/fixtures.json")).unwrap()
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

/// Every key in every format that it has.
fn all_keys() -> Vec<(String, String)> {
    fixtures().keys.into_iter().collect()
}

fn pkcs8_of(name: &str) -> String {
    fixtures().keys[&format!("{}/pkcs8", name.split('/').next().unwrap())].clone()
}

#[test]
fn stores_that_we_make_are_read_by_openssl_and_by_us() {
    let fixtures = fixtures();
    let chain = fixtures.chain.concat();
    let (leaf, rest) = (&fixtures.chain[0], fixtures.chain[1..].concat());
    for (name, key) in all_keys() {
        for password in ["", "secret", "pässwörd €"] {
            let store = bytes(call(
                "fullPemToPkcs12Pass",
                &[chain.as_bytes(), key.as_bytes(), password.as_bytes()],
            ));
            let store = STANDARD.decode(store).unwrap();
            let pass = format!("pass:{password}");
            let read =
                |more: &[&str]| openssl(&[&["pkcs12", "-passin", &pass, "-noenc"], more].concat(), &store);
            // openssl writes the attributes of a bag before its block.
            let blocks = |kind: &str, text: &str| text_of("filterPEM", &[kind.as_bytes(), text.as_bytes()]);
            assert_eq!(
                blocks("CERTIFICATE", &read(&["-nokeys", "-clcerts"])),
                *leaf,
                "{name} {password}"
            );
            assert_eq!(
                blocks("CERTIFICATE", &read(&["-nokeys", "-cacerts"])),
                rest,
                "{name} {password}"
            );
            assert_eq!(
                blocks("PRIVATE KEY", &read(&["-nocerts"])),
                pkcs8_of(&name),
                "{name} {password}"
            );

            assert_eq!(text_of("pkcs12certPass", &[password.as_bytes(), &store]), chain);
            assert_eq!(
                text_of("pkcs12keyPass", &[password.as_bytes(), &store]),
                pkcs8_of(&name)
            );
            assert!(call("pkcs12keyPass", &[b"wrong", &store]).is_err());
        }
    }
}

fn text_of(function: &str, args: &[&[u8]]) -> String {
    text(call(function, args))
}

#[test]
fn stores_without_a_password_and_with_one_certificate_are_made_too() {
    let fixtures = fixtures();
    let (key, chain) = (fixtures.keys["rsa/pkcs1"].as_bytes(), fixtures.chain.concat());
    let decode = |text: String| STANDARD.decode(text).unwrap();
    let single = decode(text_of("pemToPkcs12", &[chain.as_bytes(), key]));
    assert_eq!(text_of("pkcs12cert", &[&single]), fixtures.chain[0]);
    assert_eq!(text_of("pkcs12key", &[&single]), fixtures.keys["rsa/pkcs8"]);
    let single = decode(text_of("pemToPkcs12Pass", &[chain.as_bytes(), key, b"secret"]));
    assert_eq!(
        text_of("pkcs12certPass", &[b"secret", &single]),
        fixtures.chain[0]
    );
    let full = decode(text_of("fullPemToPkcs12", &[chain.as_bytes(), key]));
    assert_eq!(text_of("pkcs12cert", &[&full]), chain);
    // Blanks between and after the certificates do not matter.
    let spaced = format!("\n{}\n \n", fixtures.chain.join("\n\n"));
    let full = decode(text_of("fullPemToPkcs12", &[spaced.as_bytes(), key]));
    assert_eq!(text_of("pkcs12cert", &[&full]), chain);
}

#[test]
fn stores_are_not_made_of_junk() {
    let fixtures = fixtures();
    let (key, chain) = (fixtures.keys["rsa/pkcs1"].as_bytes(), fixtures.chain.concat());
    let junk = format!("{chain}junk");
    for (function, certificate, key) in [
        ("pemToPkcs12", "not a pem", key),
        ("pemToPkcs12", &chain, b"not a pem"),
        ("pemToPkcs12", &chain, chain.as_bytes()),
        ("pemToPkcs12", &fixtures.keys["rsa/pkcs1"], key),
        ("fullPemToPkcs12", "", key),
        ("fullPemToPkcs12", &junk, key),
        (
            "fullPemToPkcs12",
            &format!("{chain}{}", fixtures.keys["rsa/pkcs1"]),
            key,
        ),
    ] {
        assert!(
            call(function, &[certificate.as_bytes(), key]).is_err(),
            "{function}"
        );
    }
    let Err(fault) = call("pemTruststoreToPKCS12", &[junk.as_bytes()]) else {
        panic!("no error");
    };
    assert_eq!(fault.0, "certificate 4 of the text: the certificate is no PEM");
    assert!(call("pemToPkcs12Pass", &[chain.as_bytes(), key, "🔑".as_bytes()]).is_err());
}

#[test]
fn trust_stores_carry_javas_mark_and_the_subjects_as_names() {
    let fixtures = fixtures();
    let authorities = fixtures.chain[1..].concat();
    for (function, password) in [
        ("pemTruststoreToPKCS12", ""),
        ("pemTruststoreToPKCS12Pass", "secret"),
    ] {
        let args: &[&[u8]] = &[authorities.as_bytes(), password.as_bytes()];
        let store = STANDARD
            .decode(text_of(
                function,
                &args[..if password.is_empty() { 1 } else { 2 }],
            ))
            .unwrap();
        let read = openssl(
            &["pkcs12", "-passin", &format!("pass:{password}"), "-nokeys"],
            &store,
        );
        assert_eq!(
            text_of("filterPEM", &[b"CERTIFICATE", read.as_bytes()]),
            authorities
        );
        for wanted in [
            "friendlyName: CN=Root,O=Tests\\, Inc.,C=CH",
            "friendlyName: CN=Intermediate,O=Tests\\, Inc.,C=CH",
            "2.16.840.1.113894.746875.1.1: ",
        ] {
            assert!(read.contains(wanted), "{wanted} is missing in {read}");
        }
    }
}

/// What a certificate says, but for what differs from one to the next.
fn content(pem: &str) -> impl PartialEq + std::fmt::Debug {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let certificate = x509_cert::Certificate::from_der(&STANDARD.decode(body).unwrap()).unwrap();
    let tbs = certificate.tbs_certificate();
    let (from, to) = (
        tbs.validity().not_before.to_unix_duration(),
        tbs.validity().not_after.to_unix_duration(),
    );
    (
        tbs.version(),
        tbs.signature().clone(),
        tbs.issuer().clone(),
        (to - from).as_secs().div_ceil(60),
        tbs.subject().clone(),
        tbs.subject_public_key_info().clone(),
        tbs.extensions().cloned(),
        certificate.signature_algorithm().clone(),
    )
}

fn list(items: &[&str]) -> Value {
    Value::list(items.iter().map(Value::text).collect())
}

fn certificate(answer: Answer) -> (String, String) {
    match answer {
        Ok(Value::Certificate(pair)) => (
            String::from_utf8(pair.cert.to_vec()).unwrap(),
            String::from_utf8(pair.key.to_vec()).unwrap(),
        ),
        Ok(_) => panic!("no certificate"),
        Err(fault) => panic!("{}", fault.0),
    }
}

fn as_value(cert: &str, key: &str) -> Value {
    Value::Certificate(Rc::new(Certificate {
        cert: Rc::from(cert.as_bytes()),
        key: Rc::from(key.as_bytes()),
    }))
}

/// Lets openssl check a certificate against its authority.
fn verify(cert: &str, authority: &str) {
    let folder = tempfile();
    let (ca, leaf) = (format!("{folder}/ca.pem"), format!("{folder}/leaf.pem"));
    std::fs::write(&ca, authority).unwrap();
    std::fs::write(&leaf, cert).unwrap();
    let said = openssl(&["verify", "-check_ss_sig", "-CAfile", &ca, &leaf], b"");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(said.trim_end().ends_with(": OK"), "{said}");
}

fn tempfile() -> String {
    let folder = std::env::temp_dir().join(format!(
        "keyferry-eso-{}-{:x}",
        std::process::id(),
        rand::random::<u64>()
    ));
    std::fs::create_dir(&folder).unwrap();
    folder.to_str().unwrap().into()
}

#[test]
fn certificates_that_we_make_say_what_sprigs_say() {
    let ips = || list(&["10.0.0.1", "::1", "::ffff:10.1.2.3"]);
    let names = || list(&["a.example.com", "*.example.com"]);
    for made in fixtures().made {
        let key = Value::text(&made.key);
        let args = match made.function.as_str() {
            "genCAWithKey" => vec![Value::text("My CA"), Value::int(365), key],
            "genSelfSignedCertWithKey" => vec![Value::text("sélf"), ips(), names(), Value::int(30), key],
            _ => vec![
                Value::text("cn.example.com"),
                ips(),
                names(),
                Value::int(30),
                as_value(&made.ca, &made.ca_key),
                key,
            ],
        };
        let (cert, key) = certificate(call_with(&mut Limits::default(), &made.function, &args));
        assert_eq!(content(&cert), content(&made.cert), "{}", made.function);
        // sprig gives the key in the older format of its kind.
        let older = fixtures()
            .keys
            .into_iter()
            .find(|(_, pem)| *pem == made.key)
            .unwrap()
            .0;
        let older = older.split('/').next().unwrap().to_owned();
        let wanted = ["pkcs1", "sec1", "pkcs8"]
            .iter()
            .find_map(|format| fixtures().keys.remove(&format!("{older}/{format}")));
        assert_eq!(key, wanted.unwrap());
        verify(&cert, if made.ca.is_empty() { &cert } else { &made.ca });
        let custom = call(
            "buildCustomCert",
            &[
                STANDARD.encode(&cert).as_bytes(),
                STANDARD.encode(&key).as_bytes(),
            ],
        );
        assert_eq!(certificate(custom), (cert, key));
    }
}

#[test]
fn certificates_with_new_keys_form_a_chain_that_openssl_accepts() {
    let mut limits = Limits::default();
    let authority = certificate(call_with(
        &mut limits,
        "genCA",
        &[Value::text("ca"), Value::int(10)],
    ));
    assert!(authority.1.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    verify(&authority.0, &authority.0);
    let args = [
        Value::text("cn"),
        Value::Nil,
        list(&["h"]),
        Value::int(5),
        as_value(&authority.0, &authority.1),
    ];
    let leaf = certificate(call_with(&mut limits, "genSignedCert", &args));
    verify(&leaf.0, &authority.0);
    let chain = format!("{}{}", authority.0, leaf.0);
    assert_eq!(text_of("filterCertChain", &[b"leaf", chain.as_bytes()]), leaf.0);
    assert_eq!(
        text_of("filterCertChain", &[b"root", chain.as_bytes()]),
        authority.0
    );
    let own = certificate(call_with(
        &mut limits,
        "genSelfSignedCert",
        &[Value::text(""), Value::Nil, Value::Nil, Value::int(5)],
    ));
    assert_eq!(
        openssl(&["x509", "-noout", "-subject"], own.0.as_bytes()).trim_end(),
        "subject="
    );
}

#[test]
fn bad_arguments_of_certificates_are_named() {
    let fixtures = fixtures();
    let key = &fixtures.keys["p256/sec1"];
    let other = &fixtures.keys["p384/sec1"];
    let authority = certificate(call_with(
        &mut Limits::default(),
        "genCAWithKey",
        &[Value::text("ca"), Value::int(1), Value::text(key)],
    ));
    let sign = |ips: Value, names: Value, days: i64, parent: Value| {
        let args = [
            Value::text("cn"),
            ips,
            names,
            Value::int(days),
            parent,
            Value::text(key),
        ];
        call_with(&mut Limits::default(), "genSignedCertWithKey", &args)
            .err()
            .map(|fault| fault.0.into_owned())
    };
    let parent = || as_value(&authority.0, &authority.1);
    let said = |ips, names, days, parent| sign(ips, names, days, parent).unwrap();
    assert_eq!(
        said(list(&["bad ip"]), Value::Nil, 1, parent()),
        "error parsing ip: an entry of the list is no IP address"
    );
    assert_eq!(
        said(Value::Nil, list(&["bücher.example.com"]), 1, parent()),
        "a DNS name is not ASCII"
    );
    let numbers = Value::list(vec![Value::int(5)]);
    assert_eq!(
        said(Value::Nil, numbers, 1, parent()),
        "an entry of the list of addresses or DNS names is no text"
    );
    let late = "the certificate would end before 1970 or after 9999";
    for days in [i64::MAX, i64::MIN, 4_000_000, -40_000] {
        assert_eq!(said(Value::Nil, Value::Nil, days, parent()), late);
    }
    let wrong = as_value(&authority.0, other);
    assert_eq!(
        said(Value::Nil, Value::Nil, 1, wrong),
        "the signing key does not belong to the signing certificate"
    );
    assert_eq!(
        said(Value::Nil, Value::Nil, 1, as_value("x", key)),
        "the signing certificate is no PEM"
    );
    assert_eq!(sign(Value::Nil, Value::Nil, -1, parent()), None);
    for (cert, key) in [("", ""), ("x", "y"), ("eA==", "eQ==")] {
        assert!(call("buildCustomCert", &[cert.as_bytes(), key.as_bytes()]).is_err());
    }
}

#[test]
fn keys_that_we_make_are_read_by_openssl() {
    for (kind, begin) in [
        ("", "RSA PRIVATE KEY"),
        ("rsa", "RSA PRIVATE KEY"),
        ("ecdsa", "EC PRIVATE KEY"),
        ("ed25519", "PRIVATE KEY"),
    ] {
        let key = text_of("genPrivateKey", &[kind.as_bytes()]);
        assert!(key.starts_with(&format!("-----BEGIN {begin}-----\n")), "{kind}");
        let said = openssl(&["pkey", "-check", "-noout", "-text"], key.as_bytes());
        let size = match kind {
            "ecdsa" => "256 bit",
            "ed25519" => "ED25519",
            _ => "4096 bit",
        };
        assert!(said.contains(size), "{kind}: {said}");
    }
    assert_eq!(text_of("genPrivateKey", &[b"nope"]), "Unknown type nope");
    assert!(call("genPrivateKey", &[b"dsa"]).is_err());
}

#[test]
fn what_encrypt_aes_seals_is_opened_by_openssl_and_by_decrypt_aes() {
    for length in [1, 15, 16, 17, 1000] {
        let plain = "x".repeat(length);
        let sealed = text_of("encryptAES", &[b"password", plain.as_bytes()]);
        assert_eq!(text_of("decryptAES", &[b"password", sealed.as_bytes()]), plain);
        let data = STANDARD.decode(&sealed).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut key = [0; 32];
        key[..8].copy_from_slice(b"password");
        let read = openssl(
            &[
                "enc",
                "-d",
                "-aes-256-cbc",
                "-K",
                &hex(&key),
                "-iv",
                &hex(&data[..16]),
            ],
            &data[16..],
        );
        assert_eq!(read, plain);
    }
    assert_eq!(text_of("encryptAES", &[b"password", b""]), "");
    assert_eq!(text_of("decryptAES", &[b"password", b""]), "");
    for bad in ["!", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert!(
            call("decryptAES", &[b"password", bad.as_bytes()]).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn passwords_are_hashed_as_htpasswd_reads_them() {
    // A row of ESO's own tests.
    let said = text_of("htpasswd", &[b"foo1", b"FZ4jR;l]ON;pHKi=_'zh79P", b"sha"]);
    assert_eq!(said, "foo1:{SHA}wtdJD6OIjUniEJkTlewnKzfFxA4=");
    for algorithm in [&[][..], &[&b"bcrypt"[..]], &[&b"other"[..]]] {
        let said = text_of("htpasswd", &[&[&b"user"[..], b"password"], algorithm].concat());
        let hash = said.strip_prefix("user:").unwrap();
        assert!(
            hash.starts_with("$2a$10$") && bcrypt::verify("password", hash).unwrap(),
            "{said}"
        );
    }
    assert!(call("htpasswd", &[b"u", b"p", b"sha", b"more"]).is_err());
    assert!(bcrypt::verify("", &text_of("bcrypt", &[b""])).unwrap());
}

#[test]
fn random_texts_have_the_wanted_length_and_characters() {
    let make =
        |function: &str, count: i64| text(call_with(&mut Limits::default(), function, &[Value::int(count)]));
    let kinds: [(&str, fn(char) -> bool); 4] = [
        ("randAlpha", |c| c.is_ascii_alphabetic()),
        ("randAlphaNum", |c| c.is_ascii_alphanumeric()),
        ("randAscii", |c| c.is_ascii_graphic() || c == ' '),
        ("randNumeric", |c| c.is_ascii_digit()),
    ];
    for (function, is) in kinds {
        let text = make(function, 2000);
        assert!(text.len() == 2000 && text.chars().all(is), "{function}");
        assert_ne!(text, make(function, 2000), "{function}");
        assert_eq!(make(function, 0), "");
    }
    assert_eq!(STANDARD.decode(make("randBytes", 100)).unwrap().len(), 100);
    assert!(call_with(&mut Limits::default(), "randBytes", &[Value::int(-1)]).is_err());
    assert!(call_with(&mut Limits::default(), "randBytes", &[Value::int(i64::MAX)]).is_err());
    assert!(call_with(&mut Limits::default(), "randAlpha", &[Value::int(i64::MAX)]).is_err());
    for _ in 0..200 {
        let number = call_with(
            &mut Limits::default(),
            "randInt",
            &[Value::int(-2), Value::int(2)],
        );
        assert!(matches!(number, Ok(Value::Int(_, -2..2))));
    }
    assert!(call_with(&mut Limits::default(), "randInt", &[Value::int(2), Value::int(2)]).is_err());
    let id = text(call_with(&mut Limits::default(), "uuidv4", &[]));
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
}

#[test]
fn slow_functions_stop_when_the_steps_are_used_up() {
    let fixtures = fixtures();
    let (chain, key) = (fixtures.chain.concat(), &fixtures.keys["rsa/pkcs1"]);
    let many = fixtures
        .calls
        .iter()
        .find(|case| case.name.starts_with("pkcs12keyPass: openssl many iterations"))
        .unwrap();
    let store = Value::text(fixtures.text(many.args[1]));
    let sealed = Value::text("x");
    let calls: Vec<(&str, Vec<Value>)> = vec![
        ("bcrypt", vec![Value::text("x")]),
        ("htpasswd", vec![Value::text("x"), Value::text("x")]),
        (
            "derivePassword",
            vec![
                Value::int(1),
                Value::text("long"),
                sealed.clone(),
                sealed.clone(),
                sealed.clone(),
            ],
        ),
        ("genPrivateKey", vec![Value::text("rsa")]),
        ("genPrivateKey", vec![Value::text("ecdsa")]),
        ("genCA", vec![Value::text("ca"), Value::int(1)]),
        (
            "genSelfSignedCertWithKey",
            vec![
                Value::text("x"),
                Value::Nil,
                Value::Nil,
                Value::int(1),
                Value::text(key),
            ],
        ),
        (
            "rsaDecrypt",
            vec![
                Value::text("RSA-OAEP"),
                Value::text("SHA1"),
                sealed,
                Value::text(key),
            ],
        ),
        ("pkcs12keyPass", vec![Value::text("secret"), store.clone()]),
        ("fullPemToPkcs12", vec![Value::text(&chain), Value::text(key)]),
    ];
    for (function, args) in calls {
        let mut limits = Limits::default();
        while limits.step(1).is_ok() {}
        let Err(fault) = call_with(&mut limits, function, &args) else {
            panic!("{function} does not stop");
        };
        assert!(fault.0.contains("takes more than"), "{function}: {}", fault.0);
    }
}

/// Texts that look like the real ones, with a few bytes changed.
fn changed() -> impl Strategy<Value = (usize, Vec<(prop::sample::Index, u8)>)> {
    (
        0..1000_usize,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn readers_never_panic_on_any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        for function in ["filterPEM", "filterCertChain", "pkcs12keyPass", "pkcs12certPass", "decryptAES", "buildCustomCert"] {
            let _ = call(function, &[b"leaf", &data]);
            let _ = call(function, &[&data, &data]);
        }
        for function in ["certSANs", "jwkPublicKeyPem", "jwkPrivateKeyPem", "pemTruststoreToPKCS12", "genPrivateKey"] {
            let _ = call(function, &[&data]);
        }
    }

    #[test]
    fn the_pem_scanner_never_panics_on_pieces_of_pem(pieces in prop::collection::vec(0..12_usize, 0..20)) {
        const PIECES: [&str; 12] = [
            "-----BEGIN ", "-----END ", "-----", "\n", "CERTIFICATE", "AAAA", ": ", "-----BEGIN A-----\n",
            "\n-----END A-----", "\r\n", " ", "=",
        ];
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let _ = call("filterPEM", &[b"A", text.as_bytes()]);
        let _ = call("certSANs", &[text.as_bytes()]);
    }

    #[test]
    fn members_of_a_jwk_may_be_anything(
        kty in prop::sample::select(vec!["RSA", "EC", "OKP", "oct"]),
        crv in prop::sample::select(vec!["P-256", "P-384", "P-521", "Ed25519"]),
        numbers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 7),
        private in any::<bool>(),
    ) {
        let mut members = serde_json::json!({ "kty": kty, "crv": crv });
        for (name, number) in ["n", "e", "x", "y", "p", "q", "d"].iter().zip(numbers) {
            if private || !["p", "q", "d"].contains(name) {
                members[*name] = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(number).into();
            }
        }
        let text = members.to_string();
        let _ = call("jwkPublicKeyPem", &[text.as_bytes()]);
        let _ = call("jwkPrivateKeyPem", &[text.as_bytes()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn changed_inputs_never_panic((index, changes) in changed()) {
        let fixtures = fixtures();
        let small: Vec<&Call> = fixtures.calls.iter().filter(|case| !case.name.contains("many iterations")).collect();
        let case = small[index % small.len()];
        let mut args: Vec<Vec<u8>> = case.args.iter().map(|index| fixtures.text(*index)).collect();
        let input = args.iter_mut().max_by_key(|arg| arg.len()).unwrap();
        for (at, byte) in changes {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
            }
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let _ = call(&case.function, &args);
    }
}
