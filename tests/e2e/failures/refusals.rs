//! Vault answers, and not what is asked for.

use keyferry_testbed::{Answer, End, Mode};
use serde_json::json;

use super::stage::{CANARY, Case, Fault};

const LOGIN: &str = "/v1/auth/kubernetes/login";
const READ: &str = "/v1/secret/data/";

fn body() -> String {
    json!({"errors": [CANARY]}).to_string()
}

fn answers(path: &str, status: u16, headers: &str) -> Mode {
    Mode::Answers(vec![Answer::http(path, status, headers, body())])
}

/// The login is refused or fails.
pub fn at_login() -> Vec<Case> {
    let role = |role: &str| Fault::Provider(json!({"auth": {"kubernetes": {"role": role}}}));
    let answered = |name, status, headers, message| {
        Case::store(
            name,
            Fault::Login(answers(LOGIN, status, headers)),
            if matches!(status, 307 | 500..) {
                "VaultFailing"
            } else {
                "VaultDenied"
            },
            message,
        )
    };
    let page = |name, status, message| {
        let answer = Answer::http(LOGIN, status, "", format!("<html>{CANARY}</html>"));
        Case::store(
            name,
            Fault::Login(Mode::Answers(vec![answer])),
            "VaultFailing",
            message,
        )
    };
    let with = |name, reason, body: String, message| {
        let answer = Answer::http(LOGIN, 200, "", body);
        Case::store(name, Fault::Login(Mode::Answers(vec![answer])), reason, message)
    };
    vec![
        Case::store(
            "role-of-another",
            role("of-another"),
            "VaultDenied",
            "Vault {url} answered 403 to the login: role 'of-another' (mount 'kubernetes') does not allow ServiceAccount security/eso-vault-auth (service account name not authorized); check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        Case::store(
            "role-other-audience",
            role("other-audience"),
            "VaultDenied",
            "Vault {url} answered 403 to the login: role 'other-audience' (mount 'kubernetes') does not allow ServiceAccount security/eso-vault-auth (invalid audience); check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        Case::store(
            "role-missing",
            role("nobody"),
            "VaultDenied",
            "Vault {url} has no role 'nobody' at auth mount 'kubernetes'; create it, or correct auth.kubernetes.role",
        ),
        Case::store(
            "auth-mount-missing",
            Fault::Provider(json!({"auth": {"kubernetes": {"mountPath": "nowhere"}}})),
            "VaultDenied",
            "Vault {url} answered 403 to the login: role 'eso-reader' (mount 'nowhere') does not allow ServiceAccount security/eso-vault-auth; check that an auth method is enabled at mount 'nowhere' (auth.kubernetes.mountPath); check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        Case::store(
            "account-missing",
            Fault::Provider(json!({"auth": {"kubernetes": {"serviceAccountRef": {"name": "nobody"}}}})),
            "VaultDenied",
            "cannot create a token for ServiceAccount security/nobody: it does not exist; create it, or correct the store",
        ),
        answered(
            "login-400",
            400,
            "",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault answered 400; check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        answered(
            "login-403",
            403,
            "",
            "Vault {url} answered 403 to the login: role 'eso-reader' (mount 'kubernetes') does not allow ServiceAccount security/eso-vault-auth; check that an auth method is enabled at mount 'kubernetes' (auth.kubernetes.mountPath); check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        answered(
            "login-404",
            404,
            "",
            "Vault {url} has no auth method at mount 'kubernetes'; enable it, or correct auth.kubernetes.mountPath",
        ),
        answered(
            "login-405",
            405,
            "",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault answered 405; check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens",
        ),
        answered(
            "login-500",
            500,
            "",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault answered 500; see the log of Vault and of what stands in front of it",
        ),
        answered(
            "login-502",
            502,
            "",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault answered 502; see the log of Vault and of what stands in front of it",
        ),
        answered(
            "login-307",
            307,
            "Location: https://192.0.2.1/v1/auth/kubernetes/login",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault redirects, which is followed only once and only to the same address, because the token goes along; name the address where it leads in spec.provider.vault.server",
        ),
        Case::store(
            "login-429",
            Fault::Login(answers(LOGIN, 429, "")),
            "VaultRateLimited",
            "Vault limits the rate of requests (HTTP 429); it is asked again as it says",
        ),
        Case::store(
            "login-429-retry-after",
            Fault::Login(answers(LOGIN, 429, "Retry-After: 2")),
            "VaultRateLimited",
            "Vault limits the rate of requests (HTTP 429); it is asked again as it says",
        ),
        page(
            "login-403-page",
            403,
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: something in front of Vault answered 403 with a web page; see its log",
        ),
        page(
            "login-404-page",
            404,
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        with(
            "login-empty",
            "VaultFailing",
            String::new(),
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        with(
            "login-html",
            "VaultFailing",
            format!("<html>{CANARY}</html>"),
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        with(
            "login-no-token",
            "VaultDenied",
            json!({"data": {"x": CANARY}, "auth": null}).to_string(),
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault's answer to the login holds no token; if login MFA is enforced at that mount, exempt it: nobody can answer for the operator",
        ),
        with(
            "login-empty-token",
            "VaultDenied",
            json!({"auth": {"client_token": "", "mfa_requirement": {"mfa_request_id": CANARY}}}).to_string(),
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: Vault's answer to the login holds no token; if login MFA is enforced at that mount, exempt it: nobody can answer for the operator",
        ),
        with(
            "login-token-with-newline",
            "VaultDenied",
            json!({"auth": {"client_token": format!("hvs.\n{CANARY}"), "lease_duration": 60}}).to_string(),
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: the token has characters that no header may hold",
        ),
        Case::store(
            "login-broken",
            Fault::Login(Mode::Answers(vec![Answer::raw(LOGIN, "", End::Close)])),
            "VaultFailing",
            "login to Vault {url} with role 'eso-reader' (mount 'kubernetes') and ServiceAccount security/eso-vault-auth failed: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
    ]
}

/// The read is refused or fails; health and login are well.
pub fn at_read() -> Vec<Case> {
    let answered = |name, status, headers, message| {
        Case::read(name, Fault::Wire(answers(READ, status, headers)), message)
    };
    let provider = |name, patch, message| Case::read(name, Fault::Provider(patch), message);
    let role = |role: &str| json!({"kubernetes": {"role": role}});
    let read_all = role("reads-all");
    let object = |name, remote, message| {
        let data = json!([{"secretKey": "value", "remoteRef": remote}]);
        Case::read(
            name,
            Fault::Object(json!({"spec": {"data": data, "target": {"deletionPolicy": "Retain"}}})),
            message,
        )
    };
    vec![
        provider(
            "policy-missing",
            json!({"auth": role("reads-nothing")}),
            "key {key}: Vault {url} answered 403 to the read of 'secret/data/{key}': no policy of role 'reads-nothing' (mount 'kubernetes') allows it; add 'path \"secret/data/{key}\" { capabilities = [\"read\"] }' to one of its policies",
        ),
        provider(
            "mount-missing",
            json!({"auth": read_all, "path": "nowhere"}),
            "{store} could not read key {key}: Vault answered 404 (no handler for route) to the read of 'nowhere/data/{key}': no engine is mounted there; enable one, or correct the path of the store",
        ),
        provider(
            "mount-without-policy",
            json!({"path": "nowhere"}),
            "key {key}: Vault {url} answered 403 to the read of 'nowhere/data/{key}': no policy of role 'eso-reader' (mount 'kubernetes') allows it; add 'path \"nowhere/data/{key}\" { capabilities = [\"read\"] }' to one of its policies",
        ),
        provider(
            "v1-store-of-v2-mount",
            json!({"version": "v1"}),
            "{store} could not read key {key}: Vault answered 404 with a warning about the path; does the store's version (v1 or v2) fit the engine?",
        ),
        provider(
            "v2-store-of-v1-mount",
            json!({"path": "kv1"}),
            "{store} could not read key {key}: mount 'kv1' is a KV v1 engine, and the store says version v2; set version: v1 in the store",
        ),
        provider(
            "no-kv-mount",
            json!({"auth": read_all, "path": "sys", "version": "v1"}),
            "{store} could not read key {key}: Vault answered 404 (unsupported path) to the read of 'sys/{key}': what is mounted there does not serve this; correct the path or the version of the store",
        ),
        object(
            "property-missing",
            json!({"key": "testbed/probe", "property": "absent"}),
            "error processing spec.data[0] (key: testbed/probe), err: cannot find secret data for key: \"absent\"; the secret exists but has no such property: correct the property, or add it to the secret",
        ),
        object(
            "version-missing",
            json!({"key": "testbed/probe", "property": "ready", "version": "7"}),
            "error processing spec.data[0] (key: testbed/probe), err: Secret does not exist; create it in the store or correct the key. With target.deletionPolicy Delete or Merge a secret that is gone is no error",
        ),
        answered(
            "read-400",
            400,
            "",
            "{store} could not read key {key}: Vault answered 400 to the read of 'secret/data/{key}': check the key, and the path and the version of the store",
        ),
        Case::read(
            "kv-upgrading",
            Fault::Wire(Mode::Answers(vec![Answer::http(
                READ,
                400,
                "",
                json!({"errors": ["This backend will be unavailable for a brief period", CANARY]})
                    .to_string(),
            )])),
            "{store} could not read key {key}: Vault answered 400 (unavailable for a brief period) to the read of 'secret/data/{key}': it is not served at this moment; it is asked again",
        ),
        answered(
            "read-403",
            403,
            "",
            "key {key}: Vault {url} answered 403 to the read of 'secret/data/{key}': no policy of role 'eso-reader' (mount 'kubernetes') allows it; add 'path \"secret/data/{key}\" { capabilities = [\"read\"] }' to one of its policies",
        ),
        answered(
            "read-405",
            405,
            "",
            "{store} could not read key {key}: Vault answered 405 to the read of 'secret/data/{key}': what is mounted there does not serve this; correct the path or the version of the store",
        ),
        answered(
            "read-412",
            412,
            "",
            "{store} could not read key {key}: Vault answered 412 to the read of 'secret/data/{key}': its node is behind the rest of the cluster; it is asked again. If it stays so, set forwardInconsistent in the store, or see to the replication",
        ),
        answered(
            "read-472",
            472,
            "",
            "{store} could not read key {key}: Vault answered 472 to the read of 'secret/data/{key}': it is not served at this moment; it is asked again",
        ),
        answered(
            "read-473",
            473,
            "",
            "{store} could not read key {key}: Vault answered 473 to the read of 'secret/data/{key}': it is not served at this moment; it is asked again",
        ),
        answered(
            "read-500",
            500,
            "",
            "{store} could not read key {key}: Vault answered 500; see the log of Vault and of what stands in front of it",
        ),
        answered(
            "read-502",
            502,
            "Content-Type: text/html",
            "{store} could not read key {key}: Vault answered 502; see the log of Vault and of what stands in front of it",
        ),
        answered(
            "read-503",
            503,
            "",
            "{store} could not read key {key}: Vault answered 503; see the log of Vault and of what stands in front of it",
        ),
        answered(
            "read-301",
            301,
            "Location: https://192.0.2.1/v1/secret/data/x",
            "{store} could not read key {key}: Vault redirects, which is followed only once and only to the same address, because the token goes along; name the address where it leads in spec.provider.vault.server",
        ),
        answered(
            "read-307",
            307,
            "Location: http://192.0.2.1/v1/secret/data/x",
            "{store} could not read key {key}: Vault redirects, which is followed only once and only to the same address, because the token goes along; name the address where it leads in spec.provider.vault.server",
        ),
        answered(
            "read-307-loop",
            307,
            "Location: /v1/secret/data/x",
            "{store} could not read key {key}: Vault redirects, which is followed only once and only to the same address, because the token goes along; name the address where it leads in spec.provider.vault.server",
        ),
        answered(
            "read-204",
            204,
            "",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        Case::calm("read-429", Fault::Wire(answers(READ, 429, ""))),
        Case::calm(
            "read-429-retry-after-long",
            Fault::Wire(answers(READ, 429, "Retry-After: 20")),
        ),
        Case::calm(
            "read-429-retry-after-date",
            Fault::Wire(answers(READ, 429, "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT")),
        ),
        Case::calm(
            "read-429-retry-after",
            Fault::Wire(answers(READ, 429, "Retry-After: 1")),
        ),
        Case::read(
            "deleted",
            Fault::Gone("DELETE", "secret/data"),
            "error processing spec.data[0] (key: {key}), err: Secret does not exist; create it in the store or correct the key. With target.deletionPolicy Delete or Merge a secret that is gone is no error",
        ),
        Case::read(
            "destroyed",
            Fault::Gone("PUT", "secret/destroy"),
            "error processing spec.data[0] (key: {key}), err: Secret does not exist; create it in the store or correct the key. With target.deletionPolicy Delete or Merge a secret that is gone is no error",
        ),
        Case::read(
            "never-was",
            Fault::Gone("DELETE", "secret/metadata"),
            "error processing spec.data[0] (key: {key}), err: Secret does not exist; create it in the store or correct the key. With target.deletionPolicy Delete or Merge a secret that is gone is no error",
        ),
    ]
}
