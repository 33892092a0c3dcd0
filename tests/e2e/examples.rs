//! The manifests of `deploy/examples`, all at once on one operator: the Secret that comes of each is compared
//! with `tests/e2e/examples/`, whose bytes were computed without this program (Go, openssl, by hand).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use keyferry_testbed::{repository, wait_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, play};

/// Fewer are a sign that the walk missed some.
const AT_LEAST: usize = 85;
/// They have tests of their own, and belong to no expectation.
const ELSEWHERE: [&str; 3] = ["fake", "homelab", "tenants"];
/// The store that the manifests name, and the one for the KV v1 mount.
const STORE: &str = "k8s-secrets";
const STORE_V1: &str = "k8s-secrets-v1";
/// Labels and annotations that we write for ourselves; other tests look at them.
const OURS: &[&str] = &["reconcile.external-secrets.io/", "keyferry.dev/"];

type Object = serde_json::Map<String, Value>;

/// What the test needs beside a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Side {
    /// Path and secret in KV v2; a list holds its versions, the oldest first.
    vault: BTreeMap<String, Value>,
    /// Path and secret in KV v1.
    #[serde(default)]
    kv1: BTreeMap<String, Value>,
    #[serde(default)]
    custom_metadata: BTreeMap<String, Value>,
    /// Data of the target before the ExternalSecret is applied.
    existing: Option<BTreeMap<String, String>>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    r#type: String,
    data: BTreeMap<String, Wanted>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    immutable: bool,
    /// Whether the Secret goes with its ExternalSecret.
    #[serde(default = "yes")]
    owned: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wanted {
    Text(String),
    Binary(Binary),
    Keystore(Keystore),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    base64: String,
}

/// A keystore has a random salt: what counts is what openssl finds in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keystore {
    check: Check,
    /// How the value holds it, if not as it is.
    encoding: Option<Encoding>,
    password: String,
    certificates: Vec<String>,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Check {
    Pkcs12,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Base64,
}

struct Example {
    /// Topic and name.
    name: String,
    manifest: String,
    /// The ExternalSecret of the manifest.
    external_secret: Value,
    side: Side,
}

impl Example {
    fn read(name: &str) -> Result<Self> {
        let manifest = fs::read_to_string(manifests().join(format!("{name}.yaml")))?;
        let side = fs::read_to_string(expectations().join(format!("{name}.json")))
            .with_context(|| format!("{name} has no expectation"))?;
        let side = serde_json::from_str(&side).with_context(|| format!("expectation of {name}"))?;
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&manifest).with_context(|| format!("manifest of {name}"))?;
        let mut found = objects.into_iter().filter(|o| o["kind"] == "ExternalSecret");
        let external_secret = found
            .next()
            .with_context(|| format!("{name} has no ExternalSecret"))?;
        ensure!(found.next().is_none(), "{name} has two ExternalSecrets");
        Ok(Self {
            name: name.into(),
            manifest,
            external_secret,
            side,
        })
    }

    fn object(&self) -> &str {
        self.external_secret["metadata"]["name"].as_str().unwrap()
    }

    fn target(&self) -> &str {
        let named = self.external_secret["spec"]["target"]["name"].as_str();
        named.unwrap_or_else(|| self.object())
    }
}

fn manifests() -> std::path::PathBuf {
    repository().join("deploy/examples")
}

fn expectations() -> std::path::PathBuf {
    repository().join("tests/e2e/examples")
}

/// `topic/name` of every file with this ending, two levels down.
fn names(root: &Path, ending: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for topic in fs::read_dir(root)? {
        let topic = topic?;
        if !topic.file_type()?.is_dir() || ELSEWHERE.iter().any(|name| topic.file_name() == *name) {
            continue;
        }
        for file in fs::read_dir(topic.path())? {
            let path = file?.path();
            let relative = path.strip_prefix(root)?.display().to_string();
            let name = relative.strip_suffix(ending);
            names.insert(
                name.with_context(|| format!("{relative} is no {ending} file"))?
                    .to_string(),
            );
        }
    }
    Ok(names)
}

fn examples() -> Result<Vec<Example>> {
    names(&manifests(), ".yaml")?
        .iter()
        .map(|name| Example::read(name))
        .collect()
}

/// Fails if an item comes twice.
fn unique<'a>(what: &str, items: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for item in items {
        ensure!(seen.insert(item), "{what} {item} is used by two examples");
    }
    Ok(())
}

#[test]
fn every_example_has_its_expectation_its_line_in_the_readme_and_paths_of_its_own() {
    play(async {
        let names_of_manifests = names(&manifests(), ".yaml")?;
        assert_eq!(names_of_manifests, names(&expectations(), ".json")?);
        assert!(
            names_of_manifests.len() >= AT_LEAST,
            "{}",
            names_of_manifests.len()
        );
        let readme = fs::read_to_string(manifests().join("README.md"))?;
        let lines = readme.lines().filter_map(|line| line.strip_prefix("- ["));
        let listed: BTreeSet<String> = lines
            .filter_map(|line| Some(line.split_once("](")?.0.to_string()))
            .collect();
        assert_eq!(names_of_manifests, listed);
        let examples = examples()?;
        unique(
            "path",
            examples
                .iter()
                .flat_map(|e| e.side.vault.keys().map(String::as_str)),
        )?;
        unique(
            "KV v1 path",
            examples
                .iter()
                .flat_map(|e| e.side.kv1.keys().map(String::as_str)),
        )?;
        unique("ExternalSecret", examples.iter().map(Example::object))?;
        unique("Secret", examples.iter().map(Example::target))
    });
}

#[test]
fn every_example_makes_the_secret_that_it_promises_byte_for_byte_and_makes_it_once() {
    play(async {
        let examples = examples()?;
        let scene = Scene::new("examples").await?;
        store_v1(&scene).await?;
        for example in &examples {
            fill_vault(&scene, &example.side).await?;
        }
        make_existing(&scene, &examples).await?;
        let manifests = manifests_for(&scene, &examples);
        apply(&scene, &manifests).await?;
        // What is never Ready is told below, with all that is wrong elsewhere.
        let _ = wait_for("all of them to be Ready", SOON, || async {
            let objects = scene.list("externalsecret").await?;
            Ok(objects
                .iter()
                .all(|object| not_ready(object).is_none())
                .then_some(()))
        })
        .await;
        let wrong = compare(&scene, &examples).await?;
        ensure!(
            wrong.is_empty(),
            "{} of {} examples disagree:\n{}",
            wrong.len(),
            examples.len(),
            wrong.join("\n")
        );
        let written = sync_again(&scene, &examples, &manifests).await?;
        ensure!(written.is_empty(), "{}", written.join("\n"));
        Ok(())
    });
}

/// The store of the scene once more, for the KV v1 mount.
async fn store_v1(scene: &Scene) -> Result<()> {
    let mut spec = scene.get("clustersecretstore", &scene.class).await?["spec"].take();
    let vault = &mut spec["provider"]["vault"];
    vault["path"] = json!("kv1");
    vault["version"] = json!("v1");
    let store = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore",
        "metadata": {"name": format!("{}-v1", scene.class)}, "spec": spec,
    });
    scene.cluster.apply(&store.to_string()).await.map(drop)
}

async fn fill_vault(scene: &Scene, side: &Side) -> Result<()> {
    for (path, secret) in &side.vault {
        let one = std::slice::from_ref(secret);
        for version in secret.as_array().map_or(one, Vec::as_slice) {
            scene.vault.put(path, version.clone()).await?;
        }
    }
    for (path, secret) in &side.kv1 {
        scene.vault.api("POST", &format!("kv1/{path}"), secret).await?;
    }
    for (path, fields) in &side.custom_metadata {
        let body = json!({"custom_metadata": fields});
        scene
            .vault
            .api("POST", &format!("secret/metadata/{path}"), &body)
            .await?;
    }
    Ok(())
}

/// Makes the Secrets that are there before.
async fn make_existing(scene: &Scene, examples: &[Example]) -> Result<()> {
    let existing = examples.iter().filter_map(|example| {
        let data = example.side.existing.as_ref()?;
        Some(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": example.target()}, "stringData": data}))
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": existing.collect::<Vec<_>>()});
    // `create` leaves no annotation of kubectl's.
    let args = ["create", "-n", &scene.namespace, "-f", "-"];
    scene.cluster.kubectl(&args, &list.to_string()).await.map(drop)
}

/// All manifests, with the stores of this scene.
fn manifests_for(scene: &Scene, examples: &[Example]) -> String {
    let manifests: Vec<&str> = examples.iter().map(|e| e.manifest.as_str()).collect();
    let store = |name: &str| format!("name: {name}\n");
    manifests
        .join("---\n")
        .replace(&store(STORE_V1), &store(&format!("{}-v1", scene.class)))
        .replace(&store(STORE), &store(&scene.class))
}

async fn apply(scene: &Scene, manifests: &str) -> Result<()> {
    let args = ["apply", "-n", &scene.namespace, "-f", "-"];
    scene.cluster.kubectl(&args, manifests).await.map(drop)
}

/// Has every example synced once more, and says which Secrets were written though nothing in them changed.
async fn sync_again(scene: &Scene, examples: &[Example], manifests: &str) -> Result<Vec<String>> {
    let before = by_name(scene.list("secret").await?);
    apply(
        scene,
        &manifests.replace("refreshInterval: 1h", "refreshInterval: 2h"),
    )
    .await?;
    wait_for("all of them to be synced again", SOON, || async {
        let objects = scene.list("externalsecret").await?;
        let mut later = objects
            .iter()
            .filter(|object| object["spec"]["refreshPolicy"] != "CreatedOnce");
        let is_new = |object: &Value| {
            let version = object["status"]["syncedResourceVersion"].as_str();
            version.is_some_and(|version| version.starts_with("2-"))
        };
        Ok(later.all(is_new).then_some(()))
    })
    .await?;
    let after = by_name(scene.list("secret").await?);
    let version = |secrets: &BTreeMap<String, Value>, name: &str| {
        secrets
            .get(name)
            .map(|secret| secret["metadata"]["resourceVersion"].clone())
    };
    let written = examples
        .iter()
        .filter(|e| version(&before, e.target()) != version(&after, e.target()));
    Ok(written
        .map(|e| format!("{}: written again, though nothing changed", e.name))
        .collect())
}

/// Why an ExternalSecret is not Ready.
fn not_ready(object: &Value) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let Some(ready) = ready else {
        return Some("no Ready condition".into());
    };
    (ready["status"] != "True").then(|| {
        let text = |key: &str| ready[key].as_str().unwrap_or_default();
        format!("not Ready, {}: {}", text("reason"), text("message"))
    })
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named = objects.into_iter().map(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        (name.to_string(), object)
    });
    named.collect()
}

/// One line for each example with what is wrong with it.
async fn compare(scene: &Scene, examples: &[Example]) -> Result<Vec<String>> {
    let objects = by_name(scene.list("externalsecret").await?);
    let secrets = by_name(scene.list("secret").await?);
    let mut wrong = Vec::new();
    for example in examples {
        let object = objects.get(example.object()).unwrap_or(&Value::Null);
        let mut faults: Vec<String> = not_ready(object).into_iter().collect();
        match secrets.get(example.target()) {
            Some(secret) => faults.extend(disagreements(&example.side.expect, secret)?),
            None => faults.push("no Secret".into()),
        }
        if !faults.is_empty() {
            wrong.push(format!("{}: {}", example.name, faults.join("; ")));
        }
    }
    Ok(wrong)
}

/// Names keys and positions, never values.
fn disagreements(expect: &Expect, secret: &Value) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    if secret["type"] != expect.r#type.as_str() {
        faults.push(format!("type {}", secret["type"]));
    }
    if (secret["immutable"] == true) != expect.immutable {
        faults.push(format!("immutable {}", secret["immutable"]));
    }
    let metadata = &secret["metadata"];
    if metadata["ownerReferences"].is_array() != expect.owned {
        faults.push(format!("owners {}", metadata["ownerReferences"]));
    }
    for (field, wanted) in [("labels", &expect.labels), ("annotations", &expect.annotations)] {
        let is: Option<BTreeMap<String, String>> = serde_json::from_value(metadata[field].clone())?;
        let mut is = is.unwrap_or_default();
        is.retain(|key, _| !OURS.iter().any(|ours| key.starts_with(ours)));
        if is != *wanted {
            faults.push(format!("{field} {:?}", is.keys().collect::<Vec<_>>()));
        }
    }
    let empty = Object::new();
    let data = secret["data"].as_object().unwrap_or(&empty);
    let surplus = data.keys().filter(|key| !expect.data.contains_key(*key));
    faults.extend(surplus.map(|key| format!("has key {key}")));
    for (key, wanted) in &expect.data {
        let Some(value) = data.get(key).and_then(Value::as_str) else {
            faults.push(format!("lacks key {key}"));
            continue;
        };
        let fault = wanted.differs(&BASE64_STANDARD.decode(value)?)?;
        faults.extend(fault.map(|fault| format!("key {key} {fault}")));
    }
    Ok(faults)
}

impl Wanted {
    /// How a value differs from what is wanted.
    fn differs(&self, value: &[u8]) -> Result<Option<String>> {
        let wanted = match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Binary(binary) => BASE64_STANDARD.decode(&binary.base64)?,
            Self::Keystore(keystore) => return Ok(keystore.differs(value).err().map(|e| format!("{e:#}"))),
        };
        if wanted == value {
            return Ok(None);
        }
        let same = wanted.iter().zip(value).take_while(|(a, b)| a == b).count();
        Ok(Some(format!(
            "has {} bytes instead of {}, and differs from byte {same} on",
            value.len(),
            wanted.len()
        )))
    }
}

impl Keystore {
    fn differs(&self, value: &[u8]) -> Result<()> {
        let Check::Pkcs12 = self.check;
        let bytes = match self.encoding {
            Some(Encoding::Base64) => BASE64_STANDARD.decode(value)?,
            None => value.to_vec(),
        };
        let mut child = Command::new("openssl")
            .args(["pkcs12", "-nodes", "-passin", &format!("pass:{}", self.password)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("openssl is needed to look into keystores")?;
        child.stdin.take().context("no pipe")?.write_all(&bytes)?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("openssl said: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let wanted: BTreeSet<&str> = self.certificates.iter().map(|c| c.trim()).collect();
        ensure!(blocks(&text, "CERTIFICATE") == wanted, "holds other certificates");
        let wanted: BTreeSet<&str> = self.key.iter().map(|key| key.trim()).collect();
        ensure!(blocks(&text, "PRIVATE KEY") == wanted, "holds another key");
        Ok(())
    }
}

/// The PEM blocks of this type in a text.
fn blocks<'a>(text: &'a str, kind: &str) -> BTreeSet<&'a str> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let starts = text.match_indices(&begin).map(|(at, _)| &text[at..]);
    starts
        .filter_map(|rest| Some(&rest[..rest.find(&end)? + end.len()]))
        .collect()
}
