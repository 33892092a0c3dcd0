//! One Vault and one operator for all cases; each case has a proxy, a store, an object and a Secret of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry::api::external_secret::ExternalSecret;
use keyferry::api::store::ClusterSecretStore;
use keyferry_testbed::{Mode, Proxy};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Resource};
use regex::Regex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::scene::{Scene, one};

/// Stands in every Secret and in the body of every fake answer, and must stand nowhere else.
pub const CANARY: &str = "s3cr3t-canary";
/// The slowest faults take 20 s; a loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(300);
/// So long a case is watched after it was told, for what must not happen.
const CALM: Duration = Duration::from_secs(2);
/// Connections of one case in that time: a few tries, each with retries and looks at the health.
const CALM_CONNECTIONS: u32 = 60;

/// What is wrong.
pub enum Fault {
    /// The proxy in front of Vault does this.
    Wire(Mode),
    /// The same, and the store must log in anew.
    Login(Mode),
    /// The store's provider is changed by this merge patch.
    Provider(Value),
    /// The object is changed by this merge patch.
    Object(Value),
    /// The secret is deleted in Vault by this call: method, and path before the secret's.
    Gone(&'static str, &'static str),
}

/// A condition: status, reason, message. `{url}`, `{store}`, `{key}` and `{time}` stand for what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Told(String, String, String);

fn told(status: &str, reason: &str, message: &str) -> Told {
    Told(status.into(), reason.into(), message.into())
}

/// One way to fail.
pub struct Case {
    name: &'static str,
    fault: Fault,
    store: Told,
    object: Told,
}

impl Case {
    /// Vault as a whole is out of service: the object stays Ready.
    pub fn outage(name: &'static str, fault: Fault, reason: &str, sentence: &str) -> Self {
        let waits = "what depends on it waits, and is synced as soon as Vault is back";
        let object = format!(
            "secret synced; its value could not be confirmed again: {{store}}: Vault {{url}} {sentence} (since {{time}})"
        );
        Self {
            name,
            fault,
            store: told(
                "False",
                reason,
                &format!("Vault {{url}} {sentence} (since {{time}}); {waits}"),
            ),
            object: told("True", "SecretSynced", &object),
        }
    }

    /// The store cannot be used.
    pub fn store(name: &'static str, fault: Fault, reason: &str, message: &str) -> Self {
        let object =
            format!("could not get secret data from provider: {{store}} is not ready ({reason}): {message}");
        Self {
            name,
            fault,
            store: told("False", reason, message),
            object: told("False", "SecretSyncedError", &object),
        }
    }

    /// This read fails, and nothing else.
    pub fn read(name: &'static str, fault: Fault, message: &str) -> Self {
        Self {
            name,
            fault,
            store: told("True", "Valid", "store validated"),
            object: told(
                "False",
                "SecretSyncedError",
                &format!("could not get secret data from provider: {message}"),
            ),
        }
    }

    /// Nothing turns red.
    pub fn calm(name: &'static str, fault: Fault) -> Self {
        Self::synced(name, fault, "secret synced")
    }

    /// The object is Ready, and says this.
    pub fn synced(name: &'static str, fault: Fault, message: &str) -> Self {
        Self {
            name,
            fault,
            store: told("True", "Valid", "store validated"),
            object: told("True", "SecretSynced", message),
        }
    }
}

/// A case with what belongs to it.
pub struct Play {
    case: Case,
    proxy: Proxy,
    store: String,
    key: String,
}

impl Play {
    fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// The store's name in messages.
    fn told_store(&self) -> String {
        format!("ClusterSecretStore {}", self.store)
    }

    /// A condition without what differs from run to run.
    fn condition(&self, object: &Value) -> Option<Told> {
        let conditions = object["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        let server = match &self.case.fault {
            Fault::Provider(patch) => patch["server"].as_str().map(str::to_owned),
            _ => None,
        };
        let message = text("message")
            .replace(&server.unwrap_or_else(|| self.url()), "{url}")
            .replace(&self.told_store(), "{store}")
            .replace(&self.key, "{key}");
        let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").expect("an expression");
        let message = time.replace_all(&message, "{time}").into_owned();
        Some(Told(text("status"), text("reason"), message))
    }
}

/// What the API server shows, by name.
type Objects = HashMap<String, Value>;

/// What is seen of one case.
struct Seen {
    store: Option<Told>,
    object: Option<Told>,
    secret: Value,
}

/// All cases, set.
pub struct Stage {
    scene: Scene,
    pub plays: Vec<Play>,
    looks: tokio::sync::watch::Receiver<(Objects, Objects, Objects)>,
}

impl Stage {
    /// Makes everything, and waits until every Secret is synced.
    pub async fn set(mut scene: Scene, cases: Vec<Case>) -> Result<Self> {
        let upstream: SocketAddr = scene.vault.address().trim_start_matches("http://").parse()?;
        let mut plays = Vec::new();
        let mut yaml = String::new();
        for case in cases {
            let play = Play {
                proxy: Proxy::start(upstream).await?,
                store: format!("{}-{}", scene.class, case.name),
                key: format!("failures/{}", case.name),
                case,
            };
            scene.vault.put(&play.key, json!({"value": CANARY})).await?;
            yaml += &format!("---\n{}\n---\n{}\n", store(&scene, &play), object(&scene, &play));
            plays.push(play);
        }
        prepare_vault(&scene).await?;
        scene.cluster.apply(&yaml).await?;
        scene.start_operator(&[]).await?;
        let looks = look(&scene);
        let stage = Self { scene, plays, looks };
        for play in &stage.plays {
            stage
                .wait(play, "the first sync", |seen| is_well(seen, CANARY))
                .await?;
        }
        Ok(stage)
    }

    /// Plays one case: the fault, what is told, no harm, and the recovery.
    pub async fn run(&self, play: &Play) -> Result<()> {
        self.fail(play)
            .await
            .with_context(|| format!("case {}", play.case.name))?;
        self.recover(play)
            .await
            .with_context(|| format!("recovery of case {}", play.case.name))
    }

    async fn fail(&self, play: &Play) -> Result<()> {
        let case = &play.case;
        let before = self.seen(play).secret;
        let connections = play.proxy.connections();
        match &case.fault {
            Fault::Wire(mode) | Fault::Login(mode) => play.proxy.set(mode.clone()),
            Fault::Provider(patch) => {
                let patch = json!({"spec": {"provider": {"vault": patch}}});
                self.patch::<ClusterSecretStore>(&play.store, &patch).await?;
            }
            Fault::Object(patch) => self.patch::<ExternalSecret>(case.name, patch).await?,
            Fault::Gone(method, path) => {
                let path = format!("{path}/{}", play.key);
                let versions = json!({"versions": [1]});
                self.scene.vault.api(method, &path, &versions).await?;
            }
        }
        if matches!(case.fault, Fault::Login(_)) {
            let again = json!({"spec": {"refreshInterval": 7200}});
            self.patch::<ClusterSecretStore>(&play.store, &again).await?;
        }
        // What the store says comes first: the object's read may still be served by the old login.
        self.wait_told(play, |seen| seen.store.as_ref() == Some(&case.store))
            .await?;
        self.wait_told(play, |seen| seen.object.as_ref() == Some(&case.object))
            .await?;
        if let Fault::Wire(_) | Fault::Login(_) = case.fault {
            self.is_calm(play, connections).await?;
        }
        let seen = self.seen(play);
        ensure!(
            seen.store.as_ref() == Some(&case.store) && seen.object.as_ref() == Some(&case.object),
            "it did not stay as it was: {:?} {:?}",
            seen.store,
            seen.object
        );
        ensure!(
            same(&before, &seen.secret),
            "the Secret was touched: {before} is now {}",
            seen.secret
        );
        Ok(())
    }

    /// The fault was met, and is not met over and over.
    async fn is_calm(&self, play: &Play, before: u64) -> Result<()> {
        let met = Instant::now();
        while play.proxy.connections() == before {
            ensure!(met.elapsed() < PATIENCE, "nobody met the fault");
            sleep(LOOK).await;
        }
        let (told, since) = (play.proxy.connections(), Instant::now());
        sleep(CALM).await;
        let further = play.proxy.connections() - told;
        // On a loaded machine more time passes than was asked for, and so do more tries.
        let passed = since.elapsed();
        let allowed = passed.div_duration_f64(CALM).ceil() * f64::from(CALM_CONNECTIONS);
        ensure!(
            f64::from(u32::try_from(further)?) <= allowed,
            "{further} connections in {passed:?} after the fault was told"
        );
        Ok(())
    }

    async fn recover(&self, play: &Play) -> Result<()> {
        let new = format!("{CANARY}-renewed");
        let scene = &self.scene;
        scene.vault.put(&play.key, json!({"value": new})).await?;
        play.proxy.set(Mode::Pass);
        let manifest = match play.case.fault {
            Fault::Provider(_) | Fault::Login(_) => Some(store(scene, play)),
            Fault::Object(_) => Some(object(scene, play)),
            Fault::Wire(_) | Fault::Gone(..) => None,
        };
        if let Some(manifest) = manifest {
            // `apply` would leave what it did not put there.
            let manifest = manifest.to_string();
            scene.cluster.kubectl(&["replace", "-f", "-"], &manifest).await?;
        }
        self.wait_told(play, |seen| is_well(seen, &new)).await
    }

    /// Forces syncs until this is seen.
    async fn wait_told(&self, play: &Play, is_it: impl Fn(&Seen) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut force = Duration::from_secs(1);
        while Instant::now() < end {
            self.force_sync(play).await?;
            let seen = timeout(force, self.wait(play, "", &is_it)).await;
            if let Ok(seen) = seen {
                return seen;
            }
            force = (force * 2).min(Duration::from_secs(8));
        }
        let seen = self.seen(play);
        bail!(
            "expected\n  {:?}\n  {:?}\nand not\n  {:?}\n  {:?}",
            play.case.store,
            play.case.object,
            seen.store,
            seen.object
        )
    }

    async fn force_sync(&self, play: &Play) -> Result<()> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_nanos();
        let patch = json!({"metadata": {"annotations": {"force-sync": now.to_string()}}});
        self.patch::<ExternalSecret>(play.case.name, &patch).await
    }

    async fn patch<K: Resource<DynamicType = ()>>(&self, name: &str, patch: &Value) -> Result<()> {
        let api = api::<K>(&self.scene);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    fn seen(&self, play: &Play) -> Seen {
        let (stores, objects, secrets) = &*self.looks.borrow();
        let condition = |object: Option<&Value>| play.condition(object?);
        Seen {
            store: condition(stores.get(&play.store)),
            object: condition(objects.get(play.case.name)),
            secret: secrets.get(play.case.name).cloned().unwrap_or_default(),
        }
    }

    async fn wait(&self, play: &Play, what: &str, is_it: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut looks = self.looks.clone();
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen(play);
            if is_it(&seen) {
                return Ok(());
            }
            if Instant::now() > end {
                let story = self.scene.story();
                bail!(
                    "{}: waited for {what}; {:?} {:?}\n{story}",
                    play.case.name,
                    seen.store,
                    seen.object
                );
            }
            looks.changed().await?;
        }
    }

    /// Nothing that the fakes or the Secrets hold was told or logged.
    pub fn no_leak(&self) -> Result<()> {
        let logs = self.scene.operator().logs();
        ensure!(logs.len() > 10_000, "the operator logged next to nothing");
        if let Some(line) = logs.lines().find(|line| line.contains(CANARY)) {
            bail!("a secret was logged: {line}");
        }
        Ok(())
    }
}

fn is_well(seen: &Seen, value: &str) -> bool {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    seen.store == Some(told("True", "Valid", "store validated"))
        && seen.object == Some(told("True", "SecretSynced", "secret synced"))
        && seen.secret["data"]["value"] == encoded.as_str()
}

fn same(before: &Value, after: &Value) -> bool {
    !before.is_null()
        && before["data"] == after["data"]
        && before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
}

fn store(scene: &Scene, play: &Play) -> Value {
    let auth = json!({"kubernetes": {
        "mountPath": "kubernetes", "role": "eso-reader",
        "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
    }});
    let mut store = scene.store_manifest(&play.url(), &auth);
    store["metadata"]["name"] = json!(play.store);
    store["spec"]["refreshInterval"] = json!(3600);
    store
}

/// Delete would make the worst of an answer that is taken for a clean 'not found'. The template keeps `force-sync`
/// off the Secret: a sync before the fault is met changes nothing.
fn object(scene: &Scene, play: &Play) -> Value {
    let policy = match play.case.fault {
        Fault::Gone(..) => "Retain",
        _ => "Delete",
    };
    let spec = json!({
        "refreshInterval": "1h", "secretStoreRef": {"kind": "ClusterSecretStore", "name": play.store},
        "target": {"deletionPolicy": policy, "template": {"metadata": {"labels": {"case": play.case.name}}}},
        "data": [one("value", &play.key, "value")],
    });
    scene.external_secret_manifest(play.case.name, spec)
}

/// What the cases ask of Vault beyond what every scene has.
async fn prepare_vault(scene: &Scene) -> Result<()> {
    let vault = &scene.vault;
    let all = json!({"policy": "path \"*\" { capabilities = [\"read\", \"list\"] }"});
    vault.api("PUT", "sys/policies/acl/reads-all", &all).await?;
    let account = ("eso-vault-auth", "security");
    for (role, further) in [
        ("reads-all", json!({"token_policies": ["reads-all"]})),
        ("reads-nothing", json!({"token_policies": ["default"]})),
        (
            "of-another",
            json!({"bound_service_account_names": ["somebody-else"]}),
        ),
        ("other-audience", json!({"audience": "another-vault"})),
    ] {
        vault.write_role(role, account.0, account.1, &further).await?;
    }
    Ok(())
}

fn api<K: Resource<DynamicType = ()>>(scene: &Scene) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    let client = scene.cluster.client();
    if resource.kind == "ClusterSecretStore" {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &scene.namespace, &resource)
    }
}

/// One look at everything for all cases, again and again.
fn look(scene: &Scene) -> tokio::sync::watch::Receiver<(Objects, Objects, Objects)> {
    let apis = (
        api::<ClusterSecretStore>(scene),
        api::<ExternalSecret>(scene),
        api::<Secret>(scene),
    );
    let (sender, receiver) = tokio::sync::watch::channel(<(Objects, Objects, Objects)>::default());
    tokio::spawn(async move {
        while !sender.is_closed() {
            let looked = tokio::try_join!(listed(&apis.0), listed(&apis.1), listed(&apis.2));
            if let Ok(looked) = looked {
                sender.send_replace(looked);
            }
            sleep(LOOK).await;
        }
    });
    receiver
}

async fn listed(api: &Api<DynamicObject>) -> kube::Result<Objects> {
    let list = api.list(&ListParams::default()).await?;
    let named =
        |object: DynamicObject| Some((object.metadata.name.clone()?, serde_json::to_value(object).ok()?));
    Ok(list.items.into_iter().filter_map(named).collect())
}
