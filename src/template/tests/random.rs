//! Random templates: none makes the engine panic, and the limits hold.

use proptest::prelude::*;

use super::data;
use crate::template::fmt::sprintf;
use crate::template::funcs::TABLES;
use crate::template::lex::{Kind, lex};
use crate::template::limits::Limits;
use crate::template::value::Value;
use crate::template::{Delims, MissingKey, Template};

/// Functions that take long, for they make keys.
const SLOW: &[&str] = &[
    "bcrypt",
    "derivePassword",
    "genCA",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSignedCert",
    "htpasswd",
];

fn try_out(text: &str) {
    let entries = [
        ("word", "hello"),
        ("json", "{\"a\":[1,{\"b\":null}]}"),
        ("pem", "-----BEGIN X-----"),
        ("empty", ""),
    ];
    for missing in [MissingKey::Error, MissingKey::Invalid] {
        if let Ok(template) = Template::parse("t", text, &Delims::default())
            && let Ok(output) = template.render(&data(&entries), missing)
        {
            assert!(output.expose().len() <= 2 << 20);
        }
    }
}

/// Parts of templates.
const TOKENS: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    "-}}",
    "{{- ",
    " -}}",
    " ",
    "\n",
    "text",
    "\"s\"",
    "`r`",
    "'c'",
    "1",
    "-",
    "2.5",
    "1i",
    ".",
    ".word",
    ".x",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "if",
    "else",
    "end",
    "range",
    "with",
    "define \"T\"",
    "block \"T\" .",
    "template \"T\"",
    "break",
    "continue",
    "nil",
    "true",
    "print",
    "len",
    "list",
    "dict",
    "printf",
    "\"%v\"",
    "/*",
    "*/",
    "{{ end }}",
    "{{ if .word }}",
    "{{ range list 1 2 }}",
    "{{ $x := 1 }}",
    "{{ else }}",
    "and",
    "or",
    "index",
    "é",
    "\\",
];

fn tokens() -> impl Strategy<Value = String> {
    let token = prop::sample::select(TOKENS);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.join(" "))
}

/// Arguments of functions.
const ARGUMENTS: &[&str] = &[
    "nil",
    "true",
    "0",
    "1",
    "-1",
    "3",
    "250",
    "1.5",
    "-0.5",
    "1e300",
    "9223372036854775807",
    "-9223372036854775808",
    "2i",
    "\"\"",
    "\"a\"",
    "\"é\\xff\"",
    "\"a,b,c\"",
    "\"1.2.3\"",
    "\"-7\"",
    "\"2024-02-29\"",
    "\"%v\"",
    "\"(a)\"",
    "\"$1\"",
    "\"9e99\"",
    ".word",
    ".json",
    ".pem",
    ".",
    "(list)",
    "(list 1 2 3)",
    "(list \"b\" \"a\" nil)",
    "(dict)",
    "(dict \"a\" 1)",
    "(dict \"a\" (dict \"b\" nil))",
    "(until 3)",
    "(splitList \",\" \"a,b\")",
    "(fromJson .json)",
    "(int64 5)",
    "(toDate \"2006-01-02\" \"2024-02-29\")",
    "(semver \"1.2.3-a+b\")",
    "(fromJson \"null\")",
    "(index \"abc\" 0)",
    "(list (list 1) (dict \"k\" \"v\"))",
];

fn argument() -> impl Strategy<Value = &'static str> {
    prop::sample::select(ARGUMENTS)
}

fn call() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|func| func.name)
        .filter(|name| {
            !SLOW.iter().any(|slow| name.starts_with(slow))
                && !name.contains("Pkcs12")
                && !name.contains("PKCS12")
        })
        .collect();
    (
        prop::sample::select(names),
        prop::collection::vec(argument(), 0..5),
    )
        .prop_map(|(name, args)| format!("{name} {}", args.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn tokens_in_any_order_are_no_danger(text in tokens()) {
        try_out(&text);
    }

    #[test]
    fn any_text_is_no_danger(text in any::<String>(), action in any::<String>()) {
        try_out(&text);
        try_out(&format!("{{{{ {action} }}}}{text}"));
    }

    #[test]
    fn tokens_cover_the_text_in_order(text in tokens()) {
        let tokens = lex(&text, "{{", "}}");
        let mut before = 0;
        for token in &tokens.all {
            prop_assert!(before <= token.at && token.at <= token.end && token.end <= text.len());
            prop_assert!(text.is_char_boundary(token.at) && text.is_char_boundary(token.end));
            before = token.end;
        }
        let last = tokens.all.last().map(|token| token.kind);
        prop_assert_eq!(last, Some(if tokens.error.is_some() { Kind::Error } else { Kind::Eof }));
    }

    #[test]
    fn any_call_of_any_function_gets_an_answer(calls in prop::collection::vec(call(), 1..4)) {
        let Some((first, rest)) = calls.split_first() else { return Ok(()); };
        let piped: String = rest.iter().map(|call| format!(" | {call}")).collect();
        try_out(&format!("{{{{ {first}{piped} }}}}"));
        let nested = rest.iter().fold(first.clone(), |inner, call| format!("{call} ({inner})"));
        try_out(&format!("{{{{ range $k, $v := ({nested}) }}}}{{{{ $k }}}}{{{{ $v }}}}{{{{ end }}}}"));
    }

    #[test]
    fn any_format_gets_an_answer(format in "(%[-+# 0]{0,3}[0-9*]{0,3}(\\.[0-9*]{0,2})?(\\[[0-9]?\\])?[a-zA-Z%]|.){0,6}", ints in any::<Vec<i64>>(), float in any::<f64>()) {
        let mut args: Vec<Value> = ints.into_iter().take(3).map(Value::int).collect();
        args.extend([Value::Float(float), Value::text("é\u{0}x"), Value::Nil, Value::Complex(float, -0.0)]);
        let mut limits = Limits::default();
        prop_assert!(sprintf(&mut limits, format.as_bytes(), &args).is_ok());
    }
}
