#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::secret::SecretBytes;
use crate::sync::assemble::Assembled;
use crate::sync::shape::{Shaped, yaml};
use serde_json::json;

fn owner(target: Value) -> ExternalSecret {
    serde_json::from_value(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"namespace": "db", "name": "app", "uid": "uid-1", "labels": {"team": "a"}},
        "spec": {"target": target},
    }))
    .unwrap()
}

fn manifest(api_version: &str, kind: &str) -> ManifestReference {
    ManifestReference {
        api_version: api_version.into(),
        kind: kind.into(),
    }
}

fn config_map() -> ManifestReference {
    manifest("v1", "ConfigMap")
}

fn read(pairs: &[(&str, &str)]) -> Assembled {
    Assembled {
        data: pairs
            .iter()
            .map(|(key, value)| ((*key).to_string(), SecretBytes::from(*value)))
            .collect(),
        found: pairs.len(),
        ..Assembled::default()
    }
}

fn decide(
    target: Value,
    kind: &ManifestReference,
    existing: Option<&DynamicObject>,
    assembled: &Assembled,
    paths: &[(&str, &str)],
) -> Result<Planned, ManifestError> {
    let paths = paths.iter().map(|(path, text)| {
        let text = SecretBytes::from(*text);
        ((*path).to_string(), yaml(path, &text).unwrap())
    });
    let paths = paths.collect();
    let shaped = Shaped {
        data: assembled.data.clone(),
        paths,
        ..Shaped::default()
    };
    let content = Wanted {
        assembled,
        shaped: Some(&shaped),
    };
    plan(&owner(target), kind, existing, content)
}

fn written(planned: Planned) -> DynamicObject {
    match planned.action {
        Action::Create(object) | Action::Update(object) => *object,
        _ => panic!("nothing to write"),
    }
}

/// What somebody else made.
fn foreign(metadata: Value, rest: Value) -> DynamicObject {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "db", "name": "app", "uid": "u", "resourceVersion": "1"},
    });
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    object
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn other_controller(kind: &str) -> Value {
    json!({"ownerReferences": [{
        "apiVersion": if kind == "ExternalSecret" { "external-secrets.io/v1beta1" } else { "apps/v1" },
        "kind": kind, "name": "other", "uid": "o", "controller": true,
    }]})
}

#[test]
fn values_go_to_data_of_a_config_map_and_to_spec_data_of_other_kinds() {
    let assembled = read(&[("k", "v")]);
    let object = written(decide(json!({}), &config_map(), None, &assembled, &[]).unwrap());
    assert_eq!(object.data, json!({"data": {"k": "v"}}));
    let app = manifest("example.com/v1", "App");
    let object = written(decide(json!({}), &app, None, &assembled, &[]).unwrap());
    assert_eq!(object.data, json!({"spec": {"data": {"k": "v"}}}));
    // One that sets metadata only makes no values; one with data does, and they go to data.
    for (template, wanted) in [
        (
            json!({"metadata": {"labels": {"a": "b"}}}),
            json!({"spec": {"data": {"k": "v"}}}),
        ),
        (json!({"data": {"k": "v"}}), json!({"data": {"k": "v"}})),
        (
            json!({"templateFrom": [{"literal": "k: v"}]}),
            json!({"data": {"k": "v"}}),
        ),
    ] {
        let target = json!({"template": template});
        let object = written(decide(target, &app, None, &assembled, &[]).unwrap());
        assert_eq!(object.data, wanted, "{template}");
    }
}

#[test]
fn a_new_object_is_named_labelled_and_owned_as_the_policy_says() {
    for (policy, owned) in [("Owner", true), ("Orphan", false), ("CreateOrMerge", false)] {
        let target = json!({"name": "shown", "creationPolicy": policy});
        let object = written(decide(target, &config_map(), None, &read(&[("k", "v")]), &[]).unwrap());
        let types = object.types.clone().unwrap();
        assert_eq!(
            (types.api_version.as_str(), types.kind.as_str()),
            ("v1", "ConfigMap")
        );
        assert_eq!(
            (object.name_any(), object.namespace().unwrap()),
            ("shown".to_string(), "db".to_string())
        );
        assert_eq!(object.labels()[names::LABEL_MANAGED], "true");
        assert!(!object.labels().contains_key("team"), "{policy}");
        let reference = object.owner_references().first();
        assert_eq!(
            reference.map(|reference| (
                reference.uid.as_str(),
                reference.controller,
                reference.block_owner_deletion
            )),
            owned.then_some(("uid-1", Some(true), Some(true))),
            "{policy}"
        );
    }
}

#[test]
fn rendered_paths_are_merged_in_order() {
    let paths = [
        ("spec.config", "a: 1\nb: text\n"),
        ("spec.config", "b: other\nlist: [x, true]\n"),
        ("spec.rules[0].host", "example.com"),
        ("metadata.labels", "app: shop\nport: 80\n"),
    ];
    let app = manifest("example.com/v1", "App");
    let object = written(
        decide(
            json!({"template": {}, "deletionPolicy": "Merge"}),
            &app,
            None,
            &read(&[]),
            &paths,
        )
        .unwrap(),
    );
    assert_eq!(
        object.data,
        json!({"spec": {
            "config": {"a": 1, "b": "other", "list": ["x", true]}, "rules": [{"host": "example.com"}],
        }})
    );
    assert_eq!(
        (object.labels()["app"].as_str(), object.labels()["port"].as_str()),
        ("shop", "80")
    );
}

#[test]
fn no_path_and_no_rendered_yaml_makes_an_object_that_is_too_deep_to_be_read() {
    let app = manifest("example.com/v1", "App");
    let place = |depth: usize| vec!["a"; depth].join(".");
    let deep = |depth: usize| format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
    let made = |path: &str, text: &str| {
        decide(
            json!({"template": {}, "deletionPolicy": "Merge"}),
            &app,
            None,
            &read(&[]),
            &[(path, text)],
        )
    };
    let object = written(made(&place(32), &deep(60)).unwrap());
    let text = serde_json::to_string(&object).unwrap();
    assert!(serde_json::from_str::<DynamicObject>(&text).is_ok());
    assert!(made(&place(400_000), &deep(1)).is_err());
    for text in [deep(100), deep(200_000), "- ".repeat(100_000)] {
        assert!(yaml("a", &SecretBytes::from(text.as_str())).is_err());
    }
}

#[test]
fn what_cannot_be_written_is_told_without_its_value() {
    let bad_path = decide(
        json!({}),
        &config_map(),
        None,
        &read(&[("k", "v")]),
        &[("a..b", "x")],
    );
    assert!(matches!(bad_path, Err(ManifestError::Path(_))));
    let error = yaml("spec", &SecretBytes::from("a: {hunter2: [")).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("line ") && !text.contains("hunter2"), "{text}");
    let mut binary = read(&[]);
    binary
        .data
        .insert("der".into(), SecretBytes::new(vec![0xff, 0xfe]));
    let error = decide(json!({}), &config_map(), None, &binary, &[])
        .err()
        .unwrap();
    assert_eq!(error, ManifestError::NotText("der".into(), "ConfigMap".into()));
}

#[test]
fn owner_and_orphan_replace_what_they_made_and_keep_its_state() {
    for policy in ["Owner", "Orphan"] {
        let target = json!({"creationPolicy": policy});
        let mut existing = written(
            decide(
                target.clone(),
                &config_map(),
                None,
                &read(&[("k", "v"), ("gone", "x")]),
                &[],
            )
            .unwrap(),
        );
        existing.metadata.resource_version = Some("1".into());
        let same = decide(
            target.clone(),
            &config_map(),
            Some(&existing),
            &read(&[("k", "v"), ("gone", "x")]),
            &[],
        );
        assert!(same.unwrap().action == Action::Nothing, "{policy}");
        existing.data["data"]["added"] = json!("by hand");
        existing.data["status"] = json!({"phase": "up"});
        let object = written(
            decide(
                target,
                &config_map(),
                Some(&existing),
                &read(&[("k", "new")]),
                &[],
            )
            .unwrap(),
        );
        assert_eq!(
            object.data,
            json!({"data": {"k": "new"}, "status": {"phase": "up"}}),
            "{policy}"
        );
        assert_eq!(object.resource_version().as_deref(), Some("1"));
    }
}

#[test]
fn what_somebody_else_made_is_never_replaced() {
    let plain = foreign(json!({}), json!({"data": {"theirs": "x"}}));
    // Merged into once: that does not make it ours.
    let merged = foreign(
        json!({
            "labels": {names::LABEL_MANAGED: "true"},
            "managedFields": [{"manager": names::field_manager("app"), "operation": "Update"}],
        }),
        json!({}),
    );
    for existing in [&plain, &merged] {
        for policy in ["Owner", "Orphan"] {
            let refused = decide(
                json!({"creationPolicy": policy}),
                &config_map(),
                Some(existing),
                &read(&[("k", "v")]),
                &[],
            );
            assert!(matches!(refused, Err(ManifestError::NotMade(_))), "{policy}");
        }
    }
    let eso = foreign(
        json!({"labels": {names::LABEL_MANAGED: "true"}}),
        json!({"data": {"k": "v"}}),
    );
    assert!(decide(json!({}), &config_map(), Some(&eso), &read(&[("k", "v")]), &[]).is_ok());
}

#[test]
fn what_another_external_secret_controls_is_refused_under_every_policy() {
    let another = foreign(other_controller("ExternalSecret"), json!({}));
    let deployment = foreign(other_controller("Deployment"), json!({}));
    for policy in ["Owner", "Orphan", "Merge", "CreateOrMerge"] {
        let target = json!({"creationPolicy": policy});
        let refused = decide(
            target.clone(),
            &config_map(),
            Some(&another),
            &read(&[("k", "v")]),
            &[],
        );
        assert!(
            matches!(refused, Err(ManifestError::OwnedByAnother(..))),
            "{policy}"
        );
        let taken = decide(
            target,
            &config_map(),
            Some(&deployment),
            &read(&[("k", "v")]),
            &[],
        );
        assert_eq!(
            matches!(taken, Err(ManifestError::Foreign(..))),
            !policy.contains("Merge"),
            "{policy}"
        );
    }
    let none = decide(
        json!({"creationPolicy": "None"}),
        &config_map(),
        Some(&another),
        &read(&[("k", "v")]),
        &[],
    );
    assert!(none.unwrap().action == Action::Nothing);
}

#[test]
fn merge_sets_its_fields_takes_back_its_old_ones_and_leaves_the_rest() {
    let existing = foreign(
        json!({
            "labels": {"theirs": "1", "ours": "1"},
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {"f:theirs": {}}}},
                {"manager": names::field_manager("app"), "operation": "Update", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:ours": {}}},
                    "f:data": {"f:old": {}},
                    "f:spec": {"f:config": {".": {}, "f:level": {}}, "f:rules": {}},
                }},
            ],
        }),
        json!({
            "data": {"theirs": "x", "old": "o", "k": "before"},
            "spec": {"config": {"level": "debug"}, "rules": [{"theirs": 1}]},
        }),
    );
    let object = written(
        decide(
            json!({"creationPolicy": "Merge"}),
            &config_map(),
            Some(&existing),
            &read(&[("k", "v")]),
            &[],
        )
        .unwrap(),
    );
    // A list may hold what others put into it.
    assert_eq!(
        object.data,
        json!({"data": {"theirs": "x", "k": "v"}, "spec": {"rules": [{"theirs": 1}]}})
    );
    assert!(object.labels().contains_key("theirs") && !object.labels().contains_key("ours"));
    assert!(object.owner_references().is_empty());
    let missing = decide(
        json!({"creationPolicy": "Merge"}),
        &config_map(),
        None,
        &read(&[("k", "v")]),
        &[],
    );
    let missing = missing.unwrap();
    assert!(missing.action == Action::Nothing);
    assert_eq!(ready(missing.outcome).0, "ResourceMissing");
}

#[test]
fn only_what_is_controlled_and_gone_at_its_source_is_deleted() {
    let target = json!({"deletionPolicy": "Delete"});
    let mut ours = written(decide(target.clone(), &config_map(), None, &read(&[("k", "v")]), &[]).unwrap());
    ours.metadata.uid = Some("u".into());
    ours.metadata.resource_version = Some("1".into());
    let gone = decide(target.clone(), &config_map(), Some(&ours), &read(&[]), &[]).unwrap();
    assert!(matches!(gone.action, Action::Delete { .. }));
    assert_eq!(ready(gone.outcome).0, "ResourceDeleted");
    let mut empty = read(&[]);
    empty.found = 1;
    let kept = decide(target.clone(), &config_map(), Some(&ours), &empty, &[]).unwrap();
    assert!(kept.action == Action::Nothing);
    let theirs = foreign(json!({}), json!({}));
    for (target, existing) in [
        (target.clone(), &theirs),
        (
            json!({"deletionPolicy": "Delete", "creationPolicy": "Orphan"}),
            &ours,
        ),
    ] {
        let refused = decide(target, &config_map(), Some(existing), &read(&[]), &[]);
        assert!(matches!(refused, Err(ManifestError::NotOursToDelete(_))));
    }
    // Made anew under the same name: the garbage collector has the old one.
    ours.metadata.owner_references.as_mut().unwrap()[0].uid = "before".into();
    let refused = decide(target, &config_map(), Some(&ours), &read(&[]), &[]);
    assert!(matches!(refused, Err(ManifestError::NotOursToDelete(_))));
}

#[test]
fn privileged_kinds_and_secrets_are_refused_by_name_and_all_without_the_flag() {
    let target =
        |api_version: &str, kind: &str| owner(json!({"manifest": {"apiVersion": api_version, "kind": kind}}));
    let text = |object: &ExternalSecret, allowed| check(object, allowed).unwrap_err().to_string();
    assert!(text(&target("v1", "ConfigMap"), false).starts_with("invalid generic target"));
    assert!(check(&target("v1", "ConfigMap"), true).is_ok() && check(&owner(json!({})), false).is_ok());
    assert!(text(&target("v1", "Secret"), true).contains("remove it"));
    for (api_version, kind) in [
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("v1", "ServiceAccount"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("external-secrets.io/v1", "ExternalSecret"),
        ("external-secrets.io/v1", "SecretStore"),
        ("generators.external-secrets.io/v1alpha1", "Password"),
    ] {
        let text = text(&target(api_version, kind), true);
        assert!(text.contains(api_version) && text.contains(kind), "{text}");
    }
    let immutable = owner(json!({"immutable": true, "manifest": {"apiVersion": "v1", "kind": "ConfigMap"}}));
    assert_eq!(check(&immutable, true), Err(ManifestError::Immutable));
}
