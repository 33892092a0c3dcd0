//! What Secrets must hold and what conditions must say, worked out from what was done. Pure, and written apart
//! from `src`: it knows ESO's rules and what Keyferry promises, not how Keyferry keeps it.
//!
//! Every value that is written to Vault is unique, so that a value tells when it was written. What people write
//! into Secrets by hand begins with [`HAND`].

use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds since the seed began.
pub type Tick = u64;
pub type Values = BTreeMap<String, String>;

/// How values begin that nobody but a person writes into a Secret.
pub const HAND: &str = "hand-";
/// How keys begin that a Secret had before an ExternalSecret was merged into it.
pub const USERS: &str = "users-";
/// The keys of every secret in Vault; some lack the second.
pub const PROPERTIES: [&str; 2] = ["a", "b"];
/// The key that the template makes of both.
pub const JOINED: &str = "joined";

/// What a path held at a time; `values` is none while it was cleanly not found.
#[derive(Clone, Debug)]
struct Version {
    values: Option<Values>,
    started: Tick,
    /// When it was sure to be there; none while the write is under way.
    done: Option<Tick>,
}

/// Everything that Vault ever held.
#[derive(Clone, Debug, Default)]
pub struct Vault(BTreeMap<String, Vec<Version>>);

impl Vault {
    /// Somebody begins to write, or to remove; from now on it may be found.
    pub fn begin(&mut self, path: &str, values: Option<Values>, now: Tick) {
        self.versions(path).push(Version {
            values,
            started: now,
            done: None,
        });
    }

    /// The last write is done: what was before cannot be read any more.
    pub fn done(&mut self, path: &str, now: Tick) {
        if let Some(last) = self.versions(path).last_mut() {
            last.done = Some(now);
        }
    }

    /// What it holds when nothing is under way.
    pub fn current(&self, path: &str) -> Option<&Values> {
        self.0.get(path)?.last()?.values.as_ref()
    }

    /// Number of the oldest version that a read may bring that is sent at this time.
    fn oldest_at(&self, path: &str, tick: Tick) -> usize {
        let versions = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        let replaced = |version: &Version| version.done.is_some_and(|done| done <= tick);
        versions.iter().rposition(replaced).unwrap_or(0)
    }

    /// Number and content of the versions from this one on that could be read by then.
    fn from(&self, path: &str, oldest: usize, until: Tick) -> impl Iterator<Item = (usize, Option<&Values>)> {
        let versions = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        let those = versions.iter().enumerate().skip(oldest);
        those
            .filter(move |(_, version)| version.started <= until)
            .map(|(number, version)| (number, version.values.as_ref()))
    }

    /// In the beginning there is nothing at any path.
    fn versions(&mut self, path: &str) -> &mut Vec<Version> {
        let nothing = Version {
            values: None,
            started: 0,
            done: Some(0),
        };
        self.0.entry(path.into()).or_insert_with(|| vec![nothing])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Owner,
    Orphan,
    Merge,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Retain,
    Delete,
    Merge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Every three seconds.
    Soon,
    /// Every hour.
    Hourly,
    /// `refreshInterval: 0`.
    Zero,
    OnChange,
    CreatedOnce,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Data {
        key: String,
        path: String,
        property: String,
    },
    Extract {
        path: String,
    },
}

impl Source {
    pub fn path(&self) -> &str {
        let (Self::Data { path, .. } | Self::Extract { path }) = self;
        path
    }
}

/// The wish of an ExternalSecret. No two of its sources make the same key; with a template it has one source,
/// an `Extract`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub creation: Creation,
    pub deletion: Deletion,
    pub refresh: Refresh,
    pub sources: Vec<Source>,
    pub template: bool,
    /// Whether it reads by the ClusterSecretStore, not by the SecretStore of its namespace.
    pub cluster_store: bool,
    /// Whether its target has another name than itself.
    pub renamed: bool,
}

/// What a sync leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Holds(Values),
    /// Everything is cleanly gone, and the policy deletes.
    Deleted,
    Fails,
}

impl Spec {
    pub fn paths(&self) -> BTreeSet<&str> {
        self.sources.iter().map(Source::path).collect()
    }

    /// What a sync leads to that reads these values.
    pub fn outcome<'a>(&self, read: impl Fn(&str) -> Option<&'a Values>) -> Outcome {
        let mut all = Values::new();
        let mut found = false;
        for path in self.paths() {
            let values = read(path);
            found |= values.is_some();
            match self.part(path, values) {
                Some(part) => all.extend(part),
                None => return Outcome::Fails,
            }
        }
        if self.deletion == Deletion::Delete && !found {
            return Outcome::Deleted;
        }
        Outcome::Holds(all)
    }

    /// What one path contributes; none if it fails the sync.
    fn part(&self, path: &str, values: Option<&Values>) -> Option<Values> {
        let Some(values) = values else {
            return (self.deletion != Deletion::Retain).then(Values::new);
        };
        let mut part = Values::new();
        for source in self.sources.iter().filter(|source| source.path() == path) {
            match source {
                Source::Data { key, property, .. } => {
                    part.insert(key.clone(), values.get(property)?.clone());
                }
                // Nothing is rendered where nothing is written.
                Source::Extract { .. } if self.template && self.creation != Creation::None => {
                    let [a, b] = PROPERTIES.map(|property| values.get(property));
                    part.insert(JOINED.into(), format!("{}/{}", a?, b?));
                }
                Source::Extract { .. } => part.extend(values.clone()),
            }
        }
        Some(part)
    }

    /// The keys that a path may contribute.
    fn keys(&self, path: &str) -> BTreeSet<&str> {
        let mut keys = BTreeSet::new();
        for source in self.sources.iter().filter(|source| source.path() == path) {
            match source {
                Source::Data { key, .. } => {
                    keys.insert(key.as_str());
                }
                // Nothing is rendered where nothing is written.
                Source::Extract { .. } if self.template && self.creation != Creation::None => {
                    keys.insert(JOINED);
                }
                Source::Extract { .. } => keys.extend(PROPERTIES),
            }
        }
        keys
    }

    /// Whether a read may fail the sync by what was at these paths at this time or later.
    pub fn may_fail_since(&self, vault: &Vault, since: Tick) -> bool {
        self.paths().into_iter().any(|path| {
            let mut versions = vault.from(path, vault.oldest_at(path, since), Tick::MAX);
            versions.any(|(_, values)| self.part(path, values).is_none())
        })
    }
}

/// The numbers of versions: by path, the oldest that may still be read.
pub type Floors = BTreeMap<String, usize>;

/// The floors of a read that is sent at this time.
pub fn floors_at(spec: &Spec, vault: &Vault, tick: Tick) -> Floors {
    let paths = spec.paths().into_iter();
    paths
        .map(|path| (path.to_string(), vault.oldest_at(path, tick)))
        .collect()
}

/// Whether the data is what the wish makes of versions that Vault held, none older than its floor: all keys of one
/// path from one version. The answer is the oldest version of each path that fits.
pub fn explain(spec: &Spec, vault: &Vault, data: &Values, floors: &Floors, until: Tick) -> Option<Floors> {
    let mut known = BTreeSet::new();
    let mut found = Floors::new();
    for path in spec.paths() {
        let keys = spec.keys(path);
        let here: Values = data
            .iter()
            .filter(|(key, _)| keys.contains(key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let oldest = floors.get(path).copied().unwrap_or(0);
        let fitting = vault
            .from(path, oldest, until)
            .find(|(_, values)| spec.part(path, *values).as_ref() == Some(&here));
        found.insert(path.to_string(), fitting?.0);
        known.extend(keys);
    }
    let all_known = data.keys().all(|key| known.contains(key.as_str()));
    // Only one policy empties a Secret; that nothing is there to write deletes it, or is an error.
    let empty = data.is_empty() && spec.deletion != Deletion::Merge;
    (all_known && !empty).then_some(found)
}

/// Whether the policy deletes because every path was cleanly not found at a time; the answer is as in [`explain`].
pub fn explain_deletion(spec: &Spec, vault: &Vault, floors: &Floors, until: Tick) -> Option<Floors> {
    if spec.deletion != Deletion::Delete {
        return None;
    }
    let mut found = Floors::new();
    for path in spec.paths() {
        let oldest = floors.get(path).copied().unwrap_or(0);
        let (number, _) = vault
            .from(path, oldest, until)
            .find(|(_, values)| values.is_none())?;
        found.insert(path.to_string(), number);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn data(key: &str, path: &str, property: &str) -> Source {
        Source::Data {
            key: key.into(),
            path: path.into(),
            property: property.into(),
        }
    }

    fn spec(deletion: Deletion, sources: Vec<Source>) -> Spec {
        Spec {
            creation: Creation::Owner,
            deletion,
            refresh: Refresh::Hourly,
            sources,
            template: false,
            cluster_store: true,
            renamed: false,
        }
    }

    /// `p`: nothing, then a1 and b1, then a2 and b1, then nothing. `q`: nothing, then a1.
    fn vault() -> Vault {
        let mut vault = Vault::default();
        let mut write = |path: &str, values: Option<Values>, now| {
            vault.begin(path, values, now);
            vault.done(path, now + 5);
        };
        write("p", Some(values(&[("a", "pa1"), ("b", "pb1")])), 10);
        write("p", Some(values(&[("a", "pa2"), ("b", "pb1")])), 20);
        write("q", Some(values(&[("a", "qa1")])), 20);
        write("p", None, 30);
        vault
    }

    fn explained(spec: &Spec, pairs: &[(&str, &str)], since: Tick, until: Tick) -> bool {
        let vault = vault();
        explain(
            spec,
            &vault,
            &values(pairs),
            &floors_at(spec, &vault, since),
            until,
        )
        .is_some()
    }

    #[test]
    fn keys_of_one_path_come_from_one_version() {
        let spec = spec(Deletion::Retain, vec![data("x", "p", "a"), data("y", "p", "b")]);
        assert!(explained(&spec, &[("x", "pa1"), ("y", "pb1")], 0, 99));
        assert!(explained(&spec, &[("x", "pa2"), ("y", "pb1")], 0, 99));
        assert!(!explained(&spec, &[("x", "pa1"), ("y", "pb2")], 0, 99));
        assert!(!explained(&spec, &[("x", "pa1")], 0, 99));
        assert!(!explained(
            &spec,
            &[("x", "pa1"), ("y", "pb1"), ("z", "?")],
            0,
            99
        ));
    }

    #[test]
    fn what_was_replaced_before_the_read_is_too_old_and_what_comes_later_too_new() {
        let spec = spec(Deletion::Retain, vec![data("x", "p", "a")]);
        assert!(
            explained(&spec, &[("x", "pa1")], 24, 99),
            "the second is under way"
        );
        assert!(!explained(&spec, &[("x", "pa1")], 25, 99), "the second is done");
        assert!(!explained(&spec, &[("x", "pa2")], 0, 19), "it was not begun");
        assert!(explained(&spec, &[("x", "pa2")], 0, 20));
    }

    #[test]
    fn only_the_policy_merge_empties_and_only_delete_deletes() {
        let sources = || vec![data("x", "p", "a"), data("y", "q", "a")];
        let merge = spec(Deletion::Merge, sources());
        assert!(explained(&merge, &[], 0, 99));
        assert!(explained(&merge, &[("y", "qa1")], 25, 99));
        let delete = spec(Deletion::Delete, sources());
        assert!(!explained(&delete, &[], 0, 99));
        assert!(!explained(
            &spec(Deletion::Retain, sources()),
            &[("y", "qa1")],
            25,
            99
        ));
        let deleted = |spec: &Spec, since| {
            let vault = vault();
            explain_deletion(spec, &vault, &floors_at(spec, &vault, since), 99).is_some()
        };
        assert!(deleted(&delete, 0), "in the beginning both were missing");
        assert!(!deleted(&delete, 25), "since then one is there");
        assert!(!deleted(&merge, 0));
    }

    #[test]
    fn a_missing_secret_or_key_fails_the_sync_unless_the_policy_lets_it_go() {
        let vault = vault();
        let outcome = |spec: &Spec| spec.outcome(|path| vault.current(path));
        let both = || vec![data("x", "p", "a"), data("y", "q", "a")];
        assert_eq!(outcome(&spec(Deletion::Retain, both())), Outcome::Fails);
        assert_eq!(
            outcome(&spec(Deletion::Delete, both())),
            Outcome::Holds(values(&[("y", "qa1")]))
        );
        assert_eq!(
            outcome(&spec(Deletion::Delete, vec![data("x", "p", "a")])),
            Outcome::Deleted
        );
        assert_eq!(
            outcome(&spec(Deletion::Merge, vec![data("x", "p", "a")])),
            Outcome::Holds(values(&[]))
        );
        assert_eq!(
            outcome(&spec(Deletion::Merge, vec![data("x", "q", "b")])),
            Outcome::Fails,
            "a secret without the property is no missing secret"
        );
    }

    #[test]
    fn a_template_joins_both_values_or_fails() {
        let mut joined = spec(Deletion::Retain, vec![Source::Extract { path: "p".into() }]);
        joined.template = true;
        assert!(explained(&joined, &[("joined", "pa2/pb1")], 0, 99));
        assert!(!explained(&joined, &[("joined", "pa1/pb2")], 0, 99));
        joined.sources = vec![Source::Extract { path: "q".into() }];
        let vault = vault();
        assert_eq!(joined.outcome(|path| vault.current(path)), Outcome::Fails);
    }

    #[test]
    fn a_sync_may_fail_by_what_was_there_since_the_trigger() {
        let vault = vault();
        let narrow = spec(Deletion::Retain, vec![data("x", "q", "a")]);
        assert!(narrow.may_fail_since(&vault, 24));
        assert!(!narrow.may_fail_since(&vault, 25));
    }
}
