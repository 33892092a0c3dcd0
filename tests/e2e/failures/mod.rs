//! Every way in which Vault, or the way to it, is known to fail: each for real, with a Secret that was synced
//! before. What a user reads is written out in the tables, word by word.

mod lies;
mod reach;
mod refusals;
mod stage;

use anyhow::{Result, ensure};
use futures::future::join_all;

use self::stage::{Case, Stage};
use crate::scene::{Scene, play};

/// All at once, because some faults take as long as the operator's patience.
async fn run(scene: Scene, cases: Vec<Case>) -> Result<()> {
    let stage = Stage::set(scene, cases).await?;
    let failed: Vec<String> = join_all(stage.plays.iter().map(|play| stage.run(play)))
        .await
        .into_iter()
        .filter_map(|result| result.err().map(|error| format!("{error:#}")))
        .collect();
    ensure!(
        failed.is_empty(),
        "{} of {} failed:\n{}",
        failed.len(),
        stage.plays.len(),
        failed.join("\n")
    );
    stage.no_leak()
}

#[test]
fn forty_and_more_failures_each_say_what_is_wrong_and_harm_no_secret() {
    play(async {
        let scene = Scene::without_operator("failures").await?;
        let servers = reach::Servers::start(&scene).await?;
        let mut cases = servers.cases();
        cases.extend(reach::outages());
        cases.extend(refusals::at_login());
        cases.extend(refusals::at_read());
        cases.extend(lies::cases());
        assert!(cases.len() >= 100, "only {} cases", cases.len());
        run(scene, cases).await
    });
}
