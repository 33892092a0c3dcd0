//! The worst that a template may ask for ends in time: by a result, or by an error that says which limit it met.

use std::time::{Duration, Instant};

use keyferry::template::{Delims, MissingKey, Template};

/// More than the limit of 5 s: a debug build, and what is under way when the time is over.
const PATIENCE: Duration = Duration::from_secs(15);

const WORST: &[&str] = &[
    r#"{{ range until 2000 }}{{ range until 2000 }}{{ range until 2000 }}x{{ end }}{{ end }}{{ end }}"#,
    r#"{{ repeat 2000000000 "x" }}"#,
    r#"{{ until 2000000000 }}"#,
    r#"{{ seq 1 2000000000 }}"#,
    r#"{{ printf "%1000000000d" 1 }}"#,
    r#"{{ range until 1000 }}{{ genPrivateKey "rsa" }}{{ end }}"#,
    r#"{{ range until 1000 }}{{ derivePassword 1 "maximum" "a" "b" "c" }}{{ end }}"#,
    r#"{{ range until 1000 }}{{ bcrypt "password" }}{{ end }}"#,
    r#"{{ range until 100000 }}{{ "x" | repeat 100000 | sha512sum }}{{ end }}"#,
    r#"{{ regexMatch "(x+x+)+y" (repeat 1000000 "x") }}"#,
    r#"{{ regexReplaceAll "" (repeat 1000000 "x") (repeat 1000 "y") }}"#,
    r#"{{ range until 1000 }}{{ regexMatch "(a|b|[c-z]{1,50}){1,20}$" (repeat 100000 "ab") }}{{ end }}"#,
    r#"{{ $l := splitList "" (repeat 1000000 "ba") }}{{ range until 100 }}{{ sortAlpha $l }}{{ end }}"#,
    r#"{{ $d := dict }}{{ range $i := until 100000 }}{{ $_ := set $d (toString $i) (deepCopy $d) }}{{ end }}"#,
    r#"{{ fromJson (repeat 1000000 "[") }}"#,
    r#"{{ fromYaml (printf "a: &a [x]\nb: &b [%s]" (repeat 100000 "*a,")) }}"#,
    r#"{{ define "a" }}{{ template "a" }}{{ template "a" }}{{ end }}{{ template "a" }}"#,
];

#[test]
fn the_worst_templates_end_in_time() {
    let slow: Vec<&str> = WORST
        .iter()
        .copied()
        .filter(|text| {
            let began = Instant::now();
            let _ = Template::parse("worst", text, &Delims::default())
                .map(|template| template.render(&[].into(), MissingKey::Error));
            began.elapsed() > PATIENCE
        })
        .collect();
    assert!(slow.is_empty(), "{slow:#?}");
}
