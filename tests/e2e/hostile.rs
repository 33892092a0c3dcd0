//! Objects made to harm. Each gets an answer in bounded time and memory, and while that goes on a neighbour's
//! force-sync is served as ever.

mod costs;
mod values;

use std::fmt::Write as _;
use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::wait_for;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::scene::{SOON, Scene, one, play};

/// A neighbour's force-sync may take this long while objects are made to harm, and so many times as long as one of an
/// operator beside it that has nothing to do: on a loaded machine, that one is slow too.
const SERVED: Duration = Duration::from_secs(2);
const TIMES_IDLE: u32 = 3;
/// Resident memory at its highest, above what the operator took before: the budget that it has without a limit, and half
/// of that for what is small, and what a build without optimisation takes more.
const MEMORY_MIB: f64 = 64.0 + 32.0;
/// Processor time that the operator may take in five seconds when all has been answered.
const IDLE_SECONDS: f64 = 1.5;

/// An object, and what its Ready condition must say: status and a word.
struct Hostile(String, Value, &'static str, &'static str);

impl Hostile {
    fn new(name: &str, spec: Value, status: &'static str, word: &'static str) -> Self {
        Self(name.into(), spec, status, word)
    }

    fn served(name: &str, spec: Value) -> Self {
        Self::new(name, spec, "True", "SecretSynced")
    }

    fn refused(name: &str, spec: Value, word: &'static str) -> Self {
        Self::new(name, spec, "False", word)
    }
}

/// A scene that is attacked, and one beside it whose operator has nothing else to do.
pub struct Stage {
    attacked: Scene,
    idle: Scene,
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.attacked
    }
}

/// How long a force-sync took, of the neighbour and of the object of the idle operator in the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    neighbour: Duration,
    idle: Duration,
}

pub async fn stage(name: &str) -> Result<Stage> {
    let mut attacked = Scene::without_operator(name).await?;
    let namespace = attacked.cluster.namespace(&format!("{name}-idle")).await?;
    let mut idle = Scene {
        cluster: attacked.cluster,
        vault: attacked.vault.clone(),
        class: namespace.clone(),
        namespace,
        operator: None,
    };
    for scene in [&mut attacked, &mut idle] {
        scene.store(scene.vault.address()).await?;
        scene.start_operator(&["--loglevel=info"]).await?;
        force(scene, "neighbour", None).await?;
    }
    Ok(Stage { attacked, idle })
}

/// Makes the neighbour, or writes this number to Vault and forces it; how long it takes until the Secret holds that.
async fn force(scene: &Scene, name: &str, number: Option<usize>) -> Result<Duration> {
    // Each scene reads a path of its own; hostile objects read that of theirs.
    let path = if scene.namespace.contains("-idle-") {
        "idle"
    } else {
        name
    };
    let value = number.unwrap_or_default().to_string();
    scene.vault.put(path, json!({"value": value})).await?;
    match number {
        Some(_) => scene.force_sync(name).await?,
        None => {
            let spec = json!({"refreshInterval": "1h", "data": [one("value", path, "value")]});
            scene.external_secret(name, spec).await?;
        }
    }
    let since = Instant::now();
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    wait_for("the neighbour's force-sync", SOON, || async {
        let data = secrets.get(name).await?.data.unwrap_or_default();
        Ok(data
            .get("value")
            .is_some_and(|found| found.0 == value.as_bytes())
            .then_some(()))
    })
    .await
    .with_context(|| scene.story())?;
    Ok(since.elapsed())
}

impl Stage {
    /// Forces the neighbour, and the idle operator's object in the same moment.
    pub async fn force(&self, number: usize) -> Result<Wait> {
        let number = Some(number);
        let (neighbour, idle) = tokio::try_join!(
            force(&self.attacked, "neighbour", number),
            force(&self.idle, "neighbour", number),
        )?;
        Ok(Wait { neighbour, idle })
    }
}

/// Whether neighbours were served as ever.
pub fn judge(waits: &[Wait]) -> Result<()> {
    let slowest = |of: fn(&Wait) -> Duration| waits.iter().map(of).max().unwrap_or_default();
    let (neighbour, idle) = (slowest(|wait| wait.neighbour), slowest(|wait| wait.idle));
    ensure!(
        neighbour < SERVED + TIMES_IDLE * idle,
        "the neighbour waited {neighbour:?}, and {idle:?} where nothing else was to do"
    );
    Ok(())
}

/// The objects that have another answer than they must have.
async fn wrong(scene: &Scene, objects: &[Hostile]) -> Result<String> {
    let known = scene.list("externalsecrets").await?;
    let mut wrong = String::new();
    for Hostile(name, _, status, word) in objects {
        let found = known.iter().find(|known| known["metadata"]["name"] == **name);
        let ready = found.map_or(&Value::Null, |found| &found["status"]["conditions"][0]);
        let says = |field: &str| ready[field].as_str().unwrap_or_default();
        let told = says("message").contains(word) || says("reason") == *word;
        if says("status") != *status || !told {
            let message: String = says("message").chars().take(400).collect();
            writeln!(
                wrong,
                "{name}: Ready={} {}: {message}",
                says("status"),
                says("reason")
            )?;
        }
    }
    Ok(wrong)
}

/// Holds the machine for one attack: neighbours are to wait for what harms them, not for another test.
pub static ATTACKED: Mutex<()> = Mutex::const_new(());

/// Makes all objects at once, and holds what this module promises.
async fn attack(scene: &Stage, objects: Vec<Hostile>) -> Result<()> {
    let mut yaml = String::new();
    for Hostile(name, spec, ..) in &objects {
        writeln!(
            yaml,
            "---\n{}",
            scene.external_secret_manifest(name, spec.clone())
        )?;
    }
    let attacked = ATTACKED.lock().await;
    let before = scene.operator().peak_mib()?;
    let since = Instant::now();
    // Not applied: kubectl would keep a second copy of each in an annotation.
    scene.cluster.kubectl(&["create", "-f", "-"], &yaml).await?;
    let mut waits = Vec::new();
    for number in 1..=8 {
        waits.push(scene.force(number).await?);
    }
    println!("{}: {waits:?}", scene.class);
    wait_for("the answers", SOON, || async {
        // Megabytes are listed each time.
        sleep(Duration::from_millis(500)).await;
        let wrong = wrong(scene, &objects).await?;
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(Some(()))
    })
    .await?;
    let answered = since.elapsed();
    drop(attacked);
    let peak = scene.operator().peak_mib()? - before;
    println!(
        "{}: answered in {answered:?}, {peak:.0} MiB more at most",
        scene.class
    );
    judge(&waits)?;
    ensure!(peak < MEMORY_MIB, "the operator took {peak:.0} MiB more");
    ensure!(scene.operator().runs());
    // They are all still there: what fails must not be tried so often that it costs much.
    idle(scene).await
}

async fn idle(scene: &Scene) -> Result<()> {
    let before = scene.operator().cpu_seconds()?;
    sleep(Duration::from_secs(5)).await;
    let busy = scene.operator().cpu_seconds()? - before;
    println!("{}: {busy:.2} s of processor in 5 s", scene.class);
    ensure!(busy < IDLE_SECONDS, "the operator is busy for {busy:.2} s in 5 s");
    Ok(())
}

#[test]
fn objects_of_the_size_that_the_api_server_just_takes_keep_nobody_waiting() {
    play(async {
        let scene = stage("hostile-size").await?;
        let many = |key: &dyn Fn(usize) -> String| -> Vec<Value> {
            (0..10_000).map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": key(i), "property": "value"}})).collect()
        };
        // As large as the definitions let them be.
        let (long, huge) = ("x".repeat(4_096), "x".repeat(512 << 10));
        let list: Vec<Value> = (0..1_500)
            .map(|i| json!({"extract": {"key": format!("gone/{i}")}}))
            .collect();
        attack(
            &scene,
            vec![
                Hostile::refused("missing", json!({"data": many(&|i| format!("gone/{i}"))}), "Secret does not exist"),
                Hostile::refused("missing-too", json!({"data": many(&|i| format!("gone/too/{i}"))}), "Secret does not exist"),
                Hostile::new("extracts", json!({"target": {"deletionPolicy": "Merge"}, "dataFrom": list}), "True", "SecretSynced"),
                Hostile::new("same", json!({"data": many(&|_| "neighbour".into())}), "True", "SecretSynced"),
                Hostile::refused("key", json!({"data": [{"secretKey": "v", "remoteRef": {"key": long}}]}), "error processing spec.data[0]"),
                Hostile::refused("property", json!({"data": [one("v", "neighbour", &long)]}), "longer than 512 bytes"),
                Hostile::refused("regexp", json!({"dataFrom": [{"find": {"name": {"regexp": long.replace('x', "(x|y)*")[..4_090].to_owned()}}}]}), "regular expression"),
                Hostile::refused("version", json!({"data": [{"secretKey": "v", "remoteRef": {"key": "neighbour", "version": "9".repeat(4_096)}}]}), "whole numbers"),
                Hostile::new("literal", json!({"target": {"template": {"data": {"out": huge}}}, "data": [one("v", "neighbour", "value")]}), "True", "SecretSynced"),
            ],
        )
        .await?;
        Ok(())
    });
}

#[test]
fn intervals_at_the_edge_are_served_or_named_and_none_is_a_hot_loop() {
    play(async {
        let scene = stage("hostile-intervals").await?;
        let spec = |interval: &str| json!({"refreshInterval": interval, "data": [one("value", "neighbour", "value")]});
        let rows = [
            "1ns",
            "0.0000001s",
            "0.5ms",
            "-1h",
            "-9223372036854775807ns",
            "0",
            "0s",
            "-0",
            "9223372036854775807ns",
            "2562047h47m16.854775807s",
            "0.000000000000000000000000000000001h",
            "1µs",
            "1μs",
        ];
        let mut objects: Vec<Hostile> = rows
            .iter()
            .enumerate()
            .map(|(i, interval)| Hostile::new(&format!("taken-{i}"), spec(interval), "True", "SecretSynced"))
            .collect();
        for (i, interval) in ["9223372036854775808ns", "2562048h", "99999999999999999999h"]
            .iter()
            .enumerate()
        {
            objects.push(Hostile::refused(
                &format!("refused-{i}"),
                spec(interval),
                "is too long",
            ));
        }
        attack(&scene, objects).await?;
        idle(&scene).await?;
        let (mark, begun) = (scene.vault.audit_mark(), Instant::now());
        sleep(Duration::from_secs(5)).await;
        let reads = scene
            .vault
            .requests_since(mark)?
            .get("secret/data/neighbour")
            .copied()
            .unwrap_or(0);
        // Readers of one path share what is asked every 500 ms at most.
        let most = 2 + 2 * usize::try_from(begun.elapsed().as_secs())?;
        ensure!(reads <= most, "{reads} reads in {:?}", begun.elapsed());
        for interval in ["1e9h", "soon", "1h-5m", "１h", "1h\n"] {
            let refused = scene.external_secret("refused", spec(interval)).await;
            ensure!(refused.is_err(), "{interval} was taken");
        }
        // A store that is judged without a pause.
        let mut store = scene.store_manifest(scene.vault.address(), &crate::scene::login());
        store["spec"]["refreshInterval"] = json!("1ns");
        scene.cluster.apply(&store.to_string()).await?;
        idle(&scene).await
    });
}
