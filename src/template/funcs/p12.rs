//! PKCS#12 (RFC 7292), in the way of the Go package that ESO uses: one key at most, its certificates in the
//! order of their bags, PBES2 or one of three older schemes.

use aes::cipher::KeyInit;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyIvInit as _};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::encrypted_data::EncryptedData;
use cms::enveloped_data::EncryptedContentInfo;
use der::asn1::{Any, BmpString, ContextSpecific, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode, Encode as _};
use pkcs5::pbes2;
use pkcs12::kdf::{Pkcs12KeyType, derive_key};
use pkcs12::pbe_params::{EncryptedPrivateKeyInfo, Pkcs12PbeParams};
use pkcs12::pfx::{Pfx, Version};
use pkcs12::safe_bag::SafeBag;
use pkcs12::{AuthenticatedSafe, CertBag};
use sha1::{Digest as _, Sha1};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::super::limits::Limits;
use super::Fault;
use super::p12_mac::{seal, verify};
use super::pem::pass;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const X509: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const LOCAL_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.21");
const FRIENDLY_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.20");
/// Java's mark of a trusted certificate.
const TRUSTED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113894.746875.1.1");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");

/// Iterations of what is written, as in Go's package.
pub(super) const ITERATIONS: u32 = 2048;

pub(super) const BAD: &str = "it is no PKCS#12 store that can be read";
const WRONG: &str = "the password is wrong, or the store is damaged";
const NOT_WRITTEN: &str = "the PKCS#12 store cannot be written";

/// What a store holds.
#[derive(Default)]
pub(super) struct Store {
    /// The private key as PKCS#8.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// The certificates, in their order.
    pub certificates: Vec<Vec<u8>>,
}

/// A password in both of its forms.
pub(super) struct Password {
    /// As it was given.
    pub text: Zeroizing<String>,
    /// UTF-16 with a zero at its end, or nothing at all.
    pub wide: Zeroizing<Vec<u8>>,
}

impl Password {
    fn new(password: &[u8]) -> Result<Self, Fault> {
        let text = Zeroizing::new(String::from_utf8_lossy(password).into_owned());
        if text.chars().any(|c| u32::from(c) > 0xffff) {
            return Err("the password has characters that UCS-2 has not".into());
        }
        let wide = text
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_be_bytes)
            .collect();
        Ok(Self {
            text,
            wide: Zeroizing::new(wide),
        })
    }
}

/// The error of a store that breaks the format.
pub(super) fn bad<E>(_: E) -> Fault {
    BAD.into()
}

/// Derives keys only after their cost has been paid: a step for each iteration and block.
pub(super) fn pay(limits: &mut Limits, iterations: i32, blocks: u64) -> Result<(), Fault> {
    let iterations = u64::try_from(iterations)
        .ok()
        .filter(|count| *count > 0)
        .ok_or(BAD)?;
    limits.step(iterations.saturating_mul(blocks))
}

/// Opens a store.
///
/// # Errors
/// If it is none, the password is wrong, or it takes too many iterations.
pub(super) fn open(limits: &mut Limits, data: &[u8], password: &[u8]) -> Result<Store, Fault> {
    pass(limits, data)?;
    limits.grow(data.len().saturating_mul(3))?;
    let mut password = Password::new(password)?;
    let pfx = Pfx::from_der(data).map_err(bad)?;
    if pfx.version != Version::V3 || pfx.auth_safe.content_type != DATA {
        return Err("only stores of version 3 that a password protects are served".into());
    }
    let content = OctetString::from_der(&pfx.auth_safe.content.to_der().map_err(bad)?).map_err(bad)?;
    match &pfx.mac_data {
        Some(mac) => {
            let mut right = verify(limits, mac, &password, content.as_bytes())?;
            if !right && password.text.is_empty() {
                // Some programs write nothing at all for an empty password.
                password.wide.clear();
                right = verify(limits, mac, &password, content.as_bytes())?;
            }
            if !right {
                return Err(WRONG.into());
            }
        }
        None if password.text.is_empty() => {}
        None => return Err("the store has no MAC, so a password cannot be checked".into()),
    }
    let safes = AuthenticatedSafe::from_der(content.as_bytes()).map_err(bad)?;
    if safes.is_empty() || safes.len() > 2 {
        return Err(format!("expected 1 or 2 safes in the store, found {}", safes.len()).into());
    }
    let mut store = Store::default();
    for safe in &safes {
        let bags = contents(limits, safe, &password)?;
        for bag in Vec::<SafeBag>::from_der(&bags).map_err(bad)? {
            limits.step(1)?;
            store.take(limits, &bag, &password)?;
        }
    }
    Ok(store)
}

fn contents(
    limits: &mut Limits,
    safe: &ContentInfo,
    password: &Password,
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let der = safe.content.to_der().map_err(bad)?;
    if safe.content_type == DATA {
        let plain = OctetString::from_der(&der).map_err(bad)?;
        return Ok(Zeroizing::new(plain.as_bytes().to_vec()));
    }
    if safe.content_type != ENCRYPTED_DATA {
        return Err("a safe of the store is neither plain nor encrypted with the password".into());
    }
    let sealed = EncryptedData::from_der(&der).map_err(bad)?.enc_content_info;
    let content = sealed.encrypted_content.as_ref().ok_or(BAD)?;
    decrypt(limits, &sealed.content_enc_alg, content.as_bytes(), password)
}

impl Store {
    fn take(&mut self, limits: &mut Limits, bag: &SafeBag, password: &Password) -> Result<(), Fault> {
        match bag.bag_id {
            pkcs12::PKCS_12_CERT_BAG_OID => {
                let bag = ContextSpecific::<CertBag>::from_der(&bag.bag_value)
                    .map_err(bad)?
                    .value;
                if bag.cert_id != X509 {
                    return Err("a certificate of the store is not an X.509 certificate".into());
                }
                self.certificates.push(bag.cert_value.as_bytes().to_vec());
            }
            pkcs12::PKCS_12_KEY_BAG_OID => {
                let key = ContextSpecific::<Any>::from_der(&bag.bag_value)
                    .map_err(bad)?
                    .value;
                self.add_key(Zeroizing::new(key.to_der().map_err(bad)?))?;
            }
            pkcs12::PKCS_12_PKCS8_KEY_BAG_OID => {
                self.one_key()?;
                let key = ContextSpecific::<EncryptedPrivateKeyInfo>::from_der(&bag.bag_value)
                    .map_err(bad)?
                    .value;
                let key = decrypt(
                    limits,
                    &key.encryption_algorithm,
                    key.encrypted_data.as_bytes(),
                    password,
                )?;
                self.add_key(key)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn one_key(&self) -> Result<(), Fault> {
        match self.key {
            Some(_) => Err("the store has more than one private key".into()),
            None => Ok(()),
        }
    }

    fn add_key(&mut self, key: Zeroizing<Vec<u8>>) -> Result<(), Fault> {
        self.one_key()?;
        self.key = Some(key);
        Ok(())
    }
}

fn decrypt(
    limits: &mut Limits,
    algorithm: &AlgorithmIdentifierOwned,
    data: &[u8],
    password: &Password,
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let params = algorithm.parameters.as_ref().ok_or(BAD)?.to_der().map_err(bad)?;
    let plain = if algorithm.oid == PBES2 {
        let params = pbes2::Parameters::from_der(&params).map_err(
            |_| "the store is encrypted with a scheme that is not served; AES in CBC mode with PBKDF2 is",
        )?;
        let pbes2::Kdf::Pbkdf2(kdf) = &params.kdf else {
            return Err("the store's key is derived with scrypt, which is not served; PBKDF2 is".into());
        };
        pay(limits, i32::try_from(kdf.iteration_count).unwrap_or(i32::MAX), 2)?;
        params.decrypt(password.text.as_bytes(), data).ok()
    } else {
        let params = Pkcs12PbeParams::from_der(&params).map_err(bad)?;
        // The key has two blocks at most, the vector has one.
        pay(limits, params.iterations, 3)?;
        match algorithm.oid {
            pkcs12::PKCS_12_PBE_WITH_SHAAND3_KEY_TRIPLE_DES_CBC => {
                decrypt_with::<des::TdesEde3>(&params, 24, data, password)
            }
            pkcs12::PKCS_12_PBE_WITH_SHAAND128_BIT_RC2_CBC => {
                decrypt_with::<rc2::Rc2>(&params, 16, data, password)
            }
            pkcs12::PKCS_12_PBEWITH_SHAAND40_BIT_RC2_CBC => {
                decrypt_with::<rc2::Rc2>(&params, 5, data, password)
            }
            _ => return Err("the store is encrypted with a scheme that is not served".into()),
        }
    };
    plain.map(Zeroizing::new).ok_or_else(|| WRONG.into())
}

fn decrypt_with<C: KeyInit + BlockCipherDecrypt>(
    params: &Pkcs12PbeParams,
    size: usize,
    data: &[u8],
    password: &Password,
) -> Option<Vec<u8>> {
    let derive = |kind, size| {
        Zeroizing::new(derive_key::<Sha1>(
            &password.wide,
            params.salt.as_bytes(),
            kind,
            params.iterations,
            size,
        ))
    };
    let (key, iv) = (
        derive(Pkcs12KeyType::EncryptionKey, size),
        derive(Pkcs12KeyType::Iv, 8),
    );
    cbc::Decryptor::<C>::new_from_slices(&key, &iv)
        .ok()?
        .decrypt_padded_vec::<Pkcs7>(data)
        .ok()
}

/// A certificate that is to be written.
pub(super) struct Entry<'a> {
    /// Its encoding.
    pub der: &'a [u8],
    /// The name of a trusted one.
    pub trusted: Option<String>,
}

fn attribute(oid: ObjectIdentifier, value: Any) -> der::Result<Attribute> {
    let values = SetOfVec::try_from(vec![value])?;
    Ok(Attribute { oid, values })
}

fn local_key_id(leaf: &[u8]) -> der::Result<Attribute> {
    let id = OctetString::new(Sha1::digest(leaf).as_slice())?;
    attribute(LOCAL_KEY_ID, Any::encode_from(&id)?)
}

fn certificate_bag(entry: &Entry<'_>, key_id: Option<Attribute>) -> der::Result<SafeBag> {
    let mut attributes = Attributes::new();
    if let Some(id) = key_id {
        attributes.insert(id)?;
    }
    if let Some(name) = &entry.trusted {
        let name: String = name
            .chars()
            .map(|c| if u32::from(c) > 0xffff { '\u{fffd}' } else { c })
            .collect();
        attributes.insert(attribute(TRUSTED, Any::encode_from(&ANY_USAGE)?)?)?;
        attributes.insert(attribute(
            FRIENDLY_NAME,
            Any::encode_from(&BmpString::from_utf8(&name)?)?,
        )?)?;
    }
    let bag = CertBag {
        cert_id: X509,
        cert_value: OctetString::new(entry.der)?,
    };
    Ok(SafeBag {
        bag_id: pkcs12::PKCS_12_CERT_BAG_OID,
        bag_value: bag.to_der()?,
        bag_attributes: (!attributes.is_empty()).then_some(attributes),
    })
}

fn encrypt(plain: &[u8], password: &Password) -> Option<(AlgorithmIdentifierOwned, OctetString)> {
    let salt: [u8; 16] = rand::random();
    let params =
        pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, rand::random()).ok()?;
    let sealed = params.encrypt(password.text.as_bytes(), plain).ok()?;
    let algorithm = AlgorithmIdentifierOwned {
        oid: PBES2,
        parameters: Some(Any::from_der(&params.to_der().ok()?).ok()?),
    };
    Some((algorithm, OctetString::new(sealed).ok()?))
}

fn certificate_safe(bags: &[SafeBag], password: &Password) -> Option<ContentInfo> {
    let (content_enc_alg, content) = encrypt(&bags.to_vec().to_der().ok()?, password)?;
    let sealed = EncryptedData {
        version: CmsVersion::V0,
        enc_content_info: EncryptedContentInfo {
            content_type: DATA,
            content_enc_alg,
            encrypted_content: Some(content),
        },
        unprotected_attrs: None,
    };
    Some(ContentInfo {
        content_type: ENCRYPTED_DATA,
        content: Any::from_der(&sealed.to_der().ok()?).ok()?,
    })
}

fn key_safe(key: &[u8], id: Attribute, password: &Password) -> Option<ContentInfo> {
    let (encryption_algorithm, encrypted_data) = encrypt(key, password)?;
    let sealed = EncryptedPrivateKeyInfo {
        encryption_algorithm,
        encrypted_data,
    };
    let mut attributes = Attributes::new();
    attributes.insert(id).ok()?;
    let bags = vec![SafeBag {
        bag_id: pkcs12::PKCS_12_PKCS8_KEY_BAG_OID,
        bag_value: sealed.to_der().ok()?,
        bag_attributes: Some(attributes),
    }];
    data_safe(&bags.to_der().ok()?)
}

fn data_safe(content: &[u8]) -> Option<ContentInfo> {
    Some(ContentInfo {
        content_type: DATA,
        content: Any::encode_from(&OctetString::new(content).ok()?).ok()?,
    })
}

/// Writes a store: with a key, which belongs to the first certificate, or without.
///
/// # Errors
/// If the password cannot be written in UCS-2.
pub(super) fn write(
    limits: &mut Limits,
    key: Option<&[u8]>,
    certificates: &[Entry<'_>],
    password: &[u8],
) -> Result<Vec<u8>, Fault> {
    limits.step(u64::from(ITERATIONS) * 5)?;
    limits.grow(
        certificates
            .iter()
            .map(|entry| entry.der.len().saturating_mul(4))
            .sum(),
    )?;
    let password = Password::new(password)?;
    assemble(key, certificates, &password).ok_or_else(|| NOT_WRITTEN.into())
}

fn assemble(key: Option<&[u8]>, certificates: &[Entry<'_>], password: &Password) -> Option<Vec<u8>> {
    let id = match (key, certificates.first()) {
        (Some(_), Some(leaf)) => Some(local_key_id(leaf.der).ok()?),
        _ => None,
    };
    let bags: der::Result<Vec<SafeBag>> = certificates
        .iter()
        .enumerate()
        .map(|(index, entry)| certificate_bag(entry, id.clone().filter(|_| index == 0)))
        .collect();
    let mut safes = vec![certificate_safe(&bags.ok()?, password)?];
    if let (Some(key), Some(id)) = (key, id) {
        safes.push(key_safe(key, id, password)?);
    }
    finish(&safes, password)
}

fn finish(safes: &AuthenticatedSafe, password: &Password) -> Option<Vec<u8>> {
    let safes = safes.to_der().ok()?;
    let pfx = Pfx {
        version: Version::V3,
        mac_data: Some(seal(&safes, password)?),
        auth_safe: data_safe(&safes)?,
    };
    pfx.to_der().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reason(store: &[u8], password: &[u8]) -> String {
        open(&mut Limits::default(), store, password)
            .err()
            .unwrap()
            .0
            .into_owned()
    }

    fn entry() -> Entry<'static> {
        Entry {
            der: b"a certificate",
            trusted: None,
        }
    }

    #[test]
    fn a_store_that_was_sealed_with_nothing_for_an_empty_password_opens() {
        let mut password = Password::new(b"").unwrap();
        password.wide.clear();
        let store = assemble(Some(b"a key"), &[entry()], &password).unwrap();
        let opened = open(&mut Limits::default(), &store, b"").unwrap();
        assert_eq!(opened.key.unwrap().as_slice(), b"a key");
        assert_eq!(opened.certificates, [b"a certificate"]);
        assert_eq!(reason(&store, b"wrong"), WRONG);
    }

    #[test]
    fn a_store_has_at_most_two_safes_and_one_key() {
        let password = Password::new(b"secret").unwrap();
        let safe = || key_safe(b"a key", local_key_id(b"x").unwrap(), &password).unwrap();
        let store = |count: usize| finish(&(0..count).map(|_| safe()).collect(), &password).unwrap();
        assert_eq!(
            open(&mut Limits::default(), &store(1), b"secret")
                .unwrap()
                .key
                .unwrap()
                .as_slice(),
            b"a key"
        );
        assert_eq!(
            reason(&store(2), b"secret"),
            "the store has more than one private key"
        );
        for count in [0, 3] {
            let wanted = format!("expected 1 or 2 safes in the store, found {count}");
            assert_eq!(reason(&store(count), b"secret"), wanted);
        }
    }

    #[test]
    fn iterations_cost_steps_before_they_are_done() {
        let mut limits = Limits::default();
        for (iterations, blocks) in [(0, 1), (-1, 1), (i32::MIN, 3), (i32::MAX, 1), (i32::MAX, 3)] {
            assert!(pay(&mut limits, iterations, blocks).is_err(), "{iterations}");
        }
        assert!(pay(&mut Limits::default(), 600_000, 2).is_ok());
    }

    #[test]
    fn a_name_outside_of_ucs_2_does_not_stop_a_trust_store() {
        let entry = Entry {
            der: b"a certificate",
            trusted: Some("CN=🔑".into()),
        };
        let store = write(&mut Limits::default(), None, &[entry], b"secret").unwrap();
        let opened = open(&mut Limits::default(), &store, b"secret").unwrap();
        assert!(opened.key.is_none() && opened.certificates.len() == 1);
    }
}
