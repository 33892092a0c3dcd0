//! Who may use a store, and for what: its conditions, and the paths that its annotation allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::allowed_paths::{ANNOTATION, AllowedPaths};
use super::conditions::NamespaceRules;
use super::hold::Hold;
use super::session::{Answered, ReadError};
use super::{Entry, Store, Stores};
use crate::api::store::{SecretStoreSpec, StoreKey};
use crate::vault::json::Json;
use crate::vault::kv::{Kv, KvAnswer, Question, SecretPath};

/// Labels of all namespaces that exist.
pub type Namespaces = std::collections::HashMap<String, BTreeMap<String, String>>;

/// Namespaces that a message names.
const NAMED: usize = 5;

/// Who may use a store, and for what.
#[derive(Debug)]
pub(super) struct Access {
    namespaces: NamespaceRules,
    paths: Option<AllowedPaths>,
}

impl Access {
    /// # Errors
    /// What in the conditions or in the annotation is not valid, and where.
    pub(super) fn of(key: &StoreKey, spec: &SecretStoreSpec, allowed: Option<&str>) -> Result<Self, String> {
        // A SecretStore is used from its own namespace only; conditions say nothing there, as in ESO.
        let conditions = if key.namespace.is_none() {
            spec.conditions.as_slice()
        } else {
            &[]
        };
        Ok(Self {
            namespaces: NamespaceRules::compile(conditions)?,
            paths: allowed.map(AllowedPaths::compile).transpose()?,
        })
    }
}

/// What a store answered, as far as the namespace may know it.
pub struct Told {
    /// The answer.
    pub answer: KvAnswer,
    /// Whether names were left out of it that the namespace may not know.
    pub hidden: bool,
    /// The lease of its values, if they are leased.
    pub hold: Option<Hold>,
}

impl Store {
    /// Whether the namespace may use the store. `labels` are those of the namespace; `None` if they are unknown.
    #[must_use]
    pub fn admits(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.access.namespaces.allow(namespace, labels)
    }

    /// Whether the namespace may ask this.
    ///
    /// # Errors
    /// [`ReadError::Denied`], if no pattern of the annotation allows it.
    pub fn permit(
        &self,
        kv: &Kv,
        namespace: &str,
        path: &SecretPath,
        question: Question,
    ) -> Result<(), ReadError> {
        let Some(allowed) = &self.access.paths else {
            return Ok(());
        };
        let path = path.within(kv);
        let (may, what) = match question {
            Question::Names => (allowed.lead_through(namespace, &path), "secret below the folder"),
            Question::Value(_) | Question::Metadata => (allowed.allow(namespace, &path), "path"),
        };
        if may {
            return Ok(());
        }
        let from = match &kv.mount {
            Some(mount) => format!("below the mount '{}'", mount.trim_matches('/')),
            None => "beginning with the mount, because the store names none".into(),
        };
        Err(ReadError::Denied(format!(
            "{} does not let namespace {namespace} read the {what} '{path}' ({from}): its annotation {ANNOTATION} has no \
             pattern for it",
            self.key
        )))
    }

    /// Leaves out of a list of names what the namespace may not know.
    pub(super) async fn show(
        &self,
        kv: &Kv,
        namespace: &str,
        folder: &SecretPath,
        question: Question,
        answered: Answered,
    ) -> Told {
        let Answered { answer, hold } = answered;
        let names = match (&self.access.paths, question, &answer) {
            (Some(allowed), Question::Names, KvAnswer::Found(json)) => match json.as_ref() {
                Json::Array(names) => Some((allowed, names)),
                _ => None,
            },
            _ => None,
        };
        let Some((allowed, names)) = names else {
            return Told {
                answer,
                hidden: false,
                hold,
            };
        };
        let shown = allowed.shown(namespace, &folder.within(kv), names).await;
        Told {
            hidden: shown.len() < names.len(),
            answer: KvAnswer::Found(Arc::new(Json::Array(shown))),
            hold,
        }
    }
}

impl Store {
    /// How many paths may be permitted before others get their turn.
    #[must_use]
    pub fn at_a_turn(&self) -> usize {
        self.access
            .paths
            .as_ref()
            .map_or(usize::MAX, AllowedPaths::at_a_turn)
    }
}

impl Stores {
    /// A store that we serve, whatever its state.
    #[must_use]
    pub fn served(&self, key: &StoreKey) -> Option<Arc<Store>> {
        match self.entries().get(key)? {
            Entry::Served { store, .. } => Some(store.clone()),
            Entry::OtherClass(_) | Entry::Invalid { .. } => None,
        }
    }

    /// Whether labels of a namespace decide who may use a store.
    #[must_use]
    pub fn looks_at_labels(&self, key: &StoreKey) -> bool {
        self.served(key)
            .is_some_and(|store| store.access.namespaces.look_at_labels())
    }

    /// The stores with conditions that judge a namespace otherwise now that its labels changed from the first to the
    /// second; `None` where it does not exist.
    #[must_use]
    pub fn concerned_by(
        &self,
        namespace: &str,
        old: Option<&BTreeMap<String, String>>,
        new: Option<&BTreeMap<String, String>>,
    ) -> Vec<StoreKey> {
        let entries = self.entries();
        let served = entries.values().filter_map(|entry| match entry {
            Entry::Served { store, .. } => Some(store),
            Entry::OtherClass(_) | Entry::Invalid { .. } => None,
        });
        let admitted =
            |store: &Store, labels: Option<&_>| labels.is_some() && store.admits(namespace, labels);
        served
            .filter(|store| !store.access.namespaces.is_open())
            .filter(|store| admitted(store, old) != admitted(store, new))
            .map(|store| store.key.clone())
            .collect()
    }

    /// Why a store that is fine serves nobody, if that is so: an end of a sentence. `all` are the namespaces that
    /// exist, if they are known; `users` those of the ExternalSecrets that name the store.
    #[must_use]
    pub fn nobody(
        &self,
        key: &StoreKey,
        all: Option<&Namespaces>,
        users: &BTreeSet<String>,
    ) -> Option<String> {
        let store = self.served(key)?;
        if store.access.paths.as_ref().is_some_and(AllowedPaths::is_empty) {
            return Some(format!(
                "nobody may read by it: its annotation {ANNOTATION} has no patterns"
            ));
        }
        let all = all.filter(|all| !all.is_empty() && !store.access.namespaces.is_open())?;
        let admitted = |name: &String| {
            all.get(name)
                .is_some_and(|labels| store.admits(name, Some(labels)))
        };
        if !all.keys().any(admitted) {
            return Some(format!(
                "nobody may use it: spec.conditions match none of the {} namespaces",
                all.len()
            ));
        }
        if users.is_empty() || users.iter().any(admitted) {
            return None;
        }
        let mut named: Vec<&str> = users.iter().take(NAMED).map(String::as_str).collect();
        if users.len() > NAMED {
            named.push("…");
        }
        Some(format!(
            "nobody who uses it may: spec.conditions match none of the namespaces of its ExternalSecrets ({})",
            named.join(", ")
        ))
    }
}
