//! Keys, ciphers, hashes and random values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry::template::limits::Limits;
use keyferry::template::value::Value;

use super::{call, call_with, fixtures, openssl, text, text_of};

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
    type Is = fn(char) -> bool;
    let kinds: [(&str, Is); 4] = [
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
