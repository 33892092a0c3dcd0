//! X.509 certificates, taken apart.

use std::net::IpAddr;
use std::rc::Rc;

use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode as _, Tag, Tagged as _};
use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};

use super::super::limits::Limits;
use super::super::value::{Certificate, Value};
use super::pem::{self, CERTIFICATE, Key};
use super::{Answer, Fault, Func, Ty, bytes, func};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("buildCustomCert", &[Ty::Text, Ty::Text], build_custom),
    func("certSANs", &[Ty::Text], cert_sans),
    func("filterCertChain", &[Ty::Text, Ty::Text], filter_chain),
];

/// Certificates of one chain; they are compared with one another.
const CHAIN: usize = 1000;

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

fn text(args: &[Value], index: usize) -> &[u8] {
    args.get(index).map_or(&[], bytes)
}

/// A certificate that was read. Its signature is not checked.
pub(super) struct Parsed {
    /// Its encoding.
    pub der: Vec<u8>,
    inner: CertificateInner<Raw>,
}

impl Parsed {
    /// Reads DER.
    pub(super) fn new(der: &[u8]) -> Result<Self, Fault> {
        let inner = CertificateInner::from_der(der).map_err(|_| "the certificate cannot be read")?;
        Ok(Self {
            der: der.to_vec(),
            inner,
        })
    }

    /// Its subject as RFC 4514 writes it.
    pub(super) fn subject(&self) -> String {
        self.tbs().subject().to_string()
    }

    /// As PEM.
    pub(super) fn pem(&self) -> Vec<u8> {
        pem::encode(CERTIFICATE, &self.der)
    }

    /// What is signed.
    pub(super) fn tbs(&self) -> &TbsCertificateInner<Raw> {
        self.inner.tbs_certificate()
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.tbs().extensions()?;
        extensions
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|extension| extension.extn_value.as_bytes())
    }

    /// The identifier of its key; empty if it has none.
    pub(super) fn subject_key(&self) -> Vec<u8> {
        let extension = self
            .extension(SUBJECT_KEY_ID)
            .and_then(|der| OctetString::from_der(der).ok());
        extension.map_or_else(Vec::new, |id| id.as_bytes().to_vec())
    }

    /// `None` if the authority is not named by its key.
    fn authority_key(&self) -> Option<Vec<u8>> {
        let members = Vec::<Any>::from_der(self.extension(AUTHORITY_KEY_ID)?).ok()?;
        let id = members.first().filter(|member| tag_number(member) == Some(0))?;
        Some(id.value().to_vec())
    }

    fn is_root(&self) -> bool {
        self.authority_key()
            .is_none_or(|authority| authority == self.subject_key())
    }
}

/// The number of a context-specific tag.
fn tag_number(any: &Any) -> Option<u32> {
    match any.tag() {
        Tag::ContextSpecific { number, .. } => Some(number.value()),
        _ => None,
    }
}

/// The certificates of a text, in order. Other blocks are an error, as in ESO.
pub(super) fn parse_all(limits: &mut Limits, text: &[u8]) -> Result<Vec<Parsed>, Fault> {
    pem::pass(limits, text)?;
    limits.grow(text.len())?;
    let mut certificates = Vec::new();
    for block in pem::blocks(text) {
        limits.step(1)?;
        if certificates.len() == CHAIN {
            return Err(format!("the chain has more than {CHAIN} certificates").into());
        }
        certificates.push(Parsed::new(&block.der)?);
    }
    Ok(certificates)
}

/// Orders a chain from the leaf to the root, by the identifiers of the keys.
///
/// # Errors
/// If it is not one chain.
pub(super) fn chain(limits: &mut Limits, certificates: Vec<Parsed>) -> Result<Vec<Parsed>, Fault> {
    limits.step((certificates.len() * certificates.len()) as u64)?;
    let ids: Vec<(Option<Vec<u8>>, Vec<u8>)> = certificates
        .iter()
        .map(|certificate| (certificate.authority_key(), certificate.subject_key()))
        .collect();
    let is_parent = |authority: &[u8], other: usize| {
        // ESO lets an absent identifier match an absent one, so that a root without the first and a leaf without
        // the second, which many authorities make, form a cycle.
        !authority.is_empty() && ids.get(other).is_some_and(|(_, subject)| subject == authority)
    };
    let parents: Vec<Option<usize>> = ids
        .iter()
        .enumerate()
        .map(|(own, (authority, _))| {
            let authority = authority.as_deref()?;
            (0..ids.len()).find(|other| *other != own && is_parent(authority, *other))
        })
        .collect();
    let mut leaves = (0..ids.len()).filter(|own| !parents.contains(&Some(*own)));
    let mut next = Some(leaves.next().ok_or("no leaf certificate found")?);
    if leaves.next().is_some() {
        return Err("found multiple leaf or disjunct certificates".into());
    }
    let mut rest: Vec<Option<Parsed>> = certificates.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(rest.len());
    while let Some(index) = next {
        let certificate = rest.get_mut(index).and_then(Option::take);
        ordered.push(certificate.ok_or("constructing chain resulted in cycle")?);
        next = parents.get(index).copied().flatten();
    }
    Ok(ordered)
}

fn filter_chain(limits: &mut Limits, args: &[Value]) -> Answer {
    let certificates = parse_all(limits, text(args, 1))?;
    let ordered = chain(limits, certificates)?;
    let picked: Vec<u8> = match text(args, 0) {
        b"leaf" => ordered
            .first()
            .filter(|leaf| !leaf.is_root())
            .map(Parsed::pem)
            .unwrap_or_default(),
        b"intermediate" => ordered
            .iter()
            .skip(1)
            .take_while(|above| !above.is_root())
            .flat_map(Parsed::pem)
            .collect(),
        b"root" => ordered
            .last()
            .filter(|last| last.is_root())
            .map(Parsed::pem)
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    Ok(Value::text(picked))
}

/// DNS names, addresses, mail addresses and URIs, in this order.
fn cert_sans(limits: &mut Limits, args: &[Value]) -> Answer {
    let input = text(args, 0);
    pem::pass(limits, input)?;
    limits.grow(input.len())?;
    let (block, _) =
        pem::decode(pem::trim(input)).ok_or("failed to decode PEM block: the text holds no PEM block")?;
    let certificate = Parsed::new(&block.der)?;
    let names = match certificate.extension(SUBJECT_ALT_NAME) {
        Some(der) => {
            Vec::<Any>::from_der(der).map_err(|_| "the certificate's alternative names cannot be read")?
        }
        None => Vec::new(),
    };
    let of = |wanted: u32| {
        names
            .iter()
            .filter(move |name| tag_number(name) == Some(wanted))
            .map(Any::value)
    };
    let mut sans: Vec<Vec<u8>> = of(2).map(<[u8]>::to_vec).collect();
    for address in of(7) {
        let address = <[u8; 4]>::try_from(address)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(address).map(|octets| IpAddr::from(octets).to_canonical()))
            .map_err(|_| "an address among the certificate's alternative names has neither 4 nor 16 bytes")?;
        sans.push(address.to_string().into_bytes());
    }
    sans.extend(of(1).chain(of(6)).map(<[u8]>::to_vec));
    Ok(Value::texts(sans))
}

fn build_custom(limits: &mut Limits, args: &[Value]) -> Answer {
    limits.grow(text(args, 0).len() + text(args, 1).len())?;
    let cert = pem::base64_decode(text(args, 0)).ok_or("unable to decode base64 certificate")?;
    let key = pem::base64_decode(text(args, 1)).ok_or("unable to decode base64 private key")?;
    let (block, _) = pem::decode(&cert).ok_or("unable to decode certificate: it is no PEM")?;
    Parsed::new(&block.der)?;
    Key::labelled(&key)?;
    Ok(pair(&cert, &key))
}

/// A certificate and its key.
pub(super) fn pair(cert: &[u8], key: &[u8]) -> Value {
    Value::Certificate(Rc::new(Certificate {
        cert: Rc::from(cert),
        key: Rc::from(key),
    }))
}
