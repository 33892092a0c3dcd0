//! Answers that are called success, or a clean 'not found', and are neither.

use keyferry_testbed::{Answer, End, Mode};
use serde_json::json;

use super::stage::{CANARY, Case, Fault};

const HEALTH: &str = "/v1/sys/health";
const MOUNTS: &str = "/v1/sys/internal/ui/mounts/secret";
const READ: &str = "/v1/secret/data/";

fn head(status: u16, lines: &str) -> String {
    format!("HTTP/1.1 {status} Answer\r\n{lines}\r\n\r\n")
}

pub fn cases() -> Vec<Case> {
    let wire = |answer: Answer| Fault::Wire(Mode::Answers(vec![answer]));
    let ok = |name, body: &[u8], message| Case::read(name, wire(Answer::http(READ, 200, "", body)), message);
    let not_found = |name, body: &str, message| {
        let body = body.replace("canary", CANARY);
        Case::read(name, wire(Answer::http(READ, 404, "", body)), message)
    };
    let unconfirmed = |name, status, message: &str| {
        let answers = vec![
            Answer::http(READ, 404, "", r#"{"errors":[]}"#),
            Answer::http(MOUNTS, status, "", json!({"x": CANARY}).to_string()),
        ];
        let message = format!("{{store}} could not read key {{key}}: {message}");
        Case::read(name, Fault::Wire(Mode::Answers(answers)), &message)
    };
    let raw =
        |name, bytes: String, end, message| Case::read(name, wire(Answer::raw(READ, bytes, end)), message);
    let whole = json!({"data": {"data": {"value": CANARY}}}).to_string();
    let big = json!({"data": {"data": {"value": CANARY.repeat((10 << 20) / CANARY.len())}}}).to_string();
    let deep = format!(
        "{{\"data\":{{\"data\":{{\"value\":{}{}}}}}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let half = &whole[..whole.len() / 2];
    vec![
        ok(
            "empty-body",
            b"",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "html",
            format!("<html>{CANARY}</html>").as_bytes(),
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "invalid-utf-8",
            b"{\"data\":{\"data\":{\"value\":\"s3cr3t-canary\xff\xfe\"}}}",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "array",
            format!("[\"{CANARY}\"]").as_bytes(),
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "text",
            format!("\"{CANARY}\"").as_bytes(),
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "null",
            b"null",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "empty-object",
            b"{}",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "other-object",
            format!("{{\"status\":\"{CANARY}\"}}").as_bytes(),
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        ok(
            "data-null",
            b"{\"data\":null}",
            "{store} could not read key {key}: the answer's field 'data' is not a JSON object; check what stands in front of Vault",
        ),
        ok(
            "data-array",
            format!("{{\"data\":[\"{CANARY}\"]}}").as_bytes(),
            "{store} could not read key {key}: the answer's field 'data' is not a JSON object; check what stands in front of Vault",
        ),
        ok(
            "data-data-null",
            b"{\"data\":{\"data\":null}}",
            "{store} could not read key {key}: the answer has no field 'data.data'; is the engine KV v1? Then set version: v1 in the store",
        ),
        ok(
            "data-data-text",
            format!("{{\"data\":{{\"data\":\"{CANARY}\"}}}}").as_bytes(),
            "{store} could not read key {key}: the answer has no field 'data.data'; is the engine KV v1? Then set version: v1 in the store",
        ),
        ok(
            "kv-v1-shape",
            format!("{{\"data\":{{\"value\":\"{CANARY}\"}}}}").as_bytes(),
            "{store} could not read key {key}: the answer has no field 'data.data'; is the engine KV v1? Then set version: v1 in the store",
        ),
        ok(
            "wrapped",
            format!("{{\"data\":null,\"wrap_info\":{{\"token\":\"{CANARY}\"}}}}").as_bytes(),
            "{store} could not read key {key}: the answer's field 'data' is not a JSON object; check what stands in front of Vault",
        ),
        ok(
            "ten-mebibytes",
            big.as_bytes(),
            "{store} could not read key {key}: Vault's answer is larger than 8 MiB and was not read; a Kubernetes Secret holds 1 MiB at most",
        ),
        ok(
            "deep",
            deep.as_bytes(),
            "{store} could not read key {key}: Vault's answer is nested more than 128 levels deep and was not read",
        ),
        ok(
            "half-json",
            half.as_bytes(),
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        ok(
            "gzip",
            b"\x1f\x8b\x08\x00s3cr3t-canary",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        Case::read(
            "403-page",
            wire(Answer::http(READ, 403, "", format!("<html>{CANARY}</html>"))),
            "{store} could not read key {key}: something in front of Vault answered 403 with a web page; see its log",
        ),
        Case::read(
            "999",
            wire(Answer::http(READ, 999, "", CANARY)),
            "{store} could not read key {key}: Vault answered 999; see the log of Vault and of what stands in front of it",
        ),
        raw(
            "header-of-ten-mebibytes",
            head(
                200,
                &format!("X-Long: {}", CANARY.repeat((10 << 20) / CANARY.len())),
            ),
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "headers-without-end",
            head(200, &format!("X-{CANARY}: x\r\n").repeat(10_000)),
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        not_found(
            "404-html",
            "<html>canary</html>",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        not_found(
            "404-empty",
            "",
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        not_found(
            "404-other-api",
            r#"{"message":"canary","data":null}"#,
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        not_found(
            "404-errors-null",
            r#"{"errors":null,"x":"canary"}"#,
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        not_found(
            "404-errors-text",
            r#"{"errors":"canary"}"#,
            "{store} could not read key {key}: the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        not_found(
            "404-errors-some",
            r#"{"errors":["canary"]}"#,
            "{store} could not read key {key}: Vault answered 404 to the read of 'secret/data/{key}': check the key, and the path and the version of the store",
        ),
        raw(
            "half-body",
            head(200, "Content-Length: 4096") + half,
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "reset-in-body",
            head(200, "Content-Length: 4096") + half,
            End::Reset,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "hang-in-body",
            head(200, "Content-Length: 4096") + half,
            End::Hang,
            "{store} could not read key {key}: no answer from Vault: no answer in time; check the network between the operator and Vault",
        ),
        raw(
            "hang-at-read",
            String::new(),
            End::Hang,
            "{store} could not read key {key}: no answer from Vault: no answer in time; check the network between the operator and Vault",
        ),
        raw(
            "closed-at-read",
            String::new(),
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "chunked-garbage",
            head(200, "Transfer-Encoding: chunked") + "zz\r\n" + CANARY,
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "chunked-half",
            head(200, "Transfer-Encoding: chunked") + "1000\r\n" + half,
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "two-lengths",
            head(200, "Content-Length: 4\r\nContent-Length: 9") + half,
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        raw(
            "no-length-cut",
            head(200, "Content-Type: application/json") + half,
            End::Close,
            "{store} could not read key {key}: no answer from Vault: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        unconfirmed(
            "404-and-mount-403",
            403,
            "Vault did not find it, but whether mount 'secret' is a KV v2 engine, as the store says, could not be confirmed: Vault answered 403 to 'sys/internal/ui/mounts/secret'; nothing is taken for missing until it is",
        ),
        unconfirmed(
            "404-and-mount-404",
            404,
            "Vault did not find it, but whether mount 'secret' is a KV v2 engine, as the store says, could not be confirmed: Vault answered 404 to 'sys/internal/ui/mounts/secret'; nothing is taken for missing until it is",
        ),
        unconfirmed(
            "404-and-mount-500",
            500,
            "Vault answered 500; see the log of Vault and of what stands in front of it",
        ),
        unconfirmed(
            "404-and-mount-odd",
            200,
            "Vault did not find it, but whether mount 'secret' is a KV v2 engine, as the store says, could not be confirmed: an answer of unknown form came to 'sys/internal/ui/mounts/secret'; nothing is taken for missing until it is",
        ),
        Case::outage(
            "health-404",
            Fault::Wire(Mode::Answers(vec![
                Answer::http(HEALTH, 404, "", "{}"),
                Answer::raw(READ, "", End::Close),
            ])),
            "VaultFailing",
            "answers HTTP 404 to its health check; check spec.provider.vault.server, and that what stands in front of Vault lets v1/sys/health through",
        ),
        Case::read(
            "all-301",
            wire(Answer::http("", 301, "Location: https://192.0.2.1/", CANARY)),
            "{store} could not read key {key}: Vault redirects, which is followed only once and only to the same address, because the token goes along; name the address where it leads in spec.provider.vault.server",
        ),
        Case::outage(
            "all-html",
            wire(Answer::http("", 200, "", format!("<html>{CANARY}</html>"))),
            "VaultNotRecognized",
            "is not what answers there: its health check brought something else; check spec.provider.vault.server, and what stands in front of Vault",
        ),
        Case::outage(
            "all-404",
            wire(Answer::http("", 404, "", format!("default backend {CANARY}"))),
            "VaultFailing",
            "answers HTTP 404 to its health check; check spec.provider.vault.server, and that what stands in front of Vault lets v1/sys/health through",
        ),
    ]
}
