//! Which targets hold leased values, and when these are read anew. A credential that an engine made for one read dies
//! with its lease, or with the token that asked for it: what holds it is due before, whatever its refresh interval.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::context::Context;
use super::due;
use super::index::{ObjectKey, stores_of};
use super::queue::Priority;
use crate::api::external_secret::{CreationPolicy, ExternalSecret};
use crate::api::store::StoreKey;
use crate::api::vault::KvVersion;
use crate::store::Source;
use crate::store::hold::Hold;
use crate::target::plan::Outcome;

/// The leased values of one ExternalSecret's target.
struct Kept {
    /// When they are to be read anew.
    due: Timestamp,
    /// When the first of them ends, as far as it is known.
    ends: Timestamp,
    /// Until when they live whatever becomes of this process.
    sure_until: Timestamp,
    /// The tokens on which they hang; none if another process read them.
    holds: Vec<Hold>,
}

/// All leased values that targets hold.
#[derive(Default)]
pub struct Leases(HashMap<ObjectKey, Kept>);

impl Leases {
    /// A target holds the values of these leases now, and no others.
    pub fn hold(&mut self, key: &ObjectKey, holds: Vec<Hold>, now: Timestamp) {
        let ends = holds.iter().map(Hold::ends_at_last).min();
        let (Some(ends), Some(sure_until)) = (ends, sure_until(&holds)) else {
            self.0.remove(key);
            return;
        };
        let kept = Kept {
            due: due::of_lease(now, ends),
            ends,
            sure_until,
            holds,
        };
        self.0.insert(key.clone(), kept);
    }

    /// A target holds values that another process read, and that live until then for sure: nobody renews their token.
    pub fn inherit(&mut self, key: &ObjectKey, sure_until: Timestamp, now: Timestamp) {
        let kept = Kept {
            due: due::of_lease(now, sure_until).min(sure_until.max(now)),
            ends: sure_until,
            sure_until,
            holds: Vec::new(),
        };
        self.0.insert(key.clone(), kept);
    }

    /// The target stays as it is, though its values were asked for anew: they are asked for again while they live.
    pub fn stay(&mut self, key: &ObjectKey, now: Timestamp) {
        match self.0.get_mut(key) {
            Some(kept) if kept.ends > now => kept.due = due::of_lease(now, kept.ends),
            _ => self.forget(key),
        }
    }

    /// The target holds no leased values.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Nothing is known, as at the beginning of a term.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// When the values of a target are to be read anew, if they are leased.
    #[must_use]
    pub fn due(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.0.get(key).map(|kept| kept.due)
    }

    /// When the first of a target's values ends, if this process had them leased.
    #[must_use]
    pub fn ends(&self, key: &ObjectKey) -> Option<Timestamp> {
        let kept = self.0.get(key).filter(|kept| !kept.holds.is_empty());
        kept.map(|kept| kept.ends)
    }

    /// How many targets there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.0.len()
    }

    /// Those that are due sooner than they were, because a token ends that was renewed until now.
    fn sooner(&mut self, now: Timestamp) -> Vec<ObjectKey> {
        let mut sooner = Vec::new();
        for (key, kept) in &mut self.0 {
            let ends = kept
                .holds
                .iter()
                .map(Hold::ends_at_last)
                .min()
                .unwrap_or(kept.ends);
            if ends >= kept.ends {
                continue;
            }
            kept.ends = ends;
            kept.due = kept.due.min(due::of_lease(now, ends));
            sooner.push(key.clone());
        }
        sooner
    }
}

fn sure_until(holds: &[Hold]) -> Option<Timestamp> {
    holds.iter().map(Hold::sure_until).min()
}

impl Context {
    /// Works anew on what a token that ends makes due. Call it about once a second.
    pub fn mind_leases(&self) {
        let sooner = self.leases().sooner(Timestamp::now());
        for key in sooner {
            self.queue.push(&key, Priority::Routine);
        }
    }

    /// Until when what a target will hold lives for sure, with these leases and those of all others who write it.
    #[must_use]
    pub fn leased_until(&self, key: &ObjectKey, target: &ObjectKey, holds: &[Hold]) -> Option<Timestamp> {
        let own = sure_until(holds)?;
        let writers = self.index().writers_of(target);
        let leases = self.leases();
        let others = writers.iter().filter(|writer| *writer != key);
        let others = others.filter_map(|writer| Some(leases.0.get(writer)?.sure_until));
        Some(others.fold(own, Timestamp::min))
    }

    /// Takes note of what became of a target whose values were read under these leases.
    pub fn keep_leases(&self, key: &ObjectKey, object: &ExternalSecret, holds: Vec<Hold>, became: Outcome) {
        let now = Timestamp::now();
        let mut leases = self.leases();
        match became {
            Outcome::Synced if object.spec.creation_policy() != CreationPolicy::None => {
                leases.hold(key, holds, now);
            }
            Outcome::Retained => leases.stay(key, now),
            Outcome::Synced | Outcome::Deleted | Outcome::Missing => leases.forget(key),
        }
    }

    /// A term begins, and this Secret is said to hold leased values that live until then for sure.
    pub fn inherit_leases(&self, secret: &ObjectKey, sure_until: Timestamp) {
        let (writers, now) = (self.index().writers_of(secret), Timestamp::now());
        let mut leases = self.leases();
        for writer in writers {
            leases.inherit(&writer, sure_until, now);
        }
    }

    /// A term begins. Nobody keeps a note at a generic target, which is not looked at before it is due: those that a
    /// store of KV v1 fills, the only one that leases, are read anew.
    pub fn doubt_generic_targets(&self) {
        let (keys, now) = (self.index().keys(None), Timestamp::now());
        for key in keys {
            let object = self.index().get(&key);
            let Some(object) = object.filter(|object| object.spec.manifest().is_some()) else {
                continue;
            };
            let namespace = object.namespace().unwrap_or_default();
            let mut stores = stores_of(&object.spec, &namespace).into_iter();
            if stores.any(|store| self.may_lease(&store)) {
                self.leases().inherit(&key, now, now);
            }
        }
    }

    fn may_lease(&self, store: &StoreKey) -> bool {
        let served = self.stores.served(store);
        served.is_some_and(|store| match store.source() {
            Source::Vault(settings) => settings.kv.version == KvVersion::V1,
            Source::Fake(_) => false,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::controller::context::tests::context;
    use crate::store::hold::Tenure;
    use crate::vault::leased::Terms;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> ObjectKey {
        ObjectKey::new("db", "app")
    }

    /// A lease of an hour by a token that is renewed, or that ends for good with its life.
    fn hold(tenure: &Arc<Tenure>, token_life: Option<Duration>) -> Hold {
        let now = Timestamp::now();
        tenure
            .clone()
            .lease(Terms { lasts: HOUR }, now, token_life.map(|life| now + life))
    }

    fn minutes(until: Option<Timestamp>, from: Timestamp) -> i64 {
        (until.unwrap().duration_since(from).as_secs() + 30) / 60
    }

    #[test]
    fn what_is_held_is_due_by_its_lease_and_the_note_tells_what_is_sure_without_renewals() {
        let (mut leases, now) = (Leases::default(), Timestamp::now());
        let tenure = Arc::<Tenure>::default();
        leases.hold(
            &key(),
            vec![hold(&tenure, Some(HOUR / 4)), hold(&tenure, None)],
            now,
        );
        assert_eq!(
            (
                minutes(leases.due(&key()), now),
                minutes(leases.ends(&key()), now)
            ),
            (40, 60)
        );
        assert_eq!(minutes(Some(leases.0[&key()].sure_until), now), 15);
        leases.hold(&key(), Vec::new(), now);
        assert_eq!((leases.due(&key()), leases.entries()), (None, 0));
    }

    #[test]
    fn a_token_that_is_renewed_no_more_makes_its_leases_due_sooner_and_tells_it_once() {
        let (mut leases, now) = (Leases::default(), Timestamp::now());
        let tenure = Arc::<Tenure>::default();
        leases.hold(&key(), vec![hold(&tenure, Some(HOUR / 2))], now);
        assert!(leases.sooner(now).is_empty());
        tenure.let_go(Some(tokio::time::Instant::now() + HOUR / 2));
        assert_eq!(leases.sooner(now), [key()]);
        assert_eq!(minutes(leases.due(&key()), now), 20);
        assert!(leases.sooner(now).is_empty());
        tenure.end();
        assert_eq!(leases.sooner(now), [key()]);
        assert_eq!(minutes(leases.due(&key()), now), 0);
    }

    #[test]
    fn what_another_process_read_is_due_before_its_token_ends_and_at_once_if_that_is_unknown() {
        let (mut leases, now) = (Leases::default(), Timestamp::now());
        leases.inherit(&key(), now + HOUR, now);
        assert_eq!(minutes(leases.due(&key()), now), 40);
        // An outage does not tell that it is dead: the token may have been renewed since.
        assert_eq!(leases.ends(&key()), None);
        for past in [now - HOUR, Timestamp::UNIX_EPOCH, now] {
            leases.inherit(&key(), past, now);
            assert_eq!(leases.due(&key()), Some(now));
        }
    }

    #[tokio::test]
    async fn a_secret_that_two_objects_write_is_said_to_live_until_the_first_of_their_leases_ends() {
        let (ctx, now) = (context(200), Timestamp::now());
        for name in ["app", "other"] {
            let object = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                "metadata": {"namespace": "db", "name": name}, "spec": {"target": {"name": "shared"}},
            });
            ctx.index().apply(serde_json::from_value(object).unwrap());
        }
        let (target, tenure) = (ObjectKey::new("db", "shared"), Arc::<Tenure>::default());
        let own = vec![hold(&tenure, None)];
        let until = || ctx.leased_until(&key(), &target, &own);
        assert_eq!(minutes(until(), now), 60);
        // A restart finds both in the note.
        ctx.inherit_leases(&target, now + HOUR / 4);
        assert_eq!(minutes(until(), now), 15);
        for writer in [key(), ObjectKey::new("db", "other")] {
            assert_eq!(minutes(ctx.leases().due(&writer), now), 10);
        }
        assert_eq!(ctx.leased_until(&key(), &target, &[]), None);
        ctx.forget(&ObjectKey::new("db", "other"));
        assert_eq!(minutes(until(), now), 60);
    }

    #[test]
    fn a_target_that_stays_as_it_is_keeps_its_lease_while_it_lives_and_is_never_due_all_the_time() {
        let (mut leases, now) = (Leases::default(), Timestamp::now());
        let tenure = Arc::<Tenure>::default();
        leases.hold(&key(), vec![hold(&tenure, None)], now);
        let later = now + HOUR * 2 / 3;
        leases.stay(&key(), later);
        assert!(leases.due(&key()).unwrap() > later && Arc::strong_count(&tenure) == 2);
        leases.stay(&key(), now + HOUR + HOUR);
        assert_eq!((leases.due(&key()), Arc::strong_count(&tenure)), (None, 1));
    }
}
