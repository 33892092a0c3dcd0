//! AWS's Security Token Service as far as logins need it. It verifies each signature with a computation of its own,
//! not with the signer that the operator uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub const ACCOUNT: &str = "123456789012";
/// Audience that tokens of ServiceAccounts must have.
pub const AUDIENCE: &str = "sts.amazonaws.com";

#[derive(Clone)]
struct Principal {
    secret: String,
    session: Option<String>,
    arn: String,
}

/// Who may assume a role.
#[derive(Clone)]
pub enum Trust {
    /// Whoever knows the external ID.
    ExternalId(&'static str),
    /// This ServiceAccount, `namespace:name`.
    ServiceAccount(String),
}

#[derive(Default)]
struct World {
    principals: BTreeMap<String, Principal>,
    roles: BTreeMap<String, Trust>,
    /// What was asked, with the host that the caller named.
    calls: Vec<String>,
    /// Every secret that was handed out: none may be found in a log.
    secrets: Vec<String>,
}

/// A running service.
pub struct Sts {
    pub url: String,
    world: Arc<Mutex<World>>,
}

impl Sts {
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let world = Arc::<Mutex<World>>::default();
        let app = Router::new().fallback(answer).with_state(world.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(Self { url, world })
    }

    /// A user with these keys.
    pub fn user(&self, name: &str, id: &str, secret: &str, session: Option<&str>) {
        let mut world = self.world.lock().unwrap();
        world.secrets.push(secret.into());
        world.secrets.extend(session.map(String::from));
        world.principals.insert(
            id.into(),
            Principal {
                secret: secret.into(),
                session: session.map(String::from),
                arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
            },
        );
    }

    /// A role, and who may assume it; its ARN comes back.
    pub fn role(&self, name: &str, trust: Trust) -> String {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{name}");
        self.world.lock().unwrap().roles.insert(arn.clone(), trust);
        arn
    }

    /// What was asked so far: action and host.
    pub fn calls(&self) -> Vec<String> {
        self.world.lock().unwrap().calls.clone()
    }

    pub fn secrets(&self) -> Vec<String> {
        self.world.lock().unwrap().secrets.clone()
    }
}

type Refusal = (StatusCode, &'static str);

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let mut world = world.lock().unwrap();
    let host = header(&headers, "host").unwrap_or_default();
    let action = form.get("Action").cloned().unwrap_or_default();
    world.calls.push(format!("{action} {host}"));
    let result = match action.as_str() {
        "GetCallerIdentity" => verified(&world, &uri, &headers, &body).map(|caller| identity(&caller)),
        "AssumeRole" => verified(&world, &uri, &headers, &body).and_then(|_| assume_role(&mut world, &form)),
        "AssumeRoleWithWebIdentity" => web_identity(&mut world, &form),
        _ => Err((StatusCode::BAD_REQUEST, "InvalidAction")),
    };
    let (status, text) = result.map_or_else(
        |(status, code)| {
            let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>No.</Message></Error>");
            (status, format!("<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{error}</ErrorResponse>"))
        },
        |text| (StatusCode::OK, text),
    );
    (status, [("content-type", "text/xml")], text).into_response()
}

fn identity(caller: &Principal) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{}</Arn><UserId>AIDAEXAMPLE</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
        caller.arn
    )
}

fn assume_role(world: &mut World, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
    let denied = (StatusCode::FORBIDDEN, "AccessDenied");
    let role = form.get("RoleArn").ok_or(denied)?;
    match world.roles.get(role) {
        Some(Trust::ExternalId(wanted)) if form.get("ExternalId").is_some_and(|id| id == wanted) => {
            Ok(handed_out(world, role, "AssumeRole", form))
        }
        _ => Err(denied),
    }
}

fn web_identity(world: &mut World, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
    let denied = (StatusCode::FORBIDDEN, "AccessDenied");
    let unfit = (StatusCode::BAD_REQUEST, "InvalidIdentityToken");
    let role = form.get("RoleArn").ok_or(denied)?;
    let token = form.get("WebIdentityToken").ok_or(unfit)?;
    let claims = token.split('.').nth(1).ok_or(unfit)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| unfit)?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| unfit)?;
    if !claims["aud"]
        .as_array()
        .is_some_and(|audiences| audiences.iter().any(|one| one == AUDIENCE))
    {
        return Err(unfit);
    }
    match world.roles.get(role) {
        Some(Trust::ServiceAccount(account))
            if claims["sub"] == format!("system:serviceaccount:{account}") =>
        {
            Ok(handed_out(world, role, "AssumeRoleWithWebIdentity", form))
        }
        _ => Err(denied),
    }
}

fn handed_out(world: &mut World, role: &str, action: &str, form: &BTreeMap<String, String>) -> String {
    let number = world.principals.len();
    let (id, secret, session) = (
        format!("ASIAEXAMPLE{number}"),
        format!("handed/out+{number}"),
        format!("FwoGZXIvYXdzE/{number}+=="),
    );
    let name = role.rsplit('/').next().unwrap_or_default();
    let arn = format!(
        "arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{}",
        form.get("RoleSessionName").map_or("none", String::as_str)
    );
    world.secrets.extend([secret.clone(), session.clone()]);
    world.principals.insert(
        id.clone(),
        Principal {
            secret: secret.clone(),
            session: Some(session.clone()),
            arn,
        },
    );
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\n  \
         <AccessKeyId>{id}</AccessKeyId>\n  <SecretAccessKey>{secret}</SecretAccessKey>\n  \
         <SessionToken>{session}</SessionToken>\n  <Expiration>2099-01-01T00:00:00Z</Expiration>\n\
         </Credentials></{action}Result></{action}Response>"
    )
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Who signed the request.
fn verified(world: &World, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Principal, Refusal> {
    let incomplete = (StatusCode::BAD_REQUEST, "IncompleteSignature");
    let mismatch = (StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    let unknown = (StatusCode::FORBIDDEN, "InvalidClientTokenId");
    let authorization = header(headers, "authorization").ok_or(incomplete)?;
    let fields = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or(incomplete)?;
    let field = |name: &str| {
        let mut all = fields.split(", ");
        all.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            .ok_or(incomplete)
    };
    let scope: Vec<&str> = field("Credential")?.split('/').collect();
    let [id, day, region, "sts", "aws4_request"] = scope[..] else {
        return Err(incomplete);
    };
    let signed: Vec<&str> = field("SignedHeaders")?.split(';').collect();
    let must = |name: &str| name == "host" || name.starts_with("x-amz-") || name.starts_with("x-vault-");
    if headers
        .keys()
        .any(|name| must(name.as_str()) && !signed.contains(&name.as_str()))
    {
        return Err(mismatch);
    }
    let principal = world.principals.get(id).ok_or(unknown)?;
    if header(headers, "x-amz-security-token") != principal.session.as_deref() {
        return Err(unknown);
    }
    let date = header(headers, "x-amz-date").ok_or(incomplete)?;
    if !date.starts_with(day) || !is_now(date) {
        return Err((StatusCode::FORBIDDEN, "RequestExpired"));
    }
    let mut canonical = format!("POST\n{}\n\n", uri.path().replace("//", "/"));
    for name in &signed {
        canonical += &format!("{name}:{}\n", header(headers, name).ok_or(mismatch)?.trim());
    }
    canonical += &format!("\n{}\n{}", signed.join(";"), hex(&Sha256::digest(body)));
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{day}/{region}/sts/aws4_request\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = format!("AWS4{}", principal.secret).into_bytes();
    for part in [day, region, "sts", "aws4_request"] {
        key = hmac(&key, part);
    }
    if hex(&hmac(&key, &text)) != field("Signature")? {
        return Err(mismatch);
    }
    Ok(principal.clone())
}

fn is_now(date: &str) -> bool {
    let minutes = |time: SystemTime| {
        let text = jiff::Timestamp::try_from(time)
            .unwrap()
            .strftime("%Y%m%dT%H%M")
            .to_string();
        date.starts_with(&text)
    };
    let now = SystemTime::now();
    (0..5).any(|back| minutes(now - Duration::from_secs(back * 60)))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
