//! `iam`: Vault's AWS auth method. The proof is a request to AWS, signed but not sent: Vault sends it, and AWS says
//! who signed it.

use std::time::SystemTime;

use async_trait::async_trait;
use aws_credential_types::Credentials as Keys;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::aws::own::Own;
use super::aws::sign::{Place, Request, sign};
use super::aws::sts::{FORM, Sts, VERSION, signed_url};
use super::aws::{self};
use super::{Method, Proof, login_at, mount_or, no_role, role_at, text};
use crate::api::vault::{VaultAwsAuthSecretRef, VaultAwsJwtAuth, VaultIamAuth};
use crate::store::credentials::{CredentialError, Credentials, Identity, JwtSource, TOKEN_SECONDS};
use crate::store::scope::{Invalid, Need, ReferenceKind, Scope, SecretKey, object_name};
use crate::vault::error::VaultError;
use crate::vault::transport::object_of;

const REGION: &str = "us-east-1";
const SERVER_ID: &str = "x-vault-aws-iam-server-id";
/// Annotations of a ServiceAccount by which EKS knows them too.
const ROLE_ANNOTATION: &str = "eks.amazonaws.com/role-arn";
const AUDIENCE_ANNOTATION: &str = "eks.amazonaws.com/audience";
const AUDIENCE: &str = "sts.amazonaws.com";

/// What Vault says of a proof that it does not take, and what to do.
const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "does not belong to the role",
        "correct bound_iam_principal_arn of the role, or use other keys",
    ),
    (
        "auth method iam not allowed",
        "the role is one for EC2; make one with auth_type=iam",
    ),
    (
        "error validating X-Vault-AWS-IAM-Server-ID header",
        "set auth.iam.vaultAwsIamServerID to iam_header_value of the mount",
    ),
    (
        "InvalidClientTokenId",
        "AWS does not know the access key ID, or the session token is not of the same keys",
    ),
    (
        "SignatureDoesNotMatch",
        "AWS refuses the signature: the secret access key is not of that access key ID, or the region or a clock is \
         wrong",
    ),
    (
        "ExpiredToken",
        "the session token has expired; put a living one into the Secret",
    ),
    (
        "error making upstream request",
        "AWS did not tell Vault who signed: check sts_endpoint and sts_region of the mount, Vault's way to AWS, and the \
         clocks",
    ),
];

/// The fields of the login's body.
type Fields = [(&'static str, Zeroizing<String>); 5];

/// A login by the AWS auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iam {
    mount: String,
    vault_role: String,
    region: String,
    /// AWS role to assume before, and its external ID.
    assume: Option<(String, Option<String>)>,
    server_id: Option<String>,
    source: Source,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A ServiceAccount whose annotation names an AWS role.
    Account {
        /// `None` as in [`SecretKey`].
        namespace: Option<String>,
        name: String,
        /// Audiences beside that of AWS.
        audiences: Vec<String>,
    },
    /// Secrets.
    Keys {
        id: SecretKey,
        secret: SecretKey,
        session: Option<SecretKey>,
    },
    /// The operator's own pod.
    Own,
}

impl Iam {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultIamAuth) -> Result<Self, Invalid> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let region = given(&auth.region).unwrap_or_else(|| REGION.into());
        if !is_region(&region) {
            return Err(Invalid(format!(
                "{} is no AWS region, for example eu-west-1",
                scope.field("auth.iam.region")
            )));
        }
        let source = match (&auth.jwt, &auth.secret_ref) {
            (Some(jwt), _) => Source::account(scope, jwt)?,
            (None, Some(secrets)) => Source::keys(scope, secrets)?,
            (None, None) => scope
                .own_identity(&scope.field("auth.iam"))
                .map(|()| Source::Own)?,
        };
        Ok(Self {
            mount: mount_or(auth.path.as_deref(), "aws"),
            vault_role: auth.vault_role.clone(),
            region,
            assume: given(&auth.role).map(|role| (role, given(&auth.external_id))),
            server_id: given(&auth.vault_aws_iam_server_id),
            source,
        })
    }

    /// The login with a signed request to say who we are.
    fn login(&self, keys: &Keys, time: SystemTime) -> Result<Fields, String> {
        let url = signed_url(&self.region);
        let body = format!("Action=GetCallerIdentity&Version={VERSION}");
        let mut headers = vec![("content-type", FORM)];
        headers.extend(self.server_id.as_deref().map(|id| (SERVER_ID, id)));
        let request = Request {
            method: "POST",
            url: &url,
            headers: &headers,
            body: body.as_bytes(),
        };
        let place = Place {
            region: &self.region,
            service: "sts",
        };
        let signed = sign(&request, keys, place, time)?;
        let all = headers.iter().copied();
        let all = all.chain(signed.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let headers = object_of(&all.collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        Ok([
            ("role", self.vault_role.clone().into()),
            ("iam_http_request_method", Zeroizing::new(request.method.into())),
            ("iam_request_url", STANDARD.encode(&url).into()),
            ("iam_request_body", STANDARD.encode(&body).into()),
            ("iam_request_headers", STANDARD.encode(headers.as_slice()).into()),
        ])
    }

    /// The keys to sign with, and whose they are.
    async fn keys(
        &self,
        cluster: &dyn Credentials,
        identity: &Identity,
        variable: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<(Keys, String), CredentialError> {
        let sts = Sts::new(&self.region, &variable)?;
        let (keys, whose) = match &self.source {
            Source::Account {
                namespace,
                name,
                audiences,
            } => account_keys(cluster, identity, &sts, (namespace.as_deref(), name), audiences).await?,
            Source::Keys { id, secret, session } => {
                let id_value = cluster.secret(id, identity).await?;
                let secret_value = cluster.secret(secret, identity).await?;
                let session_value = match session {
                    Some(key) => Some(cluster.secret(key, identity).await?),
                    None => None,
                };
                let session_value = session_value.as_ref().map(|value| value.expose());
                let keys = aws::keys(id_value.expose(), secret_value.expose(), session_value)
                    .map_err(|error| format!("Secret {}: {error}", secret.place(identity)))?;
                (keys, format!("the AWS keys in Secret {}", secret.place(identity)))
            }
            Source::Own => {
                let own = Own::find(&variable)?;
                (own.keys(&sts).await?, "the operator's own AWS identity".into())
            }
        };
        let Some((role, external_id)) = &self.assume else {
            return Ok((keys, whose));
        };
        let assumed = sts.assume_role(&keys, role, external_id.as_deref()).await;
        let keys = assumed.map_err(|error| format!("with {whose}: {error}"))?;
        Ok((keys, format!("AWS role '{role}', assumed with {whose}")))
    }
}

/// Keys for the AWS role that a ServiceAccount is annotated with.
async fn account_keys(
    cluster: &dyn Credentials,
    identity: &Identity,
    sts: &Sts<'_>,
    (namespace, name): (Option<&str>, &str),
    audiences: &[String],
) -> Result<(Keys, String), CredentialError> {
    let annotations = cluster.annotations(namespace, name, identity).await?;
    let annotation = |name| annotations.get(name).filter(|value| !value.is_empty());
    let role = annotation(ROLE_ANNOTATION).ok_or_else(|| {
        format!(
            "ServiceAccount {name} has no annotation {ROLE_ANNOTATION}; annotate it with the ARN of the AWS role to \
             assume"
        )
    })?;
    let audience = annotation(AUDIENCE_ANNOTATION).map_or(AUDIENCE, String::as_str);
    let source = JwtSource::ServiceAccount {
        namespace: namespace.map(String::from),
        name: name.to_owned(),
        audiences: [audience.to_owned()]
            .into_iter()
            .chain(audiences.iter().cloned())
            .collect(),
        seconds: TOKEN_SECONDS,
    };
    let token = cluster.jwt(&source, identity).await?;
    let jwt = text(&token.jwt, "the ServiceAccount token")?;
    let keys = sts.assume_role_with_web_identity(role, jwt).await;
    let keys = keys.map_err(|error| format!("with the token of {}: {error}", token.whose))?;
    Ok((keys, format!("{} with AWS role '{role}'", token.whose)))
}

impl Source {
    fn account(scope: &Scope<'_>, jwt: &VaultAwsJwtAuth) -> Result<Self, Invalid> {
        let field = scope.field("auth.iam.jwt.serviceAccountRef");
        let account = jwt
            .service_account_ref
            .as_ref()
            .ok_or_else(|| Invalid(format!("{field} is missing")))?;
        Ok(Self::Account {
            namespace: scope.namespace(&field, account.namespace.as_deref())?,
            name: object_name(&field, &account.name)?,
            audiences: account.audiences.clone(),
        })
    }

    fn keys(scope: &Scope<'_>, secrets: &VaultAwsAuthSecretRef) -> Result<Self, Invalid> {
        let field = |name: &str| scope.field(&format!("auth.iam.secretRef.{name}"));
        let one = |name: &str, reference: Option<&_>| {
            let reference = reference.ok_or_else(|| Invalid(format!("{} is missing", field(name))))?;
            scope.secret(&field(name), reference, None)
        };
        let session = secrets.session_token_secret_ref.as_ref();
        Ok(Self::Keys {
            id: one("accessKeyIDSecretRef", secrets.access_key_id_secret_ref.as_ref())?,
            secret: one(
                "secretAccessKeySecretRef",
                secrets.secret_access_key_secret_ref.as_ref(),
            )?,
            session: session
                .map(|token| one("sessionTokenSecretRef", Some(token)))
                .transpose()?,
        })
    }
}

/// Regions become part of a host name.
fn is_region(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 32 && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
}

#[async_trait]
impl Method for Iam {
    fn whom(&self) -> String {
        role_at(&self.vault_role, &self.mount)
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "iam.path"))
    }

    fn needs(&self) -> Vec<Need> {
        match &self.source {
            Source::Account { namespace, name, .. } => vec![Need {
                kind: ReferenceKind::ServiceAccount,
                namespace: namespace.clone(),
                name: name.clone(),
            }],
            Source::Keys { id, secret, session } => {
                [id, secret].into_iter().chain(session).map(Need::from).collect()
            }
            Source::Own => Vec::new(),
        }
    }

    fn advice(&self) -> &'static str {
        "check the role's bound_iam_principal_arn, and sts_endpoint and sts_region of the mount"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        let VaultError::Status {
            phrase: Some(phrase), ..
        } = answer
        else {
            return None;
        };
        if *phrase == "entry for role" {
            return Some(no_role(&self.vault_role, &self.mount, "iam.vaultRole"));
        }
        let (phrase, advice) = EXPLANATIONS.iter().find(|(known, _)| known == phrase)?;
        Some(format!(
            "refuses the login with {} ({phrase}): {advice}",
            self.whom()
        ))
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        // Pods are given their AWS identity by their environment; it is read, never set.
        let variable = |name: &str| std::env::var(name).ok();
        let (keys, whose) = self.keys(cluster, identity, &variable).await?;
        let login = self.login(&keys, SystemTime::now())?;
        Ok(Proof::Login {
            call: login_at(
                &self.mount,
                &login.each_ref().map(|(name, value)| (*name, value.as_str())),
            )?,
            whose,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::external_secret::StoreKind;
    use crate::api::store::StoreKey;
    use crate::store::scope::Reference;

    fn resolve(namespace: Option<&str>, auth: &Value) -> Result<Iam, String> {
        let key = StoreKey {
            kind: StoreKind::SecretStore,
            namespace: namespace.map(String::from),
            name: "vault".into(),
        };
        let scope = Scope {
            key: &key,
            provider: "vault",
        };
        let auth = serde_json::from_value(auth.clone()).unwrap();
        Iam::resolve(&scope, &auth).map_err(|error| error.0)
    }

    fn decoded(base64: &str) -> String {
        String::from_utf8(STANDARD.decode(base64).unwrap()).unwrap()
    }

    #[test]
    fn the_login_holds_a_signed_request_as_vault_wants_it() {
        let auth =
            json!({"vaultRole": "dev", "region": "eu-south-2", "vaultAwsIamServerID": "vault.example.com"});
        let iam = resolve(None, &auth).unwrap();
        let keys = aws::keys(
            b"AKIDEXAMPLE",
            b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some(b"t=="),
        )
        .unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let login = iam.login(&keys, time).unwrap();
        let [role, method, url, body, headers] = login.each_ref().map(|(_, value)| value.as_str());
        assert_eq!((role, method), ("dev", "POST"));
        assert_eq!(decoded(url), "https://sts.eu-south-2.amazonaws.com/");
        assert_eq!(decoded(body), "Action=GetCallerIdentity&Version=2011-06-15");
        // The signature was computed apart from this program, with HMAC and SHA-256 by hand.
        let wanted = json!({
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            "x-vault-aws-iam-server-id": "vault.example.com",
            "x-amz-date": "20150830T123600Z",
            "x-amz-security-token": "t==",
            "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-south-2/sts/aws4_request, \
                SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id, \
                Signature=2f0be2ae61c2be4fcb67451653c912ae3e918e5e7b04201247cb68a571160495",
        });
        let headers: Value = serde_json::from_str(&decoded(headers)).unwrap();
        assert_eq!(headers, wanted);
    }

    #[test]
    fn a_service_account_comes_before_secrets_and_the_operator_itself_last() {
        let key = |key: &str| json!({"name": "aws", "key": key});
        let secrets = json!({"accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("secret")});
        let jwt = json!({"serviceAccountRef": {"name": "reader"}});
        let needs = |auth: Value| {
            let iam = resolve(Some("db"), &auth).unwrap();
            iam.needs()
                .into_iter()
                .filter_map(Need::reference)
                .collect::<Vec<_>>()
        };
        let wanted = |kind, name: &str| Reference {
            kind,
            namespace: "db".into(),
            name: name.into(),
        };
        assert_eq!(
            needs(json!({"vaultRole": "dev", "secretRef": secrets, "jwt": jwt})),
            [wanted(ReferenceKind::ServiceAccount, "reader")]
        );
        assert_eq!(
            needs(json!({"vaultRole": "dev", "secretRef": secrets})),
            [
                wanted(ReferenceKind::Secret, "aws"),
                wanted(ReferenceKind::Secret, "aws")
            ]
        );
        let own = json!({"vaultRole": "dev"});
        assert_eq!(resolve(None, &own).unwrap().needs(), []);
        let refused = resolve(Some("db"), &own).unwrap_err();
        assert!(
            refused.contains("only a ClusterSecretStore may use them"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_missing_or_unfit_is_named() {
        let key = json!({"name": "aws", "key": "id"});
        let foreign = json!({"serviceAccountRef": {"name": "reader", "namespace": "other"}});
        for (auth, words) in [
            (
                json!({"vaultRole": "dev", "region": "evil.example.com/"}),
                "vault.auth.iam.region is no AWS region",
            ),
            (
                json!({"vaultRole": "dev", "jwt": {}}),
                "vault.auth.iam.jwt.serviceAccountRef is missing",
            ),
            (
                json!({"vaultRole": "dev", "jwt": foreign}),
                "serviceAccountRef.namespace: namespace should either",
            ),
            (
                json!({"vaultRole": "dev", "secretRef": {"accessKeyIDSecretRef": key}}),
                "iam.secretRef.secretAccessKeySecretRef is missing",
            ),
            (
                json!({"vaultRole": "dev", "secretRef": {"secretAccessKeySecretRef": key}}),
                "iam.secretRef.accessKeyIDSecretRef is missing",
            ),
        ] {
            let error = resolve(Some("db"), &auth).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
