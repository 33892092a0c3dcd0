use serde_json::{Value, json};

use super::*;

fn external(spec: Value) -> Result<(), Exceeded> {
    check_external_secret(&serde_json::from_value(spec).unwrap())
}

fn of_store(spec: Value) -> Result<(), Exceeded> {
    check_store(&serde_json::from_value(spec).unwrap())
}

fn entries(count: usize) -> Vec<Value> {
    vec![json!({"secretKey": "k", "remoteRef": {"key": "a"}}); count]
}

#[test]
fn what_exceeds_a_bound_of_the_definition_is_refused_by_the_code_too_with_its_place() {
    let template = |template: Value| json!({"target": {"template": template}});
    let windows = vec![json!({"schedule": "* * * * *", "duration": "1h"}); 101];
    let map: BTreeMap<String, String> = (0..2_001).map(|i| (format!("k{i}"), String::new())).collect();
    let long = "x".repeat(4_097);
    for (spec, place) in [
        (json!({"data": entries(10_001)}), "spec.data"),
        (
            json!({"syncWindows": {"kind": "deny", "windows": windows}}),
            "spec.syncWindows.windows",
        ),
        (
            json!({"data": [entries(1)[0], {"secretKey": "k", "remoteRef": {"key": long}}]}),
            "spec.data[1].remoteRef.key",
        ),
        (
            json!({"dataFrom": [{"find": {"name": {"regexp": long}}}]}),
            "spec.dataFrom[0].find.name.regexp",
        ),
        (template(json!({"data": map})), "spec.target.template.data"),
        (
            template(json!({"data": {"a": "x".repeat((512 << 10) + 1)}})),
            "spec.target.template.data.a",
        ),
        (
            template(json!({"templateFrom": [{"literal": "x", "target": long}]})),
            "spec.target.template.templateFrom[0].target",
        ),
    ] {
        let exceeded = external(spec).unwrap_err();
        assert_eq!(exceeded.field, place);
        assert!(exceeded.problem.contains("at most"), "{}", exceeded.problem);
    }
}

#[test]
fn what_is_exactly_as_large_as_its_bound_is_served_and_characters_count_not_bytes() {
    let spec = json!({
        "data": entries(10_000),
        "dataFrom": [{"extract": {"key": "é".repeat(4_096)}}],
        "target": {"template": {"data": {"a": "x".repeat(512 << 10)}}},
    });
    assert_eq!(external(spec), Ok(()));
}

#[test]
fn a_store_is_held_against_its_own_bounds_and_what_is_not_served_is_not_looked_into() {
    let vault = |more: Value| {
        let mut vault = json!({"server": "https://v"});
        vault
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"provider": {"vault": vault}})
    };
    assert_eq!(of_store(vault(json!({"caBundle": "x".repeat(1 << 20)}))), Ok(()));
    let long = of_store(vault(json!({"caBundle": "x".repeat((1 << 20) + 1)})));
    assert_eq!(long.unwrap_err().field, "spec.provider.vault.caBundle");
    let audiences = json!({"kubernetes": {"role": "r", "serviceAccountRef": {"name": "s", "audiences": vec!["a"; 1_001]}}});
    let many = of_store(vault(json!({ "auth": audiences })));
    assert_eq!(
        many.unwrap_err().field,
        "spec.provider.vault.auth.kubernetes.serviceAccountRef.audiences"
    );
    let deep = (0..1_000).fold(json!("x".repeat(10_000)), |inner, _| json!([inner]));
    assert_eq!(of_store(json!({"provider": {"aws": {"region": deep}}})), Ok(()));
}
