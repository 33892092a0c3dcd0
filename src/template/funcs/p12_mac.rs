//! The MAC of a PKCS#12 store: HMAC with a key of PKCS#12's own derivation, or PBMAC1 (RFC 9579).

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _};
use hmac::digest::block_api::BlockSizeUser;
use hmac::digest::{Digest, FixedOutputReset};
use hmac::{EagerHash, Hmac, KeyInit as _, Mac as _};
use pbkdf2::pbkdf2_hmac;
use pkcs5::pbes2::{Kdf, Pbkdf2Prf};
use pkcs12::kdf::{Pkcs12KeyType, derive_key};
use pkcs12::pbe_params::Pbes2Params;
use pkcs12::{DigestInfo, MacData};
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::super::limits::Limits;
use super::Fault;
use super::p12::{BAD, ITERATIONS, Password, bad, pay};

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const PBMAC1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.14");
const HMAC_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");
const HMAC_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.10");
const HMAC_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.11");

const NOT_SERVED: &str =
    "the store's MAC is not served; HMAC with SHA-1, SHA-256, SHA-384 or SHA-512 and PBMAC1 with PBKDF2 are";
/// Bytes of the longest key of PBMAC1; it is as long as a digest.
const KEY: u16 = 64;

/// Whether the MAC is that of the data and password. The wide password may differ from the text: it may be empty.
///
/// # Errors
/// If its algorithm is unknown, or takes too many steps.
pub(super) fn verify(
    limits: &mut Limits,
    mac: &MacData,
    password: &Password,
    data: &[u8],
) -> Result<bool, Fault> {
    let digest = mac.mac.digest.as_bytes();
    let algorithm = mac.mac.algorithm.oid;
    if algorithm == PBMAC1 {
        return verify_pbmac1(limits, mac, password, data);
    }
    if ![SHA1, SHA256, SHA384, SHA512].contains(&algorithm) {
        return Err(NOT_SERVED.into());
    }
    pay(limits, mac.iterations, 1)?;
    let (salt, rounds, wide) = (mac.mac_salt.as_bytes(), mac.iterations, password.wide.as_slice());
    Ok(match algorithm {
        SHA1 => is_mac::<Sha1>(&key::<Sha1>(salt, rounds, wide), data, digest),
        SHA384 => is_mac::<Sha384>(&key::<Sha384>(salt, rounds, wide), data, digest),
        SHA512 => is_mac::<Sha512>(&key::<Sha512>(salt, rounds, wide), data, digest),
        _ => is_mac::<Sha256>(&key::<Sha256>(salt, rounds, wide), data, digest),
    })
}

/// PBMAC1 derives its key from the text of the password.
fn verify_pbmac1(
    limits: &mut Limits,
    mac: &MacData,
    password: &Password,
    data: &[u8],
) -> Result<bool, Fault> {
    let params = mac.mac.algorithm.parameters.as_ref().ok_or(BAD)?;
    // Both of the parameters have the shape of PBES2's.
    let params = Pbes2Params::from_der(&params.to_der().map_err(bad)?).map_err(bad)?;
    let kdf = Kdf::from_der(&params.kdf.to_der().map_err(bad)?).map_err(|_| NOT_SERVED)?;
    let Kdf::Pbkdf2(kdf) = kdf else {
        return Err(NOT_SERVED.into());
    };
    let length = kdf
        .key_length
        .filter(|length| (1..=KEY).contains(length))
        .ok_or(NOT_SERVED)?;
    pay(limits, i32::try_from(kdf.iteration_count).unwrap_or(i32::MAX), 2)?;
    let mut key = Zeroizing::new(vec![0; usize::from(length)]);
    let derive = match kdf.prf {
        Pbkdf2Prf::HmacWithSha1 => pbkdf2_hmac::<Sha1>,
        Pbkdf2Prf::HmacWithSha224 => pbkdf2_hmac::<Sha224>,
        Pbkdf2Prf::HmacWithSha256 => pbkdf2_hmac::<Sha256>,
        Pbkdf2Prf::HmacWithSha384 => pbkdf2_hmac::<Sha384>,
        Pbkdf2Prf::HmacWithSha512 => pbkdf2_hmac::<Sha512>,
        _ => return Err(NOT_SERVED.into()),
    };
    derive(
        password.text.as_bytes(),
        kdf.salt.as_bytes(),
        kdf.iteration_count,
        &mut key,
    );
    let digest = mac.mac.digest.as_bytes();
    match params.encryption.oid {
        HMAC_SHA256 => Ok(is_mac::<Sha256>(&key, data, digest)),
        HMAC_SHA384 => Ok(is_mac::<Sha384>(&key, data, digest)),
        HMAC_SHA512 => Ok(is_mac::<Sha512>(&key, data, digest)),
        _ => Err(NOT_SERVED.into()),
    }
}

fn key<D>(salt: &[u8], iterations: i32, password: &[u8]) -> Zeroizing<Vec<u8>>
where
    D: Digest + FixedOutputReset + BlockSizeUser,
{
    let size = <D as Digest>::output_size();
    Zeroizing::new(derive_key::<D>(
        password,
        salt,
        Pkcs12KeyType::Mac,
        iterations,
        size,
    ))
}

fn is_mac<D: EagerHash>(key: &[u8], data: &[u8], digest: &[u8]) -> bool {
    let Ok(mut hmac) = Hmac::<D>::new_from_slice(key) else {
        return false;
    };
    hmac.update(data);
    hmac.verify_slice(digest).is_ok()
}

/// The MAC of a store that is written.
pub(super) fn seal(data: &[u8], password: &Password) -> Option<MacData> {
    let salt: [u8; 16] = rand::random();
    let iterations = i32::try_from(ITERATIONS).ok()?;
    let key = key::<Sha256>(&salt, iterations, &password.wide);
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    hmac.update(data);
    Some(MacData {
        mac: DigestInfo {
            algorithm: AlgorithmIdentifierOwned {
                oid: SHA256,
                parameters: None,
            },
            digest: OctetString::new(hmac.finalize().into_bytes().as_slice()).ok()?,
        },
        mac_salt: OctetString::new(&salt[..]).ok()?,
        iterations,
    })
}
