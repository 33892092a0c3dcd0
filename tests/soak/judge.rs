//! Judges every state in which a managed Secret was ever seen: was it right to be so? Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Creation, Floors, HAND, Tick, USERS, Values, explain, explain_deletion};
use crate::world::{External, Id, World, owner_of, target_of};

/// How values of a Secret begin that somebody else controls.
pub const FOREIGN: &str = "foreign-";

/// One state of a Secret.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Tick,
    pub id: Id,
    pub uid: String,
    /// Kind and UID of the owner that controls it.
    pub controller: Option<(String, String)>,
    /// None if it was deleted.
    pub data: Option<Values>,
}

/// What is remembered of a target. A read that is older than an earlier one's must never win.
#[derive(Debug, Default)]
struct Memory {
    oldest_spec: usize,
    floors: Floors,
    /// UIDs of Secrets that had our keys.
    merged: BTreeSet<String>,
    hand_deletions_used: usize,
    /// Whether it was seen with our data since it last went by being renamed.
    held: bool,
}

#[derive(Debug, Default)]
pub struct Judge(BTreeMap<Id, Memory>);

impl Judge {
    /// What is wrong with a state, if anything. States of one Secret come in their order.
    pub fn judge(&mut self, world: &World, seen: &Seen) -> Option<String> {
        let (owner, other) = owner_of(&seen.id);
        let Some(external) = world.externals.get(&owner) else {
            return Some("a Secret that nobody asked for".into());
        };
        let other_holds = self.0.get(&other).is_some_and(|memory| memory.held);
        let memory = self.0.entry(seen.id.clone()).or_default();
        match &seen.data {
            // The old one goes after the new one holds its data.
            None if other_holds && is_renamed(external, &owner, seen) => {
                memory.held = false;
                None
            }
            None => deletion(world, external, memory, seen),
            Some(data) => content(world, external, memory, seen, data),
        }
    }
}

/// Whether its target may have another name than this, and is owned.
fn is_renamed(external: &External, owner: &Id, seen: &Seen) -> bool {
    let mut specs = external.specs.iter().filter(|(since, _)| *since <= seen.at);
    specs.any(|(_, spec)| spec.creation == Creation::Owner && target_of(owner, spec) != seen.id)
}

fn known_specs(external: &External, memory: &Memory, seen: &Seen) -> Vec<(usize, crate::model::Spec)> {
    let (owner, _) = owner_of(&seen.id);
    let specs = external.specs.iter().enumerate().skip(memory.oldest_spec);
    specs
        .filter(|(_, (since, spec))| *since <= seen.at && target_of(&owner, spec) == seen.id)
        .map(|(number, (_, spec))| (number, spec.clone()))
        .collect()
}

fn deletion(world: &World, external: &External, memory: &mut Memory, seen: &Seen) -> Option<String> {
    let begun = |tick: Option<Tick>| tick.is_some_and(|tick| tick <= seen.at);
    let owned = external
        .spec()
        .is_some_and(|spec| spec.creation == Creation::Owner);
    let collected = owned && (begun(external.removed) || begun(external.remade));
    if collected || begun(world.gone.get(&seen.id.0).copied()) {
        return None;
    }
    let by_hand = external.hand_deletions.iter();
    let by_hand = by_hand.filter(|(tick, target)| *tick <= seen.at && *target == seen.id);
    if by_hand.count() > memory.hand_deletions_used {
        memory.hand_deletions_used += 1;
        return None;
    }
    for (number, spec) in known_specs(external, memory, seen) {
        if let Some(floors) = explain_deletion(&spec, &world.vault, &memory.floors, seen.at) {
            memory.floors.extend(floors);
            memory.oldest_spec = number;
            return None;
        }
    }
    Some("it was deleted, and neither the policy nor anybody's hand explains that".into())
}

fn content(
    world: &World,
    external: &External,
    memory: &mut Memory,
    seen: &Seen,
    data: &Values,
) -> Option<String> {
    if seen
        .controller
        .as_ref()
        .is_some_and(|(kind, _)| kind == "ConfigMap")
    {
        let untouched = data.values().all(|value| value.starts_with(FOREIGN));
        return (!untouched).then(|| format!("a foreign Secret was written: {data:?}"));
    }
    let mut own = data.clone();
    own.retain(|key, _| !key.starts_with(USERS));
    // Whatever a person made of it is theirs; the operator writes no such values.
    if own.values().any(|value| value.starts_with(HAND)) {
        return None;
    }
    let merges = external
        .spec()
        .is_some_and(|spec| spec.creation == Creation::Merge);
    if merges && own.is_empty() && !memory.merged.contains(&seen.uid) {
        return None;
    }
    for (number, spec) in known_specs(external, memory, seen) {
        if spec.creation == Creation::None {
            continue;
        }
        if let Some(floors) = explain(&spec, &world.vault, &own, &memory.floors, seen.at) {
            memory.floors.extend(floors);
            memory.oldest_spec = number;
            memory.merged.insert(seen.uid.clone());
            memory.held = true;
            return None;
        }
    }
    Some(format!(
        "no values that Vault held together, or older ones than before: {data:?}; not older than {:?}",
        memory.floors
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Deletion, Refresh, Source, Spec};
    use crate::world::Before;

    fn id() -> Id {
        ("n".into(), "e".into())
    }

    fn values(pairs: &[(&str, &str)]) -> Values {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    /// `p` holds a1, then a2, and then nothing.
    fn world(creation: Creation, deletion: Deletion) -> World {
        let mut world = World::default();
        let spec = Spec {
            creation,
            deletion,
            refresh: Refresh::Soon,
            sources: vec![Source::Extract { path: "p".into() }],
            template: false,
            cluster_store: true,
            renamed: false,
        };
        let mut write = |values: Option<Values>, now| {
            world.write_begins("p", values, now);
            world.write_done("p", now + 1);
        };
        write(Some(values(&[("a", "a1"), ("b", "b1")])), 1);
        write(Some(values(&[("a", "a2"), ("b", "b2")])), 20);
        write(None, 40);
        world.create(&id(), spec, Before::Nothing, 10);
        world
    }

    fn seen(at: Tick, data: Option<&[(&str, &str)]>) -> Seen {
        Seen {
            at,
            id: id(),
            uid: "u".into(),
            controller: None,
            data: data.map(values),
        }
    }

    const OLD: &[(&str, &str)] = &[("a", "a1"), ("b", "b1")];
    const NEW: &[(&str, &str)] = &[("a", "a2"), ("b", "b2")];

    fn verdicts(world: &World, states: &[Seen]) -> Vec<bool> {
        let mut judge = Judge::default();
        let states = states.iter();
        states.map(|seen| judge.judge(world, seen).is_none()).collect()
    }

    #[test]
    fn values_never_go_back_are_never_mixed_and_never_go_away() {
        let world = world(Creation::Owner, Deletion::Retain);
        let going_back = [seen(11, Some(OLD)), seen(21, Some(NEW)), seen(22, Some(OLD))];
        assert_eq!(verdicts(&world, &going_back), [true, true, false]);
        let harmed = [
            seen(21, Some(&[("a", "a1"), ("b", "b2")])),
            seen(22, Some(&[("a", "a2")])),
            seen(23, Some(&[])),
            seen(50, None),
        ];
        assert_eq!(verdicts(&world, &harmed), [false; 4]);
    }

    #[test]
    fn a_secret_is_deleted_only_when_its_paths_were_gone_or_by_hand() {
        let mut world = world(Creation::Owner, Deletion::Delete);
        let states = [seen(11, Some(OLD)), seen(39, None)];
        assert_eq!(verdicts(&world, &states), [true, false], "it was there before");
        assert_eq!(
            verdicts(&world, &[seen(11, Some(OLD)), seen(40, None)]),
            [true, true]
        );
        world.delete_secret(&id(), 30);
        let twice = [seen(31, None), seen(32, Some(NEW)), seen(33, None)];
        assert_eq!(verdicts(&world, &twice), [true, true, false]);
    }

    #[test]
    fn the_garbage_collector_takes_only_what_was_owned() {
        for (creation, right) in [(Creation::Owner, true), (Creation::Orphan, false)] {
            let mut world = world(creation, Deletion::Retain);
            world.remove(&id(), 30);
            assert_eq!(
                verdicts(&world, &[seen(29, None), seen(31, None)]),
                [false, right]
            );
        }
    }

    #[test]
    fn after_an_external_secret_was_made_anew_the_garbage_collector_may_come_however_often_that_was() {
        let mut world = world(Creation::Owner, Deletion::Retain);
        world.remake(&id(), 20);
        world.remake(&id(), 30);
        assert_eq!(
            verdicts(&world, &[seen(19, None), seen(25, None), seen(35, None)]),
            [false, true, true]
        );
    }

    #[test]
    fn what_people_write_is_theirs_and_a_foreign_secret_stays_theirs() {
        let world = world(Creation::Merge, Deletion::Retain);
        let users = ("users-u", "hand-1");
        let states = [
            seen(11, Some(&[users])),
            seen(12, Some(&[users, ("a", "a1"), ("b", "b1")])),
            seen(13, Some(&[users, ("a", "hand-2"), ("b", "b1")])),
            seen(14, Some(&[users])),
        ];
        assert_eq!(verdicts(&world, &states), [true, true, true, false]);
        let foreign = |data: &[(&str, &str)]| Seen {
            controller: Some(("ConfigMap".into(), "o".into())),
            ..seen(20, Some(data))
        };
        let states = [foreign(&[("f", "foreign-1")]), foreign(NEW)];
        assert_eq!(verdicts(&world, &states), [true, false]);
    }

    #[test]
    fn a_target_of_an_older_name_goes_after_the_new_one_holds_its_data() {
        let mut world = world(Creation::Owner, Deletion::Retain);
        let spec = world.externals[&id()].spec().unwrap().clone();
        let renamed = Spec {
            renamed: true,
            ..spec
        };
        world.change(&id(), renamed.clone(), 25);
        let new = |at, data| Seen {
            id: target_of(&id(), &renamed),
            ..seen(at, data)
        };
        let first = seen(24, Some(NEW));
        let too_early = [first.clone(), seen(26, None), new(27, Some(NEW))];
        assert_eq!(verdicts(&world, &too_early), [true, false, true]);
        let in_turn = [first.clone(), new(26, Some(NEW)), seen(27, None), new(28, None)];
        assert_eq!(verdicts(&world, &in_turn), [true, true, true, false]);
        let too_early = [first, new(24, Some(NEW)), seen(24, None)];
        assert_eq!(verdicts(&world, &too_early), [true, false, false]);
    }
}
