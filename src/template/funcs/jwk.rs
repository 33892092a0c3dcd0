//! JSON Web Keys as PEM.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::pkcs8::EncodePublicKey as _;
use rsa::{BoxedUint, PrivateKey, PublicKey};
use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use super::super::limits::Limits;
use super::super::value::Value;
use super::pem::{self, Key};
use super::{Answer, Fault, Func, Ty, bytes, func};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("jwkPrivateKeyPem", &[Ty::Text], private_pem),
    func("jwkPublicKeyPem", &[Ty::Text], public_pem),
];

/// Steps that one key costs.
const COST: u64 = 20_000;
/// Bytes of the largest RSA modulus: 8192 bits.
const MODULUS: usize = 1024;

/// The members of a key.
struct Jwk(Map<String, Json>);

impl Jwk {
    fn parse(limits: &mut Limits, args: &[Value]) -> Result<Self, Fault> {
        let text = args.first().map_or(&[][..], bytes);
        pem::pass(limits, text)?;
        limits.grow(text.len())?;
        limits.step(COST)?;
        match serde_json::from_slice(text) {
            Ok(Json::Object(members)) => Ok(Self(members)),
            Ok(_) => Err("the JWK is no JSON object".into()),
            Err(_) => Err("the JWK is no JSON".into()),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Json::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A member in base64url. The standard alphabet and padding are taken, too.
    fn number(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let text = self
            .text(name)
            .ok_or_else(|| Fault::from(format!("the JWK has no member {name}")))?;
        let text: Zeroizing<String> = Zeroizing::new(
            text.trim_end_matches('=')
                .chars()
                .map(|c| match c {
                    '+' => '-',
                    '/' => '_',
                    other => other,
                })
                .collect(),
        );
        URL_SAFE_NO_PAD
            .decode(text.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| format!("the JWK's member {name} is no base64url").into())
    }

    /// A number with exactly so many bytes.
    fn padded(&self, name: &str, size: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let number = self.number(name)?;
        let digits = number
            .iter()
            .position(|byte| *byte != 0)
            .map_or(&[][..], |at| number.get(at..).unwrap_or_default());
        let zeros = size
            .checked_sub(digits.len())
            .ok_or_else(|| Fault::from(format!("the JWK's member {name} is too long")))?;
        let mut padded = Zeroizing::new(vec![0; zeros]);
        padded.extend_from_slice(digits);
        Ok(padded)
    }

    /// The point as SEC 1 writes it, uncompressed.
    fn point(&self, size: usize) -> Result<Vec<u8>, Fault> {
        Ok([&[4][..], &self.padded("x", size)?, &self.padded("y", size)?].concat())
    }

    fn big(&self, name: &str) -> Result<BoxedUint, Fault> {
        let number = self.number(name)?;
        if number.len() > MODULUS {
            return Err(format!("the JWK's member {name} has more than {} bits", MODULUS * 8).into());
        }
        let bits = u32::try_from(number.len() * 8).unwrap_or_default();
        BoxedUint::from_be_slice(&number, bits)
            .map_err(|_| format!("the JWK's member {name} is no number").into())
    }

    fn rsa_public(&self) -> Result<PublicKey, Fault> {
        PublicKey::new(self.big("n")?, self.big("e")?)
            .map_err(|_| "the JWK is no valid RSA key of 1024 to 8192 bits".into())
    }

    fn rsa_private(&self) -> Result<Key, Fault> {
        // Like Go, we do not search for primes that are not given.
        let primes = vec![self.big("p")?, self.big("q")?];
        PrivateKey::from_components(self.big("n")?, self.big("e")?, self.big("d")?, primes)
            .map(|key| Key::Rsa(Box::new(key)))
            .map_err(|_| "the JWK is no valid RSA private key of 1024 to 8192 bits".into())
    }

    fn ec_private(&self) -> Result<Key, Fault> {
        const BAD: &str = "the JWK's member d is no private key of its curve";
        let (key, size) = match self.text("crv") {
            Some("P-256") => (
                p256::SecretKey::from_slice(&self.padded("d", 32)?)
                    .map(Key::P256)
                    .map_err(|_| BAD),
                32,
            ),
            Some("P-384") => (
                p384::SecretKey::from_slice(&self.padded("d", 48)?)
                    .map(Key::P384)
                    .map_err(|_| BAD),
                48,
            ),
            Some("P-521") => (
                p521::SecretKey::from_slice(&self.padded("d", 66)?)
                    .map(Key::P521)
                    .map_err(|_| BAD),
                66,
            ),
            _ => return Err("expected crv P-256, P-384 or P-521 of the EC JWK".into()),
        };
        let key = key?;
        // A PKIX key ends with its point.
        if !key.public()?.ends_with(&self.point(size)?) {
            return Err("the JWK's members x and y do not belong to its member d".into());
        }
        Ok(key)
    }

    fn ec_public(&self) -> Result<Vec<u8>, Fault> {
        let document = match self.text("crv") {
            Some("P-256") => p256::PublicKey::from_sec1_bytes(&self.point(32)?)
                .ok()
                .map(|key| key.to_public_key_der()),
            Some("P-384") => p384::PublicKey::from_sec1_bytes(&self.point(48)?)
                .ok()
                .map(|key| key.to_public_key_der()),
            Some("P-521") => p521::PublicKey::from_sec1_bytes(&self.point(66)?)
                .ok()
                .map(|key| key.to_public_key_der()),
            _ => return Err("expected crv P-256, P-384 or P-521 of the EC JWK".into()),
        };
        document
            .and_then(Result::ok)
            .map(|document| document.into_vec())
            .ok_or_else(|| "the JWK's members x and y are no point of its curve".into())
    }

    fn ed25519(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, Fault> {
        if self.text("crv") != Some("Ed25519") {
            return Err("expected crv Ed25519 of the OKP JWK".into());
        }
        let number = self.number(name)?;
        <[u8; 32]>::try_from(number.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| format!("the JWK's member {name} does not have 32 bytes").into())
    }

    fn okp_private(&self) -> Result<Key, Fault> {
        let key = ed25519_dalek::SigningKey::from_bytes(&*self.ed25519("d")?);
        if key.verifying_key().as_bytes() != &*self.ed25519("x")? {
            return Err("the JWK's member x does not belong to its member d".into());
        }
        Ok(Key::Ed25519(Box::new(key)))
    }

    /// The prefix is the algorithm; the key itself need not be checked.
    fn okp_public(&self) -> Result<Vec<u8>, Fault> {
        const PREFIX: [u8; 12] = [
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        Ok([&PREFIX[..], &*self.ed25519("x")?].concat())
    }
}

fn private_pem(limits: &mut Limits, args: &[Value]) -> Answer {
    let jwk = Jwk::parse(limits, args)?;
    if jwk.text("kty") != Some("oct") && !jwk.has("d") {
        return Err("the JWK is a public key; expected a private key".into());
    }
    let key = match jwk.text("kty") {
        Some("RSA") => jwk.rsa_private(),
        Some("EC") => jwk.ec_private(),
        Some("OKP") => jwk.okp_private(),
        _ => Err("expected kty RSA, EC or OKP of the JWK".into()),
    }?;
    Ok(Value::text(pem::encode(
        pem::PRIVATE_KEY,
        key.to_pkcs8()?.as_bytes(),
    )))
}

fn public_pem(limits: &mut Limits, args: &[Value]) -> Answer {
    let jwk = Jwk::parse(limits, args)?;
    if jwk.text("kty") != Some("oct") && jwk.has("d") {
        return Err("the JWK is a private key; expected a public key".into());
    }
    let der = match jwk.text("kty") {
        Some("RSA") => jwk
            .rsa_public()?
            .to_public_key_der()
            .map(|document| document.into_vec())
            .map_err(|_| Fault::from("the public key cannot be written")),
        Some("EC") => jwk.ec_public(),
        Some("OKP") => jwk.okp_public(),
        _ => Err("expected kty RSA, EC or OKP of the JWK".into()),
    }?;
    Ok(Value::text(pem::encode("PUBLIC KEY", &der)))
}
