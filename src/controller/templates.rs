//! Templates of targets: the objects that hold them are read with every sync, and watched by name, so that
//! a change of one has its targets rendered anew at once (ESO waits for the next refresh). Their contents
//! are never cached.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use tokio::task::JoinHandle;

use super::context::{Context, reference};
use super::index::ObjectKey;
use super::outcome::Failure;
use super::queue::Priority;
use super::references::{self, Sight};
use crate::api::external_secret::{CreationPolicy, ExternalSecret, ExternalSecretTemplate};
use crate::memory;
use crate::secret::SecretBytes;
use crate::store::scope::{Reference, ReferenceKind};
use crate::sync::assemble::Assembled;
use crate::sync::shape::{self, Shape, ShapeError, Shaped, SourceKind, SourceRef, Sources};
use crate::target::apply;
use crate::target::kept::{self, Inputs, Kept};
use crate::target::plan::Wanted;

/// Objects watched at once; each costs a connection to the API server. Targets of those beyond are
/// rendered anew at their next refresh.
const FOLLOWED_MAX: usize = 1000;

/// Bytes of all objects of one target that hold its templates.
const SOURCES_MAX: usize = 4 << 20;

/// An object that holds templates, in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Source {
    namespace: String,
    reference: SourceRef,
}

/// What the last rendering of a target saw of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Used {
    /// It was rendered by another process; what it saw is taken to be what is there now.
    Unknown,
    /// This resourceVersion, or that there was none.
    Version(Option<String>),
}

struct Followed {
    task: JoinHandle<()>,
    users: HashMap<ObjectKey, Used>,
}

#[derive(Default)]
struct State {
    followed: HashMap<Source, Followed>,
    by_user: HashMap<ObjectKey, BTreeSet<Source>>,
    changed: HashSet<ObjectKey>,
}

/// The watches of objects that hold templates.
#[derive(Default)]
pub struct TemplateSources(Mutex<State>);

impl TemplateSources {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the objects that this ExternalSecret's template reads, and no others for it.
    pub fn follow(&self, ctx: &Arc<Context>, key: &ObjectKey, template: Option<&ExternalSecretTemplate>) {
        let wanted = template.map(shape::sources).unwrap_or_default();
        let wanted: BTreeSet<Source> = wanted
            .into_iter()
            .map(|reference| Source {
                namespace: key.namespace.to_string(),
                reference,
            })
            .collect();
        let mut state = self.state();
        let known = state.by_user.get(key);
        if known.map_or(wanted.is_empty(), |known| *known == wanted) {
            return;
        }
        state.leave(key, &wanted);
        for source in &wanted {
            let full = state.followed.len() >= FOLLOWED_MAX;
            let followed = match state.followed.entry(source.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(_) if full => continue,
                Entry::Vacant(entry) => entry.insert(Followed {
                    task: watch(ctx.clone(), source.clone()),
                    users: HashMap::new(),
                }),
            };
            followed.users.entry(key.clone()).or_insert(Used::Unknown);
        }
        if !wanted.is_empty() {
            state.by_user.insert(key.clone(), wanted);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        let state = self.state();
        state.followed.len() + state.by_user.len() + state.changed.len()
    }

    /// Stops watching for an ExternalSecret that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.state().leave(key, &BTreeSet::new());
    }

    /// Whether a source changed since the last rendering began.
    #[must_use]
    pub fn is_changed(&self, key: &ObjectKey) -> bool {
        self.state().changed.contains(key)
    }

    /// A rendering begins; it sees these versions.
    fn used(&self, key: &ObjectKey, versions: BTreeMap<SourceRef, Option<String>>) {
        let mut state = self.state();
        state.changed.remove(key);
        for (reference, version) in versions {
            let source = Source {
                namespace: key.namespace.to_string(),
                reference,
            };
            if let Some(followed) = state.followed.get_mut(&source) {
                followed.users.insert(key.clone(), Used::Version(version));
            }
        }
    }

    /// Takes note of what the watch shows; gives those whose targets have to be rendered anew.
    fn seen(&self, source: &Source, sight: &Sight) -> Vec<ObjectKey> {
        let mut state = self.state();
        let Some(followed) = state.followed.get_mut(source) else {
            return Vec::new();
        };
        let (Sight::Listed(version) | Sight::Changed(version)) = sight;
        let now = Used::Version(version.clone());
        let mut stale = Vec::new();
        for (user, used) in &mut followed.users {
            let first = *used == Used::Unknown && matches!(sight, Sight::Listed(_));
            if *used != now && !first {
                stale.push(user.clone());
            }
            *used = now.clone();
        }
        state.changed.extend(stale.iter().cloned());
        stale
    }
}

impl State {
    fn leave(&mut self, key: &ObjectKey, kept: &BTreeSet<Source>) {
        self.changed.remove(key);
        for source in self.by_user.remove(key).into_iter().flatten() {
            if kept.contains(&source) {
                continue;
            }
            let Some(followed) = self.followed.get_mut(&source) else {
                continue;
            };
            followed.users.remove(key);
            if followed.users.is_empty() {
                followed.task.abort();
                self.followed.remove(&source);
            }
        }
    }
}

fn watch(ctx: Arc<Context>, source: Source) -> JoinHandle<()> {
    tokio::spawn(async move {
        let reference = Reference {
            kind: match source.reference.kind {
                SourceKind::ConfigMap => ReferenceKind::ConfigMap,
                SourceKind::Secret => ReferenceKind::Secret,
            },
            namespace: source.namespace.clone(),
            name: source.reference.name.clone(),
        };
        let seen = |sight: Sight| {
            for key in ctx.template_sources.seen(&source, &sight) {
                ctx.queue.push(&key, Priority::Urgent);
            }
        };
        references::follow_any(&ctx, &reference, seen).await;
    })
}

/// Reads the objects that hold templates.
///
/// # Errors
/// If the API server does not give one. One that does not exist is left out: the rendering tells it.
pub async fn read_sources(
    ctx: &Context,
    key: &ObjectKey,
    template: Option<&ExternalSecretTemplate>,
) -> Result<Sources, Failure> {
    let mut contents = Sources::new();
    let mut versions = BTreeMap::new();
    let mut room = SOURCES_MAX;
    for source in template.map(shape::sources).unwrap_or_default() {
        let found = memory::getting(&key.namespace, read(ctx, &key.namespace, &source)).await?;
        let (version, content) = found.map_or((None, None), |(version, content)| (version, Some(content)));
        let bytes: usize = content
            .iter()
            .flatten()
            .map(|(key, text)| key.len() + text.expose().len())
            .sum();
        room = room.checked_sub(bytes).ok_or_else(|| {
            Failure::own(format!(
                "the ConfigMaps and Secrets of spec.target.template.templateFrom hold more than {} MiB together, and the \
                 target at most one; name smaller ones",
                SOURCES_MAX >> 20
            ))
        })?;
        versions.insert(source.clone(), version);
        if let Some(content) = content {
            contents.insert(source, content);
        }
    }
    ctx.template_sources.used(key, versions);
    Ok(contents)
}

type Values = BTreeMap<String, SecretBytes>;

async fn read(
    ctx: &Context,
    namespace: &str,
    source: &SourceRef,
) -> Result<Option<(Option<String>, Values)>, Failure> {
    let found = match source.kind {
        SourceKind::ConfigMap => {
            let found = apply::get::<ConfigMap>(&ctx.client, namespace, &source.name).await;
            found.map_err(Failure::from)?.map(|mut map| {
                let data = map.data.take().unwrap_or_default().into_iter();
                let content = data.map(|(key, text)| (key, text.as_str().into())).collect();
                (map.resource_version(), content)
            })
        }
        SourceKind::Secret => {
            let found = apply::get::<Secret>(&ctx.client, namespace, &source.name).await;
            found.map_err(Failure::from)?.map(|mut secret| {
                let data = secret.data.take().unwrap_or_default().into_iter();
                let content = data
                    .map(|(key, value)| (key, SecretBytes::new(value.0)))
                    .collect();
                (secret.resource_version(), content)
            })
        }
    };
    Ok(found)
}

/// What a rendering needs, and gives back.
pub struct Rendering {
    /// The values that were read.
    pub assembled: Assembled,
    /// The target as it is.
    pub existing: Option<Secret>,
    /// What the template makes of the values, if there is one and it has to be rendered.
    pub shaped: Option<Shaped>,
}

impl Rendering {
    /// What the target must hold.
    #[must_use]
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            assembled: &self.assembled,
            shaped: self.shaped.as_ref(),
        }
    }
}

/// Renders the template of the target, if it has one. Done beside the loops: a template may take seconds.
///
/// # Errors
/// If it fails.
pub async fn render(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    mut rendering: Rendering,
    sources: Sources,
) -> Result<Rendering, Failure> {
    if !is_rendered(object, &rendering) {
        return Ok(rendering);
    }
    let (shared, object) = (ctx.clone(), object.clone());
    let values = rendering
        .assembled
        .data
        .values()
        .map(|value| value.expose().len());
    let held = rendering
        .existing
        .iter()
        .flat_map(|secret| secret.data.iter().flatten());
    let bytes = values.sum::<usize>() + held.map(|(_, value)| value.0.len()).sum::<usize>();
    let done = move || {
        let shaped = shape(&shared, &object, &rendering, &sources)?;
        rendering.shaped = shaped;
        Ok(rendering)
    };
    ctx.beside(key, bytes, done)
        .await?
        .map_err(|error: ShapeError| failure(&error))
}

/// The failure of a template.
#[must_use]
pub fn failure(error: &ShapeError) -> Failure {
    Failure::Own(format!("could not update secret: {error}"))
}

/// Where nothing is written whatever the template says, it is not rendered: it would miss its values.
fn is_rendered(object: &ExternalSecret, rendering: &Rendering) -> bool {
    let stays = rendering.wanted().without_values(object).is_some();
    let written = match object.spec.creation_policy() {
        CreationPolicy::None => false,
        CreationPolicy::Merge => rendering.existing.is_some() || object.spec.manifest().is_some(),
        _ => true,
    };
    object.spec.template().is_some() && written && !stays
}

fn shape(
    ctx: &Context,
    object: &ExternalSecret,
    rendering: &Rendering,
    sources: &Sources,
) -> Result<Option<Shaped>, ShapeError> {
    let Some(template) = object.spec.template() else {
        return Ok(None);
    };
    let manifest = object.spec.manifest().is_some();
    let shape = Shape::prepare(template, manifest, sources, &ctx.delims)?;
    let values = &rendering.assembled.data;
    let Some(hasher) = ctx.hasher().filter(|_| !shape.is_stable() && !manifest) else {
        return shape.render(values).map(Some);
    };
    let inputs = inputs(template, values, sources);
    let existing = rendering.existing.as_ref();
    let kept = existing.map_or(Kept::Nothing, |existing| {
        kept::kept(object, existing, &inputs, &hasher)
    });
    let mut shaped = match kept {
        Kept::All(held) => held,
        Kept::MadeUp(held) => {
            if existing.is_some_and(|existing| !kept::is_signed(existing, &hasher)) {
                tell_kept(ctx, object);
            }
            shape.render_around(&held, values)?
        }
        Kept::Nothing => shape.render(values)?,
    };
    kept::remember(&mut shaped, object, &inputs, &hasher);
    Ok(Some(shaped))
}

/// Whoever changed the template meanwhile may wait for something new.
fn tell_kept(ctx: &Context, object: &ExternalSecret) {
    let status = object.status.as_ref();
    let synced = status.and_then(|status| status.synced_resource_version.as_ref());
    let generation = object.metadata.generation.unwrap_or_default().to_string();
    if synced.is_some_and(|synced| synced.split('-').next() != Some(&generation)) {
        ctx.recorder.send(
            reference(object),
            true,
            "MadeUpValuesKept",
            "spec changed and the installation's key was lost or replaced: what the template makes up stays as it is in \
             the target; delete the Secret to have it made anew",
        );
    }
}

fn inputs(template: &ExternalSecretTemplate, values: &Values, sources: &Sources) -> Inputs {
    let mut inputs: Inputs = named(values, sources)
        .map(|(name, bytes)| (name, SecretBytes::new(bytes.to_vec())))
        .collect();
    inputs.insert(kept::TEMPLATE.into(), kept::text_of(template));
    inputs
}

/// The values that a target is made of, and the templates that other objects hold, each under a name of its own.
pub fn named<'a>(values: &'a Values, sources: &'a Sources) -> impl Iterator<Item = (String, &'a [u8])> {
    let values = values.iter();
    let values = values.map(|(key, value)| (format!("value/{key}"), value.expose()));
    let held = sources.iter().flat_map(|(source, content)| {
        let content = content.iter();
        content.map(move |(key, value)| (format!("{source:?}/{key}"), value.expose()))
    });
    values.chain(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            namespace: "db".into(),
            reference: SourceRef {
                kind: SourceKind::ConfigMap,
                name: "templates".into(),
            },
        }
    }

    fn followed(users: &[(&str, Used)]) -> TemplateSources {
        let sources = TemplateSources::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let task = runtime.map(|runtime| runtime.spawn(std::future::pending()));
        if let Ok(task) = task {
            let users = users.iter();
            let users = users.map(|(name, used)| (ObjectKey::new("db", name), used.clone()));
            let users = users.collect();
            sources
                .state()
                .followed
                .insert(source(), Followed { task, users });
        }
        sources
    }

    fn version(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_list_after_a_restart_wakes_nobody_and_a_change_wakes_all() {
        let sources = followed(&[("a", Used::Unknown), ("b", Used::Version(version("1")))]);
        assert!(sources.seen(&source(), &Sight::Listed(version("1"))).is_empty());
        let mut woken = sources.seen(&source(), &Sight::Changed(version("2")));
        woken.sort();
        assert_eq!(woken, [ObjectKey::new("db", "a"), ObjectKey::new("db", "b")]);
        assert!(sources.is_changed(&ObjectKey::new("db", "a")));
    }

    #[test]
    fn a_change_between_the_read_and_the_first_list_is_not_lost() {
        let sources = followed(&[("a", Used::Version(version("1")))]);
        let woken = sources.seen(&source(), &Sight::Listed(version("2")));
        assert_eq!(woken, [ObjectKey::new("db", "a")]);
        let gone = sources.seen(&source(), &Sight::Listed(None));
        assert_eq!(gone, [ObjectKey::new("db", "a")]);
    }

    #[test]
    fn what_a_rendering_has_seen_does_not_wake_it() {
        let sources = followed(&[("a", Used::Unknown)]);
        let key = ObjectKey::new("db", "a");
        sources.used(&key, BTreeMap::from([(source().reference, version("3"))]));
        assert!(sources.seen(&source(), &Sight::Changed(version("3"))).is_empty());
        assert!(!sources.is_changed(&key));
    }
}
