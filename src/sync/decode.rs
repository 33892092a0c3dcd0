//! Decoding of values and the check for null bytes.

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::api::external_secret::{DecodingStrategy, NullBytePolicy};
use crate::secret::SecretBytes;

/// The value is not what the decoding strategy says; never holds any of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "error applying decoding strategy {strategy} to data: {what} is not valid {strategy} with padding; correct the \
     value in the store, or set decodingStrategy: None"
)]
pub struct DecodeError {
    strategy: &'static str,
    what: String,
}

/// A value holds a null byte although the policy forbids it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} holds a null byte, which nullBytePolicy: Fail forbids; correct the value in the store, or set \
     nullBytePolicy: Ignore"
)]
pub struct NullByteError {
    what: String,
}

/// Decodes a value. `what` names it in an error, for example `the value of key "tls.crt"`.
pub fn decode(
    value: SecretBytes,
    strategy: DecodingStrategy,
    what: &str,
) -> Result<SecretBytes, DecodeError> {
    let failed = |strategy| DecodeError {
        strategy,
        what: what.to_owned(),
    };
    match strategy {
        DecodingStrategy::None => Ok(value),
        DecodingStrategy::Base64 => base64(&value, &STANDARD).ok_or_else(|| failed("Base64")),
        DecodingStrategy::Base64Url => base64(&value, &URL_SAFE).ok_or_else(|| failed("Base64URL")),
        DecodingStrategy::Auto => Ok(base64(&value, &STANDARD)
            .or_else(|| base64(&value, &URL_SAFE))
            .unwrap_or(value)),
    }
}

/// Go's decoder: padding is required, line breaks anywhere are ignored, stray bits at the end are too.
fn base64(value: &SecretBytes, alphabet: &Alphabet) -> Option<SecretBytes> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    let joined = value
        .expose()
        .iter()
        .copied()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    let joined = SecretBytes::new(joined);
    GeneralPurpose::new(alphabet, config)
        .decode(joined.expose())
        .ok()
        .map(SecretBytes::new)
}

/// Refuses a null byte where the policy does.
pub fn check_null_bytes(
    value: &SecretBytes,
    policy: NullBytePolicy,
    what: &str,
) -> Result<(), NullByteError> {
    match policy {
        NullBytePolicy::Fail if value.expose().contains(&0) => Err(NullByteError {
            what: what.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(value: &str, strategy: DecodingStrategy) -> Option<Vec<u8>> {
        decode(value.into(), strategy, "the value")
            .ok()
            .map(|value| value.expose().to_vec())
    }

    #[test]
    fn base64_wants_the_standard_alphabet() {
        assert_eq!(decoded("YmFy", DecodingStrategy::Base64).unwrap(), b"bar");
        assert_eq!(decoded("--__", DecodingStrategy::Base64), None);
    }

    #[test]
    fn base64_url_wants_the_url_alphabet() {
        assert_eq!(
            decoded("__79", DecodingStrategy::Base64Url).unwrap(),
            [0xff, 0xfe, 0xfd]
        );
        assert_eq!(decoded("//79", DecodingStrategy::Base64Url), None);
    }

    #[test]
    fn padding_is_required_as_in_go() {
        assert_eq!(decoded("foo", DecodingStrategy::Base64), None);
        assert_eq!(decoded("YmE=", DecodingStrategy::Base64).unwrap(), b"ba");
        assert_eq!(decoded("YmE", DecodingStrategy::Base64), None);
        assert_eq!(decoded("YmFy=", DecodingStrategy::Base64), None);
    }

    #[test]
    fn line_breaks_are_ignored_as_in_go() {
        assert_eq!(decoded("Ym\r\nFy\n", DecodingStrategy::Base64).unwrap(), b"bar");
        assert_eq!(decoded("YmE\n=", DecodingStrategy::Base64).unwrap(), b"ba");
        assert_eq!(decoded("YmFy ", DecodingStrategy::Base64), None);
    }

    #[test]
    fn stray_bits_at_the_end_are_ignored_as_in_go() {
        assert_eq!(decoded("YmF=", DecodingStrategy::Base64).unwrap(), b"ba");
    }

    #[test]
    fn none_changes_nothing() {
        assert_eq!(decoded("YmFy", DecodingStrategy::None).unwrap(), b"YmFy");
    }

    #[test]
    fn auto_tries_base64_then_base64_url_then_takes_the_value_as_it_is() {
        assert_eq!(
            decoded("//79", DecodingStrategy::Auto).unwrap(),
            [0xff, 0xfe, 0xfd]
        );
        assert_eq!(
            decoded("__79", DecodingStrategy::Auto).unwrap(),
            [0xff, 0xfe, 0xfd]
        );
        assert_eq!(decoded("foo", DecodingStrategy::Auto).unwrap(), b"foo");
    }

    #[test]
    fn the_error_names_the_strategy_and_not_the_value() {
        let error = decode(
            "hunter2".into(),
            DecodingStrategy::Base64Url,
            "the value of key \"a\"",
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("error applying decoding strategy Base64URL to data: the value of key \"a\"")
        );
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn null_bytes_are_refused_only_by_policy_fail() {
        let value = SecretBytes::new(b"A\0B".to_vec());
        assert!(check_null_bytes(&value, NullBytePolicy::Ignore, "it").is_ok());
        assert!(check_null_bytes(&value, NullBytePolicy::Fail, "it").is_err());
        assert!(check_null_bytes(&"AB".into(), NullBytePolicy::Fail, "it").is_ok());
    }

    proptest! {
        #[test]
        fn auto_never_fails(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(SecretBytes::new(bytes), DecodingStrategy::Auto, "it").is_ok());
        }
    }
}
