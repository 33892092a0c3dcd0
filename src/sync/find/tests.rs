#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn found(value: &Value) -> Answer {
    Answer::Found(Arc::new(Json::parse(value.to_string().as_bytes()).unwrap()))
}

/// A mount: secrets by path, with value and metadata. A null value is a deleted secret.
struct Mount(BTreeMap<&'static str, (Value, Value)>);

impl Mount {
    /// The tree of ESO's own test table.
    fn of_eso() -> Self {
        let secret = |value: &str| json!({"access_secret": value, "access_key": value});
        Self(BTreeMap::from([
            ("secret1", (secret("1"), json!({"foo": "bar"}))),
            ("secret2", (secret("2"), json!({"foo": "baz", "team": "a"}))),
            ("secret3", (Value::Null, json!({"foo": "baz"}))),
            ("tag", (secret("t"), json!({"foo": "baz"}))),
            ("path/1", (secret("p1"), json!({"foo": "path"}))),
            ("path/2", (secret("p2"), json!({"foo": "path"}))),
            ("path/deep/3", (secret("p3"), json!({}))),
        ]))
    }

    fn answer(&self, base: &str, ask: &Ask) -> Answer {
        let whole = |path: &str| {
            let path = format!("{base}/{path}");
            path.trim_start_matches('/').to_owned()
        };
        match ask {
            Ask::Names(folder) => {
                let folder = whole(folder);
                let below = self
                    .0
                    .keys()
                    .filter_map(|path| path.strip_prefix(folder.as_str()));
                let mut names: Vec<String> = below
                    .map(|rest| match rest.split_once('/') {
                        Some((first, _)) => format!("{first}/"),
                        None => rest.to_owned(),
                    })
                    .collect();
                names.dedup();
                if names.is_empty() {
                    Answer::Missing
                } else {
                    found(&json!(names))
                }
            }
            Ask::Metadata(path) => self
                .0
                .get(whole(path).as_str())
                .map_or(Answer::Missing, |(_, metadata)| found(metadata)),
            Ask::Value(path) => match self.0.get(whole(path).as_str()) {
                None | Some((Value::Null, _)) => Answer::Missing,
                Some((value, _)) => found(value),
            },
        }
    }

    /// Names and values, and everything that was asked; none if the folder is missing.
    #[allow(clippy::type_complexity)]
    fn search(
        &self,
        path: &str,
        filter: &Filter,
    ) -> Result<(Option<Vec<(String, String)>>, Vec<Ask>), FindError> {
        let (mut search, first) = Search::begin(path, filter);
        let (mut waiting, mut asked) = (vec![first], Vec::new());
        while let Some(ask) = waiting.pop() {
            asked.push(ask.clone());
            let answer = self.answer(path, &ask);
            waiting.extend(search.tell(ask, answer)?);
        }
        let found = match search.end() {
            Answer::Many(found) => Some(found),
            _ => None,
        };
        let text = |value: SecretBytes| String::from_utf8(value.expose().to_vec()).unwrap();
        let found = found.map(|found| {
            found
                .into_iter()
                .map(|(name, value)| (name, text(value)))
                .collect()
        });
        Ok((found, asked))
    }

    fn names(&self, path: &str, filter: &Filter) -> Vec<String> {
        let (found, _) = self.search(path, filter).unwrap();
        found.unwrap().into_iter().map(|(name, _)| name).collect()
    }
}

fn by_name(regexp: &str) -> Filter {
    Filter::new(Some(regexp.into()), None).unwrap()
}

fn by_tags(tags: &[(&str, &str)]) -> Filter {
    let tags = tags.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    Filter::new(None, Some(tags.collect())).unwrap()
}

fn all() -> Filter {
    Filter::new(None, None).unwrap()
}

#[test]
fn secrets_are_found_by_name_as_whole_json_and_deleted_ones_are_left_out() {
    let (found, _) = Mount::of_eso().search("", &by_name("secret.*")).unwrap();
    let json = |value: &str| format!(r#"{{"access_key":"{value}","access_secret":"{value}"}}"#);
    assert_eq!(
        found.unwrap(),
        [
            ("secret1".to_owned(), json("1")),
            ("secret2".to_owned(), json("2"))
        ]
    );
}

#[test]
fn a_name_is_matched_anywhere_in_the_path_and_the_path_begins_with_find_path() {
    let mount = Mount::of_eso();
    assert_eq!(mount.names("", &by_name("^path/[12]$")), ["path/1", "path/2"]);
    assert_eq!(mount.names("", &by_name("eep")), ["path/deep/3"]);
    assert_eq!(mount.names("path", &by_name("^path/1")), ["path/1"]);
    assert_eq!(mount.names("path", &by_name("^1")), [""; 0]);
    assert_eq!(mount.names("/path", &by_name("^/path/1")), ["/path/1"]);
    assert_eq!(
        mount.names("path", &by_name("")),
        ["path/1", "path/2", "path/deep/3"]
    );
}

#[test]
fn all_tags_must_match() {
    let mount = Mount::of_eso();
    assert_eq!(mount.names("", &by_tags(&[("foo", "baz")])), ["secret2", "tag"]);
    assert_eq!(
        mount.names("", &by_tags(&[("foo", "baz"), ("team", "a")])),
        ["secret2"]
    );
    assert_eq!(
        mount.names("path", &by_tags(&[("foo", "path")])),
        ["path/1", "path/2"]
    );
}

#[test]
fn a_folder_alone_is_everything_below_it_and_asks_for_no_metadata() {
    let (found, asked) = Mount::of_eso().search("path", &all()).unwrap();
    let names: Vec<String> = found.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["path/1", "path/2", "path/deep/3"]);
    assert!(!asked.iter().any(|ask| matches!(ask, Ask::Metadata(_))));
    assert_eq!(Mount::of_eso().names("", &by_tags(&[])).len(), 6);
}

#[test]
fn tags_do_not_count_beside_a_name_as_in_eso() {
    let tags = BTreeMap::from([("foo".to_owned(), "bar".to_owned())]);
    let filter = Filter::new(Some("^tag$".into()), Some(tags)).unwrap();
    let (found, asked) = Mount::of_eso().search("", &filter).unwrap();
    assert_eq!(found.unwrap().len(), 1);
    assert!(filter.has_tags() && !asked.iter().any(|ask| matches!(ask, Ask::Metadata(_))));
}

#[test]
fn only_what_matches_is_read() {
    let (_, asked) = Mount::of_eso().search("", &by_name("^tag$")).unwrap();
    let read: Vec<&Ask> = asked.iter().filter(|ask| matches!(ask, Ask::Value(_))).collect();
    assert_eq!(read, [&Ask::Value("tag".into())]);
}

#[test]
fn a_folder_that_is_missing_is_not_one_in_which_nothing_fits() {
    let mount = Mount::of_eso();
    assert_eq!(mount.search("gone", &all()).unwrap().0, None);
    assert_eq!(mount.search("path", &by_name("nothing")).unwrap().0, Some(vec![]));
}

#[test]
fn a_folder_that_vanished_meanwhile_ends_no_search() {
    let filter = all();
    let (mut search, first) = Search::begin("", &filter);
    let asks = search.tell(first, found(&json!(["a/", "b"]))).unwrap();
    assert_eq!(asks, [Ask::Names("a/".into()), Ask::Value("b".into())]);
    for ask in asks {
        let answer = match ask {
            Ask::Names(_) => Answer::Missing,
            _ => found(&json!({"k": "v"})),
        };
        search.tell(ask, answer).unwrap();
    }
    assert!(matches!(search.end(), Answer::Many(found) if found.len() == 1));
}

#[test]
fn metadata_that_vanished_meanwhile_are_an_error_as_in_eso() {
    let filter = by_tags(&[("foo", "baz")]);
    let (mut search, first) = Search::begin("path", &filter);
    let mut asks = search.tell(first, found(&json!(["1"]))).unwrap();
    let error = search.tell(asks.remove(0), Answer::Missing).unwrap_err();
    assert!(
        error.to_string().contains("\"path/1\": secret not found"),
        "{error}"
    );
}

#[test]
fn a_bad_expression_is_refused_before_anything_is_asked() {
    for regexp in ["(", "*a", "[b-a]"] {
        assert!(Filter::new(Some(regexp.into()), None).is_err(), "{regexp}");
    }
}

/// Lists a folder that always has these names.
fn told(filter: &Filter, path: &str, names: &[String]) -> Result<Vec<Ask>, FindError> {
    let (mut search, _) = Search::begin("top", filter);
    search.tell(Ask::Names(path.into()), found(&json!(names)))
}

#[test]
fn bounds_are_told_with_what_to_do() {
    let names = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    let none = by_name("^$");
    assert!(told(&none, "", &names(MAX_NAMES)).is_ok());
    assert_eq!(
        told(&none, "", &names(MAX_NAMES + 1)),
        Err(FindError::TooManyNames)
    );
    assert!(told(&all(), "", &names(MAX_SECRETS)).is_ok());
    assert_eq!(
        told(&all(), "", &names(MAX_SECRETS + 1)),
        Err(FindError::TooManySecrets)
    );
    let folder = "f/".repeat(MAX_DEPTH - 1);
    assert!(told(&all(), &folder, &["f/".into()]).is_ok());
    let folder = "f/".repeat(MAX_DEPTH);
    let error = told(&all(), &folder, &["f/".into()]).unwrap_err().to_string();
    assert!(
        error.contains("folder \"top/f/") && error.contains("set find.path"),
        "{error}"
    );
}

#[test]
fn more_bytes_than_any_secret_holds_are_not_gathered() {
    let filter = all();
    let (mut search, _) = Search::begin("", &filter);
    let large = found(&json!({"k": "x".repeat(MAX_BYTES / 2)}));
    search.tell(Ask::Value("a".into()), large.clone()).unwrap();
    let error = search.tell(Ask::Value("b".into()), large).unwrap_err();
    assert_eq!(error, FindError::TooLarge);
    assert!(error.to_string().contains("8 MiB"), "{error}");
}

#[test]
fn names_that_name_nothing_are_passed_over() {
    let asks = told(&all(), "", &["/".into(), String::new(), "a".into()]).unwrap();
    assert_eq!(asks, [Ask::Value("a".into())]);
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(kind in 0..3u8, path in ".{0,8}", answer in "\\[(\"[a-z/]{0,3}\",){0,3}\"x\"\\]|\\{\\}|null|7") {
        let filter = by_tags(&[("a", "b")]);
        let (mut search, _) = Search::begin("p", &filter);
        let ask = match kind {
            0 => Ask::Names(path),
            1 => Ask::Metadata(path),
            _ => Ask::Value(path),
        };
        let json = Json::parse(answer.as_bytes()).unwrap();
        let _ = search.tell(ask, Answer::Found(Arc::new(json)));
    }
}

#[test]
fn a_name_that_is_too_long_or_an_expression_that_would_take_too_long_fails_the_search() {
    let told = |filter: &Filter, name: &str| {
        let (mut search, first) = Search::begin("", filter);
        search.tell(first, found(&json!(["app", name])))
    };
    let usual = by_name("^team-[a-z0-9-]{1,60}$");
    assert!(told(&usual, &"a".repeat(MAX_NAME)).is_ok());
    assert_eq!(told(&usual, &"a".repeat(MAX_NAME + 1)), Err(FindError::LongName));
    let large = by_name(&"[ab]{1000}".repeat(20));
    assert!(told(&large, "app").is_ok());
    assert_eq!(told(&large, &"ab".repeat(MAX_NAME / 2)), Err(FindError::Costly));
    // Of several folders that one search looks through, each takes from what is left.
    let (mut search, first) = Search::begin("", &usual);
    search.left = Duration::ZERO;
    assert_eq!(search.tell(first, found(&json!(["app"]))), Err(FindError::Costly));
    // What is too late is not compared at all.
    let late = Expression::compile("a".into()).unwrap();
    assert_eq!(
        late.is_match("a", Instant::now() - Duration::from_secs(1)),
        Err(FindError::Costly)
    );
}

#[test]
fn filters_are_the_same_if_their_texts_are() {
    assert_eq!(by_name("a"), by_name("a"));
    assert!(by_name("a") < by_name("b") && by_name("a") != by_tags(&[("a", "b")]));
}
