//! Values that are too much.

use serde_json::{Value, json};

use super::{Hostile, attack, stage};
use crate::scene::{one, play};

#[test]
fn values_that_are_too_much_too_deep_or_of_odd_names_are_named() {
    play(async {
        let scene = stage("hostile-values").await?;
        let vault = &scene.vault;
        let large = "x".repeat(700_000);
        for i in 0..25 {
            vault.put(&format!("large/{i}"), json!({"value": large})).await?;
        }
        let keys: serde_json::Map<String, Value> =
            (0..10_000).map(|i| (format!("key-{i}"), json!("v"))).collect();
        vault.put("keys", Value::Object(keys)).await?;
        vault.put("odd", json!({"a/b": "1", "a b": "2"})).await?;
        vault.put("odd2", json!({"ключ": "1"})).await?;
        vault
            .put("unicode", json!({"value": "\u{202e}\u{0}\u{feff}💥é"}))
            .await?;
        let nested = (0..120).fold(json!("x"), |inner, _| json!([inner]));
        vault.put("deep", json!({"value": nested})).await?;
        let entries = |count: usize| -> Value {
            (0..count).map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": format!("large/{i}"), "property": "value"}})).collect()
        };
        let extract =
            |keys: &[&str]| -> Value { keys.iter().map(|key| json!({"extract": {"key": key}})).collect() };
        let collide = json!([{"extract": {"key": "keys"}, "rewrite": [{"regexp": {"source": "key-.*", "target": "same"}}]}]);
        attack(
            &scene,
            vec![
                Hostile::refused(
                    "two",
                    json!({"data": entries(2)}),
                    "a Secret holds at most 1048576",
                ),
                Hostile::refused("all", json!({"data": entries(25)}), "more than 16 MiB together"),
                Hostile::refused(
                    "found",
                    json!({"dataFrom": [{"find": {"path": "large", "name": {"regexp": ".*"}}}]}),
                    "more than 8 MiB",
                ),
                Hostile::new(
                    "keys",
                    json!({"dataFrom": extract(&["keys"])}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::refused("collide", json!({"dataFrom": collide}), "same"),
                Hostile::refused(
                    "odd",
                    json!({"dataFrom": extract(&["odd"])}),
                    "secret name collision",
                ),
                Hostile::refused(
                    "odd-too",
                    json!({"dataFrom": extract(&["odd2"])}),
                    "only ASCII letters",
                ),
                Hostile::new(
                    "twice",
                    json!({"data": [one("value", "neighbour", "value"), one("value", "large/0", "value")]}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::new(
                    "over",
                    json!({"dataFrom": extract(&["neighbour", "unicode"])}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::new(
                    "deep",
                    json!({"data": [{"secretKey": "value", "remoteRef": {"key": "deep"}}]}),
                    "True",
                    "SecretSynced",
                ),
            ],
        )
        .await?;
        Ok(())
    });
}
