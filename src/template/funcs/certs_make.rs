//! X.509 certificates, made as sprig makes them.

use std::net::IpAddr;

use der::asn1::{Any, BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode as _, Encode as _, Tag};
use rsa::pkcs1v15;
use sha2::{Digest as _, Sha256};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::super::limits::Limits;
use super::super::time;
use super::super::value::Value;
use super::certs::{Parsed, pair};
use super::crypto::{RSA_USE, rsa_key};
use super::pem::{self, CERTIFICATE, Key};
use super::{Answer, Fault, Func, Ty, bytes, func, number};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("genCA", &[Ty::Text, Ty::Int], |limits, args| {
        let key = rsa_key(limits, BITS)?;
        authority(limits, args, &key)
    }),
    func("genCAWithKey", &[Ty::Text, Ty::Int, Ty::Text], |limits, args| {
        let key = Key::labelled(text(args, 2))?;
        authority(limits, args, &key)
    }),
    func(
        "genSelfSignedCert",
        &[Ty::Text, Ty::List, Ty::List, Ty::Int],
        |limits, args| {
            let (wanted, key) = (Wanted::parse(args)?, rsa_key(limits, BITS)?);
            self_signed(limits, &wanted, &key)
        },
    ),
    func(
        "genSelfSignedCertWithKey",
        &[Ty::Text, Ty::List, Ty::List, Ty::Int, Ty::Text],
        |limits, args| {
            let wanted = Wanted::parse(args)?;
            self_signed(limits, &wanted, &Key::labelled(text(args, 4))?)
        },
    ),
    func(
        "genSignedCert",
        &[Ty::Text, Ty::List, Ty::List, Ty::Int, Ty::Certificate],
        |limits, args| {
            let (wanted, parent) = (Wanted::parse(args)?, Parent::parse(args.get(4))?);
            let key = rsa_key(limits, BITS)?;
            signed(limits, &wanted, &parent, &key)
        },
    ),
    func(
        "genSignedCertWithKey",
        &[Ty::Text, Ty::List, Ty::List, Ty::Int, Ty::Certificate, Ty::Text],
        |limits, args| {
            let (wanted, parent) = (Wanted::parse(args)?, Parent::parse(args.get(4))?);
            signed(limits, &wanted, &parent, &Key::labelled(text(args, 5))?)
        },
    ),
];

/// Of the RSA keys that are made.
const BITS: usize = 2048;
/// Seconds of a day.
const DAY: i64 = 86_400;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

const NOT_MADE: &str = "the certificate cannot be made";

fn text(args: &[Value], index: usize) -> &[u8] {
    args.get(index).map_or(&[], bytes)
}

/// What a certificate shall say.
struct Wanted {
    subject: Name,
    names: Vec<GeneralName>,
    days: i64,
    authority: bool,
}

impl Wanted {
    /// A common name, addresses, DNS names and days.
    fn parse(args: &[Value]) -> Result<Self, Fault> {
        let mut names = Vec::new();
        for name in texts(args.get(2))? {
            let name = Ia5String::new(name).map_err(|_| "a DNS name is not ASCII")?;
            names.push(GeneralName::DnsName(name));
        }
        for address in texts(args.get(1))? {
            let address: Option<IpAddr> = str::from_utf8(address)
                .ok()
                .and_then(|address| address.parse().ok());
            let address = address.ok_or("error parsing ip: an entry of the list is no IP address")?;
            names.push(general_address(address)?);
        }
        Ok(Self {
            subject: common_name(text(args, 0))?,
            names,
            days: args.get(3).map_or(0, number),
            authority: false,
        })
    }
}

/// The texts of a list that may be absent.
fn texts(list: Option<&Value>) -> Result<Vec<&[u8]>, Fault> {
    let Some(Value::List(list)) = list else {
        return Ok(Vec::new());
    };
    list.items
        .iter()
        .map(|item| match item {
            Value::Text(text) => Ok(text.as_ref()),
            _ => Err("an entry of the list of addresses or DNS names is no text".into()),
        })
        .collect()
}

fn general_address(address: IpAddr) -> Result<GeneralName, Fault> {
    let octets = match address.to_canonical() {
        IpAddr::V4(address) => OctetString::new(address.octets()),
        IpAddr::V6(address) => OctetString::new(address.octets()),
    };
    octets.map(GeneralName::IpAddress).map_err(|_| NOT_MADE.into())
}

/// A subject with a common name only; as in Go, a `PrintableString` where that can hold it.
fn common_name(text: &[u8]) -> Result<Name, Fault> {
    let mut names = RdnSequence::default();
    if !text.is_empty() {
        let printable = text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte));
        str::from_utf8(text).map_err(|_| "the common name is not UTF-8")?;
        let tag = if printable {
            Tag::PrintableString
        } else {
            Tag::Utf8String
        };
        let value = Any::new(tag, text).map_err(|_| NOT_MADE)?;
        let attribute = AttributeTypeAndValue {
            oid: COMMON_NAME,
            value,
        };
        let set = SetOfVec::try_from(vec![attribute]).map_err(|_| NOT_MADE)?;
        names.push(RelativeDistinguishedName::from(set));
    }
    let der = names.to_der().map_err(|_| NOT_MADE)?;
    Name::from_der(&der).map_err(|_| NOT_MADE.into())
}

/// The certificate and the key that sign another.
struct Parent {
    subject: Name,
    key_id: Vec<u8>,
    key: Key,
}

impl Parent {
    fn parse(value: Option<&Value>) -> Result<Self, Fault> {
        let Some(Value::Certificate(parent)) = value else {
            return Err("expected a certificate that genCA or another function made".into());
        };
        let (block, _) = pem::decode(&parent.cert).ok_or("the signing certificate is no PEM")?;
        let certificate = Parsed::new(&block.der)?;
        let key = Key::labelled(&parent.key)?;
        let tbs = certificate.tbs();
        let public = tbs.subject_public_key_info().to_der().map_err(|_| NOT_MADE)?;
        if public != key.public()? {
            return Err("the signing key does not belong to the signing certificate".into());
        }
        Ok(Self {
            subject: tbs.subject().clone(),
            key_id: certificate.subject_key(),
            key,
        })
    }
}

fn authority(limits: &mut Limits, args: &[Value], key: &Key) -> Answer {
    let wanted = Wanted {
        subject: common_name(text(args, 0))?,
        names: Vec::new(),
        days: args.get(1).map_or(0, number),
        authority: true,
    };
    self_signed(limits, &wanted, key)
}

fn self_signed(limits: &mut Limits, wanted: &Wanted, key: &Key) -> Answer {
    make(limits, wanted, key, wanted.subject.clone(), &[], key)
}

fn signed(limits: &mut Limits, wanted: &Wanted, parent: &Parent, key: &Key) -> Answer {
    make(
        limits,
        wanted,
        key,
        parent.subject.clone(),
        &parent.key_id,
        &parent.key,
    )
}

/// A name, an issuer and extensions, as they are.
struct Content {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Content {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

fn make(
    limits: &mut Limits,
    wanted: &Wanted,
    key: &Key,
    issuer: Name,
    issuer_key: &[u8],
    signer: &Key,
) -> Answer {
    limits.step(RSA_USE)?;
    let public = SubjectPublicKeyInfo::from_der(&key.public()?).map_err(|_| NOT_MADE)?;
    // A certificate that names itself as its issuer does not name its issuer's key.
    let issuer_key = if issuer == wanted.subject { &[] } else { issuer_key };
    let content = Content {
        subject: wanted.subject.clone(),
        issuer,
        extensions: extensions(wanted, &public, issuer_key).map_err(|_| NOT_MADE)?,
    };
    let serial = SerialNumber::new(&rand::random::<[u8; 16]>()).map_err(|_| NOT_MADE)?;
    let builder =
        CertificateBuilder::new(content, serial, validity(wanted.days)?, public).map_err(|_| NOT_MADE)?;
    let der = sign(builder, signer).ok_or(NOT_MADE)?;
    Ok(pair(&pem::encode(CERTIFICATE, &der), &key.to_pem()?))
}

/// From now on, for so many days.
fn validity(days: i64) -> Result<Validity, Fault> {
    let now = time::Time::now().unix;
    let end = days.checked_mul(DAY).and_then(|span| now.checked_add(span));
    let time = |unix: i64| {
        let since = std::time::Duration::from_secs(u64::try_from(unix).ok()?);
        GeneralizedTime::from_unix_duration(since)
            .ok()
            .map(Time::GeneralTime)
    };
    let (from, to) = time(now)
        .zip(end.and_then(time))
        .ok_or("the certificate would end before 1970 or after 9999")?;
    Ok(Validity::new(from, to))
}

/// In the order in which Go writes them.
fn extensions(
    wanted: &Wanted,
    public: &SubjectPublicKeyInfo<Any, BitString>,
    issuer_key: &[u8],
) -> der::Result<Vec<Extension>> {
    let mut all = Vec::new();
    let mut usage = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment;
    if wanted.authority {
        usage |= KeyUsages::KeyCertSign;
    }
    let subject = &wanted.subject;
    all.push((&KeyUsage(usage)).to_extension(subject, &all)?);
    all.push((&ExtendedKeyUsage(vec![SERVER_AUTH, CLIENT_AUTH])).to_extension(subject, &all)?);
    let basic = BasicConstraints {
        ca: wanted.authority,
        path_len_constraint: None,
    };
    all.push((&basic).to_extension(subject, &all)?);
    if wanted.authority {
        // RFC 7093, section 2, method 1.
        let digest = Sha256::digest(public.subject_public_key.raw_bytes());
        let id = OctetString::new(digest.get(..20).unwrap_or_default())?;
        all.push((&SubjectKeyIdentifier(id)).to_extension(subject, &all)?);
    }
    if !issuer_key.is_empty() {
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(issuer_key)?),
            ..AuthorityKeyIdentifier::default()
        };
        all.push((&authority).to_extension(subject, &all)?);
    }
    if !wanted.names.is_empty() {
        all.push((&SubjectAltName(wanted.names.clone())).to_extension(subject, &all)?);
    }
    Ok(all)
}

/// Signs with the algorithm that Go picks for the key.
fn sign(builder: CertificateBuilder<Content>, signer: &Key) -> Option<Vec<u8>> {
    let mut random = rand::rng();
    match signer {
        Key::Rsa(key) => {
            let signer = pkcs1v15::SigningKey::<Sha256>::new(key.as_ref().clone());
            builder.build_with_rng::<_, pkcs1v15::Signature, _>(&signer, &mut random)
        }
        Key::P256(key) => {
            let signer = p256::ecdsa::SigningKey::from(key);
            builder.build_with_rng::<_, p256::ecdsa::DerSignature, _>(&signer, &mut random)
        }
        Key::P384(key) => {
            let signer = p384::ecdsa::SigningKey::from(key);
            builder.build_with_rng::<_, p384::ecdsa::DerSignature, _>(&signer, &mut random)
        }
        Key::P521(key) => {
            let signer = p521::ecdsa::SigningKey::from(key);
            builder.build_with_rng::<_, p521::ecdsa::DerSignature, _>(&signer, &mut random)
        }
        Key::Ed25519(key) => builder.build::<_, ed25519_dalek::Signature>(key.as_ref()),
    }
    .ok()?
    .to_der()
    .ok()
}
