//! Changed inputs: each gets an answer, in time and within the limits.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use keyferry::api::duration::GoDuration;
use keyferry::api::vault::KvVersion;
use keyferry::secret::SecretBytes;
use keyferry::sync::assemble::{Answer, assemble};
use keyferry::sync::plan::plan;
use keyferry::sync::property;
use keyferry::template::funcs::yaml::string_map;
use keyferry::template::{Delims, MissingKey, Template, re2};
use keyferry::vault::json::Json;
use keyferry::vault::kv::{Kv, Question};
use keyferry::vault::transport::Reply;
use proptest::prelude::*;
use serde_json::json;

use crate::corpus::{self, Call, Case, Data};
use crate::mutate::{Changed, apply, changed, text};

/// A rendering may take 5 s, and what it is doing when they are over comes to its end.
const SLOW: Duration = Duration::from_secs(10);
const OUTPUT: usize = 2 << 20;

fn is_long_run() -> bool {
    std::env::var_os("KEYFERRY_FUZZ_CASES").is_some()
}

/// So many cases of each target, unless the environment asks for another number.
pub fn config(default: u32) -> ProptestConfig {
    let cases = std::env::var("KEYFERRY_FUZZ_CASES").map_or(default, |cases| cases.parse().unwrap());
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Fails if it takes too long.
pub fn timed<T>(run: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let begin = Instant::now();
    let done = run();
    let taken = begin.elapsed();
    prop_assert!(taken < SLOW, "took {taken:?}");
    Ok(done)
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| corpus::cases(is_long_run()));
static CALLS: LazyLock<Vec<Call>> = LazyLock::new(corpus::calls);

/// Renders a template: once if its results differ each time, else twice.
fn render(source: &str, delims: &Delims, data: &Data) -> Result<(), TestCaseError> {
    let Ok(template) = timed(|| Template::parse("fuzz", source, delims))? else {
        return Ok(());
    };
    for missing in [MissingKey::Error, MissingKey::Invalid] {
        let first = timed(|| template.render(data, missing))?;
        if let Ok(output) = &first {
            prop_assert!(output.expose().len() <= OUTPUT);
        }
        let over =
            |error: &keyferry::template::TemplateError| error.to_string().contains("takes longer than");
        if template.is_stable() && !first.as_ref().is_err_and(over) {
            let second = timed(|| template.render(data, missing))?;
            prop_assert!(
                first == second || second.is_err_and(|error| over(&error)),
                "not stable"
            );
        }
    }
    Ok(())
}

fn templates() -> &'static [&'static str] {
    static ALL: LazyLock<Vec<&str>> = LazyLock::new(|| CASES.iter().map(|case| &*case.template).collect());
    &ALL
}

fn values() -> &'static [Vec<u8>] {
    static ALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let all = CASES.iter().take(1).flat_map(|case| &case.data);
        all.map(|(_, value)| value.expose().to_vec()).collect()
    });
    &ALL
}

fn check_template(case: &Changed, value: &Changed) -> Result<(), TestCaseError> {
    let seed = case.0.get(&CASES);
    let mut data = seed.data.clone();
    let source = text(apply(case, templates()));
    render(&source, &seed.delims, &data)?;
    // And as it was, with another value.
    let changed = SecretBytes::new(apply(value, values()));
    let key = data.keys().nth(value.0.index(data.len().max(1))).cloned();
    data.insert(key.unwrap_or_default(), changed);
    render(&seed.template, &seed.delims, &data)
}

fn check_call(arg: &Changed, which: usize) -> Result<(), TestCaseError> {
    let call = arg.0.get(&CALLS);
    let mut args = call.args.clone();
    let which = which % args.len();
    let seeds = std::slice::from_ref(&args[which]);
    args[which] = apply(arg, seeds);
    let names: String = (0..args.len()).map(|index| format!(" .a{index}")).collect();
    let data: Data = args
        .into_iter()
        .enumerate()
        .map(|(index, arg)| (format!("a{index}"), SecretBytes::new(arg)))
        .collect();
    let source = format!("{{{{ {}{names} }}}}", call.function);
    render(&source, &Delims::default(), &data)
}

fn check_path(json: &Changed, path: &Changed) -> Result<(), TestCaseError> {
    let path = text(apply(path, corpus::PATHS));
    let seed = json.0.get(corpus::JSON).as_bytes().to_vec();
    for json in [apply(json, corpus::JSON), seed] {
        let Ok(json) = timed(|| Json::parse(&json))? else {
            continue;
        };
        timed(|| property::value(&json, Some(&path)))?.ok();
        timed(|| property::members(&json, Some(&path)))?.ok();
    }
    Ok(())
}

fn check_pattern(pattern: &Changed, with: &Changed) -> Result<(), TestCaseError> {
    let (source, target) = (
        text(apply(pattern, corpus::PATTERNS)),
        text(apply(with, corpus::PATTERNS)),
    );
    if let Ok(regex) = timed(|| re2::compile(&source))? {
        for hay in values() {
            let go_on = |size| if size > OUTPUT { Err("too large") } else { Ok(()) };
            timed(|| re2::replace_all(&regex, hay, &target, go_on))?.ok();
            timed(|| re2::is_match(&regex, hay))?;
        }
    }
    let template = text(apply(with, templates()));
    check_rewrite(&json!({"regexp": {"source": source, "target": target}}))?;
    check_rewrite(&json!({"transform": {"template": template}}))
}

fn check_rewrite(rewrite: &serde_json::Value) -> Result<(), TestCaseError> {
    let spec = json!({
        "secretStoreRef": {"name": "vault"},
        "dataFrom": [{"extract": {"key": "app"}, "rewrite": [rewrite]}],
    });
    let Ok(plan) = timed(|| plan(&serde_json::from_value(spec).unwrap(), "db"))? else {
        return Ok(());
    };
    let secret = Json::parse(corpus::JSON[0].as_bytes()).unwrap();
    let answers = [Answer::Found(Arc::new(secret))];
    timed(|| assemble(&plan, &answers))?.ok();
    Ok(())
}

fn check_yaml(yaml: &Changed) -> Result<(), TestCaseError> {
    let bytes = apply(yaml, corpus::YAML);
    timed(|| string_map(&bytes))?.ok();
    let data = BTreeMap::from([("y".to_owned(), SecretBytes::new(bytes))]);
    render(
        "{{ .y | fromYaml | toYaml | fromYaml | toJson }}",
        &Delims::default(),
        &data,
    )
}

fn check_answer(answer: &Changed, status: u16) -> Result<(), TestCaseError> {
    let body = apply(answer, corpus::ANSWERS);
    for version in [KvVersion::V1, KvVersion::V2] {
        let kv = Kv {
            mount: Some("secret".into()),
            version,
        };
        let path = kv.locate("app/db").unwrap();
        for question in [Question::Value(None), Question::Metadata, Question::Names] {
            let reply = Reply {
                status,
                retry_after: None,
                body: body.clone().into(),
            };
            timed(|| path.answer(question, reply))?.ok();
        }
        if let Ok(path) = kv.locate(&String::from_utf8_lossy(&body)) {
            path.call(Question::Value(Some(1))).ok();
        }
    }
    Ok(())
}

fn check_duration(duration: &Changed) -> Result<(), TestCaseError> {
    let source = text(apply(duration, corpus::DURATIONS));
    if let Ok(parsed) = GoDuration::parse(&source) {
        // What was read is written in a form that is read as the same.
        prop_assert_eq!(GoDuration::parse(&parsed.to_string()), Ok(parsed));
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(8000))]

    #[test]
    fn any_template_with_any_value_gets_an_answer(case in changed(), value in changed()) {
        check_template(&case, &value)?;
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn any_key_certificate_and_store_gets_an_answer(arg in changed(), which in 0..8_usize) {
        check_call(&arg, which)?;
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn any_path_through_any_json_gets_an_answer(json in changed(), path in changed()) {
        check_path(&json, &path)?;
    }

    #[test]
    fn any_yaml_gets_an_answer(yaml in changed()) {
        check_yaml(&yaml)?;
    }

    #[test]
    fn any_answer_of_vault_gets_a_meaning_or_an_error(
        answer in changed(), status in prop::sample::select(vec![200_u16, 204, 400, 403, 404, 412, 429, 503]),
    ) {
        check_answer(&answer, status)?;
    }

    #[test]
    fn any_duration_is_read_or_refused(duration in changed()) {
        check_duration(&duration)?;
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn any_pattern_and_rewrite_gets_an_answer(pattern in changed(), with in changed()) {
        check_pattern(&pattern, &with)?;
    }
}
