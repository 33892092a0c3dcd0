//! Many objects that each take long, and keep no other waiting.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::hostile::{ATTACKED, judge, stage};
use crate::scene::{Scene, one, play};

/// More than there are places in the queue.
const CROWD: usize = 300;

async fn answered(scene: &Scene) -> Result<usize> {
    let objects = scene.list("externalsecrets").await?;
    let crowd = objects.iter().filter(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("slow") && object["status"]["conditions"].is_array()
    });
    Ok(crowd.count())
}

#[test]
fn hundreds_of_slow_templates_keep_no_other_object_waiting() {
    play(async {
        let scene = stage("crowd").await?;
        let mut yaml = String::new();
        for i in 0..CROWD {
            let spec = json!({
                "refreshInterval": "1h", "data": [one("value", "neighbour", "value")],
                "target": {"template": {"data": {"out": "{{ range until 900000 }}{{ end }}x"}}},
            });
            let name = format!("slow-{i}");
            writeln!(yaml, "---\n{}", scene.external_secret_manifest(&name, spec))?;
        }
        let _attacked = ATTACKED.lock().await;
        scene.cluster.kubectl(&["create", "-f", "-"], &yaml).await?;
        let mut waits = Vec::new();
        for number in 1..=4 {
            waits.push(scene.force(number).await?);
        }
        let answered = answered(&scene).await?;
        println!("{waits:?} beside {CROWD} slow templates, of which {answered} were answered");
        ensure!(answered < CROWD, "it was over too soon to show anything");
        judge(&waits)
    });
}
