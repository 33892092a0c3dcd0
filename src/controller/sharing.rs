//! ExternalSecrets that write one target. Whoever writes last wins, as with ESO; where they write the same keys, or one
//! takes away what the other wrote, both are told. `Merge` of different keys is a pattern, and nobody's fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::context::{Context, reference};
use super::index::{ObjectKey, target_of};
use super::outcome;
use super::queue::Priority;
use super::sync::Ran;
use crate::api::external_secret::{CreationPolicy, ExternalSecret};
use crate::target::names;
use crate::target::undone::few;

/// Others that are told.
const OTHERS: usize = 3;
/// Others that are remembered.
const OTHERS_MAX: usize = 10;

/// Keys of a target that one ExternalSecret writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    keys: BTreeSet<String>,
    /// Whether it takes away all others.
    whole: bool,
}

impl Claim {
    /// What an object writes, as far as its own text tells.
    fn by_spec(object: &ExternalSecret) -> BTreeSet<String> {
        let spec = &object.spec;
        let templated = spec.template().and_then(|template| template.data.as_ref());
        match templated {
            Some(data) => data.keys().cloned().collect(),
            None => spec.data.iter().map(|entry| entry.secret_key.clone()).collect(),
        }
    }

    fn of(object: &ExternalSecret, keys: BTreeSet<String>) -> Self {
        let policy = object.spec.creation_policy();
        Self {
            keys,
            whole: matches!(policy, CreationPolicy::Owner | CreationPolicy::Orphan),
        }
    }

    /// Keys that both write, and those that one takes from the other.
    fn contended(&self, other: &Self) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = self.keys.intersection(&other.keys).cloned().collect();
        for (whole, of) in [(self.whole, other), (other.whole, self)] {
            if whole {
                keys.extend(of.keys.iter().cloned());
            }
        }
        keys
    }
}

/// Whether both write one object; the index knows targets by name alone.
fn is_shared(one: &ExternalSecret, other: &ExternalSecret) -> bool {
    one.spec.manifest() == other.spec.manifest()
        && [one, other]
            .iter()
            .all(|object| object.spec.creation_policy() != CreationPolicy::None)
}

/// Takes note of what a sync wrote, and tells it and the others where they write the same.
pub fn compare(ctx: &Context, key: &ObjectKey, object: &ExternalSecret, ran: &Ran) {
    let Some(keys) = &ran.keys else { return };
    ctx.remember(key, |memory| memory.keys = Some(keys.clone()));
    let own = Claim::of(object, BTreeSet::clone(keys));
    let others = ctx.index().writers_of(&target_of(object));
    for other in others.iter().filter(|other| *other != key).take(OTHERS_MAX) {
        let Some(theirs) = ctx.index().get(other) else {
            continue;
        };
        let mut contended = BTreeSet::new();
        // One that is refused, or waits, writes nothing.
        if is_shared(object, &theirs) && outcome::was_ready(&theirs) {
            let known = ctx.memory(other).keys;
            let keys = known.map_or_else(|| Claim::by_spec(&theirs), |keys| BTreeSet::clone(&keys));
            contended = own.contended(&Claim::of(&theirs, keys));
            let managers = names::field_managers(&other.name);
            if let Some(undone) = &ran.undone
                && managers.iter().any(|manager| undone.managers.contains(manager))
            {
                contended.extend(undone.keys.iter().cloned());
            }
        }
        let told: Option<Arc<str>> = (!contended.is_empty()).then(|| few(&contended, "").into());
        note(ctx, (key, object), other, told.as_ref());
        if note(ctx, (other, &theirs), key, told.as_ref()) {
            // Only its condition is written anew.
            ctx.queue.push(other, Priority::Routine);
        }
    }
}

/// Remembers with whom an object shares keys; says whether that is news.
fn note(
    ctx: &Context,
    (key, object): (&ObjectKey, &ExternalSecret),
    other: &ObjectKey,
    keys: Option<&Arc<str>>,
) -> bool {
    let old = ctx.remember(key, |memory| match keys {
        Some(keys) => memory
            .shared
            .get_or_insert_default()
            .insert(other.name.clone(), keys.clone()),
        None => memory
            .shared
            .as_mut()
            .and_then(|shared| shared.remove(&other.name)),
    });
    if let (Some(keys), None) = (keys, &old) {
        let told = sentence(object, [(&*other.name, &**keys)].into_iter());
        ctx.recorder.send(reference(object), true, "TargetShared", &told);
    }
    old.as_ref() != keys
}

/// What the condition says of it.
#[must_use]
pub fn aside(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> Option<String> {
    let shared = ctx.memory(key).shared?;
    let writers = ctx.index().writers_of(&target_of(object));
    let still = |name: &Arc<str>| writers.iter().any(|writer| writer.name == *name);
    let others = shared.iter().filter(|(name, _)| still(name)).take(OTHERS);
    let others: Vec<(&str, &str)> = others.map(|(name, keys)| (&**name, &**keys)).collect();
    (!others.is_empty()).then(|| sentence(object, others.into_iter()))
}

fn sentence<'a>(object: &ExternalSecret, others: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let others: Vec<String> = others
        .map(|(name, keys)| format!("ExternalSecret {name} writes the same keys ({keys})"))
        .collect();
    format!(
        "{} of {}, and whoever writes last wins; let only one of them write a key",
        others.join(", "),
        outcome::named(object)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(target: Value, data: &[&str]) -> ExternalSecret {
        let data: Vec<Value> = data
            .iter()
            .map(|key| json!({"secretKey": key, "remoteRef": {"key": "p"}}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": "a"}, "spec": {"target": target, "data": data},
        }))
        .unwrap()
    }

    #[test]
    fn only_keys_that_both_write_or_that_one_takes_away_are_told() {
        let claim = |policy: &str, keys: &[&str]| {
            let object = object(json!({"creationPolicy": policy}), keys);
            let keys = Claim::by_spec(&object);
            Claim::of(&object, keys)
        };
        for (one, other, wanted) in [
            (("Merge", vec!["a", "b"]), ("Merge", vec!["c"]), vec![]),
            (
                ("Merge", vec!["a", "b"]),
                ("CreateOrMerge", vec!["b", "c"]),
                vec!["b"],
            ),
            (("Orphan", vec!["a"]), ("Merge", vec!["c"]), vec!["c"]),
            (("Orphan", vec!["a"]), ("Orphan", vec!["c"]), vec!["a", "c"]),
            (("Orphan", vec![]), ("Merge", vec![]), vec![]),
        ] {
            let (one, other) = (claim(one.0, &one.1), claim(other.0, &other.1));
            let keys: Vec<String> = one.contended(&other).into_iter().collect();
            assert_eq!(keys, wanted, "{one:?} {other:?}");
            assert_eq!(one.contended(&other), other.contended(&one));
        }
    }

    #[test]
    fn a_target_is_shared_by_those_who_write_an_object_of_one_kind() {
        let secret = object(json!({"creationPolicy": "Merge"}), &[]);
        let map = object(
            json!({"manifest": {"apiVersion": "v1", "kind": "ConfigMap"}}),
            &[],
        );
        let reader = object(json!({"creationPolicy": "None"}), &[]);
        assert!(is_shared(&secret, &secret) && is_shared(&map, &map));
        assert!(!is_shared(&secret, &map) && !is_shared(&secret, &reader));
        let templated = object(json!({"template": {"data": {"made": "x"}}}), &["read"]);
        assert_eq!(Claim::by_spec(&templated), BTreeSet::from(["made".to_owned()]));
    }
}
