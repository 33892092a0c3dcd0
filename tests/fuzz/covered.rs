//! Every function of `src` that reads what comes from outside has a target here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// File, function, and the target that reaches it.
const COVERED: &[(&str, &str, &str)] = &[
    ("api/duration.rs", "parse", "any_duration_is_read_or_refused"),
    (
        "store/allowed_paths.rs",
        "compile",
        "any_allowed_path_is_reached_through_its_folders",
    ),
    ("store/auth/mod.rs", "resolve", "any_store_is_resolved_or_refused"),
    (
        "store/conditions.rs",
        "compile",
        "any_condition_is_compiled_or_refused",
    ),
    ("store/fake.rs", "resolve", "any_store_is_resolved_or_refused"),
    ("store/settings.rs", "resolve", "any_store_is_resolved_or_refused"),
    (
        "sync/cron.rs",
        "parse",
        "any_window_is_read_or_refused_and_opens_in_the_future",
    ),
    ("sync/decode.rs", "decode", "any_value_is_decoded_or_refused"),
    (
        "sync/windows.rs",
        "parse",
        "any_window_is_read_or_refused_and_opens_in_the_future",
    ),
    (
        "target/manifest_path.rs",
        "parse",
        "any_place_of_a_manifest_leaves_identity_alone",
    ),
    (
        "template/funcs/numbers.rs",
        "parse_float",
        "any_template_with_any_value_gets_an_answer",
    ),
    (
        "template/funcs/numbers.rs",
        "parse_int",
        "any_template_with_any_value_gets_an_answer",
    ),
    (
        "template/layout/read.rs",
        "parse",
        "any_template_with_any_value_gets_an_answer",
    ),
    (
        "template/mod.rs",
        "parse",
        "any_template_with_any_value_gets_an_answer",
    ),
    (
        "template/re2.rs",
        "compile",
        "any_pattern_and_rewrite_gets_an_answer",
    ),
    (
        "template/time.rs",
        "parse_duration",
        "any_template_with_any_value_gets_an_answer",
    ),
    (
        "vault/json.rs",
        "parse",
        "any_path_through_any_json_gets_an_answer",
    ),
    (
        "vault/json.rs",
        "parse_levels",
        "any_answer_of_vault_gets_a_meaning_or_an_error",
    ),
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_public_function_that_reads_from_outside_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut targets) = (Vec::new(), Vec::new());
    rust_files(&root.join("src"), &mut sources);
    rust_files(&root.join("tests/fuzz"), &mut targets);
    let entry = Regex::new(r"(?m)^\s*pub fn ((?:parse|compile|decode|resolve)\w*)\s*[(<]").unwrap();
    let mut there = BTreeSet::new();
    for file in sources {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root.join("src")).unwrap().display().to_string();
        there.extend(
            entry
                .captures_iter(&text)
                .map(|found| (name.clone(), found[1].to_owned())),
        );
    }
    let listed: BTreeSet<_> = COVERED
        .iter()
        .map(|(file, function, _)| ((*file).to_owned(), (*function).to_owned()))
        .collect();
    assert_eq!(there, listed, "what reads from outside, and what the table lists");
    let targets: String = targets
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for (file, function, target) in COVERED {
        assert!(
            targets.contains(&format!("fn {target}(")),
            "{file} {function}: no target {target}"
        );
    }
}
