//! What logging in by AWS needs of AWS: keys, signatures, and the Security Token Service (STS).

pub mod own;
pub mod sign;
pub mod sts;
mod wire;

use aws_credential_types::Credentials as Keys;

/// Keys as users store them: a trailing newline, as `echo` makes it, is cut.
///
/// # Errors
/// Which of them is empty or has characters that no key has.
pub fn keys(id: &[u8], secret: &[u8], session: Option<&[u8]>) -> Result<Keys, String> {
    let session = session.map(|token| visible(token, "session token")).transpose()?;
    Ok(Keys::new(
        visible(id, "access key ID")?,
        visible(secret, "secret access key")?,
        session,
        None,
        "keyferry",
    ))
}

/// All three end in headers or in a key of ASCII text.
fn visible(bytes: &[u8], what: &str) -> Result<String, String> {
    let trimmed = bytes.trim_ascii();
    let text = std::str::from_utf8(trimmed).ok();
    text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(String::from)
        .ok_or_else(|| format!("the {what} is empty, or has characters that none has"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_trailing_newlines_are_trimmed() {
        let keys = keys(b"AKID\n", b" se/cret+\r\n", Some(b"token=\n")).unwrap();
        assert_eq!(
            (
                keys.access_key_id(),
                keys.secret_access_key(),
                keys.session_token()
            ),
            ("AKID", "se/cret+", Some("token="))
        );
    }

    #[test]
    fn keys_that_cannot_be_are_refused_by_the_name_of_the_part_and_without_their_value() {
        let cases = [
            (keys(b"", b"s", None), "access key ID"),
            (keys(b"AKID", b"\n", None), "secret access key"),
            (
                keys(b"AKID", "hunter\u{e9}".as_bytes(), None),
                "secret access key",
            ),
            (keys(b"AKID", b"s", Some(b"hunter 2")), "session token"),
            (keys(b"hunter\n2", b"s", None), "access key ID"),
        ];
        for (result, part) in cases {
            let error = result.err().unwrap();
            assert!(error.contains(part) && !error.contains("hunter"), "{error}");
        }
    }
}
