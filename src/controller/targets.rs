//! What is known of the Secrets that we manage: never their data (promise 5), only which
//! resourceVersion of them was looked at last, and whether it was intact.

use std::collections::{BTreeSet, HashMap};

use kube::api::ObjectMeta;

use super::index::{ObjectKey, is_newer};
use crate::target::names;

/// One managed Secret, as the metadata watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its UID.
    pub uid: String,
    /// Its label `created-by`.
    pub created_by: Option<String>,
    /// UID of the owner that controls it.
    pub controller: Option<String>,
}

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none with our label.
    Absent,
    /// It holds what was last written.
    Intact,
    /// It was changed by somebody.
    Harmed,
    /// It has to be looked at.
    Unknown,
}

#[derive(Clone, Debug)]
struct Verified {
    resource_version: String,
    intact: bool,
}

/// All managed Secrets.
#[derive(Default)]
pub struct Targets {
    seen: HashMap<ObjectKey, Seen>,
    by_creator: HashMap<String, BTreeSet<ObjectKey>>,
    verified: HashMap<ObjectKey, Verified>,
}

impl Targets {
    /// Takes note of a watch event. Says whether somebody else's hand may have been at the Secret.
    pub fn observe(&mut self, key: &ObjectKey, metadata: &ObjectMeta) -> bool {
        let seen = Seen::of(metadata);
        let known = self
            .verified
            .get(key)
            .is_some_and(|v| v.resource_version == seen.resource_version);
        self.insert(key, seen);
        !known
    }

    fn insert(&mut self, key: &ObjectKey, seen: Seen) {
        self.take(key);
        if let Some(creator) = &seen.created_by {
            self.by_creator
                .entry(creator.clone())
                .or_default()
                .insert(key.clone());
        }
        self.seen.insert(key.clone(), seen);
    }

    fn take(&mut self, key: &ObjectKey) {
        let Some(creator) = self.seen.remove(key).and_then(|seen| seen.created_by) else {
            return;
        };
        if let Some(keys) = self.by_creator.get_mut(&creator) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_creator.remove(&creator);
            }
        }
    }

    /// Takes note that a Secret is gone, or lost our label.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.take(key);
        self.verified.remove(key);
    }

    /// Takes note of a Secret whose data was looked at, or written by us.
    pub fn verify(&mut self, key: &ObjectKey, metadata: &ObjectMeta, intact: bool) {
        let seen = Seen::of(metadata);
        let verified = Verified {
            resource_version: seen.resource_version.clone(),
            intact,
        };
        self.verified.insert(key.clone(), verified);
        // The watch may have shown already what somebody did to it since.
        let known = self.seen.get(key).filter(|known| known.uid == seen.uid);
        if !known.is_some_and(|known| is_newer(Some(&known.resource_version), Some(&seen.resource_version))) {
            self.insert(key, seen);
        }
    }

    /// What is known of a target.
    #[must_use]
    pub fn state(&self, key: &ObjectKey) -> State {
        let Some(seen) = self.seen.get(key) else {
            return State::Absent;
        };
        match self.verified.get(key) {
            Some(verified) if verified.resource_version == seen.resource_version => {
                if verified.intact {
                    State::Intact
                } else {
                    State::Harmed
                }
            }
            _ => State::Unknown,
        }
    }

    /// Secrets that this owner once created under another name: controlled by its UID, so that a copy
    /// that somebody made together with its labels is left alone.
    #[must_use]
    pub fn orphans(
        &self,
        namespace: &str,
        owner: &str,
        owner_uid: &str,
        target: &str,
    ) -> Vec<(ObjectKey, Seen)> {
        let created = self
            .by_creator
            .get(&names::created_by(namespace, owner))
            .into_iter()
            .flatten();
        created
            .filter(|key| key.namespace == namespace && key.name != target)
            .filter_map(|key| Some((key.clone(), self.seen.get(key)?.clone())))
            .filter(|(_, seen)| seen.controller.as_deref() == Some(owner_uid))
            .collect()
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.seen.len() + self.by_creator.len() + self.verified.len()
    }

    /// All keys in this namespace, or in all.
    #[must_use]
    pub fn keys(&self, namespace: Option<&str>) -> Vec<ObjectKey> {
        self.seen
            .keys()
            .filter(|key| namespace.is_none_or(|ns| key.namespace == ns))
            .cloned()
            .collect()
    }
}

impl Seen {
    fn of(metadata: &ObjectMeta) -> Self {
        let owners = metadata.owner_references.iter().flatten();
        Self {
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created_by: metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(names::LABEL_CREATED_BY))
                .cloned(),
            controller: owners
                .filter(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone())
                .next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(version: &str) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some(version.into()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn our_own_write_is_not_somebody_elses_hand() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        targets.verify(&key, &metadata("5"), true);
        assert!(!targets.observe(&key, &metadata("5")));
        assert_eq!(targets.state(&key), State::Intact);
        assert!(targets.observe(&key, &metadata("6")));
        assert_eq!(targets.state(&key), State::Unknown);
    }

    #[test]
    fn what_the_watch_showed_before_our_own_write_was_answered_is_looked_at() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        assert!(targets.observe(&key, &metadata("10")));
        targets.verify(&key, &metadata("9"), true);
        assert_eq!(targets.state(&key), State::Unknown);
        targets.verify(&key, &metadata("10"), true);
        assert_eq!(targets.state(&key), State::Intact);
    }

    #[test]
    fn a_secret_that_is_gone_is_absent() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        targets.verify(&key, &metadata("5"), true);
        targets.remove(&key);
        assert_eq!(targets.state(&key), State::Absent);
        assert_eq!(targets.entries(), 0);
    }
}
