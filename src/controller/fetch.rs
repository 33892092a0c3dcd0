//! The reads of a plan: single secrets at once, searches folder by folder.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;

use super::context::Context;
use super::index::ObjectKey;
use super::outcome::Failure;
use crate::api::vault::KvVersion;
use crate::store::Store;
use crate::store::allowed_paths::ANNOTATION;
use crate::store::session::ReadError;
use crate::sync::assemble::{Answer, Assembled, assemble};
use crate::sync::find::{Ask, Filter, Search};
use crate::sync::plan::{Destination, Entry, Plan, Read, What};
use crate::vault::error::VaultError;
use crate::vault::kv::{KvAnswer, Question, SecretPath};

/// Requests of one search that are under way at once: a part of what a server is given, so that a search through
/// many secrets keeps nobody from the one they need.
const SEARCH_WIDTH: usize = 8;

/// The answers to all reads of a plan, each from the store beside it.
///
/// # Errors
/// The first read that failed.
pub async fn read_all(
    ctx: &Context,
    key: &ObjectKey,
    plan: &Plan,
    stores: &[Arc<Store>],
) -> Result<Vec<Answer>, Failure> {
    let reads = plan.reads.iter().zip(stores).map(async |(read, store)| {
        let reader = Reader {
            ctx,
            namespace: &key.namespace,
            read,
            store,
        };
        match &read.what {
            What::Value => {
                let version = read.version.as_deref().and_then(|version| version.parse().ok());
                reader.one(Question::Value(version)).await
            }
            What::Metadata => reader.one(Question::Metadata).await,
            What::Find(filter) => reader.search(filter).await,
        }
    });
    join_all(reads).await.into_iter().collect()
}

/// Whether the namespace may do a read.
///
/// # Errors
/// If it may not.
pub fn permit(ctx: &Context, key: &ObjectKey, read: &Read, store: &Arc<Store>) -> Result<(), Failure> {
    let namespace = &key.namespace;
    let (path, question) = match &read.what {
        What::Value => (store.kv().locate(&read.key), Question::Value(None)),
        What::Metadata => (store.kv().locate(&read.key), Question::Metadata),
        What::Find(_) => (store.kv().folder(&read.key), Question::Names),
    };
    let reader = Reader {
        ctx,
        namespace,
        read,
        store,
    };
    // A path that is none is told when it is read.
    path.map_or(Ok(()), |path| store.permit(namespace, &path, question))
        .map_err(|error| reader.failure(error))
}

/// Makes the target's data of the answers. Rewrites may take seconds, so they are done beside the loops.
///
/// # Errors
/// If an entry fails.
pub async fn assembled(ctx: &Context, plan: &Plan, answers: Vec<Answer>) -> Result<Assembled, Failure> {
    let rewrites = |entry: &Entry| matches!(entry.into, Destination::Rewritten(_));
    let assembled = if plan.entries.iter().any(rewrites) {
        let plan = plan.clone();
        ctx.beside(move || assemble(&plan, &answers)).await?
    } else {
        assemble(plan, &answers)
    };
    assembled.map_err(|error| Failure::own(error.to_string()))
}

/// One read, with all that it needs.
struct Reader<'a> {
    ctx: &'a Context,
    namespace: &'a str,
    read: &'a Read,
    store: &'a Arc<Store>,
}

impl Reader<'_> {
    async fn one(&self, question: Question) -> Result<Answer, Failure> {
        let path = self.store.kv().locate(&self.read.key);
        Ok(self.ask(path, question).await?.0)
    }

    /// Folders are listed and secrets read as they are found, last found first, so that little waits in memory.
    async fn search(&self, filter: &Filter) -> Result<Answer, Failure> {
        if filter.has_tags() && self.store.kv().version == KvVersion::V1 {
            return Err(self.failed(
                "cannot perform find by tag operations with kv version v1; remove find.tags, or search a store with \
                 version v2",
            ));
        }
        let folder = self.store.kv().folder(&self.read.key);
        let folder = folder.map_err(|error| self.failure(ReadError::Vault(error)))?;
        let (mut search, first) =
            Search::begin(&self.read.key, filter).map_err(|error| self.failed(&error.to_string()))?;
        let mut waiting = vec![first];
        let mut under_way = FuturesUnordered::new();
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
            let Some((ask, answer)) = under_way.next().await else {
                return match search.end() {
                    // Not 'nothing is there': that could delete the target when the annotation is made stricter.
                    Answer::Many(found) if found.is_empty() && hidden => Err(self.failed(&format!(
                        "nothing that fits may be read from namespace {}: the store's annotation {ANNOTATION} hides the \
                         rest",
                        self.namespace
                    ))),
                    end => Ok(end),
                };
            };
            let (answer, part) = answer?;
            hidden |= part;
            let further = search.tell(ask, answer);
            waiting.extend(further.map_err(|error| self.failed(&error.to_string()))?);
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
            .ask(self.store, self.namespace, path, question)
            .await
            .map_err(|error| self.failure(error))?;
        let answer = match told.answer {
            KvAnswer::Found(json) => Answer::Found(json),
            KvAnswer::Missing => Answer::Missing,
        };
        Ok((answer, told.hidden))
    }

    fn failed(&self, cause: &str) -> Failure {
        Failure::own(format!("{} could not {}: {cause}", self.store.key(), self.aim()))
    }

    /// What is done, for messages.
    fn aim(&self) -> String {
        match (&self.read.what, self.read.key.as_str()) {
            (What::Find(_), "") => "find secrets".to_owned(),
            (What::Find(_), path) => format!("find secrets below {path}"),
            (_, key) => format!("read key {key}"),
        }
    }

    fn failure(&self, error: ReadError) -> Failure {
        let store = self.store;
        match error {
            ReadError::Outage(down) => Failure::Outage {
                store: store.key().clone(),
                url: store.url().into(),
                down,
            },
            ReadError::Login(message) => Failure::store_not_ready(store.key(), "VaultDenied", &message),
            ReadError::Denied(message) => match &self.read.what {
                What::Find(_) => self.failed(&message),
                What::Value | What::Metadata => Failure::own(format!("key {}: {message}", self.read.key)),
            },
            // No fault of the object: it is tried again, and its status says nothing of it.
            ReadError::Vault(error @ VaultError::RateLimited { .. }) => Failure::Api(error.to_string()),
            ReadError::Vault(error) => self.failed(&error.to_string()),
        }
    }
}
