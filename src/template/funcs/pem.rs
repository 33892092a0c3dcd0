//! PEM blocks, read as leniently as Go's `encoding/pem` does, and the private keys in them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::ed25519::pkcs8::KeypairBytes;
use p256::elliptic_curve::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _};
use rsa::PrivateKey;
use sec1::EcPrivateKey;
use sec1::der::oid::ObjectIdentifier;
use sec1::der::{Decode as _, SecretDocument};
use zeroize::Zeroizing;

use super::super::limits::Limits;
use super::super::value::Value;
use super::{Answer, Fault, Func, Ty, bytes, func};

/// The functions of this file.
pub const TABLE: &[Func] = &[func("filterPEM", &[Ty::Text, Ty::Text], filter_pem)];

/// The label of certificates.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of PKCS#8 keys.
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"\n-----END ";
const DASHES: &[u8] = b"-----";

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Go's `base64.StdEncoding`: line ends are skipped, padding is a must, spare bits do not matter.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A block.
pub(super) struct Block {
    /// The type.
    pub label: Vec<u8>,
    /// What stands before the first empty line.
    pub headers: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The content.
    pub der: Zeroizing<Vec<u8>>,
}

/// Go's `base64.StdEncoding.DecodeString`.
pub(super) fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(
        text.iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect(),
    );
    STANDARD.decode(&*text).ok()
}

/// Standard base64.
pub(super) fn base64_encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

fn find_last(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).rposition(|window| window == what)
}

fn from(data: &[u8], at: usize) -> &[u8] {
    data.get(at..).unwrap_or_default()
}

/// The first line without its end and trailing blanks, and how long it is with them.
fn line(data: &[u8]) -> (&[u8], usize) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let mut text = data.get(..end.unwrap_or(data.len())).unwrap_or_default();
    if end.is_some() {
        text = text.strip_suffix(b"\r").unwrap_or(text);
    }
    while let [before @ .., b' ' | b'\t'] = text {
        text = before;
    }
    (text, end.map_or(data.len(), |end| end + 1))
}

/// The first block of a text, and what follows it.
pub(super) fn decode(data: &[u8]) -> Option<(Block, &[u8])> {
    let mut at = 0;
    loop {
        let end = at + find(from(data, at), END)?;
        let trailer = end + END.len();
        let before = data.get(at..end)?;
        // The last BEGIN before this END counts; it has to begin a line.
        let Some(begin) = find_last(before, BEGIN)
            .filter(|begin| begin.checked_sub(1).is_none_or(|i| before.get(i) == Some(&b'\n')))
        else {
            at = trailer;
            continue;
        };
        let start = at + begin + BEGIN.len();
        match block(data, start, end)? {
            Some(block) => return Some((block, from(data, trailer + line(from(data, trailer)).1))),
            None => at = trailer,
        }
    }
}

/// The block whose label starts here and whose END is there. The outer `None` ends the search.
fn block(data: &[u8], start: usize, end: usize) -> Option<Option<Block>> {
    let trailer = end + END.len();
    let (text, length) = line(from(data, start));
    let Some(label) = text.strip_suffix(DASHES) else {
        return Some(None);
    };
    let mut next = start + length;
    let mut headers = BTreeMap::new();
    loop {
        let rest = from(data, next);
        if rest.is_empty() {
            return None;
        }
        let (text, length) = line(rest);
        let Some(colon) = text.iter().position(|byte| *byte == b':') else {
            break;
        };
        let (key, value) = text.split_at(colon);
        headers.insert(key.trim_ascii().to_vec(), from(value, 1).trim_ascii().to_vec());
        next += length;
    }
    if next > trailer {
        return None;
    }
    let tail = from(data, trailer)
        .strip_prefix(label)
        .and_then(|tail| tail.strip_prefix(DASHES));
    if (!headers.is_empty() && next > end) || tail.is_none_or(|tail| !line(tail).0.is_empty()) {
        return Some(None);
    }
    let body = data.get(next..end).unwrap_or_default();
    let body: Zeroizing<Vec<u8>> = Zeroizing::new(
        body.iter()
            .copied()
            .filter(|byte| !matches!(byte, b' ' | b'\t'))
            .collect(),
    );
    Some(base64_decode(&body).map(|der| Block {
        label: label.to_vec(),
        headers,
        der: Zeroizing::new(der),
    }))
}

/// All blocks of a text.
pub(super) fn blocks(mut data: &[u8]) -> impl Iterator<Item = Block> {
    std::iter::from_fn(move || {
        let (block, rest) = decode(data)?;
        data = rest;
        Some(block)
    })
}

/// Writes a block.
pub(super) fn write(out: &mut Vec<u8>, label: &[u8], headers: &BTreeMap<Vec<u8>, Vec<u8>>, der: &[u8]) {
    const FIRST: &[u8] = b"Proc-Type";
    out.extend([BEGIN, label, DASHES, b"\n"].concat());
    let first = headers.get_key_value(FIRST);
    for (key, value) in first
        .into_iter()
        .chain(headers.iter().filter(|(key, _)| *key != FIRST))
    {
        out.extend([key, &b": "[..], value, b"\n"].concat());
    }
    if !headers.is_empty() {
        out.push(b'\n');
    }
    let text = Zeroizing::new(STANDARD.encode(der));
    for line in text.as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend([from(END, 1), label, DASHES, b"\n"].concat());
}

/// A block without headers as text.
pub(super) fn encode(label: &str, der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, label.as_bytes(), &BTreeMap::new(), der);
    out
}

/// What follows the first BEGIN, if there is one.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    find(text, from(BEGIN, 0).trim_ascii_end()).map_or(text, |at| from(text, at))
}

/// Pays for a function that goes through all of a text.
pub(super) fn pass(limits: &mut Limits, text: &[u8]) -> Result<(), Fault> {
    limits.step(text.len() as u64 / 256)
}

fn filter_pem(limits: &mut Limits, args: &[Value]) -> Answer {
    let [label, text] = args else {
        return Err("expected a PEM type and a text".into());
    };
    let (label, mut rest) = (bytes(label), trim(bytes(text)));
    pass(limits, rest)?;
    limits.grow(rest.len())?;
    let mut out = Vec::new();
    while let Some((block, next)) = decode(rest) {
        limits.step(1)?;
        rest = next;
        if block.label.eq_ignore_ascii_case(label) {
            write(&mut out, &block.label, &block.headers, &block.der);
        }
    }
    if out.is_empty() && !rest.is_empty() {
        return Err("error filtering pem: found junk".into());
    }
    Ok(Value::text(out))
}

/// A key that is larger than one of RSA with 16384 bits is not read: its arithmetic would take minutes.
fn small(der: &[u8]) -> Option<&[u8]> {
    (der.len() <= 10 << 10).then_some(der)
}

/// A private key.
pub(super) enum Key {
    /// RSA.
    Rsa(Box<PrivateKey>),
    /// ECDSA with P-256.
    P256(p256::SecretKey),
    /// ECDSA with P-384.
    P384(p384::SecretKey),
    /// ECDSA with P-521.
    P521(p521::SecretKey),
    /// Ed25519.
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl Key {
    /// From PKCS#1.
    pub(super) fn pkcs1(der: &[u8]) -> Option<Self> {
        let der = small(der)?;
        PrivateKey::from_pkcs1_der(der)
            .ok()
            .map(|key| Self::Rsa(Box::new(key)))
    }

    /// From PKCS#8.
    pub(super) fn pkcs8(der: &[u8]) -> Option<Self> {
        let der = small(der)?;
        PrivateKey::from_pkcs8_der(der)
            .ok()
            .map(|key| Self::Rsa(Box::new(key)))
            .or_else(|| p256::SecretKey::from_pkcs8_der(der).ok().map(Self::P256))
            .or_else(|| p384::SecretKey::from_pkcs8_der(der).ok().map(Self::P384))
            .or_else(|| p521::SecretKey::from_pkcs8_der(der).ok().map(Self::P521))
            .or_else(|| {
                let key = ed25519_dalek::SigningKey::from_pkcs8_der(der).ok()?;
                Some(Self::Ed25519(Box::new(key)))
            })
    }

    /// From SEC 1, which has to name the curve.
    pub(super) fn sec1(der: &[u8]) -> Option<Self> {
        let key = EcPrivateKey::from_der(der).ok()?;
        match key.parameters.as_ref()?.named_curve()? {
            P256 => key.try_into().ok().map(Self::P256),
            P384 => key.try_into().ok().map(Self::P384),
            P521 => key.try_into().ok().map(Self::P521),
            _ => None,
        }
    }

    /// Whatever it is.
    pub(super) fn any(der: &[u8]) -> Option<Self> {
        Self::pkcs1(der)
            .or_else(|| Self::pkcs8(der))
            .or_else(|| Self::sec1(der))
    }

    /// As sprig reads it: the label says what it is.
    pub(super) fn labelled(text: &[u8]) -> Result<Self, Fault> {
        let (block, _) = decode(text).ok_or("the private key is no PEM")?;
        match block.label.as_slice() {
            b"PRIVATE KEY" => {
                Self::pkcs8(&block.der).ok_or("the private key is no PKCS#8 key of a known kind")
            }
            b"RSA PRIVATE KEY" => Self::pkcs1(&block.der).ok_or("the RSA private key is no valid PKCS#1 key"),
            b"EC PRIVATE KEY" => Self::sec1(&block.der).ok_or("the EC private key is no valid SEC 1 key"),
            b"DSA PRIVATE KEY" => Err("DSA keys are not served"),
            _ => Err("expected a PEM block PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY"),
        }
        .map_err(Fault::from)
    }

    /// As PKCS#8, the way Go writes it.
    pub(super) fn to_pkcs8(&self) -> Result<SecretDocument, Fault> {
        match self {
            Self::Rsa(key) => key.to_pkcs8_der(),
            Self::P256(key) => key.to_pkcs8_der(),
            Self::P384(key) => key.to_pkcs8_der(),
            Self::P521(key) => key.to_pkcs8_der(),
            Self::Ed25519(key) => KeypairBytes {
                secret_key: key.to_bytes(),
                public_key: None,
            }
            .to_pkcs8_der(),
        }
        .map_err(|_| "the private key cannot be written as PKCS#8".into())
    }

    /// As PEM in the older format of its kind, as sprig does.
    pub(super) fn to_pem(&self) -> Result<Vec<u8>, Fault> {
        const BAD: &str = "the private key cannot be written";
        let sec1 = match self {
            Self::Rsa(key) => {
                let der = key.to_pkcs1_der().map_err(|_| BAD)?;
                return Ok(encode("RSA PRIVATE KEY", der.as_bytes()));
            }
            Self::Ed25519(_) => return Ok(encode(PRIVATE_KEY, self.to_pkcs8()?.as_bytes())),
            Self::P256(key) => key.to_sec1_der(),
            Self::P384(key) => key.to_sec1_der(),
            Self::P521(key) => key.to_sec1_der(),
        };
        Ok(encode("EC PRIVATE KEY", &sec1.map_err(|_| BAD)?))
    }

    /// The public key, as PKIX.
    pub(super) fn public(&self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Rsa(key) => key.as_public_key().to_public_key_der(),
            Self::P256(key) => key.public_key().to_public_key_der(),
            Self::P384(key) => key.public_key().to_public_key_der(),
            Self::P521(key) => key.public_key().to_public_key_der(),
            Self::Ed25519(key) => key.verifying_key().to_public_key_der(),
        }
        .map(|document| document.into_vec())
        .map_err(|_| "the public key cannot be written".into())
    }
}
