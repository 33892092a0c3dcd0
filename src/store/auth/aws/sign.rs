//! AWS Signature Version 4, by AWS's own signer: the settings are ours, and the published test vectors hold
//! them.

use std::time::SystemTime;

use aws_credential_types::Credentials as Keys;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign as sign_request};
use aws_sigv4::sign::v4::SigningParams;
use zeroize::Zeroizing;

/// What is signed; the host comes from the URL.
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// The whole URL.
    pub url: &'a str,
    /// Headers to sign beside the host and the time.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Where a signature holds.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// AWS region, for example `us-east-1`.
    pub region: &'a str,
    /// AWS service, for example `sts`.
    pub service: &'a str,
}

/// Headers by name.
pub type Signed = Vec<(String, Zeroizing<String>)>;

/// The headers that must be sent beside those of the request: `authorization`, `x-amz-date`, and the session
/// token if the keys have one.
///
/// # Errors
/// If the URL or a header is not valid; the text holds neither.
pub fn sign(
    request: &Request<'_>,
    keys: &Keys,
    place: Place<'_>,
    time: SystemTime,
) -> Result<Signed, String> {
    let identity = keys.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(place.region)
        .name(place.service)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| "the signature is incomplete")?
        .into();
    let headers = request.headers.iter().copied();
    let body = SignableBody::Bytes(request.body);
    let signed = SignableRequest::new(request.method, request.url, headers, body)
        .and_then(|signable| sign_request(signable, &params))
        .map_err(|_| "the request to AWS has characters that no header or URL may hold")?;
    let headers = signed.output().headers();
    Ok(headers
        .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())))
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSP\
                         fIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT\
                         7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlz\
                         m8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    fn vector(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
        token: Option<&str>,
    ) -> Signed {
        let keys = Keys::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            token.map(String::from),
            None,
            "test",
        );
        let url = format!("https://example.amazonaws.com{target}");
        let request = Request {
            method,
            url: &url,
            headers,
            body: body.as_bytes(),
        };
        let place = Place {
            region: "us-east-1",
            service: "service",
        };
        // 2015-08-30T12:36:00Z, the time of all vectors.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        sign(&request, &keys, place, time).unwrap()
    }

    fn authorization(headers: &[(String, Zeroizing<String>)]) -> &str {
        &headers
            .iter()
            .find(|(name, _)| name == "authorization")
            .unwrap()
            .1
    }

    /// Name, method, target, headers, body, signed headers, signature.
    type Vector = (
        &'static str,
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
        &'static str,
    );

    // The suite that AWS publishes; an independent computation (HMAC and SHA-256 by hand) gave the same.
    const VECTORS: &[Vector] = &[
        (
            "get-vanilla",
            "GET",
            "/",
            &[],
            "",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "get-vanilla-query-order-key-case",
            "GET",
            "/?Param2=value2&Param1=value1",
            &[],
            "",
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-slashes",
            "GET",
            "//example//",
            &[],
            "",
            "host;x-amz-date",
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "post-vanilla",
            "POST",
            "/",
            &[],
            "",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-header-key-sort",
            "POST",
            "/",
            &[("My-Header1", "value1")],
            "",
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            "/",
            &[("Content-Type", "application/x-www-form-urlencoded")],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "post-x-www-form-urlencoded-parameters",
            "POST",
            "/",
            &[("Content-Type", "application/x-www-form-urlencoded; charset=utf8")],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
        ),
    ];

    #[test]
    fn the_test_vectors_that_aws_publishes_are_met() {
        for (name, method, target, headers, body, signed, signature) in VECTORS {
            let made = vector(method, target, headers, body, None);
            assert_eq!(
                authorization(&made),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders={signed}, Signature={signature}"
                ),
                "{name}"
            );
            assert!(
                made.contains(&("x-amz-date".into(), "20150830T123600Z".to_owned().into())),
                "{name}"
            );
        }
    }

    #[test]
    fn a_session_token_is_sent_and_signed_as_in_the_vector_post_sts_header_before() {
        let made = vector("POST", "/", &[], "", Some(TOKEN));
        assert!(made.contains(&("x-amz-security-token".into(), TOKEN.to_owned().into())));
        assert_eq!(
            authorization(&made),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-security-token, \
             Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
        );
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_refused_without_its_value() {
        let keys = Keys::new("AKID", "secret", None, None, "test");
        let request = Request {
            method: "POST",
            url: "https://example.amazonaws.com/",
            headers: &[("x-vault-aws-iam-server-id", "hunter\n2")],
            body: b"",
        };
        let place = Place {
            region: "us-east-1",
            service: "sts",
        };
        let error = sign(&request, &keys, place, SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(
            error.contains("no header") && !error.contains("hunter"),
            "{error}"
        );
    }
}
