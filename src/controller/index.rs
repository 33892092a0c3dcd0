//! Who uses what: every ExternalSecret, by store and by target. Pure; fed by the watch.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use kube::ResourceExt as _;

use crate::api::external_secret::{ExternalSecret, ExternalSecretSpec};
use crate::api::store::StoreKey;

/// Namespace and name. Shared text, because every map of the controller holds a copy of every key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl super::queue::Owned for ObjectKey {
    type Owner = Arc<str>;

    fn owner(&self) -> Arc<str> {
        self.namespace.clone()
    }
}

impl ObjectKey {
    /// From its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a watch event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is new or somebody changed it.
    Wanted,
    /// Only what we write ourselves changed.
    OwnDoing,
}

/// Every ExternalSecret.
#[derive(Default)]
pub struct Index {
    objects: HashMap<ObjectKey, Arc<ExternalSecret>>,
    by_store: HashMap<StoreKey, BTreeSet<ObjectKey>>,
    /// By target, those whose target has another name than they have themselves, which is rare.
    renamed: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Index {
    /// Takes an object in, unless a newer wish of it is known: the answer to a write shows what the watch has yet to
    /// bring, and it brings what was in between first. A wish that is outdated must not be served again.
    /// `managedFields` are dropped: they are a third of its size and never read.
    pub fn apply(&mut self, object: ExternalSecret) -> (ObjectKey, Change) {
        self.take(object, false)
    }

    /// Takes an object in whatever is known of it: the API server went back in time.
    pub fn believe(&mut self, object: ExternalSecret) -> (ObjectKey, Change) {
        self.take(object, true)
    }

    fn take(&mut self, mut object: ExternalSecret, believed: bool) -> (ObjectKey, Change) {
        object.metadata.managed_fields = None;
        shrink(&mut object);
        let key = ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
        let (key, change) = match self.objects.get_key_value(&key) {
            Some((key, old)) if !believed && is_outdated(old, &object) => {
                return (key.clone(), Change::OwnDoing);
            }
            // The key that all maps hold already.
            Some((key, old)) if same_wish(old, &object) && (!believed || old.spec == object.spec) => {
                (key.clone(), Change::OwnDoing)
            }
            Some((key, _)) => (key.clone(), Change::Wanted),
            None => (key, Change::Wanted),
        };
        self.unlink(&key);
        for store in stores_of(&object.spec, &key.namespace) {
            self.by_store.entry(store).or_default().insert(key.clone());
        }
        let target = target_of(&object);
        if target != key {
            self.renamed.entry(target).or_default().insert(key.clone());
        }
        self.objects.insert(key.clone(), Arc::new(object));
        (key, change)
    }

    /// Takes in what the API server answered to a write of ours. The watch may have been faster: what it showed
    /// gone stays gone, and what it showed newer stays.
    pub fn answered(&mut self, object: ExternalSecret) -> Change {
        let key = ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any());
        let known = self.objects.get(&key);
        let current = known.is_some_and(|known| {
            let (known, answer) = (&known.metadata, &object.metadata);
            known.uid == answer.uid
                && !is_newer(
                    known.resource_version.as_deref(),
                    answer.resource_version.as_deref(),
                )
        });
        if !current {
            return Change::OwnDoing;
        }
        self.apply(object).1
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.objects.len() + self.by_store.len() + self.renamed.len()
    }

    /// Takes an object out; returns it.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<ExternalSecret>> {
        self.unlink(key);
        self.objects.remove(key)
    }

    fn unlink(&mut self, key: &ObjectKey) {
        let Some(old) = self.objects.get(key) else { return };
        for store in stores_of(&old.spec, &key.namespace) {
            drop_from(&mut self.by_store, &store, key);
        }
        drop_from(&mut self.renamed, &target_of(old), key);
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<ExternalSecret>> {
        self.objects.get(key).cloned()
    }

    /// All keys in this namespace, or in all.
    #[must_use]
    pub fn keys(&self, namespace: Option<&str>) -> Vec<ObjectKey> {
        self.objects
            .keys()
            .filter(|key| namespace.is_none_or(|ns| *key.namespace == *ns))
            .cloned()
            .collect()
    }

    /// All keys in this namespace, or in all, and the resourceVersion of each.
    #[must_use]
    pub fn versions(&self, namespace: Option<&str>) -> Vec<(ObjectKey, u128)> {
        let version = |object: &ExternalSecret| number(object.metadata.resource_version.as_deref());
        let objects = self.objects.iter();
        objects
            .filter(|(key, _)| namespace.is_none_or(|ns| *key.namespace == *ns))
            .map(|(key, object)| (key.clone(), version(object).unwrap_or_default()))
            .collect()
    }

    /// Who uses this store.
    #[must_use]
    pub fn users_of(&self, store: &StoreKey) -> Vec<ObjectKey> {
        self.by_store.get(store).into_iter().flatten().cloned().collect()
    }

    /// Who writes this Secret.
    #[must_use]
    pub fn writers_of(&self, secret: &ObjectKey) -> Vec<ObjectKey> {
        let namesake = self
            .objects
            .get(secret)
            .filter(|object| target_of(object) == *secret);
        let renamed = self.renamed.get(secret).into_iter().flatten();
        namesake
            .map(|_| secret)
            .into_iter()
            .chain(renamed)
            .cloned()
            .collect()
    }
}

/// Whether one resourceVersion of an object is newer than another. They are numbers that grow; what is none is
/// newer than nothing.
#[must_use]
pub fn is_newer(version: Option<&str>, than: Option<&str>) -> bool {
    number(version)
        .zip(number(than))
        .is_some_and(|(version, than)| version > than)
}

/// The number that a resourceVersion is.
#[must_use]
pub fn number(version: Option<&str>) -> Option<u128> {
    version.and_then(|version| version.parse().ok())
}

/// The Secret that an ExternalSecret writes.
#[must_use]
pub fn target_of(object: &ExternalSecret) -> ObjectKey {
    ObjectKey::new(&object.namespace().unwrap_or_default(), &object.target_name())
}

/// Every store that an ExternalSecret names, once.
#[must_use]
pub fn stores_of(spec: &ExternalSecretSpec, namespace: &str) -> BTreeSet<StoreKey> {
    let own = spec.secret_store_ref.iter();
    let of_data = spec
        .data
        .iter()
        .filter_map(|entry| entry.source_ref.as_ref()?.store_ref.as_ref());
    let of_data_from = spec
        .data_from
        .iter()
        .filter_map(|entry| entry.source_ref.as_ref()?.store_ref.as_ref());
    own.chain(of_data)
        .chain(of_data_from)
        .filter_map(|reference| reference.key(namespace))
        .collect()
}

/// Gives back what reading left room for: a list of one has room for four.
fn shrink(object: &mut ExternalSecret) {
    object.spec.data.shrink_to_fit();
    object.spec.data_from.shrink_to_fit();
    if let Some(status) = &mut object.status {
        status.conditions.shrink_to_fit();
    }
}

/// The generation of one object only grows.
fn is_outdated(known: &ExternalSecret, new: &ExternalSecret) -> bool {
    known.metadata.uid == new.metadata.uid && new.metadata.generation < known.metadata.generation
}

fn same_wish(old: &ExternalSecret, new: &ExternalSecret) -> bool {
    let (old, new) = (&old.metadata, &new.metadata);
    old.uid == new.uid
        && old.generation == new.generation
        && old.labels == new.labels
        && old.annotations == new.annotations
        && old.finalizers == new.finalizers
        && old.deletion_timestamp == new.deletion_timestamp
}

fn drop_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<ObjectKey>>, at: &K, key: &ObjectKey) {
    if let Some(keys) = map.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::external_secret::StoreKind;
    use serde_json::json;

    fn object(name: &str, target: &str, store: &str, annotation: &str) -> ExternalSecret {
        serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": name, "uid": name, "generation": 1, "annotations": {"a": annotation}},
            "spec": {
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": store},
                "target": {"name": target},
                "data": [{"secretKey": "k", "remoteRef": {"key": "p"}, "sourceRef": {"storeRef": {"name": "own"}}}],
            },
        }))
        .unwrap()
    }

    fn cluster_store(name: &str) -> StoreKey {
        StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: name.into(),
        }
    }

    #[test]
    fn a_force_sync_is_wanted_and_our_own_status_is_not() {
        let mut index = Index::default();
        assert_eq!(index.apply(object("a", "t", "s", "1")).1, Change::Wanted);
        let mut ours = object("a", "t", "s", "1");
        ours.metadata.resource_version = Some("2".into());
        ours.status = Some(Default::default());
        assert_eq!(index.apply(ours).1, Change::OwnDoing);
        assert_eq!(index.apply(object("a", "t", "s", "2")).1, Change::Wanted);
    }

    #[test]
    fn an_event_from_before_a_change_that_is_known_brings_nothing_back() {
        let form = |generation, store: &str, uid: &str| {
            let mut object = object("a", "t", store, "1");
            object.metadata.generation = Some(generation);
            object.metadata.uid = Some(uid.into());
            object
        };
        let mut index = Index::default();
        let (key, _) = index.apply(form(3, "new", "u"));
        assert_eq!(index.apply(form(2, "old", "u")).1, Change::OwnDoing);
        assert_eq!(index.users_of(&cluster_store("new")), std::slice::from_ref(&key));
        assert!(index.users_of(&cluster_store("old")).is_empty());
        // Deleted and made anew, it begins with the first generation.
        assert_eq!(index.apply(form(1, "anew", "v")).1, Change::Wanted);
        assert_eq!(index.users_of(&cluster_store("anew")), [key]);
    }

    #[test]
    fn what_is_listed_after_the_api_server_went_back_in_time_is_believed() {
        let form = |generation, store: &str| {
            let mut object = object("a", "t", store, "1");
            object.metadata.generation = Some(generation);
            object
        };
        let mut index = Index::default();
        let (key, _) = index.apply(form(5, "future"));
        assert_eq!(index.believe(form(2, "past")).1, Change::Wanted);
        assert_eq!(index.users_of(&cluster_store("past")), std::slice::from_ref(&key));
        // Changed since, up to a generation that was there already, with another wish.
        assert_eq!(index.believe(form(2, "other")).1, Change::Wanted);
        assert_eq!(index.believe(form(2, "other")).1, Change::OwnDoing);
        assert_eq!(index.users_of(&cluster_store("other")), [key]);
    }

    #[test]
    fn an_answer_that_comes_late_brings_nothing_back_and_hides_nothing_newer() {
        let of_version = |annotation: &str, version: &str| {
            let mut object = object("a", "t", "s", annotation);
            object.metadata.resource_version = Some(version.into());
            object
        };
        let mut index = Index::default();
        let (key, _) = index.apply(of_version("1", "9"));
        // The watch was faster with somebody's change, which came after our write.
        index.apply(of_version("2", "11"));
        assert_eq!(index.answered(of_version("1", "10")), Change::OwnDoing);
        assert_eq!(
            index.get(&key).unwrap().metadata.resource_version.as_deref(),
            Some("11")
        );
        // The answer is first with a change that came before our write.
        assert_eq!(index.answered(of_version("3", "12")), Change::Wanted);
        index.remove(&key);
        assert_eq!(index.answered(of_version("4", "13")), Change::OwnDoing);
        assert_eq!(index.entries(), 0);
    }

    #[test]
    fn every_store_that_is_named_leads_to_its_users() {
        let mut index = Index::default();
        let (key, _) = index.apply(object("a", "t", "s", "1"));
        assert_eq!(index.users_of(&cluster_store("s")), std::slice::from_ref(&key));
        let own = StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("db".into()),
            name: "own".into(),
        };
        assert_eq!(index.users_of(&own), std::slice::from_ref(&key));
        index.apply(object("a", "t", "other", "1"));
        assert!(index.users_of(&cluster_store("s")).is_empty());
    }

    #[test]
    fn a_target_leads_to_all_who_write_it() {
        let mut index = Index::default();
        index.apply(object("a", "t", "s", "1"));
        index.apply(object("b", "t", "s", "1"));
        assert_eq!(index.writers_of(&ObjectKey::new("db", "t")).len(), 2);
        index.remove(&ObjectKey::new("db", "a"));
        index.apply(object("b", "", "s", "1"));
        assert!(index.writers_of(&ObjectKey::new("db", "t")).is_empty());
        assert_eq!(index.writers_of(&ObjectKey::new("db", "b")).len(), 1);
    }
}
