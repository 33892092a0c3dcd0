//! For each field of the schema, what it does.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a field does.
pub enum Effect {
    /// The two specs give different results.
    Differs(Value, Value),
    /// The spec is refused, and the refusal names this field.
    Refused(Value, &'static str),
    /// It has one value only, or none that matters; the reason is given.
    Nothing(Value, Value, &'static str),
}

use Effect::{Differs, Nothing, Refused};

/// All fields.
pub fn all() -> BTreeMap<String, Effect> {
    [remote_ref(), find_and_rewrite(), sources(), rest(), templates()]
        .into_iter()
        .flatten()
        .collect()
}

fn store() -> Value {
    json!({"kind": "ClusterSecretStore", "name": "vault"})
}

/// One entry of `data`.
fn data(remote: Value) -> Value {
    json!({"secretStoreRef": store(), "data": [{"secretKey": "k", "remoteRef": remote}]})
}

/// One entry of `dataFrom`.
fn from(entry: Value) -> Value {
    json!({"secretStoreRef": store(), "dataFrom": [entry]})
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = data(json!({"key": "a", "property": "user"}));
    spec[field] = value;
    spec
}

fn target(target: Value) -> Value {
    with("target", target)
}

fn template(template: Value) -> Value {
    target(json!({"template": template}))
}

fn template_from(from: Value) -> Value {
    template(json!({"templateFrom": [from]}))
}

fn rewrite(step: Value) -> Value {
    from(json!({"extract": {"key": "objects"}, "rewrite": [step]}))
}

fn merge(merge: Value) -> Value {
    rewrite(json!({"merge": merge}))
}

fn window(kind: &str, schedule: &str, duration: &str) -> Value {
    let window = json!({"schedule": schedule, "duration": duration});
    with("syncWindows", json!({"kind": kind, "windows": [window]}))
}

fn manifest(version: &str, kind: &str) -> Value {
    target(json!({"manifest": {"apiVersion": version, "kind": kind}}))
}

fn generator(kind: &str, name: &str) -> Value {
    json!({"generatorRef": {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": kind, "name": name}})
}

fn remote_ref() -> Vec<(String, Effect)> {
    let of_data = |extra: Value| {
        let mut remote = json!({"key": "a", "property": "user"});
        remote
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        data(remote)
    };
    let extract = |extra: Value| {
        let mut remote = json!({"key": "a"});
        remote
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        from(json!({"extract": remote}))
    };
    let none = || json!({});
    let mut all = Vec::new();
    for (field, value) in [
        ("key", json!("b")),
        ("property", json!("object")),
        ("version", json!("3")),
        ("metadataPolicy", json!("Fetch")),
        ("decodingStrategy", json!("Base64")),
        ("nullBytePolicy", json!("Fail")),
    ] {
        let mut changed = json!({});
        changed[field] = value;
        if field != "property" {
            all.push((
                format!("spec.data[].remoteRef.{field}"),
                Differs(of_data(none()), of_data(changed.clone())),
            ));
        }
        all.push((
            format!("spec.dataFrom[].extract.{field}"),
            Differs(extract(none()), extract(changed)),
        ));
    }
    all.push((
        "spec.data[].remoteRef.property".into(),
        Differs(of_data(none()), of_data(json!({"property": "pass"}))),
    ));
    all.push((
        "spec.data[].remoteRef.conversionStrategy".into(),
        Nothing(
            of_data(none()),
            of_data(json!({"conversionStrategy": "Unicode"})),
            "the key of data is secretKey; ESO ignores it too",
        ),
    ));
    all.push((
        "spec.dataFrom[].extract.conversionStrategy".into(),
        Differs(extract(none()), extract(json!({"conversionStrategy": "Unicode"}))),
    ));
    all
}

fn find_and_rewrite() -> Vec<(String, Effect)> {
    let find = |find: Value| from(json!({"find": find}));
    let regexp =
        |source: &str, target: &str| rewrite(json!({"regexp": {"source": source, "target": target}}));
    let pairs = [
        ("find.path", find(json!({})), find(json!({"path": "app"}))),
        (
            "find.name.regexp",
            find(json!({})),
            find(json!({"name": {"regexp": "x"}})),
        ),
        ("find.tags", find(json!({})), find(json!({"tags": {"a": "b"}}))),
        (
            "find.conversionStrategy",
            find(json!({})),
            find(json!({"conversionStrategy": "Unicode"})),
        ),
        (
            "find.decodingStrategy",
            find(json!({})),
            find(json!({"decodingStrategy": "Auto"})),
        ),
        (
            "find.nullBytePolicy",
            find(json!({})),
            find(json!({"nullBytePolicy": "Fail"})),
        ),
        ("rewrite[].regexp.source", regexp("^", "x"), regexp("$", "x")),
        ("rewrite[].regexp.target", regexp("^", "x"), regexp("^", "y")),
        (
            "rewrite[].transform.template",
            rewrite(json!({"transform": {"template": "{{ .value }}"}})),
            rewrite(json!({"transform": {"template": "{{ .value | upper }}"}})),
        ),
        (
            "rewrite[].merge.into",
            merge(json!({"strategy": "JSON", "into": "a", "conflictPolicy": "Ignore"})),
            merge(json!({"strategy": "JSON", "into": "b", "conflictPolicy": "Ignore"})),
        ),
        (
            "rewrite[].merge.priority[]",
            merge(json!({"conflictPolicy": "Ignore"})),
            merge(json!({"conflictPolicy": "Ignore", "priority": ["one"]})),
        ),
        (
            "rewrite[].merge.priorityPolicy",
            merge(json!({"conflictPolicy": "Ignore", "priority": ["none"]})),
            merge(
                json!({"conflictPolicy": "Ignore", "priority": ["none"], "priorityPolicy": "IgnoreNotFound"}),
            ),
        ),
        (
            "rewrite[].merge.conflictPolicy",
            merge(json!({})),
            merge(json!({"conflictPolicy": "Ignore"})),
        ),
        (
            "rewrite[].merge.strategy",
            merge(json!({"conflictPolicy": "Ignore", "into": "a"})),
            merge(json!({"conflictPolicy": "Ignore", "into": "a", "strategy": "JSON"})),
        ),
    ];
    pairs
        .into_iter()
        .map(|(field, base, changed)| (format!("spec.dataFrom[].{field}"), Differs(base, changed)))
        .collect()
}

fn sources() -> Vec<(String, Effect)> {
    let of_data = |source: Value| {
        let mut spec = data(json!({"key": "a", "property": "user"}));
        spec["data"][0]["sourceRef"] = source;
        spec
    };
    let extract = |source: Value| from(json!({"extract": {"key": "a"}, "sourceRef": source}));
    let of = |kind: &str, name: &str| json!({"storeRef": {"kind": kind, "name": name}});
    let mut all = Vec::new();
    for (place, spec) in [
        ("spec.data[]", &of_data as &dyn Fn(Value) -> Value),
        ("spec.dataFrom[]", &extract),
    ] {
        let base = || spec(of("SecretStore", "other"));
        all.push((
            format!("{place}.sourceRef.storeRef.name"),
            Differs(base(), spec(of("SecretStore", "third"))),
        ));
        all.push((
            format!("{place}.sourceRef.storeRef.kind"),
            Differs(base(), spec(of("ClusterSecretStore", "other"))),
        ));
    }
    for field in ["apiVersion", "kind", "name"] {
        all.push((
            format!("spec.data[].sourceRef.generatorRef.{field}"),
            Refused(
                of_data(generator("Password", "p")),
                "spec.data[0].sourceRef.generatorRef",
            ),
        ));
        all.push((
            format!("spec.dataFrom[].sourceRef.generatorRef.{field}"),
            Refused(
                from(json!({"sourceRef": generator("Password", "p")})),
                "spec.dataFrom[0].sourceRef.generatorRef",
            ),
        ));
    }
    all
}

fn rest() -> Vec<(String, Effect)> {
    let base = || with("refreshPolicy", json!("Periodic"));
    let other = |kind: &str, name: &str| with("secretStoreRef", json!({"kind": kind, "name": name}));
    let named = |name: &str| {
        let mut spec = data(json!({"key": "a", "property": "user"}));
        spec["data"][0]["secretKey"] = name.into();
        spec
    };
    let all = [
        ("spec.data[].secretKey", Differs(named("k"), named("l"))),
        (
            "spec.secretStoreRef.name",
            Differs(other("SecretStore", "a"), other("SecretStore", "b")),
        ),
        (
            "spec.secretStoreRef.kind",
            Differs(other("SecretStore", "a"), other("ClusterSecretStore", "a")),
        ),
        (
            "spec.refreshPolicy",
            Differs(base(), with("refreshPolicy", json!("CreatedOnce"))),
        ),
        (
            "spec.refreshInterval",
            Differs(base(), with("refreshInterval", json!("24h"))),
        ),
        (
            "spec.syncWindows.kind",
            Differs(
                window("allow", "0 0 * * *", "1h"),
                window("deny", "0 0 * * *", "1h"),
            ),
        ),
        (
            "spec.syncWindows.windows[].schedule",
            Differs(
                window("deny", "0 0 * * *", "1h"),
                window("deny", "0 5 * * *", "1h"),
            ),
        ),
        (
            "spec.syncWindows.windows[].duration",
            Differs(
                window("deny", "0 0 * * *", "1h"),
                window("deny", "0 0 * * *", "5h"),
            ),
        ),
        (
            "spec.target.name",
            Differs(target(json!({})), target(json!({"name": "other"}))),
        ),
        (
            "spec.target.creationPolicy",
            Differs(target(json!({})), target(json!({"creationPolicy": "Orphan"}))),
        ),
        (
            "spec.target.deletionPolicy",
            Differs(target(json!({})), target(json!({"deletionPolicy": "Delete"}))),
        ),
        (
            "spec.target.immutable",
            Differs(target(json!({})), target(json!({"immutable": true}))),
        ),
        (
            "spec.target.manifest.apiVersion",
            Differs(
                manifest("v1", "ConfigMap"),
                manifest("example.com/v1", "ConfigMap"),
            ),
        ),
        (
            "spec.target.manifest.kind",
            Differs(manifest("v1", "ConfigMap"), manifest("v1", "Pod")),
        ),
    ];
    all.map(|(field, effect)| (field.to_owned(), effect)).into()
}

fn templates() -> Vec<(String, Effect)> {
    let literal = |extra: Value| {
        let mut from = json!({"literal": "a: aGk="});
        from.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        template_from(from)
    };
    let source = |kind: &str, name: &str, item: Value| {
        let mut from = json!({});
        from[kind] = json!({"name": name, "items": [item]});
        template_from(from)
    };
    let mut all = vec![
        (
            "type",
            Differs(template(json!({})), template(json!({"type": "example.com/x"}))),
        ),
        (
            "engineVersion",
            Nothing(
                template(json!({})),
                template(json!({"engineVersion": "v2"})),
                "the schema knows v2 only, and refuses v1 by name",
            ),
        ),
        (
            "data",
            Differs(
                template(json!({"data": {"a": "1"}})),
                template(json!({"data": {"a": "2"}})),
            ),
        ),
        (
            "mergePolicy",
            Differs(
                template(json!({"data": {"a": "1"}})),
                template(json!({"data": {"a": "1"}, "mergePolicy": "Merge"})),
            ),
        ),
        (
            "metadata.labels",
            Differs(
                template(json!({})),
                template(json!({"metadata": {"labels": {"a": "1"}}})),
            ),
        ),
        (
            "metadata.annotations",
            Differs(
                template(json!({})),
                template(json!({"metadata": {"annotations": {"a": "1"}}})),
            ),
        ),
        (
            "metadata.finalizers[]",
            Differs(
                template(json!({})),
                template(json!({"metadata": {"finalizers": ["a.com/b"]}})),
            ),
        ),
        (
            "templateFrom[].literal",
            Differs(literal(json!({})), literal(json!({"literal": "b: 1"}))),
        ),
        (
            "templateFrom[].target",
            Differs(literal(json!({})), literal(json!({"target": "Annotations"}))),
        ),
        (
            "templateFrom[].valuesDecodingStrategy",
            Differs(
                literal(json!({})),
                literal(json!({"valuesDecodingStrategy": "Base64"})),
            ),
        ),
    ]
    .into_iter()
    .map(|(field, effect)| (format!("spec.target.template.{field}"), effect))
    .collect::<Vec<_>>();
    for kind in ["configMap", "secret"] {
        let base = || source(kind, "one", json!({"key": "first"}));
        for (field, changed) in [
            ("name", source(kind, "two", json!({"key": "first"}))),
            ("items[].key", source(kind, "one", json!({"key": "second"}))),
            (
                "items[].templateAs",
                source(
                    kind,
                    "one",
                    json!({"key": "first", "templateAs": "KeysAndValues"}),
                ),
            ),
        ] {
            all.push((
                format!("spec.target.template.templateFrom[].{kind}.{field}"),
                Differs(base(), changed),
            ));
        }
    }
    all
}
