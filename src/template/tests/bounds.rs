//! Templates that ask for too much: each gets an answer, and none takes the process along.
//! Tests run on threads with 2 MiB of stack, as the workers of the operator do.

use super::run;
use crate::template::MissingKey;

fn refused(text: &str, cause: &str) {
    let error = run(text, &[("word", "hello")], MissingKey::Error)
        .unwrap_err()
        .to_string();
    assert!(error.contains(cause), "{error}");
}

fn output(text: &str) -> String {
    run(text, &[("word", "hello")], MissingKey::Error).unwrap()
}

fn parens(count: usize) -> String {
    format!("{{{{ {}print 1{} }}}}", "(".repeat(count), ")".repeat(count))
}

#[test]
fn parentheses_nest_to_a_limit() {
    assert_eq!(output(&parens(60)), "1");
    refused(
        &parens(65),
        "more than 64 controls and parentheses in one another",
    );
    refused(
        &parens(200_000),
        "more than 64 controls and parentheses in one another",
    );
}

#[test]
fn controls_nest_to_a_limit() {
    let nested = |count: usize| format!("{}x{}", "{{ if true }}".repeat(count), "{{ end }}".repeat(count));
    assert_eq!(output(&nested(60)), "x");
    refused(&nested(65), "more than 64 controls");
    refused(&"{{ range list 1 }}".repeat(100_000), "more than 64 controls");
    refused(&"{{ block \"a\" . }}".repeat(100_000), "more than 64 controls");
}

#[test]
fn variables_are_counted() {
    let distinct: String = (0..200_000)
        .map(|number| format!("{{{{ $v{number} := 1 }}}}"))
        .collect();
    refused(&distinct, "more than 1000 variables");
    refused(&"{{ $x := 1 }}".repeat(200_000), "more than 1000 variables");
    assert_eq!(output(&"{{ if $x := 1 }}{{ end }}".repeat(2000)), "");
}

#[test]
fn a_chain_of_else_if_is_no_nesting() {
    let text = format!(
        "{{{{ if false }}}}{}{{{{ else }}}}last{{{{ end }}}}",
        "{{ else if false }}".repeat(20_000)
    );
    assert_eq!(output(&text), "last");
}

#[test]
fn long_pipelines_and_chains_of_fields_are_no_nesting() {
    assert_eq!(output(&format!("{{{{ 1{} }}}}", " | print".repeat(20_000))), "1");
    refused(
        &format!("{{{{ .word{} }}}}", ".a".repeat(50_000)),
        "can't evaluate field a in type string",
    );
}

#[test]
fn templates_that_call_themselves_end() {
    let count = "{{ define \"N\" }}{{ if gt . 0 }}{{ template \"N\" (sub . 1) }}{{ end }}x{{ end }}";
    assert_eq!(
        output(&format!("{count}{{{{ template \"N\" (int64 50) }}}}")).len(),
        51
    );
    refused(
        "{{ define \"T\" }}{{ template \"T\" }}{{ end }}{{ template \"T\" }}",
        "exceeded maximum template depth",
    );
    refused("{{ template \"tls.crt\" }}", "exceeded maximum template depth");
}

/// The deepest that the executor goes takes less than half of a thread's stack, even without optimisation.
#[test]
fn the_deepest_template_leaves_half_of_the_stack() {
    let opening = "{{ with 1 }}{{ if true }}{{ range list 1 }}".repeat(19);
    let closing = "{{ end }}".repeat(57);
    let controls = format!(
        "{{{{ define \"T\" }}}}{opening}{{{{ template \"T\" }}}}{closing}{{{{ end }}}}{{{{ template \"T\" }}}}"
    );
    let calls = "{{ define \"T\" }}{{ template \"T\" }}{{ end }}{{ template \"T\" }}";
    let nested = format!("{{{{ print {}print 1{} }}}}", "(".repeat(63), ")".repeat(63));
    let parens = calls.replacen("{{ template", &format!("{nested}{{{{ template"), 1);
    for text in [controls, calls.into(), parens] {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let run = move || refused(&text, "exceeded maximum template depth");
        thread.spawn(run).unwrap().join().unwrap();
    }
}

#[test]
fn values_nest_to_a_limit_where_somebody_looks_into_them() {
    let nested = "{{ $x := list }}{{ range until 100000 }}{{ $x = list $x }}{{ end }}";
    assert_eq!(output(nested), "");
    refused(&format!("{nested}{{{{ print $x }}}}"), "too deep");
    refused(&format!("{nested}{{{{ $x }}}}"), "too deep");
    refused(&format!("{nested}{{{{ printf \"%#v\" $x }}}}"), "too deep");
    refused(&format!("{nested}{{{{ mustToJson $x }}}}"), "deep");
    refused(&format!("{nested}{{{{ deepCopy $x }}}}"), "deep");
    refused(&format!("{nested}{{{{ deepEqual $x (list $x) }}}}"), "deep");
}

#[test]
fn a_dict_that_holds_itself_is_printed_by_nobody() {
    let circle = "{{ $d := dict }}{{ $_ := set $d \"self\" $d }}";
    let error = run(&format!("{circle}{{{{ $d }}}}"), &[], MissingKey::Error)
        .unwrap_err()
        .to_string();
    assert!(error.contains("deep") || error.contains("itself"), "{error}");
}

#[test]
fn a_loop_that_never_ends_is_stopped() {
    refused("{{ range 1000000000000 }}{{ end }}", "steps");
    refused("{{ range 3000 }}{{ range 3000 }}{{ end }}{{ end }}", "steps");
    // Its lists are made anew each time.
    refused(
        "{{ range until 3000 }}{{ range until 3000 }}{{ end }}{{ end }}",
        "more than 32 MiB",
    );
}

#[test]
fn a_result_that_is_too_large_is_refused() {
    refused(
        "{{ range 3000 }}{{ repeat 1000 \"x\" }}{{ end }}",
        "larger than 2 MiB",
    );
    refused("{{ range 3000000 }}x{{ end }}", "larger than 2 MiB");
}

#[test]
fn text_that_is_made_and_thrown_away_counts() {
    refused(
        "{{ range 100 }}{{ $x := repeat 1000000 \"x\" }}{{ end }}",
        "more than 32 MiB of text",
    );
    refused(
        "{{ range 100 }}{{ $x := printf \"%1000000d\" 1 }}{{ end }}",
        "more than 32 MiB of text",
    );
    refused(
        "{{ range 100 }}{{ $x := printf \"%.1000000f\" 1.0 }}{{ end }}",
        "more than 32 MiB of text",
    );
}

#[test]
fn a_list_that_doubles_is_stopped() {
    refused(
        "{{ $x := list 1 }}{{ range 60 }}{{ $x = list $x $x }}{{ end }}{{ print $x }}",
        "the template",
    );
}
