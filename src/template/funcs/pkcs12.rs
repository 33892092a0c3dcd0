//! Keys and certificates from PKCS#12 stores, and into them.

use super::super::limits::Limits;
use super::super::value::Value;
use super::certs::{Parsed, chain};
use super::p12::{self, Entry, Store};
use super::pem::{self, Key, PRIVATE_KEY};
use super::{Answer, Fault, Func, Ty, bytes, func};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("fullPemToPkcs12", &[Ty::Text, Ty::Text], |limits, args| {
        full(limits, text(args, 0), text(args, 1), b"")
    }),
    func(
        "fullPemToPkcs12Pass",
        &[Ty::Text, Ty::Text, Ty::Text],
        |limits, args| full(limits, text(args, 0), text(args, 1), text(args, 2)),
    ),
    func("pemToPkcs12", &[Ty::Text, Ty::Text], |limits, args| {
        single(limits, text(args, 0), text(args, 1), b"")
    }),
    func(
        "pemToPkcs12Pass",
        &[Ty::Text, Ty::Text, Ty::Text],
        |limits, args| single(limits, text(args, 0), text(args, 1), text(args, 2)),
    ),
    func("pemTruststoreToPKCS12", &[Ty::Text], |limits, args| {
        trust_store(limits, text(args, 0), b"")
    }),
    func(
        "pemTruststoreToPKCS12Pass",
        &[Ty::Text, Ty::Text],
        |limits, args| trust_store(limits, text(args, 0), text(args, 1)),
    ),
    func("pkcs12cert", &[Ty::Text], |limits, args| {
        certificates(limits, b"", text(args, 0))
    }),
    func("pkcs12certPass", &[Ty::Text, Ty::Text], |limits, args| {
        certificates(limits, text(args, 0), text(args, 1))
    }),
    func("pkcs12key", &[Ty::Text], |limits, args| {
        key(limits, b"", text(args, 0))
    }),
    func("pkcs12keyPass", &[Ty::Text, Ty::Text], |limits, args| {
        key(limits, text(args, 0), text(args, 1))
    }),
];

fn text(args: &[Value], index: usize) -> &[u8] {
    args.get(index).map_or(&[], bytes)
}

/// A store with a key and at least one certificate, of which all can be read.
fn open(limits: &mut Limits, password: &[u8], data: &[u8]) -> Result<(Key, Vec<Parsed>), Fault> {
    let Store { key, certificates } = p12::open(limits, data, password)?;
    let certificates: Vec<Parsed> = certificates
        .iter()
        .map(|der| Parsed::new(der))
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err("the store has no certificate".into());
    }
    let key = key.ok_or("the store has no private key")?;
    let key = Key::pkcs8(&key)
        .ok_or("the store's private key is of no known kind; RSA, P-256, P-384, P-521 and Ed25519 are")?;
    Ok((key, certificates))
}

fn key(limits: &mut Limits, password: &[u8], data: &[u8]) -> Answer {
    let (key, _) = open(limits, password, data)
        .map_err(|Fault(reason)| Fault::from(format!("unable to decode pkcs12 with password: {reason}")))?;
    Ok(Value::text(pem::encode(PRIVATE_KEY, key.to_pkcs8()?.as_bytes())))
}

/// In the order of the chain if it is one, else in the store's.
fn certificates(limits: &mut Limits, password: &[u8], data: &[u8]) -> Answer {
    let (_, certificates) = open(limits, password, data).map_err(|Fault(reason)| {
        Fault::from(format!(
            "unable to decode pkcs12 certificate with password: {reason}"
        ))
    })?;
    let unordered: Vec<u8> = certificates.iter().flat_map(Parsed::pem).collect();
    limits.grow(unordered.len())?;
    let ordered = chain(limits, certificates).map(|ordered| ordered.iter().flat_map(Parsed::pem).collect());
    Ok(Value::text(ordered.unwrap_or(unordered)))
}

/// The first certificate and what follows it.
fn first(text: &[u8]) -> Result<(Parsed, &[u8]), Fault> {
    let (block, rest) = pem::decode(text).ok_or("the certificate is no PEM")?;
    Ok((Parsed::new(&block.der)?, rest))
}

/// All certificates, up to blanks at the end. Anything else that is no PEM is an error.
fn all(limits: &mut Limits, mut text: &[u8]) -> Result<Vec<Parsed>, Fault> {
    pem::pass(limits, text)?;
    limits.grow(text.len())?;
    let mut certificates = Vec::new();
    while !text.trim_ascii().is_empty() {
        limits.step(1)?;
        let (certificate, rest) = first(text).map_err(|Fault(reason)| {
            Fault::from(format!(
                "certificate {} of the text: {reason}",
                certificates.len() + 1
            ))
        })?;
        certificates.push(certificate);
        text = rest;
    }
    Ok(certificates)
}

fn single(limits: &mut Limits, certificate: &[u8], key: &[u8], password: &[u8]) -> Answer {
    store(limits, &[first(certificate)?.0], key, password)
}

fn full(limits: &mut Limits, certificates: &[u8], key: &[u8], password: &[u8]) -> Answer {
    let certificates = all(limits, certificates)?;
    if certificates.is_empty() {
        return Err("the certificate is no PEM".into());
    }
    store(limits, &certificates, key, password)
}

fn store(limits: &mut Limits, certificates: &[Parsed], key: &[u8], password: &[u8]) -> Answer {
    let (block, _) = pem::decode(key).ok_or("the private key is no PEM")?;
    let key = Key::any(&block.der)
        .ok_or("the private key cannot be read; RSA, P-256, P-384, P-521 and Ed25519 keys can")?
        .to_pkcs8()?;
    let entries: Vec<Entry<'_>> = certificates
        .iter()
        .map(|certificate| Entry {
            der: &certificate.der,
            trusted: None,
        })
        .collect();
    let store = p12::write(limits, Some(key.as_bytes()), &entries, password)?;
    Ok(Value::text(pem::base64_encode(&store)))
}

fn trust_store(limits: &mut Limits, certificates: &[u8], password: &[u8]) -> Answer {
    let certificates = all(limits, certificates)?;
    let entries: Vec<Entry<'_>> = certificates
        .iter()
        .map(|certificate| Entry {
            der: &certificate.der,
            trusted: Some(certificate.subject()),
        })
        .collect();
    let store = p12::write(limits, None, &entries, password)?;
    Ok(Value::text(pem::base64_encode(&store)))
}
