//! Certificates that we make.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Decode as _;
use keyferry::template::funcs::Answer;
use keyferry::template::limits::Limits;
use keyferry::template::value::{Certificate, Value};

use super::{call, call_with, fixtures, openssl, text_of};

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
