#![allow(clippy::unwrap_used, clippy::panic)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::*;
use crate::sync::shape::{Shape, Sources};
use crate::template::Delims;
use serde_json::{Value, json};

fn owner(target: Value) -> ExternalSecret {
    serde_json::from_value(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {
            "namespace": "db", "name": "pg", "uid": "uid-1", "labels": {"team": "a"},
            "annotations": {"note": "x", names::ANNOTATION_LAST_APPLIED: "{}"},
        },
        "spec": {"target": target},
    }))
    .unwrap()
}

fn data(pairs: &[(&str, &str)]) -> Assembled {
    let data = pairs
        .iter()
        .map(|(k, v)| ((*k).to_string(), SecretBytes::from(*v)))
        .collect();
    Assembled {
        data,
        found: pairs.len(),
        ..Assembled::default()
    }
}

fn hasher() -> DataHasher {
    crate::target::hash::tests::hasher(b"installation")
}

fn decide(target: Value, existing: Option<&Secret>, pairs: &[(&str, &str)]) -> Result<Planned, TargetError> {
    decide_as(&owner(target), existing, &data(pairs))
}

/// Renders the template too, as the controller does.
fn decide_as(
    owner: &ExternalSecret,
    existing: Option<&Secret>,
    assembled: &Assembled,
) -> Result<Planned, TargetError> {
    let shaped = owner.spec.template().map(|template| {
        let shape = Shape::prepare(template, false, &Sources::new(), &Delims::default());
        shape.unwrap().render(&assembled.data).unwrap()
    });
    let wanted = Wanted {
        assembled,
        shaped: shaped.as_ref(),
    };
    plan(owner, existing, wanted, &hasher())
}

fn written(planned: Planned) -> Secret {
    match planned.action {
        Action::Create(secret) | Action::Update(secret) => *secret,
        other => panic!("{other:?}"),
    }
}

fn plain(secret: &Secret) -> Vec<(String, String)> {
    let data = secret.data.iter().flatten();
    data.map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))
        .collect()
}

fn pair(k: &str, v: &str) -> (String, String) {
    (k.into(), v.into())
}

fn foreign(data: Value) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"namespace": "db", "name": "pg", "uid": "s", "resourceVersion": "1", "labels": {"theirs": "1"}},
        "type": "Opaque", "data": data,
    }))
    .unwrap()
}

fn ours(target: Value, pairs: &[(&str, &str)]) -> Secret {
    let mut secret = written(decide(target, None, pairs).unwrap());
    secret.metadata.uid = Some("s".into());
    secret.metadata.resource_version = Some("1".into());
    let keys: serde_json::Map<String, Value> =
        pairs.iter().map(|(k, _)| (format!("f:{k}"), json!({}))).collect();
    secret.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some(names::field_manager("pg")),
        operation: Some("Update".into()),
        fields_v1: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1(
            json!({"f:data": keys, "f:metadata": {"f:labels": {"f:old": {}}}}),
        )),
        ..ManagedFieldsEntry::default()
    }]);
    secret
}

#[test]
fn a_new_target_carries_what_eso_users_and_tools_look_for() {
    let secret = written(decide(json!({}), None, &[("k", "v")]).unwrap());
    let labels = secret.labels();
    assert_eq!(labels[names::LABEL_MANAGED], "true");
    assert_eq!(labels[names::LABEL_CREATED_BY], names::created_by("db", "pg"));
    assert_eq!(labels["team"], "a");
    assert_eq!(secret.annotations()["note"], "x");
    assert!(!secret.annotations().contains_key(names::ANNOTATION_LAST_APPLIED));
    let reference = &secret.owner_references()[0];
    assert_eq!(
        (reference.api_version.as_str(), reference.kind.as_str()),
        ("external-secrets.io/v1", "ExternalSecret")
    );
    assert_eq!(
        (reference.controller, reference.block_owner_deletion),
        (Some(true), Some(true))
    );
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(hasher().seal(&secret), Seal::Intact);
}

#[test]
fn a_template_even_an_empty_one_stops_the_copy_of_labels() {
    let secret = written(decide(json!({"template": {}}), None, &[("k", "v")]).unwrap());
    assert!(!secret.labels().contains_key("team") && !secret.annotations().contains_key("note"));
}

#[test]
fn a_refresh_that_changes_nothing_writes_nothing() {
    for policy in ["Owner", "Orphan", "CreateOrMerge"] {
        let target = json!({"creationPolicy": policy});
        let existing = ours(target.clone(), &[("k", "v")]);
        assert_eq!(
            decide(target, Some(&existing), &[("k", "v")]).unwrap().action,
            Action::Nothing,
            "{policy}"
        );
    }
}

#[test]
fn a_good_secret_is_never_emptied_when_there_is_nothing_to_write_and_the_policy_is_retain() {
    let existing = ours(json!({}), &[("k", "v")]);
    let planned = decide(json!({"deletionPolicy": "Retain"}), Some(&existing), &[]).unwrap();
    assert_eq!(
        (planned.action, planned.outcome),
        (Action::Nothing, Outcome::Retained)
    );
}

#[test]
fn only_our_own_secret_is_deleted() {
    let target = json!({"deletionPolicy": "Delete"});
    let existing = ours(target.clone(), &[("k", "v")]);
    let planned = decide(target.clone(), Some(&existing), &[]).unwrap();
    assert!(matches!(planned.action, Action::Delete { .. }));
    assert!(matches!(
        decide(target.clone(), Some(&foreign(json!({}))), &[]),
        Err(TargetError::NotOursToDelete(_))
    ));
    let mut of_another_life = existing;
    of_another_life.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-0".into();
    assert!(matches!(
        decide(target.clone(), Some(&of_another_life), &[]),
        Err(TargetError::NotOursToDelete(_))
    ));
    assert_eq!(decide(target, None, &[]).unwrap().action, Action::Nothing);
}

#[test]
fn a_secret_that_is_empty_at_vault_deletes_nothing() {
    let target = json!({"deletionPolicy": "Delete"});
    let existing = ours(target.clone(), &[("k", "v")]);
    let empty = Assembled {
        found: 1,
        ..Assembled::default()
    };
    let planned = decide_as(&owner(target), Some(&existing), &empty).unwrap();
    assert_eq!(
        (planned.action, planned.outcome),
        (Action::Nothing, Outcome::Retained)
    );
}

#[test]
fn owner_and_orphan_replace_all_data_and_merge_keeps_what_is_foreign() {
    let existing = foreign(json!({"theirs": "MQ==", "k": "MQ=="}));
    for policy in ["Owner", "Orphan"] {
        let secret =
            written(decide(json!({"creationPolicy": policy}), Some(&existing), &[("k", "v")]).unwrap());
        assert_eq!(plain(&secret), [pair("k", "v")], "{policy}");
    }
    for policy in ["Merge", "CreateOrMerge"] {
        let secret =
            written(decide(json!({"creationPolicy": policy}), Some(&existing), &[("k", "v")]).unwrap());
        assert_eq!(plain(&secret), [pair("k", "v"), pair("theirs", "1")], "{policy}");
        assert!(secret.owner_references().is_empty() && secret.labels()["theirs"] == "1");
    }
}

#[test]
fn own_keys_and_labels_that_are_no_longer_wanted_go() {
    let target = json!({"creationPolicy": "CreateOrMerge"});
    let mut existing = ours(target.clone(), &[("gone", "1"), ("k", "1")]);
    existing
        .data
        .as_mut()
        .unwrap()
        .insert("theirs".into(), ByteString(b"1".to_vec()));
    existing
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("old".into(), "1".into());
    let secret = written(decide(target, Some(&existing), &[("k", "2")]).unwrap());
    assert_eq!(plain(&secret), [pair("k", "2"), pair("theirs", "1")]);
    assert!(!secret.labels().contains_key("old"));
}

#[test]
fn a_policy_that_is_no_longer_owner_lets_go() {
    let existing = ours(json!({}), &[("k", "v")]);
    let secret = written(
        decide(
            json!({"creationPolicy": "Orphan"}),
            Some(&existing),
            &[("k", "v")],
        )
        .unwrap(),
    );
    assert!(secret.owner_references().is_empty() && !secret.labels().contains_key(names::LABEL_CREATED_BY));
}

#[test]
fn merge_waits_for_its_target_and_none_writes_nothing() {
    let planned = decide(json!({"creationPolicy": "Merge"}), None, &[("k", "v")]).unwrap();
    assert_eq!(
        (planned.action, planned.outcome),
        (Action::Nothing, Outcome::Missing)
    );
    let planned = decide(json!({"creationPolicy": "None"}), None, &[("k", "v")]).unwrap();
    assert_eq!((planned.action, planned.binding), (Action::Nothing, None));
}

#[test]
fn a_foreign_object_is_refused_and_never_overwritten() {
    let mut existing = foreign(json!({"k": "MQ=="}));
    let reference = |kind: &str, api: &str, name: &str| OwnerReference {
        kind: kind.into(),
        api_version: api.into(),
        name: name.into(),
        uid: "x".into(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    existing.metadata.owner_references = Some(vec![reference(
        "ExternalSecret",
        "external-secrets.io/v1beta1",
        "other",
    )]);
    for policy in ["Owner", "Orphan", "Merge", "CreateOrMerge"] {
        let result = decide(json!({"creationPolicy": policy}), Some(&existing), &[("k", "v")]);
        assert!(matches!(result, Err(TargetError::OwnedByAnother(..))), "{policy}");
    }
    existing.metadata.owner_references = Some(vec![reference("Certificate", "cert-manager.io/v1", "tls")]);
    let result = decide(json!({}), Some(&existing), &[("k", "v")]);
    assert!(matches!(result, Err(TargetError::Foreign(..))));
    for type_ in FORBIDDEN_TYPES {
        let mut token = foreign(json!({}));
        token.type_ = Some((*type_).into());
        let result = decide(json!({"creationPolicy": "Merge"}), Some(&token), &[("k", "v")]);
        assert!(matches!(result, Err(TargetError::ForbiddenType(..))), "{type_}");
    }
}

#[test]
fn an_immutable_target_keeps_its_data() {
    let target = json!({"immutable": true});
    let existing = ours(target.clone(), &[("k", "1")]);
    assert_eq!(existing.immutable, Some(true));
    assert_eq!(
        decide(target, Some(&existing), &[("k", "2")]).unwrap().action,
        Action::Nothing
    );
    assert!(matches!(
        decide(json!({}), Some(&existing), &[("k", "2")]),
        Err(TargetError::Immutable(_))
    ));
    assert!(decide(json!({}), Some(&existing), &[("k", "1")]).is_ok());
}

#[test]
fn taking_over_an_unchanged_secret_of_eso_replaces_its_hash_once_and_no_data() {
    let mut existing = ours(json!({}), &[("foo", "value1"), ("bar", "value2")]);
    existing.metadata.annotations.as_mut().unwrap().insert(
        names::ANNOTATION_DATA_HASH.into(),
        "1bed8bcbcb4547ffe19a19cd47d9078e84aa6598266d86b99f992d64".into(),
    );
    let planned = decide(
        json!({}),
        Some(&existing),
        &[("foo", "value1"), ("bar", "value2")],
    )
    .unwrap();
    let taken = written(planned);
    assert_eq!(
        sealed(&owner(json!({})), &existing, &hasher()).as_ref(),
        Some(&taken)
    );
    assert_eq!(hasher().seal(&taken), Seal::Intact);
    assert_eq!(taken.data, existing.data);
    let again = decide(json!({}), Some(&taken), &[("foo", "value1"), ("bar", "value2")]);
    assert_eq!(again.unwrap().action, Action::Nothing);
}

#[test]
fn only_a_secret_of_ours_that_nobody_changed_is_signed_again() {
    let (pg, lost) = (owner(json!({})), crate::target::hash::tests::hasher(b"lost"));
    let mut secret = ours(json!({}), &[("k", "v")]);
    assert_eq!(sealed(&pg, &secret, &hasher()), None);
    let hash = lost.annotation(&secret);
    secret
        .annotations_mut()
        .insert(names::ANNOTATION_DATA_HASH.into(), hash);
    let signed = sealed(&pg, &secret, &hasher()).unwrap();
    assert_eq!(hasher().seal(&signed), Seal::Intact);
    assert_eq!(signed.data, secret.data);
    let mut edited = signed;
    edited
        .data
        .get_or_insert_default()
        .insert("k".into(), ByteString(b"x".to_vec()));
    assert_eq!(sealed(&pg, &edited, &hasher()), None);
    let mut anothers = secret;
    anothers.metadata.owner_references.as_mut().unwrap()[0].name = "another".into();
    assert_eq!(sealed(&pg, &anothers, &hasher()), None);
}

#[test]
fn a_secret_whose_values_are_leased_says_until_when_and_one_that_is_not_any_more_does_not() {
    let note = |secret: &Secret| secret.annotations().get(leased::ANNOTATION_LEASED_UNTIL).cloned();
    let mut read = data(&[("k", "v")]);
    read.leased_until = "2026-12-01T12:00:00Z".parse().ok();
    let mut leased = written(decide_as(&owner(json!({})), None, &read).unwrap());
    assert_eq!(note(&leased).as_deref(), Some("2026-12-01T12:00:00Z"));
    leased.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        manager: Some(names::field_manager("pg")),
        fields_v1: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1(
            json!({"f:metadata": {"f:annotations": {
                format!("f:{}", leased::ANNOTATION_LEASED_UNTIL): {},
            }}}),
        )),
        ..ManagedFieldsEntry::default()
    }]);
    read.leased_until = None;
    let no_more = written(decide_as(&owner(json!({})), Some(&leased), &read).unwrap());
    assert_eq!(note(&no_more), None);
}

#[test]
fn more_than_a_secret_holds_is_refused_with_the_sizes() {
    let big = "x".repeat(DATA_MAX);
    let error = decide(json!({}), None, &[("k", &big)]).unwrap_err().to_string();
    assert!(error.contains("1048577 bytes"), "{error}");
}

#[test]
fn a_template_sets_type_labels_annotations_finalizers_and_data() {
    let target = json!({"template": {
        "type": "kubernetes.io/basic-auth",
        "metadata": {
            "labels": {"user": "{{ .k }}", names::LABEL_MANAGED: "no"}, "annotations": {"note": "of {{ .k }}"},
            "finalizers": ["example.com/f"],
        },
        "data": {"username": "{{ .k | upper }}"},
    }});
    let secret = written(decide(target, None, &[("k", "v")]).unwrap());
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    assert_eq!(secret.labels()["user"], "v");
    assert_eq!(secret.labels()[names::LABEL_MANAGED], "true");
    assert_eq!(secret.annotations()["note"], "of v");
    assert!(!secret.labels().contains_key("team"));
    assert_eq!(secret.finalizers(), ["example.com/f"]);
    assert_eq!(plain(&secret), [pair("username", "V")]);
}

#[test]
fn finalizers_are_added_once_and_not_to_a_secret_that_is_being_deleted() {
    let target = json!({"template": {"metadata": {"finalizers": ["example.com/f"]}}});
    let mut existing = ours(target.clone(), &[("k", "v")]);
    let again = decide(target.clone(), Some(&existing), &[("k", "v")]).unwrap();
    assert_eq!(again.action, Action::Nothing);
    existing.metadata.finalizers = None;
    existing.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
    ));
    let going = decide(target, Some(&existing), &[("k", "v")]).unwrap();
    assert_eq!(going.action, Action::Nothing);
}

#[test]
fn the_type_of_a_secret_that_exists_cannot_be_changed_and_the_message_says_what_to_do() {
    let existing = ours(json!({}), &[("tls.crt", "a"), ("tls.key", "b")]);
    let error = decide(
        json!({"template": {"type": "kubernetes.io/tls"}}),
        Some(&existing),
        &[("k", "v")],
    );
    let message = error.unwrap_err().to_string();
    assert!(message.contains("delete it to have it made anew"), "{message}");
    let kept = decide(
        json!({"template": {"type": "Opaque"}}),
        Some(&existing),
        &[("k", "v")],
    );
    assert!(kept.is_ok());
}

#[test]
fn an_orphan_is_synced_with_deletion_policy_delete_and_never_deleted() {
    let target = json!({"creationPolicy": "Orphan", "deletionPolicy": "Delete"});
    let existing = written(decide(target.clone(), None, &[("k", "v")]).unwrap());
    for existing in [Some(&existing), None] {
        let refused = decide(target.clone(), existing, &[]).unwrap_err();
        assert!(
            refused.to_string().starts_with("could not delete secret"),
            "{refused}"
        );
    }
}

#[test]
fn every_write_of_what_is_there_carries_the_version_that_was_looked_at() {
    let there = || {
        let mut secret = written(decide(json!({}), None, &[("a", "1")]).unwrap());
        secret.metadata.resource_version = Some("7".into());
        secret.metadata.uid = Some("of this one".into());
        secret
    };
    for policy in ["Owner", "Orphan", "Merge", "CreateOrMerge"] {
        let planned = decide(json!({"creationPolicy": policy}), Some(&there()), &[("a", "2")]);
        let metadata = written(planned.unwrap()).metadata;
        assert_eq!(metadata.resource_version.as_deref(), Some("7"), "{policy}");
        assert_eq!(metadata.uid.as_deref(), Some("of this one"), "{policy}");
    }
    let planned = decide(json!({"deletionPolicy": "Delete"}), Some(&there()), &[]).unwrap();
    let Action::Delete {
        uid,
        resource_version,
    } = planned.action
    else {
        panic!("{planned:?}")
    };
    assert_eq!((uid.as_str(), resource_version.as_str()), ("of this one", "7"));
}
