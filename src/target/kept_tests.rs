#![allow(clippy::unwrap_used)]

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;
use crate::target::hash::InstallationKey;
use crate::target::hash::tests::{hasher, unbound};

fn owner(target: Value) -> ExternalSecret {
    serde_json::from_value(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"namespace": "db", "name": "pg", "uid": "uid-1"}, "spec": {"target": target},
    }))
    .unwrap()
}

fn pg() -> ExternalSecret {
    owner(json!({"template": {"data": {"password": "{{ randAlphaNum 9 }}"}}}))
}

fn inputs(value: &str) -> Inputs {
    Inputs::from([
        ("value/user".to_owned(), value.into()),
        (TEMPLATE.to_owned(), text_of(pg().spec.template().unwrap())),
    ])
}

fn rendered() -> Shaped {
    Shaped {
        data: BTreeMap::from([("password".to_owned(), "made-up".into())]),
        labels: BTreeMap::from([("made".to_owned(), "today".to_owned())]),
        annotations: BTreeMap::from([("at".to_owned(), "noon".to_owned())]),
        ..Shaped::default()
    }
}

/// With a record, as it stands in the cluster.
fn stored(shaped: Shaped, hasher: &DataHasher) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.namespace = Some("db".into());
    secret.metadata.name = Some("pg".into());
    let data = shaped.data.into_iter();
    secret.data = Some(
        data.map(|(key, value)| (key, ByteString(value.expose().to_vec())))
            .collect(),
    );
    secret.metadata.labels = Some(shaped.labels);
    secret.metadata.annotations = Some(shaped.annotations);
    secret
        .labels_mut()
        .insert(names::LABEL_MANAGED.into(), "true".into());
    let hash = hasher.annotation(&secret);
    secret
        .annotations_mut()
        .insert(names::ANNOTATION_DATA_HASH.into(), hash);
    secret
}

fn target(hasher: &DataHasher) -> Secret {
    let mut shaped = rendered();
    remember(&mut shaped, &pg(), &inputs("a"), hasher);
    stored(shaped, hasher)
}

/// A target as a version left it that bound its hashes to nothing.
fn unbound_target(bytes: &[u8]) -> Secret {
    let (inputs, shaped) = (inputs("a"), rendered());
    let hash = unbound(bytes, pairs(&parts(&shaped, &inputs)));
    let record = json!({"hash": hash, "data": ["password"], "labels": ["made"], "annotations": ["at"]});
    let mut secret = stored(shaped, &hasher(b"key"));
    let data = secret.data.clone().unwrap_or_default();
    let data = data.iter().map(|(key, value)| (key, value.0.as_slice()));
    let annotations = secret.annotations_mut();
    annotations.insert(names::ANNOTATION_DATA_HASH.into(), unbound(bytes, data));
    annotations.insert(ANNOTATION_RENDERED.into(), record.to_string());
    secret
}

fn edited(mut secret: Secret) -> Secret {
    let data = secret.data.as_mut().unwrap();
    data.insert("password".into(), ByteString(b"mine".to_vec()));
    secret
}

#[test]
fn what_was_rendered_is_kept_while_nothing_changed() {
    let hasher = hasher(b"key");
    let kept = kept(&pg(), &target(&hasher), &inputs("a"), &hasher);
    assert_eq!(kept, Kept::All(rendered()));
}

#[test]
fn a_changed_input_or_a_changed_target_is_rendered_anew() {
    let hasher = hasher(b"key");
    let kept = |secret: &Secret, value: &str| kept(&pg(), secret, &inputs(value), &hasher);
    assert_eq!(kept(&target(&hasher), "b"), Kept::Nothing);
    assert_eq!(kept(&edited(target(&hasher)), "a"), Kept::Nothing);
    let mut unlabelled = target(&hasher);
    unlabelled.metadata.labels = None;
    assert_eq!(kept(&unlabelled, "a"), Kept::Nothing);
    let mut forged = target(&hasher);
    let annotations = forged.annotations_mut();
    annotations.insert(ANNOTATION_RENDERED.into(), "not JSON".into());
    assert_eq!(kept(&forged, "a"), Kept::Nothing);
    let mut copy = target(&hasher);
    copy.metadata.namespace = Some("web".into());
    assert_eq!(kept(&copy, "a"), Kept::Nothing);
}

#[test]
fn keys_that_others_added_do_not_matter() {
    let hasher = hasher(b"key");
    let mut merged = target(&hasher);
    let data = merged.data.as_mut().unwrap();
    data.insert("theirs".into(), ByteString(b"x".to_vec()));
    let kept = kept(&pg(), &merged, &inputs("a"), &hasher);
    assert_eq!(kept, Kept::All(rendered()));
}

#[test]
fn under_a_key_that_is_not_known_nothing_that_was_made_up_is_made_anew() {
    let (lost, present) = (hasher(b"lost"), hasher(b"present"));
    for secret in [target(&lost), unbound_target(b"lost")] {
        for value in ["a", "b"] {
            let is = kept(&pg(), &secret, &inputs(value), &present);
            assert_eq!(is, Kept::MadeUp(rendered()), "{value}");
        }
        // Where nothing says that it is ours, a record says nothing either.
        let mut theirs = secret.clone();
        theirs.labels_mut().remove(names::LABEL_MANAGED);
        assert_eq!(kept(&pg(), &theirs, &inputs("a"), &present), Kept::Nothing);
    }
}

#[test]
fn a_former_key_still_tells_what_changed() {
    let former = hasher(b"former");
    let present = former.succeeded_by(InstallationKey::new(b"present", "uid"));
    let secret = target(&former);
    assert_eq!(
        kept(&pg(), &secret, &inputs("a"), &present),
        Kept::All(rendered())
    );
    assert_eq!(kept(&pg(), &secret, &inputs("b"), &present), Kept::Nothing);
}

#[test]
fn a_record_of_a_former_form_is_understood() {
    let (hasher, secret) = (hasher(b"key"), unbound_target(b"key"));
    assert_eq!(kept(&pg(), &secret, &inputs("a"), &hasher), Kept::All(rendered()));
    assert_eq!(kept(&pg(), &secret, &inputs("b"), &hasher), Kept::Nothing);
    assert!(!is_signed(&secret, &hasher));
}

#[test]
fn a_target_that_cannot_change_keeps_what_was_made_up_whatever_changed() {
    let hasher = hasher(b"key");
    let mut secret = target(&hasher);
    secret.immutable = Some(true);
    let frozen = owner(json!({"immutable": true}));
    let kept = kept(&frozen, &secret, &inputs("b"), &hasher);
    assert_eq!(kept, Kept::MadeUp(rendered()));
}

#[test]
fn a_record_that_was_signed_without_values_tells_a_changed_template_and_no_more() {
    let (lost, present) = (hasher(b"lost"), hasher(b"present"));
    let mut secret = target(&lost);
    let record = adopted(&pg(), &secret, &present).unwrap();
    secret
        .annotations_mut()
        .insert(ANNOTATION_RENDERED.into(), record);
    assert!(is_signed(&secret, &present));
    for value in ["a", "b"] {
        let is = kept(&pg(), &secret, &inputs(value), &present);
        assert_eq!(is, Kept::MadeUp(rendered()), "{value}");
    }
    let mut changed = inputs("a");
    changed.insert(TEMPLATE.into(), "another".into());
    assert_eq!(kept(&pg(), &secret, &changed, &present), Kept::Nothing);
    assert_eq!(
        kept(&pg(), &edited(secret), &inputs("a"), &present),
        Kept::Nothing
    );
}
