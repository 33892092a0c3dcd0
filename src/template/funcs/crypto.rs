//! Digests, passwords, random values and ciphers.

use aes::Aes256;
use bcrypt::Version;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::elliptic_curve::Generate as _;
use rand::RngExt as _;
use rsa::PrivateKey;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::super::limits::Limits;
use super::super::value::Value;
use super::pem::{self, Key};
use super::{Answer, Fault, Func, Ty, bytes, func, func_more, number};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("adler32sum", &[Ty::Text], adler32),
    func("bcrypt", &[Ty::Text], |limits, args| {
        Ok(Value::text(bcrypt_hash(limits, at(args, 0))?))
    }),
    func("decryptAES", &[Ty::Text, Ty::Text], decrypt_aes),
    func(
        "derivePassword",
        &[Ty::Int, Ty::Text, Ty::Text, Ty::Text, Ty::Text],
        derive_password,
    ),
    func("encryptAES", &[Ty::Text, Ty::Text], encrypt_aes),
    func("genPrivateKey", &[Ty::Text], gen_private_key),
    func_more("htpasswd", &[Ty::Text, Ty::Text], Ty::Text, htpasswd),
    func("randAlpha", &[Ty::Int], |limits, args| {
        random(limits, args, |c| c.is_ascii_alphabetic())
    }),
    func("randAlphaNum", &[Ty::Int], |limits, args| {
        random(limits, args, |c| c.is_ascii_alphanumeric())
    }),
    func("randAscii", &[Ty::Int], |limits, args| {
        random(limits, args, |c| (b' '..=b'~').contains(&c))
    }),
    func("randBytes", &[Ty::Int], rand_bytes),
    func("randInt", &[Ty::Int, Ty::Int], rand_int),
    func("randNumeric", &[Ty::Int], |limits, args| {
        random(limits, args, |c| c.is_ascii_digit())
    }),
    func(
        "rsaDecrypt",
        &[Ty::Text, Ty::Text, Ty::Text, Ty::Text],
        rsa_decrypt,
    ),
    func("sha1sum", &[Ty::Text], |limits, args| {
        hex::<Sha1>(limits, at(args, 0))
    }),
    func("sha256sum", &[Ty::Text], |limits, args| {
        hex::<Sha256>(limits, at(args, 0))
    }),
    func("sha512sum", &[Ty::Text], |limits, args| {
        hex::<Sha512>(limits, at(args, 0))
    }),
    func("uuidv4", &[], |_, _| {
        Ok(Value::text(
            uuid::Builder::from_random_bytes(rand::random())
                .into_uuid()
                .to_string(),
        ))
    }),
];

/// Go's `bcrypt.DefaultCost`.
const BCRYPT_COST: u32 = 10;
/// Steps that a slow hash costs.
const SLOW_HASH: u64 = 250_000;
/// Steps that an operation with an RSA key costs.
pub(super) const RSA_USE: u64 = 50_000;

fn at(args: &[Value], index: usize) -> &[u8] {
    args.get(index).map_or(&[], bytes)
}

fn hex<D: Digest>(limits: &mut Limits, data: &[u8]) -> Answer {
    pem::pass(limits, data)?;
    let text: String = D::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Value::text(text))
}

fn adler32(limits: &mut Limits, args: &[Value]) -> Answer {
    pem::pass(limits, at(args, 0))?;
    let (a, b) = at(args, 0).iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    Ok(Value::text(((b << 16) | a).to_string()))
}

/// Like Go's function, the text of the result says it if the password is too long.
fn bcrypt_hash(limits: &mut Limits, password: &[u8]) -> Result<String, Fault> {
    limits.step(SLOW_HASH)?;
    if password.len() > 72 {
        return Ok("failed to encrypt string with bcrypt: bcrypt: password length exceeds 72 bytes".into());
    }
    bcrypt::hash_with_result(password, BCRYPT_COST)
        .map(|parts| parts.format_for_version(Version::TwoA))
        .map_err(|_| "bcrypt cannot take this password; it must not hold a NUL".into())
}

/// ESO's has a third parameter that sprig's has not: the algorithm. Both forms are served.
fn htpasswd(limits: &mut Limits, args: &[Value]) -> Answer {
    if args.len() > 3 {
        return Err("expected a user name, a password and bcrypt or sha".into());
    }
    let (user, password) = (at(args, 0), at(args, 1));
    pem::pass(limits, password)?;
    limits.grow(user.len())?;
    if user.contains(&b':') {
        return Ok(Value::text([b"invalid username: ", user].concat()));
    }
    let hash = match at(args, 2) {
        b"sha" => format!("{{SHA}}{}", pem::base64_encode(&Sha1::digest(password))),
        _ => bcrypt_hash(limits, password)?,
    };
    Ok(Value::text([user, b":", hash.as_bytes()].concat()))
}

fn aes_key(password: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    for (to, from) in key.iter_mut().zip(password) {
        *to = *from;
    }
    key
}

fn encrypt_aes(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = at(args, 1);
    if text.is_empty() {
        return Ok(Value::text(""));
    }
    pem::pass(limits, text)?;
    limits.grow(text.len().saturating_mul(2))?;
    let iv: [u8; 16] = rand::random();
    let sealed = cbc::Encryptor::<Aes256>::new(&(*aes_key(at(args, 0))).into(), &iv.into())
        .encrypt_padded_vec::<Pkcs7>(text);
    Ok(Value::text(pem::base64_encode(&[&iv[..], &sealed].concat())))
}

fn decrypt_aes(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = at(args, 1);
    if text.is_empty() {
        return Ok(Value::text(""));
    }
    pem::pass(limits, text)?;
    limits.grow(text.len())?;
    let data = pem::base64_decode(text).ok_or("the encrypted text is no base64")?;
    let (iv, sealed) = data
        .split_first_chunk::<16>()
        .ok_or("the encrypted text is too short")?;
    let mut plain = cbc::Decryptor::<Aes256>::new(&(*aes_key(at(args, 0))).into(), &(*iv).into())
        .decrypt_padded_vec::<NoPadding>(sealed)
        .map_err(|_| "the encrypted text is not a whole number of AES blocks")?;
    // Only the last byte of the padding counts, as in sprig.
    let length = plain
        .last()
        .and_then(|padding| plain.len().checked_sub(usize::from(*padding)))
        .ok_or("the encrypted text does not decrypt with this password")?;
    plain.truncate(length);
    Ok(Value::text(plain))
}

fn random(limits: &mut Limits, args: &[Value], is: fn(u8) -> bool) -> Answer {
    let count = usize::try_from(args.first().map_or(0, number)).unwrap_or(0);
    limits.grow(count)?;
    let set: Vec<u8> = (0..128).filter(|c| is(*c)).collect();
    let mut random = rand::rng();
    let text: Vec<u8> = (0..count)
        .filter_map(|_| set.get(random.random_range(0..set.len())).copied())
        .collect();
    Ok(Value::text(text))
}

fn rand_bytes(limits: &mut Limits, args: &[Value]) -> Answer {
    let count =
        usize::try_from(args.first().map_or(0, number)).map_err(|_| "the number of bytes is negative")?;
    limits.grow(count.saturating_mul(3))?;
    let mut data = vec![0; count];
    rand::rng().fill(data.as_mut_slice());
    Ok(Value::text(pem::base64_encode(&data)))
}

fn rand_int(_: &mut Limits, args: &[Value]) -> Answer {
    let (min, max) = (args.first().map_or(0, number), args.get(1).map_or(0, number));
    if min >= max {
        return Err("the second number must be greater than the first".into());
    }
    Ok(Value::int(rand::rng().random_range(min..max)))
}

/// The Master Password algorithm.
fn derive_password(limits: &mut Limits, args: &[Value]) -> Answer {
    const SEED: &[u8] = b"com.lyndir.masterpassword";
    let counter = u32::try_from(args.first().map_or(0, number)).map_err(|_| "the counter is no uint32")?;
    let kind = at(args, 1);
    let (password, user, site) = (at(args, 2), at(args, 3), at(args, 4));
    let Some(templates) = password_templates(kind) else {
        return Ok(Value::text([b"cannot find password template ", kind].concat()));
    };
    limits.step(SLOW_HASH)?;
    let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or_default().to_be_bytes();
    let params = scrypt::Params::new(15, 8, 2).map_err(|_| "scrypt does not take its parameters")?;
    let mut key = Zeroizing::new([0; 64]);
    scrypt::scrypt(
        password,
        &[SEED, &length(user), user].concat(),
        &params,
        &mut *key,
    )
    .map_err(|_| "scrypt does not take its parameters")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&*key).map_err(|_| "HMAC does not take its key")?;
    mac.update(&[SEED, &length(site), site, &counter.to_be_bytes()].concat());
    let seed = mac.finalize().into_bytes();
    let pick = |of: &[u8], index: usize| {
        let random = seed.get(index).copied().map_or(0, usize::from);
        random.checked_rem(of.len()).and_then(|i| of.get(i).copied())
    };
    let first = seed.first().copied().map_or(0, usize::from);
    let template = first
        .checked_rem(templates.len())
        .and_then(|i| templates.get(i))
        .copied()
        .unwrap_or_default();
    let text: Vec<u8> = template
        .bytes()
        .enumerate()
        .filter_map(|(i, class)| pick(password_characters(class), i + 1))
        .collect();
    Ok(Value::text(text))
}

fn password_templates(kind: &[u8]) -> Option<&'static [&'static str]> {
    Some(match kind {
        b"maximum" => &["anoxxxxxxxxxxxxxxxxx", "axxxxxxxxxxxxxxxxxno"],
        b"long" => &[
            "CvcvnoCvcvCvcv",
            "CvcvCvcvnoCvcv",
            "CvcvCvcvCvcvno",
            "CvccnoCvcvCvcv",
            "CvccCvcvnoCvcv",
            "CvccCvcvCvcvno",
            "CvcvnoCvccCvcv",
            "CvcvCvccnoCvcv",
            "CvcvCvccCvcvno",
            "CvcvnoCvcvCvcc",
            "CvcvCvcvnoCvcc",
            "CvcvCvcvCvccno",
            "CvccnoCvccCvcv",
            "CvccCvccnoCvcv",
            "CvccCvccCvcvno",
            "CvcvnoCvccCvcc",
            "CvcvCvccnoCvcc",
            "CvcvCvccCvccno",
            "CvccnoCvcvCvcc",
            "CvccCvcvnoCvcc",
            "CvccCvcvCvccno",
        ],
        b"medium" => &["CvcnoCvc", "CvcCvcno"],
        b"short" => &["Cvcn"],
        b"basic" => &["aaanaaan", "aannaaan", "aaannaaa"],
        b"pin" => &["nnnn"],
        _ => return None,
    })
}

fn password_characters(class: u8) -> &'static [u8] {
    match class {
        b'V' => b"AEIOU",
        b'C' => b"BCDFGHJKLMNPQRSTVWXYZ",
        b'v' => b"aeiou",
        b'c' => b"bcdfghjklmnpqrstvwxyz",
        b'a' => b"AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz",
        b'n' => b"0123456789",
        b'o' => b"@&%?,=[]_:-+*$#!'^~;()/.",
        _ => b"AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz0123456789!@#$%^&*()",
    }
}

/// A new RSA key. Finding the primes takes a while, so it costs many steps.
pub(super) fn rsa_key(limits: &mut Limits, bits: usize) -> Result<Key, Fault> {
    limits.step(if bits > 2048 { 2_000_000 } else { 400_000 })?;
    PrivateKey::new(&mut rand::rng(), bits)
        .map(|key| Key::Rsa(Box::new(key)))
        .map_err(|_| "the RSA key cannot be generated".into())
}

fn gen_private_key(limits: &mut Limits, args: &[Value]) -> Answer {
    let kind = at(args, 0);
    limits.step(1_000)?;
    let key = match kind {
        b"" | b"rsa" => rsa_key(limits, 4096)?,
        b"ecdsa" => Key::P256(p256::SecretKey::generate_from_rng(&mut rand::rng())),
        b"ed25519" => Key::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&Zeroizing::new(
            rand::random(),
        )))),
        b"dsa" => return Err("DSA keys are not served; expected rsa, ecdsa or ed25519".into()),
        _ => return Ok(Value::text([b"Unknown type ", kind].concat())),
    };
    Ok(Value::text(key.to_pem()?))
}

fn rsa_decrypt(limits: &mut Limits, args: &[Value]) -> Answer {
    let (scheme, hash, sealed) = (at(args, 0), at(args, 1), at(args, 2));
    match scheme {
        b"None" => return Ok(Value::text(sealed)),
        b"RSA-OAEP" => {}
        _ => return Err("the decryption scheme is not supported; expected None or RSA-OAEP".into()),
    }
    limits.step(RSA_USE)?;
    let (block, _) = pem::decode(at(args, 3)).ok_or("the private key is no PEM")?;
    let Key::Rsa(key) = Key::any(&block.der).ok_or("the private key cannot be read")? else {
        return Err("the private key is no RSA key".into());
    };
    let mut random = rand::rng();
    let plain = match hash {
        b"SHA1" => key.oaep_decrypt_with_rng::<Sha1, _>(&mut random, sealed),
        b"SHA512" => key.oaep_decrypt_with_rng::<Sha512, _>(&mut random, sealed),
        _ => key.oaep_decrypt_with_rng::<Sha256, _>(&mut random, sealed),
    }
    .map_err(|_| "the text does not decrypt with this RSA key and hash")?;
    Ok(Value::text(plain))
}
