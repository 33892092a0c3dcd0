//! ESO's rules for policies, written down a second time and apart from `src`: what a target must hold
//! and what the Ready condition must say, for every combination. Where Keyferry differs on purpose
//! (README), the model says so.

use std::collections::{BTreeMap, BTreeSet};

/// The key of the target that every ExternalSecret of the table writes.
pub const KEY: &str = "value";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Owner,
    Orphan,
    Merge,
    None,
    CreateOrMerge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Retain,
    Delete,
    Merge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    Periodic,
    OnChange,
    CreatedOnce,
}

/// What stands at the target's name when the table begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Absent,
    Intact,
    Edited,
    Foreign,
    OwnedByAnother,
    ImmutableEqual,
    ImmutableDifferent,
}

pub const STATES: [State; 7] = [
    State::Absent,
    State::Intact,
    State::Edited,
    State::Foreign,
    State::OwnedByAnother,
    State::ImmutableEqual,
    State::ImmutableDifferent,
];

/// One combination.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub creation: Creation,
    pub deletion: Deletion,
    pub refresh: Refresh,
    pub state: State,
}

impl Case {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for creation in [
            Creation::Owner,
            Creation::Orphan,
            Creation::Merge,
            Creation::None,
            Creation::CreateOrMerge,
        ] {
            for deletion in [Deletion::Retain, Deletion::Delete, Deletion::Merge] {
                for refresh in [Refresh::Periodic, Refresh::OnChange, Refresh::CreatedOnce] {
                    all.extend(STATES.map(|state| Self {
                        creation,
                        deletion,
                        refresh,
                        state,
                    }));
                }
            }
        }
        all
    }

    pub fn name(&self) -> String {
        let parts = format!(
            "{:?}-{:?}-{:?}-{:?}",
            self.creation, self.deletion, self.refresh, self.state
        );
        parts.to_lowercase()
    }

    /// What the API server says to a combination that makes no sense.
    pub fn refused(&self) -> Option<&'static str> {
        match (self.deletion, self.creation) {
            (Deletion::Delete, Creation::Merge | Creation::None | Creation::CreateOrMerge) => {
                Some("deletionPolicy=Delete must not be used when the controller doesn't own the secret")
            }
            (Deletion::Merge, Creation::None) => {
                Some("deletionPolicy=Merge must not be used with creationPolicy=None")
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Us,
    Another,
}

/// A Secret, as far as the table looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub data: BTreeMap<String, String>,
    pub owner: Owner,
    pub managed: bool,
    pub immutable: bool,
}

/// Status and reason of the Ready condition, and a part of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(pub &'static str, pub &'static str, pub &'static str);

const SYNCED: Ready = Ready("True", "SecretSynced", "secret synced");

/// One combination as it goes on.
#[derive(Clone, Debug)]
pub struct World {
    pub case: Case,
    pub target: Option<Target>,
    pub ready: Ready,
    synced: bool,
    edited: bool,
    /// Keys that our field manager owns: those whose value we changed last.
    ours: BTreeSet<String>,
}

pub fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
        .collect()
}

impl World {
    pub fn new(case: Case) -> Self {
        let target = |pairs: &[(&str, &str)]| Target {
            data: data(pairs),
            owner: Owner::Nobody,
            managed: false,
            immutable: false,
        };
        let foreign = [(KEY, "theirs"), ("other", "theirs")];
        let target = match (case.state, case.creation) {
            (State::Absent, _) => None,
            // Merge becomes the manager of what exists, None leaves what an earlier policy made.
            (State::Intact | State::Edited, Creation::Merge) => Some(target(&[])),
            (State::Intact | State::Edited, Creation::None) => Some(Target {
                managed: true,
                ..target(&[(KEY, "earlier")])
            }),
            (State::Intact | State::Edited, _) => None,
            (State::Foreign, _) => Some(target(&foreign)),
            (State::OwnedByAnother, _) => Some(Target {
                owner: Owner::Another,
                ..target(&foreign)
            }),
            (State::ImmutableEqual, _) => Some(Target {
                immutable: true,
                ..target(&[(KEY, "one")])
            }),
            (State::ImmutableDifferent, _) => Some(Target {
                immutable: true,
                ..target(&[(KEY, "theirs")])
            }),
        };
        Self {
            case,
            target,
            ready: SYNCED,
            synced: false,
            edited: false,
            ours: BTreeSet::new(),
        }
    }

    /// Somebody changes our key and adds one.
    pub fn edit(&mut self) {
        let Some(target) = &mut self.target else { return };
        target
            .data
            .extend(data(&[(KEY, "by hand"), ("added", "by hand")]));
        self.ours.clear();
        self.edited = true;
    }

    /// The ExternalSecret is deleted: what it owns goes with it.
    pub fn delete(&mut self) {
        self.target = self.target.take().filter(|target| target.owner != Owner::Us);
    }

    /// Something happened; `changed` if it was to the ExternalSecret. The second argument is what Vault holds.
    pub fn reconcile(&mut self, vault: Option<&str>, changed: bool) {
        let due = !self.synced || (changed && self.case.refresh != Refresh::CreatedOnce);
        if due || !self.valid() {
            self.ready = self.sync(vault);
            self.synced |= self.ready.0 == "True";
        }
    }

    /// Whether the target may stay until the next refresh. `None` has none to look at (ESO reads Vault at
    /// every event all the same, and does nothing with it).
    fn valid(&self) -> bool {
        match self.case.creation {
            Creation::Orphan | Creation::None => true,
            Creation::Owner | Creation::Merge | Creation::CreateOrMerge => {
                self.target.as_ref().is_some_and(|target| target.managed) && !self.edited
            }
        }
    }

    fn sync(&mut self, vault: Option<&str>) -> Ready {
        let error = |word| Ready("False", "SecretSyncedError", word);
        let wanted = vault.map(|value| data(&[(KEY, value)])).unwrap_or_default();
        match (vault, self.case.deletion) {
            (None, Deletion::Retain) => return error("could not get secret data from provider"),
            (None, Deletion::Delete) => {
                // Keyferry never deletes what is not its own; ESO looks at the policy alone.
                let ours = self
                    .target
                    .as_ref()
                    .is_none_or(|target| target.owner == Owner::Us);
                if self.case.creation != Creation::Owner || !ours {
                    return error("could not delete secret");
                }
                self.target = None;
                return Ready("True", "SecretDeleted", "deleted due to DeletionPolicy=Delete");
            }
            _ => {}
        }
        if self.case.creation == Creation::None {
            return SYNCED;
        }
        if self.target.is_none() && self.case.creation == Creation::Merge {
            return Ready(
                "True",
                "SecretMissing",
                "will not be created due to CreationPolicy=Merge",
            );
        }
        self.write(wanted)
    }

    fn write(&mut self, wanted: BTreeMap<String, String>) -> Ready {
        let old = self.target.clone();
        let owner = old.as_ref().map_or(Owner::Nobody, |target| target.owner);
        if owner == Owner::Another {
            return Ready(
                "False",
                "SecretSyncedError",
                "target is owned by another ExternalSecret",
            );
        }
        let before = old.as_ref().map(|target| target.data.clone()).unwrap_or_default();
        let mut after = match self.case.creation {
            Creation::Merge | Creation::CreateOrMerge => before.clone(),
            _ => BTreeMap::new(),
        };
        after.retain(|key, _| !self.ours.contains(key));
        after.extend(wanted);
        let immutable = old.is_some_and(|target| target.immutable);
        if immutable && after != before {
            // ESO takes over the metadata of such a Secret; Keyferry leaves all of it alone.
            return Ready("False", "SecretSyncedError", "target is immutable");
        }
        self.ours.retain(|key| after.contains_key(key));
        let changed = after
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(*value));
        self.ours.extend(changed.map(|(key, _)| key.clone()));
        self.edited = false;
        self.target = Some(Target {
            data: after,
            owner: if self.case.creation == Creation::Owner {
                Owner::Us
            } else {
                Owner::Nobody
            },
            managed: true,
            immutable,
        });
        SYNCED
    }
}
