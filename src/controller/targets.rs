//! What is known of the Secrets that we manage: never their data (promise 5), only which
//! resourceVersion of them was looked at last, and whether it was intact.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use tokio::time::Instant;

use super::index::{ObjectKey, is_newer, number};
use crate::target::hash::{Fingerprint, Seal};
use crate::target::names;

/// The longest that an answer about a Secret may be under way: all rounds of a write.
const UNDER_WAY: Duration = Duration::from_secs(60);
/// Removals that are remembered are looked through for old ones whenever there are this many more.
const REMOVALS: usize = 1024;

/// One managed Secret, as the metadata watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its resourceVersion.
    pub resource_version: Box<str>,
    /// Its UID.
    pub uid: Box<str>,
    created_by: Option<Box<str>>,
    controller: Option<Controller>,
}

/// The owner that controls a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    uid: Box<str>,
    /// Whether it has the name of the Secret, as nearly always.
    namesake: bool,
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
    resource_version: Box<str>,
    intact: bool,
    made_of: Option<Fingerprint>,
}

/// All managed Secrets.
#[derive(Default)]
pub struct Targets {
    seen: HashMap<ObjectKey, Seen>,
    /// By UID, those that an owner of another name controls.
    by_other: HashMap<Box<str>, BTreeSet<ObjectKey>>,
    verified: HashMap<ObjectKey, Verified>,
    /// When the watch showed that a Secret is gone; kept while an older answer about it may still come.
    removed: HashMap<ObjectKey, Instant>,
    /// Those whose hash is to be replaced, and at which resourceVersion that was seen.
    unsealed: HashMap<ObjectKey, (Seal, Box<str>)>,
}

impl Targets {
    /// Takes note of a watch event. Says whether somebody else's hand may have been at the Secret.
    pub fn observe(&mut self, key: &ObjectKey, metadata: &ObjectMeta) -> bool {
        let seen = Seen::of(key, metadata);
        let known = self
            .verified
            .get(key)
            .is_some_and(|v| v.resource_version == seen.resource_version);
        self.insert(key, seen);
        !known
    }

    fn insert(&mut self, key: &ObjectKey, seen: Seen) {
        self.take(key);
        if let Some(owner) = seen.controller.as_ref().filter(|owner| !owner.namesake) {
            self.by_other
                .entry(owner.uid.clone())
                .or_default()
                .insert(key.clone());
        }
        self.seen.insert(key.clone(), seen);
    }

    fn take(&mut self, key: &ObjectKey) {
        let Some(owner) = self.seen.remove(key).and_then(|seen| seen.controller) else {
            return;
        };
        if let Some(keys) = self.by_other.get_mut(&owner.uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_other.remove(&owner.uid);
            }
        }
    }

    /// Takes nothing that was looked at for granted any more, nor that what comes is late: the API server went back in
    /// time.
    pub fn doubt(&mut self) {
        self.verified.clear();
        for seen in self.seen.values_mut() {
            seen.resource_version = Box::default();
        }
    }

    /// Takes note that a Secret is gone, or lost our label.
    pub fn remove(&mut self, key: &ObjectKey) {
        let now = Instant::now();
        if self.removed.len() % REMOVALS == REMOVALS - 1 {
            self.removed
                .retain(|_, at| now.saturating_duration_since(*at) < UNDER_WAY);
        }
        self.removed.insert(key.clone(), now);
        self.take(key);
        self.verified.remove(key);
        self.unsealed.remove(key);
    }

    /// Takes note of what the hash of a Secret says that was just looked at.
    pub fn note_seal(&mut self, secret: &Secret, seal: Seal) {
        let metadata = &secret.metadata;
        let (Some(namespace), Some(name), Some(version)) =
            (&metadata.namespace, &metadata.name, &metadata.resource_version)
        else {
            return;
        };
        let key = ObjectKey::new(namespace, name);
        if matches!(seal, Seal::Old | Seal::Bare | Seal::Unknown) && self.seen.contains_key(&key) {
            self.unsealed.insert(key, (seal, version.as_str().into()));
        }
    }

    /// What the hash of a Secret says that is to be replaced, and at which resourceVersion.
    #[must_use]
    pub fn unsealed(&self, key: &ObjectKey) -> Option<(Seal, Box<str>)> {
        self.unsealed.get(key).cloned()
    }

    /// Takes note of a Secret whose data was looked at, or written by us, by a request that began then.
    pub fn verify(&mut self, key: &ObjectKey, metadata: &ObjectMeta, intact: bool, since: Instant) {
        let seen = Seen::of(key, metadata);
        let verified = Verified {
            resource_version: seen.resource_version.clone(),
            intact,
            made_of: None,
        };
        self.verified.insert(key.clone(), verified);
        self.unsealed.remove(key);
        // The watch may have shown already what somebody did to it since.
        let known = self.seen.get(key).filter(|known| known.uid == seen.uid);
        // It may even have shown its end: then it is there only when the watch shows it again.
        if known.is_none() && self.removed.get(key).is_some_and(|at| *at >= since) {
            return;
        }
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

    /// The resourceVersion that a target has, as far as is known. The watch may show an older one yet.
    #[must_use]
    pub fn version(&self, key: &ObjectKey) -> Option<Box<str>> {
        let seen = &self.seen.get(key)?.resource_version;
        let verified = self.verified.get(key).map(|verified| &verified.resource_version);
        let newer = verified.filter(|verified| is_newer(Some(verified), Some(seen)));
        Some(newer.unwrap_or(seen).clone())
    }

    /// Takes note of what a Secret was made of that holds just that.
    pub fn made_of(&mut self, key: &ObjectKey, metadata: &ObjectMeta, fingerprint: Fingerprint) {
        if let Some(verified) = self.verified.get_mut(key)
            && Some(&*verified.resource_version) == metadata.resource_version.as_deref()
        {
            verified.made_of = Some(fingerprint);
        }
    }

    /// Whether a Secret holds just what is made of this, and nobody touched it since.
    #[must_use]
    pub fn holds(&self, key: &ObjectKey, fingerprint: &Fingerprint) -> bool {
        let made_of = self.verified.get(key).and_then(|verified| verified.made_of);
        made_of.as_ref() == Some(fingerprint) && self.state(key) == State::Intact
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
        let namesake = ObjectKey::new(namespace, owner);
        let others = self.by_other.get(owner_uid).into_iter().flatten();
        let found: Vec<_> = std::iter::once(&namesake)
            .chain(others)
            .filter(|key| *key.namespace == *namespace && *key.name != *target)
            .filter_map(|key| Some((key.clone(), self.seen.get(key)?.clone())))
            .filter(|(_, seen)| seen.controller.as_ref().is_some_and(|by| *by.uid == *owner_uid))
            .collect();
        if found.is_empty() {
            return found;
        }
        let creator = names::created_by(namespace, owner);
        let made = found.into_iter();
        made.filter(|(_, seen)| seen.created_by.as_deref() == Some(&creator))
            .collect()
    }

    /// How many entries there are, beside removals, of which there are few.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.seen.len() + self.by_other.len() + self.verified.len() + self.unsealed.len()
    }

    /// All keys in this namespace, or in all, and the resourceVersion of each.
    #[must_use]
    pub fn versions(&self, namespace: Option<&str>) -> Vec<(ObjectKey, u128)> {
        let seen = self.seen.iter();
        seen.filter(|(key, _)| namespace.is_none_or(|ns| *key.namespace == *ns))
            .map(|(key, seen)| {
                (
                    key.clone(),
                    number(Some(&seen.resource_version)).unwrap_or_default(),
                )
            })
            .collect()
    }
}

impl Seen {
    fn of(key: &ObjectKey, metadata: &ObjectMeta) -> Self {
        let labels = metadata.labels.as_ref();
        let created_by = labels.and_then(|labels| labels.get(names::LABEL_CREATED_BY));
        let mut owners = metadata.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        Self {
            resource_version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            created_by: created_by.map(|creator| creator.as_str().into()),
            controller: controller.map(|owner| Controller {
                uid: owner.uid.as_str().into(),
                namesake: *owner.name == *key.name,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

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
        targets.verify(&key, &metadata("5"), true, Instant::now());
        assert!(!targets.observe(&key, &metadata("5")));
        assert_eq!(targets.state(&key), State::Intact);
        assert!(targets.observe(&key, &metadata("6")));
        assert_eq!(targets.state(&key), State::Unknown);
    }

    #[test]
    fn what_the_watch_showed_before_our_own_write_was_answered_is_looked_at() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        assert!(targets.observe(&key, &metadata("10")));
        targets.verify(&key, &metadata("9"), true, Instant::now());
        assert_eq!(targets.state(&key), State::Unknown);
        targets.verify(&key, &metadata("10"), true, Instant::now());
        assert_eq!(targets.state(&key), State::Intact);
    }

    #[test]
    fn a_watch_that_lags_behind_our_write_does_not_hide_its_version() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        assert_eq!(targets.version(&key), None);
        targets.verify(&key, &metadata("10"), true, Instant::now());
        targets.observe(&key, &metadata("9"));
        assert_eq!(targets.version(&key).as_deref(), Some("10"));
        targets.observe(&key, &metadata("11"));
        assert_eq!(targets.version(&key).as_deref(), Some("11"));
        targets.remove(&key);
        assert_eq!(targets.version(&key), None);
    }

    #[test]
    fn what_a_secret_was_made_of_is_forgotten_as_soon_as_anybody_touches_it() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        let (now, other) = ([1; 16], [2; 16]);
        targets.verify(&key, &metadata("5"), true, Instant::now());
        assert!(!targets.holds(&key, &now));
        targets.made_of(&key, &metadata("4"), now);
        assert!(!targets.holds(&key, &now));
        targets.made_of(&key, &metadata("5"), now);
        assert!(targets.holds(&key, &now) && !targets.holds(&key, &other));
        targets.observe(&key, &metadata("6"));
        assert!(!targets.holds(&key, &now));
        // Looked at since, and found intact: but by somebody who did not compare it with what was read.
        targets.verify(&key, &metadata("6"), true, Instant::now());
        assert!(!targets.holds(&key, &now));
        targets.made_of(&key, &metadata("6"), now);
        targets.remove(&key);
        assert!(!targets.holds(&key, &now));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_after_the_end_of_its_secret_does_not_bring_it_back() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        targets.observe(&key, &metadata("5"));
        targets.remove(&key);
        targets.verify(&key, &metadata("5"), true, asked);
        assert_eq!(targets.state(&key), State::Absent);
        // One that was written since is there, by the answer or by the watch.
        targets.observe(&key, &metadata("5"));
        assert_eq!(targets.state(&key), State::Intact);
        targets.remove(&key);
        tokio::time::advance(Duration::from_millis(1)).await;
        targets.verify(&key, &metadata("7"), true, Instant::now());
        assert_eq!(targets.state(&key), State::Intact);
    }

    #[test]
    fn a_hash_to_be_replaced_is_remembered_until_its_secret_is_written_or_gone() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        let secret = |version: &str| Secret {
            metadata: ObjectMeta {
                namespace: Some("db".into()),
                name: Some("t".into()),
                ..metadata(version)
            },
            ..Secret::default()
        };
        let mut noted = |seal: Seal| {
            targets.verify(&key, &metadata("5"), true, Instant::now());
            targets.note_seal(&secret("5"), seal);
            targets.unsealed(&key)
        };
        assert_eq!(noted(Seal::Bare), Some((Seal::Bare, "5".into())));
        assert_eq!(noted(Seal::Unknown), Some((Seal::Unknown, "5".into())));
        assert_eq!((noted(Seal::Intact), noted(Seal::Broken)), (None, None));
        noted(Seal::Old);
        targets.verify(&key, &metadata("6"), true, Instant::now());
        assert_eq!(targets.unsealed(&key), None);
        targets.note_seal(&secret("6"), Seal::Old);
        targets.remove(&key);
        assert_eq!(targets.entries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn removals_are_not_remembered_for_ever() {
        let mut targets = Targets::default();
        for i in 0..4 * REMOVALS {
            tokio::time::advance(UNDER_WAY / 100).await;
            targets.remove(&ObjectKey::new("db", &i.to_string()));
        }
        assert!(targets.removed.len() <= REMOVALS, "{}", targets.removed.len());
    }

    #[test]
    fn a_secret_that_is_gone_is_absent() {
        let (mut targets, key) = (Targets::default(), ObjectKey::new("db", "t"));
        targets.verify(&key, &metadata("5"), true, Instant::now());
        targets.remove(&key);
        assert_eq!(targets.state(&key), State::Absent);
        assert_eq!(targets.entries(), 0);
    }

    #[test]
    fn what_an_owner_once_created_is_found_under_its_own_name_and_under_others() {
        let mut targets = Targets::default();
        let made = |uid: &str| ObjectMeta {
            labels: Some(
                [(
                    names::LABEL_CREATED_BY.to_string(),
                    names::created_by("db", "app"),
                )]
                .into(),
            ),
            owner_references: Some(vec![OwnerReference {
                controller: Some(true),
                uid: uid.into(),
                name: "app".into(),
                ..OwnerReference::default()
            }]),
            ..metadata("1")
        };
        for (name, uid) in [
            ("app", "owner"),
            ("old", "owner"),
            ("copy", "another"),
            ("now", "owner"),
        ] {
            targets.observe(&ObjectKey::new("db", name), &made(uid));
        }
        let mut unlabelled = made("owner");
        unlabelled.labels = None;
        targets.observe(&ObjectKey::new("db", "unlabelled"), &unlabelled);
        targets.observe(&ObjectKey::new("web", "app"), &made("owner"));
        let found = |targets: &Targets| {
            let orphans = targets.orphans("db", "app", "owner", "now");
            orphans
                .into_iter()
                .map(|(key, _)| key.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&targets), ["db/app", "db/old"]);
        targets.remove(&ObjectKey::new("db", "app"));
        targets.remove(&ObjectKey::new("db", "old"));
        assert!(found(&targets).is_empty());
    }
}
