//! Decoding of values, as strict as Go's decoder.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::api::external_secret::DecodingStrategy;
use crate::secret::SecretBytes;

/// Decodes a value; `None` if it is not of the form that the strategy demands.
#[must_use]
pub fn decode(value: SecretBytes, strategy: DecodingStrategy) -> Option<SecretBytes> {
    match strategy {
        DecodingStrategy::None => Some(value),
        DecodingStrategy::Base64 => standard(&value),
        DecodingStrategy::Base64Url => url_safe(&value),
        DecodingStrategy::Auto => Some(standard(&value).or_else(|| url_safe(&value)).unwrap_or(value)),
    }
}

/// Go's decoder skips line ends inside its input.
fn without_line_ends(value: &SecretBytes) -> Vec<u8> {
    value
        .expose()
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect()
}

fn standard(value: &SecretBytes) -> Option<SecretBytes> {
    STANDARD
        .decode(without_line_ends(value))
        .ok()
        .map(SecretBytes::new)
}

fn url_safe(value: &SecretBytes) -> Option<SecretBytes> {
    URL_SAFE
        .decode(without_line_ends(value))
        .ok()
        .map(SecretBytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str, strategy: DecodingStrategy) -> Option<Vec<u8>> {
        decode(text.into(), strategy).map(|value| value.expose().to_vec())
    }

    #[test]
    fn each_strategy_does_what_esos_does() {
        use DecodingStrategy::{Auto, Base64, Base64Url, None as Raw};
        assert_eq!(decoded("YmFy", Base64).as_deref(), Some(b"bar".as_slice()));
        assert_eq!(decoded("Ym\nFy\r\n", Base64).as_deref(), Some(b"bar".as_slice()));
        assert_eq!(decoded("foo", Base64), None);
        assert_eq!(
            decoded("_-8=", Base64Url).as_deref(),
            Some([0xff, 0xef].as_slice())
        );
        assert_eq!(decoded("_-8=", Base64), None);
        assert_eq!(decoded("YmFy", Raw).as_deref(), Some(b"YmFy".as_slice()));
        assert_eq!(
            decoded("happy street", Auto).as_deref(),
            Some(b"happy street".as_slice())
        );
        assert_eq!(decoded("Z3JlYXQ=", Auto).as_deref(), Some(b"great".as_slice()));
    }
}
