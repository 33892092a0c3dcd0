#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn spec(mut json: Value) -> ExternalSecretSpec {
    if json.get("secretStoreRef").is_none() {
        json["secretStoreRef"] = json!({"name": "vault"});
    }
    serde_json::from_value(json).unwrap()
}

fn planned(json: Value) -> Plan {
    plan(&spec(json), "db").unwrap()
}

fn refused(json: Value) -> Refusal {
    plan(&spec(json), "db").unwrap_err()
}

fn data(remote: Value) -> Value {
    json!({"data": [{"secretKey": "k", "remoteRef": remote}]})
}

fn extract(remote: Value) -> Value {
    json!({"dataFrom": [{"extract": remote}]})
}

#[test]
fn ten_entries_on_one_path_are_one_read() {
    let entries: Vec<Value> = (0..10)
        .map(|n| json!({"secretKey": format!("k{n}"), "remoteRef": {"key": "app/db", "property": format!("p{n}")}}))
        .collect();
    let plan = planned(json!({"data": entries, "dataFrom": [{"extract": {"key": "app/db"}}]}));
    assert_eq!(plan.reads.len(), 1);
    assert_eq!(plan.entries.len(), 11);
    assert!(plan.entries.iter().all(|entry| entry.read == 0));
}

#[test]
fn another_store_key_or_version_is_another_read() {
    let plan = planned(json!({"data": [
        {"secretKey": "a", "remoteRef": {"key": "app/db"}},
        {"secretKey": "b", "remoteRef": {"key": "app/web"}},
        {"secretKey": "c", "remoteRef": {"key": "app/db", "version": "3"}},
        {"secretKey": "d", "remoteRef": {"key": "app/db"}, "sourceRef": {"storeRef": {"name": "other"}}},
        {"secretKey": "e", "remoteRef": {"key": "app/db"},
         "sourceRef": {"storeRef": {"name": "vault", "kind": "ClusterSecretStore"}}},
        {"secretKey": "f", "remoteRef": {"key": "app/db", "version": ""}},
    ]}));
    assert_eq!(
        plan.entries.iter().map(|entry| entry.read).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 0]
    );
    assert_eq!(plan.reads[2].version.as_deref(), Some("3"));
    assert_eq!(
        plan.reads[4].store,
        StoreRef {
            kind: StoreKind::ClusterSecretStore,
            name: "vault".into()
        }
    );
}

#[test]
fn data_comes_after_data_from_because_it_wins() {
    let plan = planned(json!({
        "data": [{"secretKey": "k", "remoteRef": {"key": "a"}}],
        "dataFrom": [{"extract": {"key": "b"}}, {"extract": {"key": "c"}}],
    }));
    let labels: Vec<String> = plan.entries.iter().map(Entry::label).collect();
    assert_eq!(
        labels,
        [
            "spec.dataFrom[0].extract (key: b)",
            "spec.dataFrom[1].extract (key: c)",
            "spec.data[0] (key: a)"
        ]
    );
}

#[test]
fn strategies_default_to_what_eso_takes_for_absent() {
    let plan = planned(json!({"dataFrom": [{"extract": {"key": "b", "property": ""}}]}));
    let entry = &plan.entries[0];
    assert_eq!(entry.property, None);
    assert_eq!(entry.decoding, DecodingStrategy::None);
    assert_eq!(entry.null_bytes, NullBytePolicy::Ignore);
    assert_eq!(entry.into, Destination::OwnKeys(ConversionStrategy::Default));
}

#[test]
fn explicit_defaults_of_older_eso_releases_change_nothing() {
    let old = json!({"key": "b", "conversionStrategy": "Default", "decodingStrategy": "None", "metadataPolicy": "None"});
    assert_eq!(planned(extract(old)), planned(extract(json!({"key": "b"}))));
}

#[test]
fn only_retain_makes_a_missing_secret_an_error() {
    for (policy, expected) in [
        ("Retain", WhenMissing::Fail),
        ("Delete", WhenMissing::Skip),
        ("Merge", WhenMissing::Skip),
    ] {
        let mut spec = data(json!({"key": "a"}));
        spec["target"] = json!({"deletionPolicy": policy});
        assert_eq!(planned(spec).when_missing, expected);
    }
    assert_eq!(planned(data(json!({"key": "a"}))).when_missing, WhenMissing::Fail);
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let generator = json!({"generatorRef": {"kind": "Password", "name": "p"}});
    for (spec, field) in [
        (
            json!({"dataFrom": [{"sourceRef": generator}]}),
            "spec.dataFrom[0].sourceRef.generatorRef",
        ),
        (
            json!({"data": [{"secretKey": "k", "remoteRef": {"key": "a"}, "sourceRef": generator}]}),
            "spec.data[0].sourceRef.generatorRef",
        ),
    ] {
        let refusal = refused(spec);
        assert_eq!(refusal.field, field);
        assert!(
            refusal.problem.starts_with("is not served by keyferry yet; "),
            "{refusal}"
        );
    }
}

#[test]
fn an_empty_template_is_served_also_with_the_defaults_that_the_crd_of_eso_adds() {
    for template in [
        json!({}),
        json!({"engineVersion": "v2", "mergePolicy": "Replace"}),
        json!({"metadata": {}, "data": {}}),
    ] {
        let mut spec = data(json!({"key": "a"}));
        spec["target"] = json!({"template": template});
        assert_eq!(planned(spec).entries.len(), 1);
    }
}

#[test]
fn a_template_that_would_make_a_secret_that_gives_rights_is_refused() {
    for type_ in [
        "kubernetes.io/service-account-token",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
    ] {
        let mut spec = data(json!({"key": "a"}));
        spec["target"] = json!({"template": {"type": type_}});
        assert_eq!(refused(spec).field, "spec.target.template.type", "{type_}");
    }
}

#[test]
fn an_entry_of_template_from_that_names_no_template_is_refused() {
    let mut spec = data(json!({"key": "a"}));
    spec["target"] = json!({"template": {"templateFrom": [{"literal": "a: b"}, {"target": "Labels"}]}});
    assert_eq!(refused(spec).field, "spec.target.template.templateFrom[1]");
}

#[test]
fn deletion_policy_delete_needs_a_creation_policy_that_creates() {
    for policy in ["Merge", "None", "CreateOrMerge"] {
        let mut spec = data(json!({"key": "a"}));
        spec["target"] = json!({"creationPolicy": policy, "deletionPolicy": "Delete"});
        assert_eq!(refused(spec).field, "spec.target.deletionPolicy", "{policy}");
    }
}

#[test]
fn a_spec_that_reads_nothing_is_refused() {
    assert!(
        refused(json!({}))
            .problem
            .contains("either data or dataFrom should be specified")
    );
    assert_eq!(refused(json!({"dataFrom": [{}]})).field, "spec.dataFrom[0]");
    let alone = refused(json!({"dataFrom": [{"sourceRef": {"storeRef": {"name": "other"}}}]}));
    assert!(alone.problem.contains("reads nothing"));
}

#[test]
fn a_missing_store_is_refused_at_the_entry_that_needs_it() {
    let refusal =
        refused(json!({"secretStoreRef": null, "data": [{"secretKey": "k", "remoteRef": {"key": "a"}}]}));
    assert_eq!(refusal.field, "spec.secretStoreRef.name");
    assert!(refusal.problem.contains("spec.data[0] needs it"));
    assert!(refusal.problem.contains("namespace \"db\""));
    let refusal = refused(json!({
        "dataFrom": [{"extract": {"key": "a"}, "sourceRef": {"storeRef": {"kind": "ClusterSecretStore"}}}]
    }));
    assert_eq!(refusal.field, "spec.dataFrom[0].sourceRef.storeRef.name");
}

#[test]
fn no_default_store_is_needed_when_every_entry_names_its_own() {
    let plan = planned(json!({
        "secretStoreRef": null,
        "data": [{"secretKey": "k", "remoteRef": {"key": "a"}, "sourceRef": {"storeRef": {"name": "own"}}}]
    }));
    assert_eq!(plan.reads[0].store.name, "own");
}

#[test]
fn keys_that_could_leave_the_mount_or_are_no_paths_are_refused() {
    for key in ["", "..", "../a", "a/../b", "a/..", "a\nb", "a\0"] {
        let spec = json!({"data": [
            {"secretKey": "a", "remoteRef": {"key": "good"}},
            {"secretKey": "b", "remoteRef": {"key": key}},
        ]});
        assert_eq!(refused(spec).field, "spec.data[1].remoteRef.key", "{key:?}");
    }
    for key in ["/a", "a/", "a b", "a..b", "...", "%2e%2e", "ключ"] {
        assert_eq!(planned(extract(json!({"key": key}))).reads[0].key, key);
    }
}

#[test]
fn a_secret_key_that_no_secret_can_hold_is_refused() {
    for key in ["", "a/b", "é", ".."] {
        let spec = json!({"data": [{"secretKey": key, "remoteRef": {"key": "a"}}]});
        assert_eq!(refused(spec).field, "spec.data[0].secretKey", "{key:?}");
    }
}

fn find(find: Value) -> Value {
    json!({"dataFrom": [{"find": find}]})
}

#[test]
fn a_find_is_one_read_of_its_folder_and_equal_ones_share_it() {
    let by_name = json!({"path": "app", "name": {"regexp": "^app/db"}});
    let other = json!({"path": "app", "name": {"regexp": "web"}, "conversionStrategy": "Unicode"});
    let plan = planned(json!({"dataFrom": [
        {"find": by_name}, {"find": other}, {"find": by_name, "rewrite": [{"regexp": {"source": "/", "target": "_"}}]},
        {"find": {}, "sourceRef": {"storeRef": {"name": "other", "kind": "ClusterSecretStore"}}},
    ]}));
    let reads: Vec<usize> = plan.entries.iter().map(|entry| entry.read).collect();
    assert_eq!(reads, [0, 1, 0, 2]);
    assert_eq!(plan.reads[0].key, "app");
    assert_eq!(
        plan.reads[0].what,
        What::Find(Filter::new(Some("^app/db".into()), None).unwrap())
    );
    assert_eq!(plan.reads[2].store.name, "other");
    assert_eq!(
        plan.entries[1].into,
        Destination::OwnKeys(ConversionStrategy::Unicode)
    );
    assert!(matches!(&plan.entries[2].into, Destination::Rewritten(rewrites) if rewrites.len() == 1));
    let labels: Vec<String> = plan.entries.iter().map(Entry::label).collect();
    assert_eq!(labels[0], "spec.dataFrom[0].find (path: app)");
    assert_eq!(labels[3], "spec.dataFrom[3].find (the whole mount)");
}

#[test]
fn metadata_are_another_read_than_the_value_and_have_no_version() {
    let plan = planned(json!({
        "data": [
            {"secretKey": "a", "remoteRef": {"key": "app"}},
            {"secretKey": "b", "remoteRef": {"key": "app", "metadataPolicy": "Fetch", "version": "2"}},
        ],
        "dataFrom": [{"extract": {"key": "app", "metadataPolicy": "Fetch"}}],
    }));
    let reads: Vec<(&What, Option<&str>)> = plan
        .reads
        .iter()
        .map(|read| (&read.what, read.version.as_deref()))
        .collect();
    assert_eq!(reads, [(&What::Metadata, None), (&What::Value, None)]);
    let used: Vec<usize> = plan.entries.iter().map(|entry| entry.read).collect();
    assert_eq!(used, [0, 1, 0]);
}

#[test]
fn an_extract_of_a_version_with_a_rewrite_is_served() {
    let plan = planned(json!({"dataFrom": [{
        "extract": {"key": "app", "version": "2", "conversionStrategy": "Unicode"},
        "rewrite": [{"regexp": {"source": "^", "target": "app_"}}],
    }]}));
    assert_eq!(plan.reads[0].version.as_deref(), Some("2"));
    assert!(matches!(plan.entries[0].into, Destination::Rewritten(_)));
}

#[test]
fn what_cannot_be_found_or_rewritten_is_refused_by_name() {
    let rewrite = |step: Value| json!({"dataFrom": [{"extract": {"key": "a"}, "rewrite": [step]}]});
    for (spec, field) in [
        (find(json!({"path": "a/../b"})), "spec.dataFrom[0].find.path"),
        (find(json!({"path": "a\nb"})), "spec.dataFrom[0].find.path"),
        (
            find(json!({"name": {"regexp": "("}})),
            "spec.dataFrom[0].find.name.regexp",
        ),
        (
            json!({"dataFrom": [{"find": {}, "extract": {"key": "a"}}]}),
            "spec.dataFrom[0]",
        ),
        (
            json!({"dataFrom": [{"find": {}, "sourceRef": {"generatorRef": {"kind": "Password", "name": "p"}}}]}),
            "spec.dataFrom[0].sourceRef.generatorRef",
        ),
        (
            rewrite(json!({"regexp": {"source": "(", "target": ""}})),
            "spec.dataFrom[0].rewrite[0].regexp.source",
        ),
        (
            rewrite(json!({"merge": {"strategy": "JSON"}})),
            "spec.dataFrom[0].rewrite[0].merge.into",
        ),
        (rewrite(json!({})), "spec.dataFrom[0].rewrite[0]"),
    ] {
        assert_eq!(refused(spec).field, field);
    }
}

#[test]
fn windows_are_read_and_bad_ones_refused_by_name() {
    let with = |schedule: &str| {
        let mut spec = data(json!({"key": "a"}));
        spec["syncWindows"] = json!({"kind": "allow", "windows": [{"schedule": schedule, "duration": "1h"}]});
        spec
    };
    assert!(planned(with("@daily")).windows.is_some());
    assert!(planned(data(json!({"key": "a"}))).windows.is_none());
    assert_eq!(
        refused(with("61 * * * *")).field,
        "spec.syncWindows.windows[0].schedule"
    );
}
