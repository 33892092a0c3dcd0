//! Nothing that a user sends makes a function panic.

use base64::Engine as _;
use proptest::prelude::*;

use super::{Call, call, fixtures};

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
    fn members_of_a_valid_jwk_may_be_replaced(
        kind in prop::sample::select(vec!["rsa", "p256", "p384", "p521", "ed25519"]),
        changes in prop::collection::vec((
            prop::sample::select(vec!["n", "e", "x", "y", "p", "q", "d", "dp", "qi", "crv"]),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..6)),
        ), 1..4),
    ) {
        let fixtures = fixtures();
        let name = format!("jwkPrivateKeyPem: private {kind}");
        let case = fixtures.calls.iter().find(|case| case.name == name).unwrap();
        let mut members: serde_json::Value = serde_json::from_slice(&fixtures.text(case.args[0])).unwrap();
        for (name, number) in changes {
            match number {
                Some(number) => members[name] = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(number).into(),
                None => {
                    members.as_object_mut().unwrap().remove(name);
                }
            }
        }
        let _ = call("jwkPrivateKeyPem", &[members.to_string().as_bytes()]);
        members.as_object_mut().unwrap().remove("d");
        let _ = call("jwkPublicKeyPem", &[members.to_string().as_bytes()]);
    }

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
