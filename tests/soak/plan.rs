//! What is done and which faults strike, worked out from a seed alone: the same seed does the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::Fault;
use crate::judge::FOREIGN;
use crate::model::{Creation, Deletion, HAND, PROPERTIES, Refresh, Source, Spec, USERS, Values};
use crate::world::{Before, Id};

/// Secrets in Vault of one seed.
const PATHS: usize = 6;
/// The first of them always hold both values: of what is read from there only, it is always known what it must be.
const STEADY: usize = 2;
/// ExternalSecrets that a seed begins with.
const FIRST: usize = 7;
/// Those that may be there at one time.
const MOST: usize = 16;

/// How a secret in Vault is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put,
    Patch(String),
    /// The latest version is deleted, and could be undeleted.
    Delete,
    /// The latest version is destroyed.
    Destroy,
    /// All versions and the metadata go.
    Wipe,
}

/// What is done in Vault; `values` is what the path holds then.
#[derive(Clone, Debug)]
pub struct VaultAct {
    pub path: String,
    pub write: Write,
    pub values: Option<Values>,
}

/// How a Secret is harmed.
#[derive(Clone, Debug)]
pub enum Harm {
    /// The first key of the ExternalSecret is changed.
    Edit(String),
    /// All of the data is replaced.
    Replace(String),
    /// A key is added.
    Add(String),
    /// The label goes by which managed Secrets are watched.
    Unlabel,
}

/// What is done in Kubernetes.
#[derive(Clone, Debug)]
pub enum KubeAct {
    Create(Id, Spec, Before),
    Change(Id, Spec),
    Force(Id),
    Remove(Id),
    Remake(Id),
    Harm(Id, Harm),
    DeleteSecret(Id),
    UsersWrite(Id, Values),
    DeleteNamespace(String),
}

/// What is done, and how long after the one before it.
#[derive(Clone, Debug)]
pub struct Timed<T> {
    pub pause: Duration,
    pub act: T,
}

/// Between two quiet points.
#[derive(Debug)]
pub struct Round {
    pub vault: Vec<Timed<VaultAct>>,
    pub kube: Vec<Timed<KubeAct>>,
    /// Faults of one kind follow each other, each for its time; different kinds strike at the same time.
    pub faults: Vec<Vec<(Timed<Fault>, Duration)>>,
}

/// A generator with all that it has thought up so far.
pub struct Planner {
    seed: u64,
    rng: StdRng,
    paths: BTreeMap<String, Option<Values>>,
    externals: BTreeMap<Id, Spec>,
    /// Those at whose target's name nothing was before.
    alone: BTreeSet<Id>,
    numbers: u64,
    short_lived: bool,
}

impl Planner {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            paths: BTreeMap::new(),
            externals: BTreeMap::new(),
            alone: BTreeSet::new(),
            numbers: 0,
            short_lived: false,
        }
    }

    pub fn namespaces(seed: u64) -> [String; 3] {
        ["a", "b", "gone"].map(|name| format!("soak-{seed}-{name}"))
    }

    /// Fills Vault and makes the first ExternalSecrets, without faults.
    pub fn first(&mut self) -> Round {
        let vault = (0..PATHS).map(|number| {
            let path = format!("soak/{}/p{number}", self.seed);
            self.paths.insert(path.clone(), None);
            let act = self.put(&path, true);
            self.timed(act, 0..=0)
        });
        let vault = vault.collect();
        let kube = (0..FIRST).map(|_| {
            let act = self.create();
            self.timed(act, 0..=50)
        });
        Round {
            vault,
            kube: kube.collect(),
            faults: Vec::new(),
        }
    }

    /// About so many milliseconds of actions, with faults.
    pub fn next(&mut self, millis: u64) -> Round {
        let mut vault = Vec::new();
        for _ in 0..millis / 500 {
            let act = self.vault_act();
            vault.push(self.timed(act, 100..=900));
        }
        let mut kube = Vec::new();
        for _ in 0..millis / 350 {
            let act = self.kube_act();
            kube.push(self.timed(act, 50..=650));
        }
        let faults = self.faults(millis);
        Round { vault, kube, faults }
    }

    fn timed<T>(&mut self, act: T, millis: std::ops::RangeInclusive<u64>) -> Timed<T> {
        let pause = Duration::from_millis(self.rng.random_range(millis));
        Timed { pause, act }
    }

    /// Two to four kinds of faults, each up to three times.
    fn faults(&mut self, millis: u64) -> Vec<Vec<(Timed<Fault>, Duration)>> {
        let mut kinds = Fault::KINDS.to_vec();
        let count = self.rng.random_range(2..=4);
        let mut lanes = Vec::new();
        for _ in 0..count {
            let kind = kinds.remove(self.rng.random_range(0..kinds.len()));
            let mut lane = Vec::new();
            for _ in 0..self.rng.random_range(1..=3) {
                let fault = kind(&mut self.rng);
                let length = Duration::from_millis(self.rng.random_range(300..=fault.longest()));
                lane.push((self.timed(fault, 0..=millis / 3), length));
            }
            lanes.push(lane);
        }
        lanes
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A value that was never written before, and tells where it belongs.
    fn value(&mut self, path: &str, property: &str) -> String {
        let (name, number) = (path.replace('/', "-"), self.number());
        format!("v-{name}-{property}-{number}")
    }

    fn by_hand(&mut self) -> String {
        format!("{HAND}{}", self.number())
    }

    /// Both values, or the first only.
    fn put(&mut self, path: &str, both: bool) -> VaultAct {
        let properties = &PROPERTIES[..if both { 2 } else { 1 }];
        let values = properties.iter();
        let values: Values = values
            .map(|property| ((*property).to_string(), self.value(path, property)))
            .collect();
        self.paths.insert(path.into(), Some(values.clone()));
        VaultAct {
            path: path.into(),
            write: Write::Put,
            values: Some(values),
        }
    }

    fn vault_act(&mut self) -> VaultAct {
        let path = self.path(PATHS);
        let Some(mut values) = self.paths.get(&path).cloned().flatten() else {
            // Most come back soon, so that most syncs have something to do.
            return self.put(&path, true);
        };
        let gone = |write| VaultAct {
            path: path.clone(),
            write,
            values: None,
        };
        let act = match self.rng.random_range(0..100) {
            0..40 => return self.put(&path, true),
            40..75 => {
                let property = *PROPERTIES.choose(&mut self.rng).unwrap_or(&"a");
                values.insert(property.into(), self.value(&path, property));
                VaultAct {
                    path: path.clone(),
                    write: Write::Patch(property.into()),
                    values: Some(values),
                }
            }
            _ if self.is_steady(&path) => return self.put(&path, true),
            75..80 => return self.put(&path, false),
            80..88 => gone(Write::Delete),
            88..94 => gone(Write::Destroy),
            _ => gone(Write::Wipe),
        };
        self.paths.insert(path.clone(), act.values.clone());
        act
    }

    fn is_steady(&self, path: &str) -> bool {
        self.paths.keys().take(STEADY).any(|steady| steady == path)
    }

    /// One of the first so many.
    fn path(&mut self, of: usize) -> String {
        let paths: Vec<&String> = self.paths.keys().take(of).collect();
        paths
            .choose(&mut self.rng)
            .map(|path| (*path).clone())
            .unwrap_or_default()
    }

    fn kube_act(&mut self) -> KubeAct {
        let ids: Vec<Id> = self.externals.keys().cloned().collect();
        let few = ids.len() < MOST / 2;
        let Some(id) = ids.choose(&mut self.rng).cloned() else {
            return self.create();
        };
        let spec = self.externals[&id].clone();
        let merges = spec.creation == Creation::Merge;
        match self.rng.random_range(0..100) {
            0..20 if ids.len() < MOST => self.create(),
            0..35 if spec.refresh != Refresh::CreatedOnce => {
                let mut changed = self.changed(&spec);
                // What is there already at either name is another story.
                let may = self.alone.contains(&id) && spec.deletion != Deletion::Delete;
                changed.renamed ^= may && self.rng.random_bool(0.4);
                self.externals.insert(id.clone(), changed.clone());
                KubeAct::Change(id, changed)
            }
            35..55 => KubeAct::Force(id),
            55..60 if !few => {
                self.externals.remove(&id);
                KubeAct::Remove(id)
            }
            60..64 => KubeAct::Remake(id),
            64..82 => {
                let value = self.by_hand();
                let harm = match self.rng.random_range(0..4) {
                    0 => Harm::Edit(value),
                    // The user's own keys are their own affair.
                    1 if !merges => Harm::Replace(value),
                    2 if !merges => Harm::Add(value),
                    _ => Harm::Unlabel,
                };
                KubeAct::Harm(id, harm)
            }
            82..90 => KubeAct::DeleteSecret(id),
            90..98 if merges => {
                let key = format!("{USERS}{}", self.rng.random_range(0..3));
                let values = [(key, self.by_hand())].into();
                KubeAct::UsersWrite(id, values)
            }
            98.. => self.delete_namespace().unwrap_or(KubeAct::Force(id)),
            _ => KubeAct::Force(id),
        }
    }

    /// The last namespace goes at most once, with all that is in it.
    fn delete_namespace(&mut self) -> Option<KubeAct> {
        let [_, _, last] = Self::namespaces(self.seed);
        if std::mem::replace(&mut self.short_lived, true) {
            return None;
        }
        self.externals.retain(|(namespace, _), _| *namespace != last);
        Some(KubeAct::DeleteNamespace(last))
    }

    fn create(&mut self) -> KubeAct {
        let namespaces = Self::namespaces(self.seed);
        let those = if self.short_lived { 2 } else { 3 };
        let namespace = namespaces[self.rng.random_range(0..those)].clone();
        let id = (namespace, format!("e{}", self.number()));
        let spec = self.spec();
        // Only what this ExternalSecret controls is deleted, so that it must have made it.
        let adopts =
            matches!(spec.creation, Creation::Owner | Creation::Orphan) && spec.deletion != Deletion::Delete;
        let owns = spec.creation == Creation::Owner;
        let chance = self.rng.random_range(0..100);
        let value = self.by_hand();
        let before = match spec.creation {
            Creation::Merge if chance < 80 => Before::Users([(format!("{USERS}0"), value)].into()),
            _ if adopts && chance < 10 => Before::Users([("squatter".into(), value)].into()),
            _ if owns && chance < 18 => {
                Before::Foreign([("theirs".to_string(), format!("{FOREIGN}{}", self.number()))].into())
            }
            _ => Before::Nothing,
        };
        if before == Before::Nothing && spec.creation != Creation::Merge {
            self.alone.insert(id.clone());
        }
        self.externals.insert(id.clone(), spec.clone());
        KubeAct::Create(id, spec, before)
    }

    fn spec(&mut self) -> Spec {
        let creation = match self.rng.random_range(0..100) {
            0..65 => Creation::Owner,
            65..80 => Creation::Orphan,
            80..95 => Creation::Merge,
            _ => Creation::None,
        };
        let refresh = match self.rng.random_range(0..100) {
            0..45 => Refresh::Soon,
            45..70 => Refresh::Hourly,
            70..80 => Refresh::Zero,
            80..90 => Refresh::OnChange,
            _ => Refresh::CreatedOnce,
        };
        let deletion = match (creation, self.rng.random_range(0..100)) {
            _ if refresh == Refresh::CreatedOnce => Deletion::Retain,
            (Creation::Owner, 0..30) => Deletion::Delete,
            (Creation::Owner | Creation::Orphan, 30..50) => Deletion::Merge,
            _ => Deletion::Retain,
        };
        let spec = Spec {
            creation,
            deletion,
            refresh,
            sources: Vec::new(),
            template: false,
            cluster_store: self.rng.random_bool(0.7),
            renamed: false,
        };
        self.with_sources(spec)
    }

    /// The same policies, with other sources and perhaps another interval.
    fn changed(&mut self, spec: &Spec) -> Spec {
        let refresh = match self.rng.random_range(0..100) {
            0..20 => Refresh::Soon,
            20..40 => Refresh::Hourly,
            _ => spec.refresh,
        };
        let spec = Spec {
            refresh,
            ..spec.clone()
        };
        self.with_sources(spec)
    }

    fn with_sources(&mut self, spec: Spec) -> Spec {
        let chance = self.rng.random_range(0..100);
        let of = if self.rng.random_bool(0.4) { STEADY } else { PATHS };
        // Keys of Merge stay the same, because who wrote a key last decides what becomes of it.
        let merges = spec.creation == Creation::Merge;
        // An empty Secret has nothing to be rendered.
        let template = !merges && spec.deletion != Deletion::Merge && chance < 15;
        let mut sources = Vec::new();
        if template || (!merges && chance < 60) {
            sources.push(Source::Extract { path: self.path(of) });
        }
        if !template && (merges || chance >= 40) {
            for number in 0..2 {
                let property = *PROPERTIES.choose(&mut self.rng).unwrap_or(&"a");
                sources.push(Source::Data {
                    key: format!("k{number}"),
                    path: self.path(of),
                    property: property.into(),
                });
            }
        }
        Spec {
            sources,
            template,
            ..spec
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FIRST_SEED, SECONDS, SEEDS};

    fn told(seed: u64) -> String {
        let mut planner = Planner::new(seed);
        let rounds = [planner.first(), planner.next(6_000), planner.next(6_000)];
        format!("{rounds:?}")
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_does_something_else() {
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    /// Each by kind, as [`Fault::KINDS`] has them.
    const FAULTS: [&[&str]; 7] = [
        &["Seal", "KillVault", "Revoke", "Quota", "Deny"],
        &["VaultWire("],
        &["KillApiServer", "KillEtcd"],
        &["ApiWire(", "CutLeader"],
        &["Terminate", "Kill(", "KillBoth", "Pause"],
        &[
            "StoreGone",
            "StoreMoved",
            "StoreWrong(Malformed",
            "StoreWrong(Narrowed",
            "StoreWrong(Folder",
        ],
        &["KeyGone", "KeyReplaced"],
    ];

    /// The faults of so many seeds that act for so long.
    fn strikes(seeds: std::ops::Range<u64>, seconds: u64) -> Vec<String> {
        let mut strikes = Vec::new();
        for seed in seeds {
            let mut planner = Planner::new(seed);
            planner.first();
            for round in (0..seconds.div_ceil(8)).map(|_| planner.next(8_000)) {
                let faults = round.faults.iter().flatten();
                strikes.extend(faults.map(|(fault, _)| format!("{:?}", fault.act)));
            }
        }
        strikes
    }

    fn count(strikes: &[String], fault: &str) -> usize {
        strikes.iter().filter(|strike| strike.starts_with(fault)).count()
    }

    #[test]
    fn every_fault_strikes_often_in_the_nightly_seeds() {
        let strikes = strikes(1..201, 60);
        for fault in FAULTS.iter().copied().flatten() {
            let count = count(&strikes, fault);
            assert!(count >= 100, "{fault}: {count} times");
        }
    }

    #[test]
    fn every_kind_of_fault_strikes_in_the_few_seeds() {
        let strikes = strikes(FIRST_SEED..FIRST_SEED + SEEDS, SECONDS);
        for kind in FAULTS {
            let count: usize = kind.iter().map(|fault| count(&strikes, fault)).sum();
            assert!(count > 0, "{kind:?}: {strikes:?}");
        }
    }
}
