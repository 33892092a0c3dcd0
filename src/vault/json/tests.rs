#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn go(text: &str) -> String {
    Json::parse(text.as_bytes()).unwrap().to_go_string()
}

#[test]
fn objects_are_written_compact_with_sorted_keys() {
    assert_eq!(
        go(r#" { "b" : [ 1 , true , null ] , "a" : "x" } "#),
        r#"{"a":"x","b":[1,true,null]}"#
    );
}

#[test]
fn numbers_keep_the_digits_they_came_with() {
    let text = r#"[1.50,1e3,12345678901234567890123,-0,1E+2]"#;
    assert_eq!(go(text), text);
}

#[test]
fn html_characters_and_line_separators_are_escaped_as_go_does() {
    assert_eq!(
        go("[\"<a>&\u{2028}\u{2029}\"]"),
        r#"["\u003ca\u003e\u0026\u2028\u2029"]"#
    );
}

#[test]
fn html_characters_can_be_left_as_they_are_but_not_line_separators() {
    let json = Json::parse("{\"<k>\":\"<a>&\\n\u{2028}\"}".as_bytes()).unwrap();
    assert_eq!(json.to_go_string_without_html(), r#"{"<k>":"<a>&\n\u2028"}"#);
}

#[test]
fn control_characters_are_escaped_as_go_does() {
    assert_eq!(
        go(r#"["\u0000\u0008\u000c\n\r\t\u001f\u007f\"\\\/"]"#),
        "[\"\\u0000\\b\\f\\n\\r\\t\\u001f\u{7f}\\\"\\\\/\"]"
    );
}

#[test]
fn text_beyond_ascii_stays_as_it_is() {
    assert_eq!(go(r#"{"ключ":"\u00fc\ud83d\ude00"}"#), r#"{"ключ":"ü😀"}"#);
}

#[test]
fn of_two_equal_keys_the_last_one_counts() {
    assert_eq!(go(r#"{"a":1,"a":2}"#), r#"{"a":2}"#);
}

#[test]
fn debug_shows_the_kind_and_never_the_value() {
    let json = Json::parse(br#"{"password":"hunter2"}"#).unwrap();
    assert_eq!(format!("{json:?}"), "Json(an object)");
    assert_eq!(format!("{:?}", json.get("password")), "Some(Json(a string))");
}

#[test]
fn errors_tell_the_place_and_never_the_content() {
    let error = Json::parse(b"{\"password\": hunter2}").unwrap_err();
    assert_eq!(error, JsonError::Syntax { line: 1, column: 14 });
    assert!(!error.to_string().contains("hunter2"));
    assert_eq!(Json::parse(b"{\"a\":").unwrap_err(), JsonError::Truncated);
    assert_eq!(Json::parse(b"").unwrap_err(), JsonError::Truncated);
    assert!(Json::parse(b"{} {}").is_err());
}

#[test]
fn half_a_surrogate_pair_is_an_error() {
    assert_eq!(Json::parse(br#"["\ud800"]"#).unwrap_err(), JsonError::Unicode);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
    assert_eq!(
        Json::parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err(),
        JsonError::TooDeep
    );
    assert_eq!(
        Json::parse(nested(100_000).as_bytes()).unwrap_err(),
        JsonError::TooDeep
    );
}

#[test]
fn the_members_can_be_taken_out_of_an_object_only() {
    assert_eq!(Json::parse(b"{\"a\":1}").unwrap().into_object().unwrap().len(), 1);
    assert!(Json::parse(b"[1]").unwrap().into_object().is_none());
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|n| Json::Number(n.to_string())),
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_unchanged(json in any_json()) {
        let text = json.to_go_string();
        prop_assert!(Json::parse(text.as_bytes()).unwrap() == json);
    }

    #[test]
    fn no_input_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Json::parse(&bytes);
    }

    #[test]
    fn writing_never_outgrows_its_buffer(json in any_json()) {
        let text = json.to_go_string();
        prop_assert!(text.len() <= json.size_hint());
    }
}
