//! Which reads an ExternalSecret needs. Everything that is wrong with a spec, or not served, is found here:
//! before anything is read, and by the name of its field.

use std::collections::HashMap;

use super::find::Filter;
use super::windows::Windows;
use super::{keys, rewrite};
use crate::api::external_secret::{
    ConversionStrategy, CreationPolicy, DecodingStrategy, DeletionPolicy, ExternalSecretData,
    ExternalSecretDataFrom, ExternalSecretSpec, ExternalSecretTarget, ExternalSecretTemplate, Find,
    MetadataPolicy, NullBytePolicy, RemoteRef, Rewrite, SecretStoreRef, StoreKind, StoreSourceRef,
};

use crate::api::bounds;
use crate::api::meta::is_object_name;

/// Types whose Secrets are never ours to write, whatever the policy: they give rights or hold releases.
pub const FORBIDDEN_TYPES: &[&str] = &[
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
];

/// A store, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreRef {
    /// Its kind.
    pub kind: StoreKind,
    /// Its name.
    pub name: String,
}

/// One request to a store, or one search through it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Read {
    /// Where to read.
    pub store: StoreRef,
    /// The path, as the user wrote it.
    pub key: String,
    /// The version of the secret; none means the latest.
    pub version: Option<String>,
    /// What of it.
    pub what: What,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// The secret.
    Value,
    /// Its metadata.
    Metadata,
    /// Every secret below the path that fits.
    Find(Filter),
}

/// What to read, and what to make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The requests; no two are equal, however many entries use one.
    pub reads: Vec<Read>,
    /// What becomes of the answers, in the order in which later entries win over earlier ones.
    pub entries: Vec<Entry>,
    /// What to do about an entry whose secret does not exist.
    pub when_missing: WhenMissing,
    /// When a periodic refresh may happen; none means always.
    pub windows: Option<Windows>,
}

/// What to do about an entry whose secret does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenMissing {
    /// The sync fails: `deletionPolicy: Retain`.
    Fail,
    /// The entry is left out: `deletionPolicy: Delete` and `Merge`.
    Skip,
}

/// One entry of `data` or `dataFrom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, for example `spec.data[0]` or `spec.dataFrom[1].extract`.
    pub place: String,
    /// What it reads, for example `key: app/db` or `path: app`.
    pub reads: String,
    /// Which of [`Plan::reads`] it uses.
    pub read: usize,
    /// The top-level key or gjson path to take from the secret; none means all of it.
    pub property: Option<String>,
    /// How values are decoded.
    pub decoding: DecodingStrategy,
    /// Whether values may hold null bytes.
    pub null_bytes: NullBytePolicy,
    /// Where values go.
    pub into: Destination,
}

impl Entry {
    /// The entry and what it reads, as messages name it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ({})", self.place, self.reads)
    }

    /// Whether its keys are rewritten.
    #[must_use]
    pub fn is_rewritten(&self) -> bool {
        matches!(self.into, Destination::Rewritten(_))
    }
}

/// Where the values of an entry go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// One value, under this key (`data`).
    Key(String),
    /// Every member of a JSON object, or every secret found, under its own converted name (`dataFrom`).
    OwnKeys(ConversionStrategy),
    /// The same under rewritten names, which are not converted (`dataFrom.rewrite`).
    Rewritten(Vec<Rewrite>),
}

/// A spec that cannot be carried out until it is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Refusal {
    /// The field that is to blame, for example `spec.data[1].remoteRef.key`.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl Refusal {
    /// This field, for this reason.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }

    fn not_served(field: impl Into<String>, instead: &str) -> Self {
        Self::new(field, format!("is not served by keyferry yet; {instead}"))
    }
}

/// Regular expressions of one ExternalSecret; compiling one takes up to tens of milliseconds.
const EXPRESSIONS_MAX: usize = 100;

/// How many regular expressions an ExternalSecret has: those of `find.name` and of `rewrite`.
fn expressions(spec: &ExternalSecretSpec) -> usize {
    let rewrites =
        |entry: &ExternalSecretDataFrom| entry.rewrite.iter().filter(|step| step.regexp.is_some()).count();
    let names = |entry: &ExternalSecretDataFrom| {
        usize::from(entry.find.as_ref().is_some_and(|find| find.name.is_some()))
    };
    spec.data_from
        .iter()
        .map(|entry| rewrites(entry) + names(entry))
        .sum()
}

/// Entries and windows that are planned in well below a millisecond.
const QUICK: usize = 200;

/// Whether planning takes so long that others would wait for it: expressions are compiled, or there is much of it.
#[must_use]
pub fn is_costly(spec: &ExternalSecretSpec) -> bool {
    let windows = spec.sync_windows.as_ref();
    let windows = windows.map_or(0, |windows| windows.windows.len());
    expressions(spec) > 0 || spec.data.len() + spec.data_from.len() + windows > QUICK
}

/// Works out the reads of an ExternalSecret in this namespace.
pub fn plan(spec: &ExternalSecretSpec, namespace: &str) -> Result<Plan, Refusal> {
    bounds::check_external_secret(spec).map_err(|exceeded| Refusal::new(exceeded.field, exceeded.problem))?;
    let target = spec.target.clone().unwrap_or_default();
    check_target(&target)?;
    if expressions(spec) > EXPRESSIONS_MAX {
        return Err(Refusal::new(
            "spec.dataFrom",
            format!(
                "find.name and rewrite have more than {EXPRESSIONS_MAX} regular expressions; use fewer, or several \
                 ExternalSecrets"
            ),
        ));
    }
    let windows = spec.sync_windows.as_ref().map(Windows::parse).transpose()?;
    if spec.data.is_empty() && spec.data_from.is_empty() {
        return Err(Refusal::new(
            "spec",
            "either data or dataFrom should be specified; name at least one secret to read",
        ));
    }
    let mut planner = Planner {
        spec,
        namespace,
        reads: Vec::new(),
        known: HashMap::new(),
    };
    let mut entries = Vec::with_capacity(spec.data_from.len() + spec.data.len());
    for (position, entry) in spec.data_from.iter().enumerate() {
        entries.push(planner.data_from(&format!("spec.dataFrom[{position}]"), entry)?);
    }
    for (position, entry) in spec.data.iter().enumerate() {
        entries.push(planner.data(&format!("spec.data[{position}]"), entry)?);
    }
    let when_missing = match target.deletion_policy.unwrap_or_default() {
        DeletionPolicy::Retain => WhenMissing::Fail,
        DeletionPolicy::Delete | DeletionPolicy::Merge => WhenMissing::Skip,
    };
    Ok(Plan {
        reads: planner.reads,
        entries,
        when_missing,
        windows,
    })
}

fn check_target(target: &ExternalSecretTarget) -> Result<(), Refusal> {
    if let Some(name) = target.name.as_deref().filter(|name| !name.is_empty()) {
        check_name("spec.target.name", name)?;
    }
    if let Some(template) = &target.template {
        check_template(template)?;
    }
    // As in ESO, Orphan is told only when there is nothing left to read: until then it is synced.
    let never = matches!(
        target.creation_policy,
        Some(CreationPolicy::Merge | CreationPolicy::None | CreationPolicy::CreateOrMerge)
    );
    if never && target.deletion_policy == Some(DeletionPolicy::Delete) {
        return Err(Refusal::new(
            "spec.target.deletionPolicy",
            "deletionPolicy=Delete must not be used when the controller doesn't own the secret. Please set \
             creationPolicy=Owner, or another deletionPolicy",
        ));
    }
    Ok(())
}

/// Types whose Secrets give rights: no template may make one (ESO's rule; the definitions refuse what they
/// can see of it).
fn check_template(template: &ExternalSecretTemplate) -> Result<(), Refusal> {
    let type_ = template.type_.as_deref().unwrap_or_default();
    if FORBIDDEN_TYPES.contains(&type_) {
        return Err(Refusal::new(
            "spec.target.template.type",
            format!(
                "template.type={type_:?} is not allowed; such a Secret gives rights or holds somebody's state"
            ),
        ));
    }
    for (position, from) in template.template_from.iter().enumerate() {
        for (kind, source) in [("configMap", &from.config_map), ("secret", &from.secret)] {
            if let Some(source) = source {
                let field = format!("spec.target.template.templateFrom[{position}].{kind}.name");
                check_name(field, &source.name)?;
            }
        }
        if from.config_map.is_none() && from.secret.is_none() && from.literal.is_none() {
            return Err(Refusal::new(
                format!("spec.target.template.templateFrom[{position}]"),
                "names no template; add configMap, secret or literal",
            ));
        }
    }
    Ok(())
}

/// The definitions refuse other names, too; but those in the cluster may be another version's.
fn check_name(field: impl Into<String>, name: &str) -> Result<(), Refusal> {
    if is_object_name(name) {
        return Ok(());
    }
    let problem =
        format!("{name:?} is no name that an object may have; use small letters, digits, '-' and '.'");
    Err(Refusal::new(field, problem))
}

struct Planner<'a> {
    spec: &'a ExternalSecretSpec,
    namespace: &'a str,
    reads: Vec<Read>,
    known: HashMap<Read, usize>,
}

impl Planner<'_> {
    fn data(&mut self, place: &str, entry: &ExternalSecretData) -> Result<Entry, Refusal> {
        let field = format!("{place}.secretKey");
        if entry.secret_key.is_empty() {
            return Err(Refusal::new(
                field,
                "is empty; name the key of the Secret that receives the value",
            ));
        }
        keys::validate_key(&entry.secret_key).map_err(|error| Refusal::new(field, error.to_string()))?;
        let into = Destination::Key(entry.secret_key.clone());
        self.entry(
            place,
            &format!("{place}.remoteRef"),
            &entry.remote_ref,
            entry.source_ref.as_ref(),
            into,
            place,
        )
    }

    fn data_from(&mut self, place: &str, entry: &ExternalSecretDataFrom) -> Result<Entry, Refusal> {
        let source = entry.source_ref.as_ref();
        if let Some(source) = source {
            refuse_generator(place, source)?;
        }
        rewrite::check(&entry.rewrite)
            .map_err(|(field, problem)| Refusal::new(format!("{place}.rewrite{field}"), problem))?;
        let into = |strategy: Option<ConversionStrategy>| {
            if entry.rewrite.is_empty() {
                Destination::OwnKeys(strategy.unwrap_or_default())
            } else {
                Destination::Rewritten(entry.rewrite.clone())
            }
        };
        match (&entry.extract, &entry.find) {
            (Some(extract), None) => {
                let field = format!("{place}.extract");
                let into = into(extract.conversion_strategy);
                self.entry(place, &field, extract, source, into, &field)
            }
            (None, Some(find)) => self.find(place, find, source, into(find.conversion_strategy)),
            (Some(_), Some(_)) => Err(Refusal::new(
                place,
                "extract and find cannot be set at the same time; make two entries of them",
            )),
            (None, None) => {
                let problem = if source.is_some() {
                    "sourceRef.storeRef alone reads nothing; add extract.key, the path of the secret to read, or find"
                } else {
                    "either extract, find, or sourceRef must be set to dataFrom; add extract.key, the path of the \
                     secret to read, or find"
                };
                Err(Refusal::new(place, problem))
            }
        }
    }

    fn find(
        &mut self,
        at: &str,
        find: &Find,
        source: Option<&StoreSourceRef>,
        into: Destination,
    ) -> Result<Entry, Refusal> {
        let place = format!("{at}.find");
        let path = find.path.clone().unwrap_or_default();
        check_path(&format!("{place}.path"), &path)?;
        let regexp = find
            .name
            .as_ref()
            .map(|name| name.regexp.clone().unwrap_or_default());
        let filter = Filter::new(regexp, find.tags.clone())
            .map_err(|problem| Refusal::new(format!("{place}.name.regexp"), problem))?;
        let reads = match path.as_str() {
            "" => "the whole mount".to_owned(),
            path => format!("path: {path}"),
        };
        Ok(Entry {
            place,
            reads,
            read: self.read(Read {
                store: self.store(at, source)?,
                key: path,
                version: None,
                what: What::Find(filter),
            }),
            property: None,
            decoding: find.decoding_strategy.unwrap_or_default(),
            null_bytes: find.null_byte_policy.unwrap_or_default(),
            into,
        })
    }

    fn entry(
        &mut self,
        at: &str,
        field: &str,
        remote: &RemoteRef,
        source: Option<&StoreSourceRef>,
        into: Destination,
        place: &str,
    ) -> Result<Entry, Refusal> {
        let store = self.store(at, source)?;
        check_key(&format!("{field}.key"), &remote.key)?;
        let version = remote.version.clone().filter(|version| !version.is_empty());
        let read = match remote.metadata_policy.unwrap_or_default() {
            MetadataPolicy::None => (version, What::Value),
            // Metadata are those of the secret as a whole; ESO takes no notice of the version either.
            MetadataPolicy::Fetch => (None, What::Metadata),
        };
        Ok(Entry {
            place: place.to_owned(),
            reads: format!("key: {}", remote.key),
            read: self.read(Read {
                store,
                key: remote.key.clone(),
                version: read.0,
                what: read.1,
            }),
            property: remote.property.clone().filter(|property| !property.is_empty()),
            decoding: remote.decoding_strategy.unwrap_or_default(),
            null_bytes: remote.null_byte_policy.unwrap_or_default(),
            into,
        })
    }

    /// Entries that read the same share one request.
    fn read(&mut self, read: Read) -> usize {
        if let Some(position) = self.known.get(&read) {
            return *position;
        }
        let position = self.reads.len();
        self.known.insert(read.clone(), position);
        self.reads.push(read);
        position
    }

    fn store(&self, at: &str, source: Option<&StoreSourceRef>) -> Result<StoreRef, Refusal> {
        if let Some(source) = source {
            refuse_generator(at, source)?;
        }
        let (field, reference): (String, Option<&SecretStoreRef>) =
            match source.and_then(|s| s.store_ref.as_ref()) {
                Some(own) => (format!("{at}.sourceRef.storeRef.name"), Some(own)),
                None => (
                    "spec.secretStoreRef.name".to_owned(),
                    self.spec.secret_store_ref.as_ref(),
                ),
            };
        let named = reference.and_then(|reference| {
            let name = reference.name.clone().filter(|name| !name.is_empty())?;
            Some(StoreRef {
                kind: reference.kind.unwrap_or_default(),
                name,
            })
        });
        named.ok_or_else(|| {
            let problem = format!(
                "is missing, and {at} needs it; name a SecretStore of namespace {:?}, or a ClusterSecretStore together \
                 with kind: ClusterSecretStore",
                self.namespace
            );
            Refusal::new(field, problem)
        })
    }
}

fn refuse_generator(place: &str, source: &StoreSourceRef) -> Result<(), Refusal> {
    match source.generator_ref {
        Some(_) => Err(Refusal::not_served(
            format!("{place}.sourceRef.generatorRef"),
            "read the value from a store instead, by sourceRef.storeRef or spec.secretStoreRef",
        )),
        None => Ok(()),
    }
}

fn check_key(field: &str, key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(
            field,
            "is empty; name the path of the secret to read",
        ));
    }
    check_path(field, key)
}

/// Stops `..` because it would lead out of the mount: tenants who share a ClusterSecretStore with a broad
/// policy would read each other's secrets.
fn check_path(field: &str, key: &str) -> Result<(), Refusal> {
    if key.chars().any(char::is_control) {
        return Err(Refusal::new(
            field,
            format!(
                "has a control character ({key:?}), which no path in Vault has; remove it (a line break from YAML?)"
            ),
        ));
    }
    if key.split('/').any(|segment| segment == "..") {
        return Err(Refusal::new(
            field,
            format!("has a `..` segment ({key:?}); write the path of the secret without it"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
