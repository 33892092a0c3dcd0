//! Every ExternalSecret with all that was done to it, and so what must be seen at a quiet point. Pure.

use std::collections::BTreeMap;

use crate::model::{
    Creation, Outcome, Refresh, Spec, Tick, Values, Vault, explain, explain_deletion, floors_at,
};

/// Namespace and name.
pub type Id = (String, String);

/// How the name of a target ends that was renamed.
const RENAMED: &str = "-renamed";

/// The target of an ExternalSecret that has this wish.
pub fn target_of(id: &Id, spec: &Spec) -> Id {
    let end = if spec.renamed { RENAMED } else { "" };
    (id.0.clone(), format!("{}{end}", id.1))
}

/// The ExternalSecret of a target, and the name that the target has too at times.
pub fn owner_of(target: &Id) -> (Id, Id) {
    let (namespace, name) = target;
    let own = name.strip_suffix(RENAMED);
    let other = own.map_or_else(|| format!("{name}{RENAMED}"), String::from);
    let owner = own.unwrap_or(name).to_string();
    ((namespace.clone(), owner), (namespace.clone(), other))
}

/// What stands at the target's name before the ExternalSecret comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// A Secret of the user's that nobody controls.
    Users(Values),
    /// A Secret that somebody else controls.
    Foreign(Values),
}

#[derive(Clone, Debug)]
pub struct External {
    /// Its wishes, each with the time since when it may be known.
    pub specs: Vec<(Tick, Spec)>,
    /// Reads are sent after this.
    trigger: Tick,
    created: Tick,
    pub removed: Option<Tick>,
    pub remade: Option<Tick>,
    /// Whether nothing happened that may have failed a sync, so that even without a further trigger it is known
    /// what the target holds.
    settled: bool,
    /// Somebody harmed a target that is left so until the next refresh.
    left_harmed: bool,
    pub foreign: Option<Values>,
    /// The user's own keys in a target of `Merge`; none while there is no such Secret.
    pub users: Option<Values>,
    pub hand_deletions: Vec<(Tick, Id)>,
}

impl External {
    pub fn spec(&self) -> Option<&Spec> {
        self.specs.last().map(|(_, spec)| spec)
    }

    fn is(&self, creation: Creation) -> bool {
        self.spec().is_some_and(|spec| spec.creation == creation)
    }

    fn is_created_once(&self) -> bool {
        self.spec()
            .is_some_and(|spec| spec.refresh == Refresh::CreatedOnce)
    }
}

/// What must be seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// Only what may be seen at any time.
    Anything,
    /// This data, or no Secret; status and reason of Ready.
    Exactly(Option<Values>, bool, &'static str),
    /// Ready, with data that was read since then.
    ReadSince(Tick),
    /// Not Ready; the target is what it was.
    Failing,
    /// No ExternalSecret.
    Gone,
}

#[derive(Debug, Default)]
pub struct World {
    pub vault: Vault,
    pub externals: BTreeMap<Id, External>,
    /// Namespaces that were deleted.
    pub gone: BTreeMap<String, Tick>,
}

impl World {
    pub fn write_begins(&mut self, path: &str, values: Option<Values>, now: Tick) {
        self.vault.begin(path, values, now);
        for external in self.externals.values_mut() {
            let fails = |spec: &Spec| {
                spec.paths().contains(path) && spec.outcome(|p| self.vault.current(p)) == Outcome::Fails
            };
            external.settled &= !external.spec().is_some_and(fails);
        }
    }

    pub fn write_done(&mut self, path: &str, now: Tick) {
        self.vault.done(path, now);
    }

    pub fn create(&mut self, id: &Id, spec: Spec, before: Before, now: Tick) {
        let merge = spec.creation == Creation::Merge;
        let mut external = External {
            settled: !spec.may_fail_since(&self.vault, now),
            specs: vec![(now, spec)],
            trigger: now,
            created: now,
            removed: None,
            remade: None,
            left_harmed: false,
            foreign: None,
            users: None,
            hand_deletions: Vec::new(),
        };
        match before {
            // Nothing tells of the coming of a Secret to merge into.
            Before::Nothing => external.settled &= !merge,
            Before::Users(values) => external.users = merge.then_some(values),
            Before::Foreign(values) => {
                external.foreign = Some(values);
                external.settled = false;
            }
        }
        self.externals.insert(id.clone(), external);
    }

    pub fn change(&mut self, id: &Id, spec: Spec, now: Tick) {
        let fails = spec.may_fail_since(&self.vault, now);
        if let Some(external) = self.externals.get_mut(id) {
            // What is applied again as it is triggers nothing.
            if external.spec() == Some(&spec) {
                return;
            }
            external.specs.push((now, spec));
            external.trigger = now;
            external.settled &= !fails;
        }
    }

    pub fn force(&mut self, id: &Id, now: Tick) {
        self.with(id, |external| external.trigger = now);
    }

    pub fn remove(&mut self, id: &Id, now: Tick) {
        self.with(id, |external| external.removed = Some(now));
    }

    /// Removed, and made again before the garbage collector was there, or after.
    pub fn remake(&mut self, id: &Id, now: Tick) {
        let Some(external) = self.externals.get_mut(id) else {
            return;
        };
        // From the first time on, the garbage collector may come for what an earlier one left.
        external.remade.get_or_insert(now);
        (external.trigger, external.created) = (now, now);
        external.left_harmed = false;
        // What the earlier one left is not the new one's to delete until the garbage collector has been there.
        let spec = external.specs.last().map(|(_, spec)| spec);
        external.settled &= spec.is_some_and(|spec| {
            spec.deletion != crate::model::Deletion::Delete && !spec.may_fail_since(&self.vault, now)
        });
    }

    /// Somebody changes the target by hand.
    pub fn harm(&mut self, id: &Id) {
        self.with(id, |external| {
            // An Orphan is left to the next refresh; a target of Merge is not watched without its label.
            external.settled &= !(external.is(Creation::Orphan) || external.is(Creation::Merge));
            external.left_harmed |= external.is(Creation::Orphan);
        });
    }

    /// Somebody deletes the target.
    pub fn delete_secret(&mut self, id: &Id, now: Tick) {
        let target = self.target(id);
        self.with(id, |external| {
            external.hand_deletions.push((now, target));
            external.settled &= external.is(Creation::Owner) && external.foreign.is_none();
            external.left_harmed |= external.is(Creation::Orphan);
            (external.foreign, external.users) = (None, None);
        });
    }

    /// The user writes keys of their own into a target of `Merge`, and makes it if need be.
    pub fn users_write(&mut self, id: &Id, values: &Values) {
        self.with(id, |external| {
            external.settled &= external.users.is_some();
            external.users.get_or_insert_default().extend(values.clone());
        });
    }

    /// A fault of the whole that may fail a sync.
    pub fn unsettle(&mut self) {
        for external in self.externals.values_mut() {
            external.settled = false;
        }
    }

    /// All is as [`Self::expected`] says after a trigger: from now on it is known again.
    pub fn settle(&mut self) {
        let vault = &self.vault;
        for external in self.externals.values_mut() {
            let spec = external.specs.last().map(|(_, spec)| spec);
            let fails = spec.is_none_or(|spec| spec.outcome(|path| vault.current(path)) == Outcome::Fails);
            let awaited = external.is(Creation::Merge) && external.users.is_none();
            external.settled = !fails && !awaited && external.foreign.is_none();
            external.left_harmed &= external.is_created_once();
        }
    }

    /// The target as it is wished for now.
    pub fn target(&self, id: &Id) -> Id {
        let spec = self.externals.get(id).and_then(External::spec);
        spec.map_or_else(|| id.clone(), |spec| target_of(id, spec))
    }

    fn with(&mut self, id: &Id, change: impl FnOnce(&mut External)) {
        if let Some(external) = self.externals.get_mut(id) {
            change(external);
        }
    }

    /// Those that are there.
    pub fn living(&self) -> impl Iterator<Item = (&Id, &External)> {
        let all = self.externals.iter();
        all.filter(|(id, external)| external.removed.is_none() && !self.gone.contains_key(&id.0))
    }

    /// What must be seen when nothing is under way; `forced` if each was triggered and had time.
    pub fn expected(&self, id: &Id, external: &External, forced: bool) -> Expected {
        let Some(spec) = external.spec().filter(|_| !self.gone.contains_key(&id.0)) else {
            return Expected::Anything;
        };
        if external.removed.is_some() {
            return Expected::Gone;
        }
        if !forced && !external.settled {
            return Expected::Anything;
        }
        if let Some(foreign) = &external.foreign {
            return Expected::Exactly(Some(foreign.clone()), false, "SecretSyncedError");
        }
        let outcome = spec.outcome(|path| self.vault.current(path));
        match spec.refresh {
            // Nothing triggers it any more.
            Refresh::CreatedOnce if external.left_harmed => Expected::Anything,
            Refresh::CreatedOnce if forced && outcome == Outcome::Fails => Expected::Anything,
            Refresh::CreatedOnce => Expected::ReadSince(external.created),
            Refresh::Hourly | Refresh::Zero | Refresh::OnChange if !forced => {
                Expected::ReadSince(external.trigger)
            }
            _ => Self::exactly(external, spec, outcome),
        }
    }

    fn exactly(external: &External, spec: &Spec, outcome: Outcome) -> Expected {
        let data = match outcome {
            Outcome::Fails => return Expected::Failing,
            Outcome::Deleted => return Expected::Exactly(None, true, "SecretDeleted"),
            Outcome::Holds(data) => data,
        };
        match (spec.creation, &external.users) {
            (Creation::None, _) => Expected::Exactly(None, true, "SecretSynced"),
            (Creation::Merge, None) => Expected::Exactly(None, true, "SecretMissing"),
            (Creation::Merge, Some(users)) => {
                let merged = users.clone().into_iter().chain(data).collect();
                Expected::Exactly(Some(merged), true, "SecretSynced")
            }
            (Creation::Owner | Creation::Orphan, _) => Expected::Exactly(Some(data), true, "SecretSynced"),
        }
    }

    /// Whether a target may look like this if it was last read since then.
    pub fn read_since(&self, external: &External, data: Option<&Values>, since: Tick) -> bool {
        let Some(spec) = external.spec() else { return false };
        let floors = floors_at(spec, &self.vault, since);
        let awaited = spec.creation == Creation::Merge && external.users.is_none();
        match data {
            None if spec.creation == Creation::None || awaited => true,
            None => explain_deletion(spec, &self.vault, &floors, Tick::MAX).is_some(),
            Some(_) if spec.creation == Creation::None => false,
            Some(data) => {
                let mut own = data.clone();
                for (key, value) in external.users.iter().flatten() {
                    if own.remove(key).as_ref() != Some(value) {
                        return false;
                    }
                }
                explain(spec, &self.vault, &own, &floors, Tick::MAX).is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Deletion, Source};

    fn id() -> Id {
        ("n".into(), "e".into())
    }

    fn one(value: &str) -> Values {
        [("a".to_string(), value.to_string())].into()
    }

    fn spec(creation: Creation, refresh: Refresh) -> Spec {
        Spec {
            creation,
            deletion: Deletion::Retain,
            refresh,
            sources: vec![Source::Data {
                key: "x".into(),
                path: "p".into(),
                property: "a".into(),
            }],
            template: false,
            cluster_store: true,
            renamed: false,
        }
    }

    fn world(spec: Spec, before: Before) -> World {
        let mut world = World::default();
        write(&mut world, Some(one("1")), 1);
        world.create(&id(), spec, before, 10);
        world
    }

    fn write(world: &mut World, values: Option<Values>, now: Tick) {
        world.write_begins("p", values, now);
        world.write_done("p", now + 1);
    }

    fn expected(world: &World, forced: bool) -> Expected {
        world.expected(&id(), &world.externals[&id()], forced)
    }

    fn holds(value: &str) -> Expected {
        let data = [("x".to_string(), value.to_string())].into();
        Expected::Exactly(Some(data), true, "SecretSynced")
    }

    #[test]
    fn one_that_is_refreshed_soon_follows_vault_and_another_its_last_trigger() {
        let mut soon = world(spec(Creation::Owner, Refresh::Soon), Before::Nothing);
        let mut hourly = world(spec(Creation::Owner, Refresh::Hourly), Before::Nothing);
        for world in [&mut soon, &mut hourly] {
            write(world, Some(one("2")), 20);
        }
        assert_eq!(expected(&soon, false), holds("2"));
        assert_eq!(expected(&hourly, false), Expected::ReadSince(10));
        hourly.force(&id(), 30);
        assert_eq!(expected(&hourly, false), Expected::ReadSince(30));
        let external = &hourly.externals[&id()];
        let seen = |value| hourly.read_since(external, Some(&[("x".to_string(), value)].into()), 30);
        assert!(
            seen("2".to_string()) && !seen("1".to_string()),
            "too old for the trigger"
        );
        assert_eq!(expected(&hourly, true), holds("2"));
    }

    #[test]
    fn a_change_that_changes_nothing_triggers_nothing() {
        let hourly = spec(Creation::Owner, Refresh::Hourly);
        let mut world = world(hourly.clone(), Before::Nothing);
        let before = expected(&world, false);
        world.change(&id(), hourly, 30);
        assert_eq!(expected(&world, false), before);
        world.change(&id(), spec(Creation::Owner, Refresh::OnChange), 40);
        assert_eq!(expected(&world, false), Expected::ReadSince(40));
    }

    #[test]
    fn after_a_possible_failure_nothing_is_sure_until_the_next_trigger() {
        let mut world = world(spec(Creation::Owner, Refresh::Soon), Before::Nothing);
        write(&mut world, None, 20);
        write(&mut world, Some(one("2")), 30);
        assert_eq!(expected(&world, false), Expected::Anything);
        assert_eq!(expected(&world, true), holds("2"));
        world.settle();
        assert_eq!(expected(&world, false), holds("2"));
        write(&mut world, None, 40);
        assert_eq!(expected(&world, true), Expected::Failing);
    }

    #[test]
    fn a_foreign_secret_stays_as_it_is_and_a_merge_keeps_the_users_keys() {
        let foreign: Values = [("f".to_string(), "foreign-1".to_string())].into();
        let world_of = |creation, before| world(spec(creation, Refresh::Soon), before);
        let mut refused = world_of(Creation::Owner, Before::Foreign(foreign.clone()));
        let untouched = Expected::Exactly(Some(foreign), false, "SecretSyncedError");
        assert_eq!(expected(&refused, true), untouched);
        refused.delete_secret(&id(), 20);
        assert_eq!(expected(&refused, true), holds("1"));

        let users: Values = [("users-u".to_string(), "hand-1".to_string())].into();
        let merged = world_of(Creation::Merge, Before::Users(users.clone()));
        let both = users
            .into_iter()
            .chain([("x".to_string(), "1".to_string())])
            .collect();
        assert_eq!(
            expected(&merged, true),
            Expected::Exactly(Some(both), true, "SecretSynced")
        );
        let missing = world_of(Creation::Merge, Before::Nothing);
        assert_eq!(expected(&missing, false), Expected::Anything);
        assert_eq!(
            expected(&missing, true),
            Expected::Exactly(None, true, "SecretMissing")
        );
    }

    #[test]
    fn created_once_keeps_what_it_read() {
        let mut world = world(spec(Creation::Owner, Refresh::CreatedOnce), Before::Nothing);
        write(&mut world, Some(one("2")), 20);
        world.force(&id(), 30);
        assert_eq!(expected(&world, true), Expected::ReadSince(10));
        let mut orphan = self::world(spec(Creation::Orphan, Refresh::CreatedOnce), Before::Nothing);
        orphan.harm(&id());
        assert_eq!(
            expected(&orphan, true),
            Expected::Anything,
            "an Orphan is not repaired"
        );
        write(&mut world, None, 40);
        assert_eq!(expected(&world, true), Expected::Anything);
    }
}
