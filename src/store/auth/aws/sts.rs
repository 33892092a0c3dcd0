//! The Security Token Service: temporary keys for a role, and where the service is.

use std::time::SystemTime;

use aws_credential_types::Credentials as Keys;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::sign::{Place, Request, sign};
use super::{keys, wire};

/// The version of the API that all callers use.
pub const VERSION: &str = "2011-06-15";
/// The type of the body of every request.
pub const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The name that ESO gives to its sessions: trust policies may ask for it.
const SESSION: &str = "external-secrets-provider-vault";

/// Regions where the first SDKs, and with them Vault's clients, name the global endpoint.
const GLOBAL: &[&str] = &[
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// Prefixes of regions outside of `amazonaws.com`, and where they are.
const PARTITIONS: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
];

/// Error codes of STS that are worth showing, and what to do. A body may echo what was sent, so only what is in
/// this table ever reaches a message (promise 8).
const CODES: &[(&str, &str)] = &[
    (
        "AccessDenied",
        "the trust policy of the role does not allow it: correct it, or name another role",
    ),
    (
        "ExpiredToken",
        "the session token has expired: put a living one into the Secret",
    ),
    (
        "ExpiredTokenException",
        "the ServiceAccount token has expired: compare the clocks",
    ),
    (
        "IDPCommunicationError",
        "AWS cannot reach the issuer of the ServiceAccount token",
    ),
    (
        "IDPRejectedClaim",
        "the issuer of the ServiceAccount token was not accepted: check the trust policy of the role and the audience",
    ),
    (
        "InvalidClientTokenId",
        "AWS does not know the access key ID, or the session token is not of the same keys",
    ),
    (
        "InvalidIdentityToken",
        "AWS does not trust the issuer of the ServiceAccount token: make an IAM OIDC provider for the cluster, with \
         the audience of the token",
    ),
    (
        "RegionDisabledException",
        "STS is not activated in that region: activate it, or correct auth.iam.region",
    ),
    (
        "RequestExpired",
        "the clocks of the operator's node and of AWS differ",
    ),
    (
        "SignatureDoesNotMatch",
        "the secret access key is not of that access key ID, or the clocks differ",
    ),
    ("Throttling", "AWS limits the rate of requests; it is tried again"),
    (
        "ValidationError",
        "the ARN of the role or the external ID is not valid",
    ),
];

/// STS of one region.
pub struct Sts<'a> {
    region: &'a str,
    endpoint: String,
}

impl<'a> Sts<'a> {
    /// At the standard address of the region, unless `AWS_ENDPOINT_URL_STS` (or `AWS_STS_ENDPOINT`, which ESO knows)
    /// names another, as for a VPC endpoint.
    ///
    /// # Errors
    /// If what the variable names is no URL.
    pub fn new(region: &'a str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let named = ["AWS_ENDPOINT_URL_STS", "AWS_STS_ENDPOINT"]
            .into_iter()
            .find_map(|name| Some((name, variable(name).filter(|url| !url.is_empty())?)));
        let endpoint = match named {
            Some((name, text)) => Url::parse(&text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"))
                .map(String::from)
                .ok_or_else(|| {
                    format!("{name} of the operator's pod is no URL; it is for example https://sts.eu-west-1.amazonaws.com")
                })?,
            None => regional(region),
        };
        Ok(Self { region, endpoint })
    }

    /// Temporary keys for a role.
    ///
    /// # Errors
    /// What went wrong and what to do, without any value of the answer.
    pub async fn assume_role(
        &self,
        keys: &Keys,
        role: &str,
        external_id: Option<&str>,
    ) -> Result<Keys, String> {
        let mut form = vec![("Action", "AssumeRole"), ("RoleArn", role)];
        form.extend(external_id.map(|id| ("ExternalId", id)));
        self.assume(role, &form, Some(keys)).await
    }

    /// Temporary keys for a role, for a token of a ServiceAccount.
    ///
    /// # Errors
    /// As [`Self::assume_role`].
    pub async fn assume_role_with_web_identity(&self, role: &str, token: &str) -> Result<Keys, String> {
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", role),
            ("WebIdentityToken", token.trim()),
        ];
        self.assume(role, &form, None).await
    }

    async fn assume(&self, role: &str, form: &[(&str, &str)], signer: Option<&Keys>) -> Result<Keys, String> {
        let failed = |why: &str| format!("cannot assume the AWS role '{role}': STS {} {why}", self.endpoint);
        let body = Zeroizing::new(
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(form)
                .append_pair("RoleSessionName", SESSION)
                .append_pair("Version", VERSION)
                .finish(),
        );
        let mut headers = vec![("content-type".to_owned(), Zeroizing::new(FORM.to_owned()))];
        if let Some(keys) = signer {
            let request = Request {
                method: "POST",
                url: &self.endpoint,
                headers: &[("content-type", FORM)],
                body: body.as_bytes(),
            };
            let place = Place {
                region: self.region,
                service: "sts",
            };
            headers.extend(sign(&request, keys, place, SystemTime::now())?);
        }
        let headers = wire::sensitive(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        )?;
        let request = wire::client()?.post(&self.endpoint).headers(headers);
        let answer = wire::exchange(request.body(body.as_bytes().to_vec()))
            .await
            .map_err(failed)?;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        if answer.status == 200 {
            return temporary(text).ok_or_else(|| failed("answered in a form that is not known"));
        }
        Err(failed(&refusal(answer.status, text)))
    }
}

fn refusal(status: u16, body: &str) -> String {
    let code = element(body, "Code").unwrap_or_default();
    match CODES.iter().find(|(known, _)| *known == code) {
        Some((code, advice)) => format!("answered {status} ({code}); {advice}"),
        None => format!("answered {status}"),
    }
}

fn temporary(body: &str) -> Option<Keys> {
    let part = |name| element(body, name).map(str::as_bytes);
    let session = part("SessionToken")?;
    keys(part("AccessKeyId")?, part("SecretAccessKey")?, Some(session)).ok()
}

/// The text of the first element of a name that has no attributes. What STS puts into those that are read here is
/// letters, digits and `+/=`, so anything with an entity or an element inside is not understood.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty() && !text.contains(['<', '&']))
}

/// The standard address of STS in a region.
fn regional(region: &str) -> String {
    let elsewhere = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    let domain = elsewhere.map_or("amazonaws.com", |(_, domain)| domain);
    format!("https://sts.{region}.{domain}/")
}

/// The URL that Vault's own clients sign: Vault sends it to the endpoint of its own settings, under this host name.
#[must_use]
pub fn signed_url(region: &str) -> String {
    if GLOBAL.contains(&region) {
        return "https://sts.amazonaws.com/".into();
    }
    regional(region)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_address() {
        for (region, url) in [
            ("eu-west-1", "https://sts.eu-west-1.amazonaws.com/"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com/"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"),
            ("us-isob-east-1", "https://sts.us-isob-east-1.sc2s.sgov.gov/"),
            ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu/"),
        ] {
            assert_eq!(regional(region), url);
        }
    }

    #[test]
    fn the_request_for_vault_names_the_global_host_where_vaults_own_clients_do() {
        assert_eq!(signed_url("us-east-1"), "https://sts.amazonaws.com/");
        assert_eq!(signed_url("eu-west-1"), "https://sts.amazonaws.com/");
        assert_eq!(signed_url("eu-south-1"), "https://sts.eu-south-1.amazonaws.com/");
    }

    #[test]
    fn the_standard_variable_and_that_of_eso_name_another_address() {
        let named = |variable: &'static str, url: &'static str| {
            Sts::new("eu-west-1", &move |name: &str| {
                (name == variable).then(|| url.into())
            })
            .map(|sts| sts.endpoint)
        };
        let other = Ok("http://127.0.0.1:9/".to_owned());
        assert_eq!(named("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9"), other);
        assert_eq!(named("AWS_STS_ENDPOINT", "http://127.0.0.1:9"), other);
        let usual = Ok("https://sts.eu-west-1.amazonaws.com/".to_owned());
        assert_eq!(named("AWS_ENDPOINT_URL_STS", ""), usual);
        assert_eq!(named("OTHER", "http://127.0.0.1:9"), usual);
        for url in ["sts.eu-west-1.amazonaws.com", "ftp://sts", "https://"] {
            let error = named("AWS_STS_ENDPOINT", url).unwrap_err();
            assert!(
                error.starts_with("AWS_STS_ENDPOINT of the operator's pod is no URL"),
                "{error}"
            );
        }
    }

    const KEYS: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
                        <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>a+b/c</SecretAccessKey>\
                        <SessionToken>\n  t== </SessionToken><Expiration>2026-01-01T00:00:00Z</Expiration>\
                        </Credentials></AssumeRoleResult></AssumeRoleResponse>";

    #[test]
    fn the_keys_of_an_answer_are_read() {
        let keys = temporary(KEYS).unwrap();
        assert_eq!(
            (
                keys.access_key_id(),
                keys.secret_access_key(),
                keys.session_token()
            ),
            ("ASIA1", "a+b/c", Some("t=="))
        );
    }

    #[test]
    fn an_answer_that_lacks_a_key_or_is_no_answer_of_sts_is_not_understood() {
        for body in [
            String::new(),
            "{}".into(),
            "<html>".into(),
            KEYS.replace("<SessionToken>", "<SessionToken x=\"1\">"),
            KEYS.replace("</SecretAccessKey>", ""),
            KEYS.replace("a+b/c", ""),
            KEYS.replace("a+b/c", "a&amp;b"),
            KEYS.replace("ASIA1", "<b>ASIA1</b>"),
            KEYS[..KEYS.len() / 2].to_owned(),
        ] {
            assert!(temporary(&body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_refusal_shows_codes_that_are_known_and_nothing_else_of_the_body() {
        let body = |code: &str| {
            format!(
                "<ErrorResponse><Error><Code>{code}</Code><Message>hunter2</Message></Error></ErrorResponse>"
            )
        };
        let known = refusal(403, &body("AccessDenied"));
        assert!(
            known.starts_with("answered 403 (AccessDenied); the trust policy"),
            "{known}"
        );
        assert_eq!(refusal(403, &body("hunter2")), "answered 403");
        assert_eq!(refusal(502, "<html>hunter2</html>"), "answered 502");
    }
}
