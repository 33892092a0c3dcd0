//! Keys that wait for a place. Their namespaces take turns: one with thousands of keys keeps another's first key waiting
//! for one of its own, not for all of them.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Whose it is, as far as fairness is concerned.
pub trait Owned {
    /// The namespace.
    type Owner: Clone + Eq + Hash;

    /// The namespace of this one.
    fn owner(&self) -> Self::Owner;
}

/// Whose is lower comes first. A key is found by it, so that none is looked for among all that wait.
pub type Ticket = u64;

/// Those of one namespace.
struct Line<K> {
    turn: Ticket,
    keys: BTreeMap<Ticket, K>,
}

/// Keys of one priority.
pub struct Lane<K: Owned> {
    lines: HashMap<K::Owner, Line<K>>,
    turns: BTreeMap<Ticket, K::Owner>,
    tickets: Ticket,
    len: usize,
}

impl<K: Owned> Default for Lane<K> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            turns: BTreeMap::new(),
            tickets: 0,
            len: 0,
        }
    }
}

impl<K: Owned> Lane<K> {
    /// Adds a key behind the others of its namespace; it is found by its ticket again.
    pub fn push(&mut self, key: K) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        let owner = key.owner();
        let line = self.lines.entry(owner.clone()).or_insert_with(|| {
            self.turns.insert(ticket, owner);
            Line {
                turn: ticket,
                keys: BTreeMap::new(),
            }
        });
        line.keys.insert(ticket, key);
        self.len += 1;
        ticket
    }

    /// Takes a key out.
    pub fn remove(&mut self, owner: &K::Owner, ticket: Ticket) -> Option<K> {
        let line = self.lines.get_mut(owner)?;
        let key = line.keys.remove(&ticket)?;
        self.len -= 1;
        if line.keys.is_empty() {
            self.turns.remove(&line.turn);
            self.lines.remove(owner);
        }
        Some(key)
    }

    /// The next key of a namespace that may have one now; the namespace is the last afterwards.
    pub fn pop(&mut self, mut may: impl FnMut(&K::Owner) -> bool) -> Option<K> {
        let (turn, owner) = self.turns.iter().find(|(_, owner)| may(owner))?;
        let (turn, owner) = (*turn, owner.clone());
        let line = self.lines.get_mut(&owner)?;
        let (_, key) = line.keys.pop_first()?;
        self.len -= 1;
        self.turns.remove(&turn);
        if line.keys.is_empty() {
            self.lines.remove(&owner);
        } else {
            self.tickets += 1;
            line.turn = self.tickets;
            self.turns.insert(line.turn, owner);
        }
        Some(key)
    }

    /// How many keys wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Owned for (char, u32) {
        type Owner = char;

        fn owner(&self) -> char {
            self.0
        }
    }

    fn lane(keys: &[(char, u32)]) -> Lane<(char, u32)> {
        let mut lane = Lane::default();
        for key in keys {
            lane.push(*key);
        }
        lane
    }

    fn all(mut lane: Lane<(char, u32)>, may: impl Fn(&char) -> bool) -> String {
        let mut order = Vec::new();
        while let Some((owner, number)) = lane.pop(&may) {
            order.push(format!("{owner}{number}"));
        }
        order.join(" ")
    }

    #[test]
    fn namespaces_take_turns_and_each_keeps_its_order() {
        let many = || {
            lane(&[
                ('a', 1),
                ('a', 2),
                ('a', 3),
                ('b', 1),
                ('c', 1),
                ('b', 2),
                ('a', 4),
            ])
        };
        assert_eq!(all(many(), |_| true), "a1 b1 c1 a2 b2 a3 a4");
        assert_eq!(all(many(), |owner| *owner != 'a'), "b1 c1 b2");
        assert_eq!(all(lane(&[]), |_| true), "");
    }

    #[test]
    fn a_key_that_is_taken_out_leaves_nothing_behind() {
        let mut lane = lane(&[('a', 1)]);
        let ticket = lane.push(('b', 1));
        assert_eq!(lane.remove(&'b', ticket), Some(('b', 1)));
        assert_eq!(lane.remove(&'b', ticket), None);
        assert_eq!((lane.len(), lane.lines.len(), lane.turns.len()), (1, 1, 1));
        assert_eq!(lane.pop(|_| true), Some(('a', 1)));
        assert_eq!((lane.len(), lane.lines.len(), lane.turns.len()), (0, 0, 0));
        lane.push(('b', 2));
        assert_eq!(lane.pop(|_| true), Some(('b', 2)));
    }
}
