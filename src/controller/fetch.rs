//! The reads of a plan: single secrets at once, searches folder by folder.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::context::Context;
use super::index::ObjectKey;
use super::outcome::Failure;
use super::room::Room;
use crate::api::vault::KvVersion;
use crate::memory::{self, Busy, QUICK};
use crate::store::allowed_paths::ANNOTATION;
use crate::store::fake::Fake;
use crate::store::hold::Hold;
use crate::store::login::Fault;
use crate::store::session::ReadError;
use crate::store::settings::Settings;
use crate::store::{Source, Store};
use crate::sync::assemble::{Answer, AssembleError, Assembled, assemble};
use crate::sync::find::{self, Ask, Filter, Search};
use crate::sync::plan::{Entry, Plan, Read, What, WhenMissing};
use crate::vault::error::VaultError;
use crate::vault::json;
use crate::vault::kv::{KvAnswer, Question, SecretPath};

/// Requests of one search that are under way at once: a part of what a server is given, so that a search through
/// many secrets keeps nobody from the one they need.
const SEARCH_WIDTH: usize = 8;

/// The same of the reads of one ExternalSecret: one with thousands must not stand before those of others in the queue.
const READ_WIDTH: usize = 16;
/// How long all that one ExternalSecret reads may take, however many requests and searches it is.
const READ_TIME: Duration = Duration::from_secs(300);
/// What a MiB costs that is read: it is received, decrypted and parsed.
const READ_COST: Duration = Duration::from_millis(60);
/// Bytes that are looked through on the threads of the loops; more takes milliseconds.
const LOOKED_THROUGH: usize = 256 << 10;

/// The answers to all reads of a plan, each from the store beside it, and the leases of their values.
///
/// # Errors
/// The first read that failed, or that they are too large together.
pub async fn read_all(
    ctx: &Context,
    key: &ObjectKey,
    plan: &Plan,
    stores: &[Arc<Store>],
    room: &Room,
) -> Result<(Vec<Answer>, Vec<Hold>), Failure> {
    let holds = Mutex::default();
    let reads = plan.reads.iter().zip(stores).map(async |(read, store)| {
        let asked = Asked { read, store };
        match store.source() {
            Source::Fake(fake) => {
                let answer = asked.fake(ctx, key, fake).await?;
                room.keep(answer.size()).map(|()| answer)
            }
            Source::Vault(settings) => {
                let reader = Reader {
                    ctx,
                    key,
                    asked,
                    settings,
                    holds: &holds,
                    room,
                };
                reader.read().await
            }
        }
    });
    let reads: Vec<_> = reads.collect();
    let answers = gather(reads, plan.when_missing).await;
    ctx.charge(key, read_cost(room.bytes_read()));
    Ok((
        answers?,
        holds.into_inner().unwrap_or_else(PoisonError::into_inner),
    ))
}

fn read_cost(bytes: usize) -> Duration {
    READ_COST.saturating_mul(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}

/// What [`take`] gives, if it comes in time.
async fn gather<R>(reads: Vec<R>, when_missing: WhenMissing) -> Result<Vec<Answer>, Failure>
where
    R: Future<Output = Result<Answer, Failure>>,
{
    let late = |_| {
        Failure::own(format!(
            "reading its secrets took more than {} minutes; read fewer ones, or search through fewer folders",
            READ_TIME.as_secs() / 60
        ))
    };
    timeout(READ_TIME, take(reads, when_missing))
        .await
        .map_err(late)?
}

/// Takes answers in the order of the reads, until one ends all.
async fn take<R>(reads: Vec<R>, when_missing: WhenMissing) -> Result<Vec<Answer>, Failure>
where
    R: Future<Output = Result<Answer, Failure>>,
{
    let mut answers = Vec::with_capacity(reads.len());
    let mut reads = futures::stream::iter(reads).buffered(READ_WIDTH);
    while let Some(answer) = reads.next().await {
        let answer = answer?;
        let fails = matches!(answer, Answer::Missing) && when_missing == WhenMissing::Fail;
        answers.push(answer);
        if fails {
            // The first entry that is missing fails all: what comes after it need not be asked for.
            break;
        }
    }
    Ok(answers)
}

/// Whether the namespace may do a read.
///
/// # Errors
/// If it may not.
pub fn permit(ctx: &Context, key: &ObjectKey, read: &Read, store: &Arc<Store>) -> Result<(), Failure> {
    let Source::Vault(settings) = store.source() else {
        return Ok(());
    };
    let (kv, namespace) = (&settings.kv, &key.namespace);
    let (path, question) = match &read.what {
        What::Value => (kv.locate(&read.key), Question::Value(None)),
        What::Metadata => (kv.locate(&read.key), Question::Metadata),
        What::Find(_) => (kv.folder(&read.key), Question::Names),
    };
    let reader = Reader {
        ctx,
        key,
        asked: Asked { read, store },
        settings,
        holds: &Mutex::default(),
        room: &Room::small(),
    };
    // A path that is none is told when it is read.
    path.map_or(Ok(()), |path| store.permit(kv, namespace, &path, question))
        .map_err(|error| reader.failure(error))
}

/// Makes the target's data of the answers. What may take long is done beside the loops.
///
/// # Errors
/// If an entry fails.
pub async fn assembled(
    ctx: &Context,
    key: &ObjectKey,
    plan: &Plan,
    answers: Vec<Answer>,
) -> Result<Assembled, Failure> {
    let failed = |error: AssembleError| Failure::own(error.to_string());
    if !is_costly(plan, &answers) {
        return assemble(plan, &answers).map_err(failed);
    }
    let plan = plan.clone();
    let sizes = answers.iter().map(Answer::size);
    let (bytes, largest) = (sizes.clone().sum(), sizes.max().unwrap_or_default());
    let rewrites = plan.entries.iter().any(Entry::is_rewritten);
    let work = move || {
        // One secret after the other is looked through. What rewrites make of it may be as much as of any template.
        let made = if rewrites { usize::MAX } else { json::most(largest) };
        let _made = match largest > QUICK {
            true => Some(memory::budget().make_beside(made)?),
            false => None,
        };
        Ok(assemble(&plan, &answers))
    };
    let assembled = ctx.beside(key, bytes, work).await?;
    assembled
        .map_err(|busy: Busy| Failure::Api(busy.to_string()))?
        .map_err(failed)
}

/// Rewrites, wildcards and much to look through may take seconds. Each property looks through its secret.
fn is_costly(plan: &Plan, answers: &[Answer]) -> bool {
    let sizes: Vec<usize> = answers.iter().map(Answer::size).collect();
    let looked_through = |entry: &Entry| sizes.get(entry.read).copied().unwrap_or_default();
    let wildcard = |entry: &Entry| {
        entry
            .property
            .as_ref()
            .is_some_and(|property| property.contains('*'))
    };
    plan.entries
        .iter()
        .any(|entry| entry.is_rewritten() || wildcard(entry))
        || plan.entries.iter().map(looked_through).sum::<usize>() > LOOKED_THROUGH
}

/// One read, and the store that it is for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    read: &'a Read,
    store: &'a Arc<Store>,
}

impl Asked<'_> {
    async fn fake(self, ctx: &Context, key: &ObjectKey, fake: &Fake) -> Result<Answer, Failure> {
        match &self.read.what {
            What::Find(filter) => {
                let (filter, fake) = (filter.clone(), fake.clone());
                let found = ctx.beside(key, 0, move || find::among(&filter, fake.latest()));
                found.await?.map_err(|error| self.failed(&error.to_string()))
            }
            What::Value | What::Metadata => {
                let value = fake.value(&self.read.key, self.read.version.as_deref());
                Ok(value.map_or(Answer::Missing, Answer::Text))
            }
        }
    }

    /// The version as KV v2 counts them.
    fn version(self) -> Result<Option<u64>, Failure> {
        let Some(version) = &self.read.version else {
            return Ok(None);
        };
        let number = version_number(version).ok_or_else(|| {
            Failure::refused(format!(
                "the version of key {} is {version:?}, but versions of a secret in Vault are whole numbers from 1; \
                 correct it, or remove it for the latest version",
                self.read.key
            ))
        })?;
        Ok(Some(number))
    }

    fn failed(self, cause: &str) -> Failure {
        Failure::own(format!("{} could not {}: {cause}", self.store.key(), self.aim()))
    }

    /// What is done, for messages.
    fn aim(self) -> String {
        match (&self.read.what, self.read.key.as_str()) {
            (What::Find(_), "") => "find secrets".to_owned(),
            (What::Find(_), path) => format!("find secrets below {path}"),
            (_, key) => format!("read key {key}"),
        }
    }
}

/// One read of a Vault, with all that it needs.
struct Reader<'a> {
    ctx: &'a Context,
    key: &'a ObjectKey,
    asked: Asked<'a>,
    settings: &'a Settings,
    /// The leases that were given so far.
    holds: &'a Mutex<Vec<Hold>>,
    room: &'a Room,
}

impl Reader<'_> {
    async fn read(&self) -> Result<Answer, Failure> {
        match &self.asked.read.what {
            What::Value => self.one(Question::Value(self.asked.version()?)).await,
            What::Metadata => self.one(Question::Metadata).await,
            What::Find(filter) => self.search(filter).await,
        }
    }

    async fn one(&self, question: Question) -> Result<Answer, Failure> {
        let path = self.settings.kv.locate(&self.asked.read.key);
        Ok(self.ask(path, question).await?.0)
    }

    /// Folders are listed and secrets read as they are found, last found first, so that little waits in memory.
    async fn search(&self, filter: &Filter) -> Result<Answer, Failure> {
        if filter.has_tags() && self.settings.kv.version == KvVersion::V1 {
            return Err(self.asked.failed(
                "cannot perform find by tag operations with kv version v1; remove find.tags, or search a store with \
                 version v2",
            ));
        }
        let folder = self.settings.kv.folder(&self.asked.read.key);
        let folder = folder.map_err(|error| self.failure(ReadError::Vault(error)))?;
        let (mut search, first) = Search::begin(&self.asked.read.key, filter);
        let mut waiting = vec![first];
        let mut under_way = FuturesUnordered::new();
        let mut arrived = VecDeque::new();
        let mut hidden = false;
        loop {
            while under_way.len() < SEARCH_WIDTH
                && let Some(ask) = waiting.pop()
            {
                let (path, question) = match &ask {
                    Ask::Names(path) => (folder.below(path), Question::Names),
                    Ask::Metadata(path) => (folder.below(path), Question::Metadata),
                    Ask::Value(path) => (folder.below(path), Question::Value(None)),
                };
                under_way.push(async move { (ask, self.ask(path, question).await) });
            }
            let next = match arrived.pop_front() {
                Some(next) => Some(next),
                None => under_way.next().await,
            };
            let Some((ask, answer)) = next else {
                return self.end_of(search, hidden);
            };
            let (answer, part) = answer?;
            hidden |= part;
            let mut told = pin!(self.tell(filter, search, ask, answer));
            let further;
            (search, further) = loop {
                // The answers to what was asked are taken meanwhile: nobody reads a connection that waits.
                tokio::select! {
                    told = &mut told => break told?,
                    Some(more) = under_way.next() => arrived.push_back(more),
                }
            };
            waiting.extend(further);
        }
    }

    /// Tells a search an answer; gives it back with what to ask now. Names are compared beside the loops.
    async fn tell(
        &self,
        filter: &Filter,
        mut search: Search,
        ask: Ask,
        answer: Answer,
    ) -> Result<(Search, Vec<Ask>), Failure> {
        let costly = filter.compares() && matches!(ask, Ask::Names(_));
        let bytes = answer.size();
        let tell = move || {
            let further = search.tell(ask, answer);
            (search, further)
        };
        let (search, further) = match costly {
            true => self.ctx.beside(self.key, bytes, tell).await?,
            false => tell(),
        };
        let further = further.map_err(|error| self.asked.failed(&error.to_string()))?;
        Ok((search, further))
    }

    fn end_of(&self, search: Search, hidden: bool) -> Result<Answer, Failure> {
        match search.end() {
            // Not 'nothing is there': that could delete the target when the annotation is made stricter.
            Answer::Many(found) if found.is_empty() && hidden => Err(self.asked.failed(&format!(
                "nothing that fits may be read from namespace {}: the store's annotation {ANNOTATION} hides the rest",
                self.key.namespace
            ))),
            end => Ok(end),
        }
    }

    /// The answer, and whether something was left out of it that the namespace may not know.
    async fn ask(
        &self,
        path: Result<SecretPath, VaultError>,
        question: Question,
    ) -> Result<(Answer, bool), Failure> {
        let path = path.map_err(|error| self.failure(ReadError::Vault(error)))?;
        let told = self
            .ctx
            .stores
            .ask(self.asked.store, &self.key.namespace, path.clone(), question)
            .await
            .map_err(|error| match error {
                ReadError::Vault(error @ VaultError::Status { .. }) => {
                    self.asked.failed(&path.explain(question, &error))
                }
                error => self.failure(error),
            })?;
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.extend(told.hold);
        drop(holds);
        let answer = match told.answer {
            KvAnswer::Found(json) => Answer::Found(json),
            KvAnswer::Missing => Answer::Missing,
        };
        self.room.read(answer.size());
        // Of what a search only looks at, little waits in memory.
        if matches!(question, Question::Value(_)) {
            self.room.keep(answer.size())?;
        }
        Ok((answer, told.hidden))
    }

    fn failure(&self, error: ReadError) -> Failure {
        let store = self.asked.store;
        match error {
            ReadError::Outage(down) => Failure::Outage {
                store: store.key().clone(),
                url: self.settings.url.clone(),
                down,
            },
            ReadError::Login(refusal) if refusal.fault == Fault::Cluster => Failure::Api(refusal.message),
            ReadError::Login(refusal) => {
                Failure::store_not_ready(store.key(), refusal.fault.reason(), &refusal.message)
            }
            ReadError::Denied(message) => match &self.asked.read.what {
                What::Find(_) => self.asked.failed(&message),
                What::Value | What::Metadata => {
                    Failure::own(format!("key {}: {message}", self.asked.read.key))
                }
            },
            // No fault of the object: it is tried again, and its status says nothing of it.
            ReadError::Vault(error @ (VaultError::RateLimited { .. } | VaultError::Busy(_))) => {
                Failure::Api(error.to_string())
            }
            ReadError::Vault(error) => self.asked.failed(&error.to_string()),
        }
    }
}

fn version_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_version_is_a_positive_whole_number() {
        assert_eq!(version_number("3"), Some(3));
        for text in ["0", "-1", "+1", "latest", "1.0", " 1", "99999999999999999999"] {
            assert_eq!(version_number(text), None, "{text}");
        }
    }

    /// How many of a hundred reads are begun, and how many answers are taken, if that at a place is the given one.
    async fn gathered(at: usize, answer: Answer, when_missing: WhenMissing) -> (usize, Option<usize>) {
        let begun = std::cell::Cell::new(0);
        let reads = (0..100).map(async |number| {
            begun.set(begun.get() + 1);
            tokio::task::yield_now().await;
            Ok(match number == at {
                true => answer.clone(),
                false => Answer::Many(BTreeMap::new()),
            })
        });
        let gathered = gather(reads.collect(), when_missing).await;
        (begun.get(), gathered.ok().map(|answers| answers.len()))
    }

    #[tokio::test]
    async fn the_first_secret_that_is_missing_ends_the_reads_where_it_fails_all() {
        let (begun, taken) = gathered(3, Answer::Missing, WhenMissing::Fail).await;
        assert_eq!(taken, Some(4));
        assert!(begun <= 4 + READ_WIDTH, "{begun}");
        let (begun, taken) = gathered(3, Answer::Missing, WhenMissing::Skip).await;
        assert_eq!((begun, taken), (100, Some(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_slow_searches_end_in_time_together() {
        let reads = (0..100).map(async |_| {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Answer::Many(BTreeMap::new()))
        });
        let since = tokio::time::Instant::now();
        let gathered = gather(reads.collect(), WhenMissing::Skip).await;
        assert!(matches!(gathered, Err(Failure::Own(told)) if told.contains("5 minutes")));
        assert_eq!(since.elapsed(), READ_TIME);
    }
}
