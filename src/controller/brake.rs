//! The deletion brake: a fault that makes many secrets of a store look gone (an older backup restored, a mount or a
//! path moved) must not delete their targets one after the other.
//!
//! A few targets may always go, and so may a share of a store's. The first past both within the window is kept, and so
//! is each that follows, for as long as one is kept: they do not trickle away with the windows. One that is kept says
//! so in its condition, which is what a restart and another replica know it by. It goes when somebody releases it, and
//! is free again when its values are found.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::context::Context;
use super::index::{ObjectKey, stores_of};
use super::status::{DELETION_HELD, READY};
use crate::api::external_secret::ExternalSecret;
use crate::api::store::StoreKey;
use crate::target::apply::ApplyError;

/// Until when deletions are let through: of one ExternalSecret, or of all that read from a store.
pub const ANNOTATION: &str = "keyferry.dev/release-deletions";
/// Deletions count for so long.
const WINDOW: Duration = Duration::from_secs(300);
/// A release that is forgotten must not switch the brake off for ever.
const RELEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// `--deletion-brake`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// All may go.
    Off,
    /// Up to so many may go within the window, and up to this share of a store's targets.
    Limit {
        /// In hundredths.
        share: u8,
        /// Targets.
        count: usize,
    },
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = text.split_once(',').and_then(|(share, count)| {
            let share = share.strip_suffix('%').filter(|share| number(share))?;
            let share = share.parse().ok().filter(|share| *share <= 100)?;
            let count = count.parse().ok().filter(|_| number(count))?;
            Some(Self::Limit { share, count })
        });
        parsed.ok_or_else(|| "write a share and a count, such as 25%,10, or off".into())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Limit { share, count } => write!(f, "{share}%,{count}"),
        }
    }
}

/// What decides whether a target of a store may go.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Somebody says so.
    released: bool,
    /// This one was let go before, within the window.
    let_go: bool,
    /// This one, or another one of the store, is kept.
    held: bool,
    /// So many others were let go within the window.
    gone: usize,
    /// So many targets the store had before they went.
    targets: usize,
}

impl Setting {
    /// Decides.
    fn holds(self, facts: Facts) -> bool {
        let Self::Limit { share, count } = self else {
            return false;
        };
        let going = facts.gone.saturating_add(1);
        let many =
            going > count && going.saturating_mul(100) > facts.targets.saturating_mul(usize::from(share));
        !facts.released && !facts.let_go && (facts.held || many)
    }
}

/// Whether this value of [`ANNOTATION`] is in force: a time that is yet to come, and not too far off.
fn is_released(until: Option<&str>, now: Timestamp) -> bool {
    let until = until.and_then(|until| until.trim().parse::<Timestamp>().ok());
    until.is_some_and(|until| {
        let left = until.duration_since(now);
        !left.is_zero() && !left.is_negative() && left.unsigned_abs() <= RELEASE_MAX
    })
}

/// An ExternalSecret that reads from a store.
struct User {
    key: ObjectKey,
    has_target: bool,
    held: bool,
}

impl User {
    fn of(key: ObjectKey, object: &ExternalSecret) -> Self {
        const NONE: [&str; 4] = [
            "SecretDeleted",
            "SecretMissing",
            "ResourceDeleted",
            "ResourceMissing",
        ];
        let synced = object.status.as_ref().is_some_and(|s| s.refresh_time.is_some());
        Self {
            key,
            has_target: synced && !NONE.contains(&reason(object)),
            held: is_held(object),
        }
    }
}

/// Whether its condition says that its target is kept.
#[must_use]
pub fn is_held(object: &ExternalSecret) -> bool {
    reason(object) == DELETION_HELD
}

fn reason(object: &ExternalSecret) -> &str {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|condition| condition.type_ == READY);
    ready
        .and_then(|ready| ready.reason.as_deref())
        .unwrap_or_default()
}

/// What is remembered of a store.
struct Record {
    /// When its users were looked through.
    counted: Instant,
    targets: usize,
    /// Those that were let go, and when.
    gone: HashMap<ObjectKey, Instant>,
    /// Those that are kept.
    held: BTreeSet<ObjectKey>,
}

impl Record {
    /// Its users are looked through once a window: there may be thousands, and all may ask at once.
    fn look_through(&mut self, now: Instant, users: &[User]) {
        self.counted = now;
        let with_target = |user: &&User| user.has_target || self.gone.contains_key(&user.key);
        self.targets = users.iter().filter(with_target).count();
        let held = users
            .iter()
            .filter(|user| user.held || self.held.contains(&user.key));
        self.held = held.map(|user| user.key.clone()).collect();
    }
}

/// The brake of all stores. Its memory is bounded by the ExternalSecrets there are.
pub struct Brake {
    setting: Setting,
    records: Mutex<HashMap<StoreKey, Record>>,
}

impl Brake {
    /// Nothing went yet.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            records: Mutex::default(),
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<StoreKey, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the target of this ExternalSecret may go, with what it reads from and whether that is released; if not,
    /// which store it is kept for. `held` says whether its condition says that it is kept.
    fn ask(
        &self,
        key: &ObjectKey,
        stores: &[(StoreKey, bool)],
        held: bool,
        now: Instant,
        users: impl Fn(&StoreKey) -> Vec<User>,
    ) -> Result<(), StoreKey> {
        if self.setting == Setting::Off {
            return Ok(());
        }
        let mut records = self.records();
        for (store, _) in stores {
            look_at(&mut records, store, now, &users);
        }
        let stops = |(store, released): &&(StoreKey, bool)| {
            records.get(store).is_some_and(|record| {
                self.setting.holds(Facts {
                    released: *released,
                    let_go: record.gone.contains_key(key),
                    held: held || !record.held.is_empty(),
                    gone: record.gone.len(),
                    targets: record.targets,
                })
            })
        };
        let stopped = stores.iter().find(stops).map(|(store, _)| store.clone());
        for record in records.values_mut() {
            record.held.remove(key);
        }
        if let Some(store) = stopped {
            if let Some(record) = records.get_mut(&store) {
                record.held.insert(key.clone());
            }
            return Err(store);
        }
        // What somebody released does not count against what goes by itself.
        for (store, _) in stores.iter().filter(|(_, released)| !released) {
            if let Some(record) = records.get_mut(store) {
                record.gone.insert(key.clone(), now);
            }
        }
        Ok(())
    }

    /// Those that are kept for a store.
    pub fn held(&self, store: &StoreKey) -> Vec<ObjectKey> {
        let records = self.records();
        let held = records.get(store).map(|record| &record.held);
        held.into_iter().flatten().cloned().collect()
    }

    /// Takes note that an ExternalSecret needs no deletion any more.
    fn free(&self, key: &ObjectKey) {
        for record in self.records().values_mut() {
            record.held.remove(key);
        }
    }

    /// Takes note that an ExternalSecret is gone.
    fn forget(&self, key: &ObjectKey) {
        for record in self.records().values_mut() {
            record.held.remove(key);
            record.gone.remove(key);
        }
    }

    fn held_in_all(&self) -> usize {
        self.records().values().map(|record| record.held.len()).sum()
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        let records = self.records();
        let entries = records
            .values()
            .map(|record| 1 + record.gone.len() + record.held.len());
        entries.sum()
    }
}

/// Brings what is remembered of a store up to now.
fn look_at(
    records: &mut HashMap<StoreKey, Record>,
    store: &StoreKey,
    now: Instant,
    users: &impl Fn(&StoreKey) -> Vec<User>,
) {
    let is_old = |at: &Instant| now.saturating_duration_since(*at) >= WINDOW;
    if !records.contains_key(store) {
        records.retain(|_, record| {
            record.gone.retain(|_, at| !is_old(at));
            !(record.gone.is_empty() && record.held.is_empty())
        });
        let mut record = Record {
            counted: now,
            targets: 0,
            gone: HashMap::new(),
            held: BTreeSet::new(),
        };
        record.look_through(now, &users(store));
        records.insert(store.clone(), record);
        return;
    }
    if let Some(record) = records.get_mut(store) {
        record.gone.retain(|_, at| !is_old(at));
        if is_old(&record.counted) {
            record.look_through(now, &users(store));
        }
    }
}

/// Asks whether the target of an ExternalSecret may go by its deletion policy.
///
/// # Errors
/// [`ApplyError::Held`] if it is kept.
pub fn ask(ctx: &Context, object: &ExternalSecret) -> Result<(), ApplyError> {
    let (key, now) = (
        ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any()),
        Timestamp::now(),
    );
    let own = is_released(object.annotations().get(ANNOTATION).map(String::as_str), now);
    let stores: Vec<_> = {
        let known = ctx.known_stores();
        let stores = stores_of(&object.spec, &key.namespace).into_iter();
        let released = |store: &StoreKey| {
            let until = known.get(store).and_then(|known| known.release.as_deref());
            own || is_released(until, now)
        };
        stores.map(|store| (store.clone(), released(&store))).collect()
    };
    let users = |store: &StoreKey| {
        let index = ctx.index();
        let users = index.users_of(store).into_iter();
        users
            .filter_map(|key| index.get(&key).map(|object| User::of(key, &object)))
            .collect()
    };
    let answer = ctx
        .brake
        .ask(&key, &stores, is_held(object), Instant::now(), users);
    show(ctx);
    answer.map_err(|store| ApplyError::Held(message(&store, ctx.brake.setting)))
}

/// Takes note that an ExternalSecret was synced: what its target needs is done, and no deletion is kept back.
pub fn free(ctx: &Context, key: &ObjectKey) {
    ctx.brake.free(key);
    show(ctx);
}

/// Takes note that an ExternalSecret is gone.
pub fn forget(ctx: &Context, key: &ObjectKey) {
    ctx.brake.forget(key);
    show(ctx);
}

fn show(ctx: &Context) {
    ctx.metrics.deletions_held(ctx.brake.held_in_all());
}

/// The same for all of a store, and at all times: a condition whose words change is news each time.
fn message(store: &StoreKey, setting: Setting) -> String {
    format!(
        "the target is kept, though its values are gone from {store}: too many of this store's would be deleted within 5 \
         minutes (--deletion-brake={setting}); if the values are gone for good, annotate this ExternalSecret or the store \
         with {ANNOTATION} and a time of the next 24 hours until which targets may be deleted, such as \
         2026-12-31T18:00:00Z; if they are not, put them back, and the target is synced by itself"
    )
}

#[cfg(test)]
#[path = "brake_tests.rs"]
mod tests;
