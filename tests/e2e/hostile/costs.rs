//! Templates, properties and expressions without end.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{Hostile, attack, stage};
use crate::scene::{one, play};

fn templated(template: Value) -> Value {
    json!({"refreshInterval": "1h", "target": {"template": template}, "data": [one("value", "neighbour", "value"), one("deep", "hostile", "deep"), one("bomb", "hostile", "bomb")]})
}

fn text(template: &str) -> Value {
    templated(json!({"data": {"out": template}}))
}

#[test]
fn templates_made_to_run_for_ever_or_to_grow_are_stopped() {
    play(async {
        let scene = stage("hostile-templates").await?;
        let bomb: String = (0..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".into(), |yaml, i| {
            format!(
                "{yaml}a{}: &a{} [*a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}]\n",
                i + 1,
                i + 1
            )
        });
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        scene
            .vault
            .put("hostile", json!({"deep": deep, "bomb": bomb}))
            .await?;
        let rows = [
            ("nested", format!("{}x{}", "{{ if true }}".repeat(20_000), "{{ end }}".repeat(20_000)), "more than 64 controls"),
            ("parens", format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)), "more than 64 controls"),
            ("define", "{{ define \"T\" }}{{ template \"T\" . }}{{ end }}{{ template \"T\" . }}".into(), "maximum template depth"),
            ("twice", "{{ define \"T\" }}{{ template \"T\" . }}{{ template \"T\" . }}{{ end }}{{ template \"T\" . }}".into(), "maximum template depth"),
            ("tree", "{{ define \"T\" }}{{ if gt . 0 }}{{ template \"T\" (sub . 1) }}{{ template \"T\" (sub . 1) }}{{ end }}{{ end }}{{ template \"T\" 60 }}".into(), "the template takes"),
            ("range", "{{ range 9223372036854775807 }}{{ end }}".into(), "the template takes"),
            ("until", "{{ range until 2147483647 }}{{ end }}".into(), "the template"),
            ("seq", "{{ seq 0 2147483647 }}".into(), "the template"),
            ("square", "{{ range 3000 }}{{ range 3000 }}{{ end }}{{ end }}".into(), "the template takes"),
            ("lists", "{{ range until 3000 }}{{ range until 3000 }}{{ end }}{{ end }}".into(), "more than 32 MiB"),
            ("repeat", "{{ repeat 2147483647 .value }}".into(), "the template"),
            ("repeats", "{{ repeat 1000 (repeat 1000 (repeat 1000 .value)) }}".into(), "the template"),
            ("width", "{{ printf \"%2147483647d\" 1 }}".into(), ""),
            ("widths", "{{ range 1000 }}{{ $x := printf \"%999999d\" 1 }}{{ end }}".into(), "more than 32 MiB"),
            ("precision", "{{ range 1000 }}{{ $x := printf \"%.999999f\" 1.0 }}{{ end }}".into(), "more than 32 MiB"),
            ("doubling", "{{ $x := list 1 }}{{ range 60 }}{{ $x = list $x $x }}{{ end }}{{ print $x }}".into(), "the template"),
            ("circle", "{{ $d := dict }}{{ $_ := set $d \"self\" $d }}{{ $d | toJson }}".into(), "a dict cannot hold itself"),
            ("copy", "{{ $d := dict }}{{ $_ := set $d \"self\" $d }}{{ mustDeepCopy $d }}".into(), "a dict cannot hold itself"),
            ("regex", "{{ regexMatch \"(a*)*b\" (repeat 500000 \"a\") }}{{ range 10000 }}{{ $x := regexMatch \"((a{0,100}){0,100}){0,10}b\" (repeat 5000 \"a\") }}{{ end }}".into(), "the template takes"),
            ("program", "{{ range 10000 }}{{ $x := regexMatch (printf \"%d((\\\\pL{100}){10})\" .) \"a\" }}{{ end }}".into(), "the template takes"),
            ("json", "{{ .deep | mustFromJson }}".into(), "nested too deeply"),
            ("yaml", "{{ .bomb | fromYaml | toYaml }}".into(), ""),
            ("keys", "{{ range 1000 }}{{ $x := genPrivateKey \"rsa\" }}{{ end }}".into(), "the template takes"),
            ("hash", "{{ range 1000000 }}{{ $x := bcrypt \"x\" }}{{ end }}".into(), "the template takes"),
        ];
        // Go writes these faults into the text.
        let hostile = |(name, template, word): &(&'static str, String, &'static str)| match *word {
            "" => Hostile::served(name, text(template)),
            word => Hostile::refused(name, text(template), word),
        };
        let mut objects: Vec<Hostile> = rows.iter().map(hostile).collect();
        let yaml = json!({"templateFrom": [{"literal": "{{ .bomb }}"}]});
        objects.push(Hostile::refused("literal", templated(yaml), "excessive aliasing"));
        // Each is within its limits; all of them would take an hour, or gigabytes.
        for (name, template, word) in [
            (
                "slow-all",
                "{{ range until 900000 }}{{ end }}x",
                "longer than 5 s together",
            ),
            (
                "large-all",
                "{{ repeat 1900000 \"x\" }}",
                "more than 4 MiB together",
            ),
        ] {
            let keys: serde_json::Map<String, Value> =
                (0..2_000).map(|i| (format!("k{i}"), json!(template))).collect();
            objects.push(Hostile::refused(name, templated(json!({"data": keys})), word));
        }
        attack(&scene, objects).await?;
        for (name, fault) in [("width", "%!(NOVERB)"), ("yaml", "excessive aliasing")] {
            let out = scene.value(name, "out").await?.unwrap_or_default();
            ensure!(out.contains(fault), "{name}: {out:.400}");
        }
        Ok(())
    });
}

#[test]
fn properties_and_expressions_that_cost_too_much_are_stopped() {
    play(async {
        let scene = stage("hostile-costs").await?;
        let members: serde_json::Map<String, Value> = (0..9_000)
            .map(|i| (format!("{}{i}", "a".repeat(80)), json!({"b": "c"})))
            .collect();
        scene
            .vault
            .put("hostile", json!({"large": Value::Object(members)}))
            .await?;
        let all = |property: &dyn Fn(usize) -> String| -> Value {
            let entries: Vec<Value> = (0..5_000).map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": "hostile", "property": property(i)}})).collect();
            json!({"data": entries})
        };
        let star = |i: usize| format!("large.*a*{i}.b");
        let finds: Vec<Value> = (0..2_000)
            .map(|i| json!({"find": {"name": {"regexp": format!("{i}\\pL{{300}}")}}}))
            .collect();
        let some: Vec<Value> = (0..100)
            .map(|i| json!({"find": {"path": "nowhere", "name": {"regexp": format!("{i}\\pL{{300}}")}}}))
            .collect();
        let rewrites: Vec<Value> = (0..100)
            .map(|i| json!({"regexp": {"source": format!("{i}\\pL{{300}}"), "target": "x"}}))
            .collect();
        let steps: Vec<Value> = (0..100)
            .map(|_| json!({"transform": {"template": "{{ range until 900000 }}{{ end }}{{ .value }}"}}))
            .collect();
        attack(
            &scene,
            vec![
                Hostile::refused(
                    "steps",
                    json!({"dataFrom": [{"extract": {"key": "hostile", "property": "large"}, "rewrite": steps}]}),
                    "longer than 5 s for all keys",
                ),
                Hostile::refused(
                    "paths",
                    all(&|i| format!("large.{}{i}.b", "a".repeat(80))),
                    "longer than 5 s",
                ),
                Hostile::refused("stars", all(&star), "could"),
                Hostile::refused(
                    "modifiers",
                    all(&|i| format!("large.@this|@this|{}{i}|b", "a".repeat(80))),
                    "longer than 5 s",
                ),
                Hostile::refused(
                    "finds",
                    json!({"dataFrom": finds}),
                    "more than 100 regular expressions",
                ),
                Hostile::refused(
                    "some",
                    json!({"dataFrom": some}),
                    "regular expression is too large",
                ),
                Hostile::refused(
                    "rewrites",
                    json!({"dataFrom": vec![json!({"extract": {"key": "neighbour"}, "rewrite": rewrites}); 20]}),
                    "more than 100 regular expressions",
                ),
                Hostile::refused(
                    "transform",
                    json!({"dataFrom": [{"extract": {"key": "hostile", "property": "large"}, "rewrite": [
                    {"transform": {"template": "{{ range until 100000 }}{{ end }}x"}}]}]}),
                    "failed rewrite operation",
                ),
            ],
        )
        .await?;
        Ok(())
    });
}
