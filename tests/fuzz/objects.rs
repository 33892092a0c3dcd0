//! Changed fields of objects: ExternalSecrets, stores, and the small languages that stand in them.

use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyferry::api::external_secret::{DecodingStrategy, ExternalSecret, StoreKind};
use keyferry::api::store::{SecretStoreSpec, StoreCondition, StoreKey};
use keyferry::secret::SecretBytes;
use keyferry::store::allowed_paths::AllowedPaths;
use keyferry::store::conditions::NamespaceRules;
use keyferry::store::settings::resolve;
use keyferry::sync::decode::decode;
use keyferry::sync::plan::plan;
use keyferry::sync::windows::{Opening, Windows};
use keyferry::target::manifest_path::Path;
use keyferry::vault::consistency::States;
use keyferry::vault::transport::{Connections, Server, Transport};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::corpus;
use crate::mutate::{Changed, apply, changed, text};
use crate::targets::{config, timed};

const SCHEDULES: &[&str] = &[
    "0 22 * * 1-5",
    "*/7 0-23/2 29 feb *",
    "@every 1h30m",
    "@daily",
    "0,30 9,17 1-7 jan-mar mon",
    "0 0 31 4 0",
    "59 23 ? * SUN",
];
const ALLOWED: &[&str] = &[
    "# ours\nteams/{{namespace}}/**\nshared/*\n",
    "**\na*b*c/d\n",
    "*/*/{{namespace}}-*/x\n**/y/**\n",
    "a/**/b/**/c/**/d\n",
];
const PLACES: &[&str] = &[
    "spec.config.levels[0].name",
    "data.a",
    "metadata.labels",
    "a.[3].b",
    "spec.rules[0][1]",
    "metadata.annotations.x",
];
const REGEXES: &[&str] = &["^team-(a|b)$", "prod-.*", "[[:alpha:]]+", "(?i)x{2,3}"];
const ENCODED: &[&str] = &["aGVsbG8=", "aGVs\nbG8=", "_-8=", "hello", "AA==", "//79"];
/// PEM of certificates and keys.
static CERTIFICATES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let args = corpus::calls().into_iter().flat_map(|call| call.args);
    args.filter(|arg| arg.starts_with(b"-----BEGIN ")).collect()
});
/// What is put in place of a field.
const TEXTS: &[&str] = &[
    "https://vault:8200",
    "http://[::1]:8200/v1/../x?y#z",
    "kubernetes/../..",
    "name",
    "",
    "1h",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "{{ .x }}",
    "^a(b)?$",
    "X-Vault-Token",
    "Retain",
    "v2",
];

fn external_secrets() -> [Value; 3] {
    [
        json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a", "namespace": "b"}, "spec": {
            "refreshInterval": "1h", "refreshPolicy": "Periodic", "secretStoreRef": {"name": "s", "kind": "SecretStore"},
            "target": {"name": "t", "creationPolicy": "Owner", "deletionPolicy": "Retain", "immutable": false, "template": {
                "engineVersion": "v2", "type": "Opaque", "mergePolicy": "Merge", "data": {"k": "{{ .v }}"},
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "templateFrom": [{"target": "Data", "literal": "x: y"}, {"configMap": {"name": "c", "items": [{"key": "k", "templateAs": "Values"}]}}]}},
            "data": [{"secretKey": "v", "remoteRef": {"key": "app", "property": "a.b", "version": "3", "decodingStrategy": "Auto", "metadataPolicy": "None"}}]}}),
        json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {
            "secretStoreRef": {"name": "s"}, "refreshInterval": "60s",
            "dataFrom": [
                {"extract": {"key": "app"}, "rewrite": [{"regexp": {"source": "a(.*)", "target": "$1"}}, {"transform": {"template": "{{ .value }}"}}]},
                {"find": {"path": "p", "name": {"regexp": ".*"}, "tags": {"x": "y"}}, "rewrite": [{"merge": {"into": "m", "priority": ["a"]}}]},
                {"sourceRef": {"storeRef": {"name": "o"}}, "extract": {"key": "b", "conversionStrategy": "Unicode"}}]}}),
        json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {
            "secretStoreRef": {"name": "s"}, "target": {"manifest": {"apiVersion": "v1", "kind": "ConfigMap"}},
            "syncWindows": {"kind": "allow", "windows": [{"schedule": "0 1 * * *", "duration": "1h"}]},
            "data": [{"secretKey": "v", "remoteRef": {"key": "app"}}]}}),
    ]
}

fn stores() -> [Value; 3] {
    let key = json!({"name": "n", "key": "k", "namespace": "b"});
    [
        json!({"controller": "c", "refreshInterval": 30, "retrySettings": {"maxRetries": 3, "retryInterval": "1s"},
            "conditions": [{"namespaces": ["a"], "namespaceRegexes": ["b.*"], "namespaceSelector": {"matchLabels": {"x": "y"}}}],
            "provider": {"vault": {"server": "https://v:8200", "path": "secret", "version": "v2", "namespace": "n", "caBundle": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUIKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=",
                "headers": {"X-A": "b"}, "readYourWrites": true, "forwardInconsistent": true,
                "auth": {"namespace": "m", "kubernetes": {"mountPath": "kubernetes", "role": "r", "serviceAccountRef": {"name": "s", "audiences": ["a"]}}}}}}),
        json!({"provider": {"vault": {"server": "http://v", "path": "kv/data/x", "version": "v1",
            "tls": {"certSecretRef": key, "keySecretRef": key}, "caProvider": {"type": "Secret", "name": "c", "key": "k", "namespace": "b"},
            "auth": {"appRole": {"path": "approle", "roleId": "r", "secretRef": key}, "tokenSecretRef": key,
                "ldap": {"path": "ldap", "username": "u", "secretRef": key}, "jwt": {"path": "jwt", "role": "r", "secretRef": key},
                "cert": {"clientCert": key, "secretRef": key}, "userPass": {"path": "userpass", "username": "u", "secretRef": key}}}}}),
        json!({"provider": {"fake": {"data": [{"key": "a", "value": "b", "version": "v1"}], "validationResult": 0}}}),
    ]
}

fn leaves<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Object(map) => map.values_mut().for_each(|value| leaves(value, found)),
        Value::Array(list) => list.iter_mut().for_each(|value| leaves(value, found)),
        leaf => found.push(leaf),
    }
}

/// One of the objects, with some of its fields replaced.
fn object(seeds: &[Value], seed: &Index, changes: &[(Index, Changed)]) -> Value {
    let mut made = seed.get(seeds).clone();
    let pool = [TEXTS, SCHEDULES, REGEXES, corpus::DURATIONS, corpus::PATTERNS].concat();
    for (place, change) in changes {
        let mut found = Vec::new();
        leaves(&mut made, &mut found);
        let place = place.index(found.len());
        let new = text(apply(change, &pool));
        *found.swap_remove(place) = serde_json::from_str(&new).unwrap_or(Value::String(new));
    }
    made
}

fn check_external_secret(seed: &Index, changes: &[(Index, Changed)]) -> Result<(), TestCaseError> {
    let Ok(object) = serde_json::from_value::<ExternalSecret>(object(&external_secrets(), seed, changes))
    else {
        return Ok(());
    };
    if let Err(refusal) = timed(|| plan(&object.spec, "db"))? {
        prop_assert!(!refusal.to_string().is_empty());
    }
    Ok(())
}

fn check_store(seed: &Index, changes: &[(Index, Changed)], kind: StoreKind) -> Result<(), TestCaseError> {
    let Ok(spec) = serde_json::from_value::<SecretStoreSpec>(object(&stores(), seed, changes)) else {
        return Ok(());
    };
    let namespace = (kind == StoreKind::SecretStore).then(|| "b".to_owned());
    let key = StoreKey {
        kind,
        namespace,
        name: "s".into(),
    };
    let first = timed(|| resolve(&key, &spec, "c"))?;
    prop_assert_eq!(&first, &resolve(&key, &spec, "c"));
    if let Err(invalid) = first {
        prop_assert!(!invalid.0.is_empty());
    }
    timed(|| NamespaceRules::compile(&spec.conditions))?.ok();
    Ok(())
}

fn check_windows(schedule: &Changed, duration: &Changed, now: i64) -> Result<(), TestCaseError> {
    let schedule = text(apply(schedule, SCHEDULES));
    let duration = text(apply(duration, corpus::DURATIONS));
    let now = Timestamp::from_second(now).unwrap();
    for kind in ["allow", "deny"] {
        let windows = json!({"kind": kind, "windows": [{"schedule": schedule, "duration": duration}]});
        let windows = serde_json::from_value(windows).unwrap();
        let Ok(windows) = timed(|| Windows::parse(&windows))? else {
            continue;
        };
        if let Opening::At(next) = timed(|| windows.opening(now))? {
            prop_assert!(next > now, "opens at {next}, asked at {now}");
        }
    }
    Ok(())
}

fn check_allowed(patterns: &Changed, path: &Changed) -> Result<(), TestCaseError> {
    let Ok(allowed) = timed(|| AllowedPaths::compile(&text(apply(patterns, ALLOWED))))? else {
        return Ok(());
    };
    let path = text(apply(
        path,
        &["teams/team-a/db", "shared/ca", "a/b/c/d", "x/y/team-a-1/x"],
    ));
    if timed(|| allowed.allow("team-a", &path))? {
        // What may be read is found by a search too, which comes through its folders.
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        for depth in 0..segments.len() {
            let folder = segments[..depth].join("/");
            prop_assert!(
                allowed.lead_through("team-a", &folder),
                "{folder} does not lead to {path}"
            );
        }
    }
    Ok(())
}

fn check_place(place: &Changed) -> Result<(), TestCaseError> {
    // Repeated, so that it is sometimes deeper than any object may be.
    let (seed, changes) = place;
    let one = text(apply(place, PLACES));
    let place = vec![one; 1 + seed.index(4) * changes.len() * 500].join(".");
    let Ok(path) = timed(|| Path::parse(&place))? else {
        return Ok(());
    };
    let mut object =
        json!({"apiVersion": "v1", "kind": "Shop", "metadata": {"name": "a", "namespace": "b", "uid": "c"}});
    let before = object.clone();
    timed(|| path.put(&mut object, json!({"name": "other"})))?.ok();
    for field in [
        "/apiVersion",
        "/kind",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/uid",
    ] {
        prop_assert_eq!(object.pointer(field), before.pointer(field));
    }
    let made = object.to_string();
    prop_assert!(made.len() < 1 << 20, "a short path made a large object");
    prop_assert!(
        serde_json::from_str::<Value>(&made).is_ok(),
        "too deep to be read"
    );
    Ok(())
}

fn check_decode(value: &Changed) -> Result<(), TestCaseError> {
    let value = apply(value, ENCODED);
    for strategy in [
        DecodingStrategy::None,
        DecodingStrategy::Base64,
        DecodingStrategy::Base64Url,
        DecodingStrategy::Auto,
    ] {
        let decoded = timed(|| decode(SecretBytes::new(value.clone()), strategy, "the value"))?;
        let total = matches!(strategy, DecodingStrategy::None | DecodingStrategy::Auto);
        prop_assert!(decoded.is_ok() || !total);
        prop_assert!(decoded.is_err() || decoded.unwrap().expose().len() <= value.len());
    }
    Ok(())
}

fn check_server(url: &Changed, pem: &Changed) -> Result<(), TestCaseError> {
    keyferry_testbed::install_tls_provider();
    let pem = apply(pem, &CERTIFICATES);
    let server = Server {
        url: text(apply(url, TEXTS)),
        ca_pem: Some(pem.clone()),
        client_pem: Some(SecretBytes::new(pem)),
        ..Server::default()
    };
    timed(|| Transport::new(&server, Connections::Pooled, States::default().into()))?.ok();
    Ok(())
}

fn check_condition(regex: &Changed, key: &Changed) -> Result<(), TestCaseError> {
    let conditions: Vec<StoreCondition> = serde_json::from_value(json!([
        {"namespaceRegexes": [text(apply(regex, REGEXES))]},
        {"namespaceSelector": {"matchExpressions": [{"key": text(apply(key, &["team", "a.b/c"])), "operator": "In", "values": ["a"]}]}},
    ]))
    .unwrap();
    if let Ok(rules) = timed(|| NamespaceRules::compile(&conditions))? {
        timed(|| rules.allow("team-a", None))?;
    }
    Ok(())
}

fn changes() -> impl Strategy<Value = Vec<(Index, Changed)>> {
    prop::collection::vec((any::<Index>(), changed()), 1..4)
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn any_external_secret_is_planned_or_refused(seed in any::<Index>(), changes in changes()) {
        check_external_secret(&seed, &changes)?;
    }

    #[test]
    fn any_store_is_resolved_or_refused(seed in any::<Index>(), changes in changes(), cluster in any::<bool>()) {
        let kind = if cluster { StoreKind::ClusterSecretStore } else { StoreKind::SecretStore };
        check_store(&seed, &changes, kind)?;
    }

    #[test]
    fn any_window_is_read_or_refused_and_opens_in_the_future(
        schedule in changed(), duration in changed(), now in 0..4_000_000_000_i64,
    ) {
        check_windows(&schedule, &duration, now)?;
    }

    #[test]
    fn any_allowed_path_is_reached_through_its_folders(patterns in changed(), path in changed()) {
        check_allowed(&patterns, &path)?;
    }

    #[test]
    fn any_place_of_a_manifest_leaves_identity_alone(place in changed()) {
        check_place(&place)?;
    }

    #[test]
    fn any_value_is_decoded_or_refused(value in changed()) {
        check_decode(&value)?;
    }

    #[test]
    fn any_condition_is_compiled_or_refused(regex in changed(), key in changed()) {
        check_condition(&regex, &key)?;
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn any_server_and_certificate_is_taken_or_refused(url in changed(), pem in changed()) {
        check_server(&url, &pem)?;
    }
}

#[test]
fn what_is_changed_is_served_before_the_change() {
    for object in external_secrets() {
        let object: ExternalSecret = serde_json::from_value(object).unwrap();
        plan(&object.spec, "db").unwrap();
    }
    for spec in stores() {
        let spec: SecretStoreSpec = serde_json::from_value(spec).unwrap();
        let key = StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: "s".into(),
        };
        resolve(&key, &spec, "c").unwrap();
    }
    assert!(CERTIFICATES.len() > 3);
}

#[test]
fn the_slowest_schedule_is_answered_at_once() {
    let windows = json!({"kind": "allow", "windows": [{"schedule": "0 0 31 2 *", "duration": "1m"}]});
    let windows = Windows::parse(&serde_json::from_value(windows).unwrap()).unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(windows.opening(Timestamp::UNIX_EPOCH), Opening::Never);
    assert!(begin.elapsed() < Duration::from_secs(1));
}
