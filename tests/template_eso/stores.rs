//! PKCS#12 stores that we make.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{bytes, call, fixtures, openssl, text_of};

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
