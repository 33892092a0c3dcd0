//! Base64 and base32. What cannot be decoded gives the text of Go's error, as in sprig.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32;

use super::{Answer, Func, Ty, args, func};
use crate::template::limits::Limits;
use crate::template::value::Value;

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("b64enc", &[Ty::Text], |limits, list| {
        encode(limits, list, |data| STANDARD.encode(data))
    }),
    func("b64dec", &[Ty::Text], |limits, list| {
        decode(limits, list, "base64", decode_64)
    }),
    func("b32enc", &[Ty::Text], |limits, list| {
        encode(limits, list, |data| BASE32.encode(data))
    }),
    func("b32dec", &[Ty::Text], |limits, list| {
        decode(limits, list, "base32", decode_32)
    }),
];

fn encode(limits: &mut Limits, list: &[Value], encode: fn(&[u8]) -> String) -> Answer {
    let data = args::text(list, 0);
    limits.grow(data.len().saturating_mul(2))?;
    Ok(Value::text(encode(data)))
}

fn decode(
    limits: &mut Limits,
    list: &[Value],
    name: &str,
    decode: fn(&[u8]) -> Result<Vec<u8>, usize>,
) -> Answer {
    let text = args::text(list, 0);
    limits.grow(text.len())?;
    Ok(match decode(text) {
        Ok(data) => Value::text(data),
        Err(offset) => Value::text(format!("illegal {name} data at input byte {offset}")),
    })
}

fn newline(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn digit_64(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Go's `base64.StdEncoding`: line breaks are skipped, bits that are left over may be set. The error is the
/// offset that Go names.
pub(super) fn decode_64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut made = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut group: u32 = 0;
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        if let Some(digit) = digit_64(*byte) {
            group = group << 6 | u32::from(digit);
            digits += 1;
            if digits == 4 {
                let [_, bytes @ ..] = group.to_be_bytes();
                made.extend_from_slice(&bytes);
                (group, digits) = (0, 0);
            }
        } else if *byte == b'=' {
            padding_64(text, at, digits)?;
            let [_, first, second, _] = (group << (24 - 6 * digits)).to_be_bytes();
            made.push(first);
            if digits == 3 {
                made.push(second);
            }
            return Ok(made);
        } else if !newline(byte) {
            return Err(at);
        }
    }
    match digits {
        0 => Ok(made),
        // Go counts back from the end, also where a line break came between.
        digits => Err(text.len().saturating_sub(digits)),
    }
}

/// Checks what follows the first `=`, which is at this offset after so many digits of a group.
fn padding_64(text: &[u8], at: usize, digits: usize) -> Result<(), usize> {
    if digits < 2 {
        return Err(at);
    }
    let next = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter()
            .position(|byte| !newline(byte))
            .map(|index| from.saturating_add(index))
    };
    let mut after = at.saturating_add(1);
    if digits == 2 {
        let second = next(after).ok_or(text.len())?;
        if text.get(second) != Some(&b'=') {
            return Err(second.saturating_sub(1));
        }
        after = second.saturating_add(1);
    }
    next(after).map_or(Ok(()), Err)
}

fn digit_32(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

/// Go's `base32.StdEncoding`. Offsets are counted without line breaks.
fn decode_32(text: &[u8]) -> Result<Vec<u8>, usize> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !newline(byte)).collect();
    let mut made = Vec::with_capacity(text.len() / 8 * 5 + 5);
    let mut group: u64 = 0;
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        let left = text.len().saturating_sub(at).saturating_sub(1);
        if *byte == b'=' && digits >= 2 && left < 8 {
            if left + digits < 7 {
                return Err(text.len());
            }
            let padding = text.iter().enumerate().skip(at + 1).take(7 - digits);
            for (index, byte) in padding {
                if *byte != b'=' {
                    return Err(index.saturating_sub(1));
                }
            }
            if matches!(digits, 3 | 6) {
                return Err(at);
            }
            let bytes = (group << (40 - 5 * digits)).to_be_bytes();
            made.extend(bytes.iter().skip(3).take(digits * 5 / 8));
            return Ok(made);
        }
        let digit = digit_32(*byte).ok_or(at)?;
        group = group << 5 | u64::from(digit);
        digits += 1;
        if digits == 8 {
            made.extend(group.to_be_bytes().iter().skip(3));
            (group, digits) = (0, 0);
        }
    }
    match digits {
        0 => Ok(made),
        digits => Err(text.len().saturating_sub(digits)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(data in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode_64(STANDARD.encode(&data).as_bytes()), Ok(data.clone()));
            prop_assert_eq!(decode_32(BASE32.encode(&data).as_bytes()), Ok(data));
        }

        #[test]
        fn no_text_makes_the_decoders_panic(text in "[A-Za-z2-7=\n]{0,24}") {
            let _ = decode_64(text.as_bytes());
            let _ = decode_32(text.as_bytes());
        }
    }
}
