#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Compact and with sorted keys, as secrets come here.
const SECRET: &str = concat!(
    r##"{"@type":"db","a b":"space","big":12345678901234567890,"children":["Sara","Alex","Jack"],"##,
    r##""fav.movie":"Deer Hunter","friends":[{"age":44,"first":"Dale","nets":["ig","fb"]},"##,
    r##"{"age":68,"first":"Roger","nets":["fb"]},{"age":47,"first":"Jane","nets":["ig"]}],"##,
    r##""html":{"x":"\u003cb\u003e"},"json":"{\"pw\":\"s3\"}","name":{"first":"Tom","last":"Anderson"},"##,
    r##""nil":{"z":null},"num":{"a":1.50,"b":1e3,"c":-0.0,"d":100,"e":1e400},"##,
    r##""odd":{"":"empty","#1":"hash","@id":"at"},"yes":true}"##
);

fn at(path: &str) -> Option<String> {
    get(SECRET, path)
        .unwrap()
        .map(|bytes| String::from_utf8(bytes.expose().to_vec()).unwrap())
}

fn finds(path: &str, expected: &str) {
    assert_eq!(at(path).as_deref(), Some(expected), "{path}");
}

#[test]
fn dots_lead_into_objects_and_arrays() {
    finds("name.last", "Anderson");
    finds("children.1", "Alex");
    finds("friends.1.first", "Roger");
    finds("a b", "space");
    assert_eq!(at("name.middle"), None);
    assert_eq!(at("children.9"), None);
}

#[test]
fn wildcards_match_keys() {
    finds("child*.2", "Jack");
    finds("c?ildren.0", "Sara");
    finds("na*.f*", "Tom");
}

#[test]
fn an_escaped_dot_is_part_of_the_key() {
    finds(r"fav\.movie", "Deer Hunter");
}

#[test]
fn the_hash_counts_or_goes_through_the_elements() {
    finds("children.#", "3");
    finds("friends.#.first", r#"["Dale","Roger","Jane"]"#);
    finds("friends.#.nets|0", r#"["ig","fb"]"#);
}

#[test]
fn queries_find_the_first_element_or_all() {
    finds(r#"friends.#(first=="Roger").age"#, "68");
    finds("friends.#(age>45)#.first", r#"["Roger","Jane"]"#);
    finds(r#"friends.#(first%"D*").first"#, "Dale");
    finds(r#"friends.#(first!%"D*").first"#, "Roger");
    finds(r#"friends.#(nets.#(=="fb"))#.first"#, r#"["Dale","Roger"]"#);
}

#[test]
fn modifiers_of_the_crate_work() {
    finds("children|@reverse", r#"["Jack","Alex","Sara"]"#);
    finds("children.@reverse.0", "Jack");
    finds("@this.name.first", "Tom");
    finds("friends.#.nets|@flatten", r#"["ig","fb","fb","ig"]"#);
    finds(r#"name.@pretty:{"indent":"","sortKeys":true}.first"#, "Tom");
}

#[test]
fn modifiers_that_the_crate_lacks_work() {
    finds("name.@keys", r#"["first","last"]"#);
    finds("name|@values", r#"["Tom","Anderson"]"#);
    finds("name.@values.1", "Anderson");
    finds("children|@values", r#"["Sara","Alex","Jack"]"#);
    finds("children|@keys", "[null,null,null]");
    finds("yes|@keys", "[]");
    finds("json.@fromstr.pw", "s3");
    finds("json|@fromstr|@keys|0", "pw");
    finds("name.@tostr", r#"{"first":"Tom","last":"Anderson"}"#);
    finds("name.@tostr.@fromstr.first", "Tom");
    finds("friends.#.first|@values|1", "Roger");
    assert_eq!(at("name.first.@fromstr"), None);
}

#[test]
fn a_modifier_that_the_crate_lacks_is_refused_where_it_cannot_be_supplied() {
    for path in [
        "friends.#.@keys",
        "friends.#(age>45)#.@values",
        "[name.@keys,yes]",
        "name.@dig:first",
        "{a:@tostr}",
        "@group",
    ] {
        assert!(
            matches!(get(SECRET, path), Err(PathError::NotServed(_))),
            "{path}"
        );
    }
}

#[test]
fn literals_are_refused_and_not_left_out() {
    for path in [r#"!"x""#, r#"{name,"x":!"y"}"#, "[!1,yes]", "name.!true"] {
        assert!(
            matches!(get(SECRET, path), Err(PathError::NotServed(_))),
            "{path}"
        );
    }
}

#[test]
fn multipaths_build_arrays_and_objects() {
    finds("[name.first,yes]", r#"["Tom",true]"#);
    finds("{name.first,age:friends.0.age}", r#"{"first":"Tom","age":44}"#);
    finds(
        r#"{"who":name.first,"age":friends.0.age}"#,
        r#"{"who":"Tom","age":44}"#,
    );
    finds("friends.#.{first,age}|0", r#"{"first":"Dale","age":44}"#);
    assert!(matches!(
        get(SECRET, r#"{"a\"b":yes}"#),
        Err(PathError::NotServed(_))
    ));
}

#[test]
fn keys_that_look_like_modifiers_or_queries_are_keys() {
    finds("odd.@id", "at");
    finds("odd.#1", "hash");
    finds("@type", "db");
}

#[test]
fn numbers_are_printed_as_go_prints_them_and_integers_as_they_are() {
    finds("num.a", "1.5");
    finds("num.b", "1000");
    finds("num.c", "-0");
    finds("num.d", "100");
    finds("num.e", "1e400");
    finds("big", "12345678901234567890");
    finds("num", r#"{"a":1.50,"b":1e3,"c":-0.0,"d":100,"e":1e400}"#);
}

#[test]
fn booleans_null_strings_and_objects_have_their_text() {
    finds("yes", "true");
    finds("nil.z", "");
    finds("html.x", "<b>");
    finds("html", r#"{"x":"\u003cb\u003e"}"#);
}

#[test]
fn an_escape_cut_in_the_middle_of_a_character_is_an_error_and_no_broken_text() {
    let path = "name.@pretty:{\"indent\":\"\\u000é\"}";
    assert_eq!(get(SECRET, path), Err(PathError::Garbled));
}

#[test]
fn deep_recursion_does_not_break_the_stack() {
    let brackets = format!("{}yes{}", "[".repeat(250), "]".repeat(250));
    for path in [
        brackets,
        "#(".repeat(250),
        ["@this"; 80].join("|"),
        ["a"; 250].join("."),
        "#.".repeat(250),
    ] {
        let nested = format!("{}1{}", "[".repeat(120), "]".repeat(120));
        let _ = get(SECRET, &path);
        let _ = get(&nested, &path);
        let _ = get(&format!(r#"{{"a":{nested}}}"#), &path);
    }
}

/// Pieces of the path language, so that random paths reach deep into the evaluation.
fn any_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "a", "name", "first", "friends", "children", "json", "0", "1", "*", "?", ".", "|", "#", "(", ")", "[",
            "]", "{", "}", ",", ":", "\"", "\\", "@", "!", "=", "%", ">", "<", "~", "@this", "@reverse", "@ugly",
            "@pretty", "@valid", "@flatten", "@join", "@keys", "@values", "@tostr", "@fromstr", "#(", ")#", "#.",
            "{\"indent\":\"", "\\u12", "é", "..", " ", "true", "null", "-", "1e3",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_path_makes_it_panic_or_give_broken_text(path in any_path()) {
        if let Ok(Some(bytes)) = get(SECRET, &path) {
            prop_assert!(std::str::from_utf8(bytes.expose()).is_ok());
        }
        let _ = get("[]", &path);
        let _ = get("{}", &path);
        let _ = get(r#"[["é\n\"x\u00e9",1],{"a":{"a":[null,-1.5e3]}}]"#, &path);
    }

    #[test]
    fn every_top_level_key_of_plain_letters_is_found(key in "[a-z]{1,8}", value in any::<String>()) {
        let json = format!("{{{}:{}}}", go_string(&key).as_str(), go_string(&value).as_str());
        let found = get(&json, &key).unwrap().unwrap();
        prop_assert_eq!(found.expose(), value.as_bytes());
    }
}
