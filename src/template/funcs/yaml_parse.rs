//! Reads the first document of a YAML text into [`Data`], with the rules of Go's `yaml.v2`.

use std::collections::{BTreeMap, HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle, Tag, options};

use super::super::Fault;
use super::super::encoding::decode_64;
use super::{Data, Scalar, go_float, resolve};
use crate::template::fmt_quote::quote;
use crate::template::limits::Limits;
use crate::template::value::NESTING;

const CORE: &str = "tag:yaml.org,2002:";

/// Reads it. The inner error is one that Go's library gives, the outer one that a limit is reached.
///
/// # Errors
/// If a limit is reached.
pub fn document(limits: &mut Limits, text: &[u8]) -> Result<Result<Data, Problem>, Fault> {
    let Ok(text) = str::from_utf8(text) else {
        return Ok(Err(Problem::plain("the text is not UTF-8")));
    };
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{A0}'..='\u{FFFD}' | '\u{10000}'..);
    if !text.chars().all(allowed) {
        return Ok(Err(Problem::plain("control characters are not allowed")));
    }
    let (nodes, root) = match tree(limits, text) {
        Ok(Some((nodes, root))) => (nodes, root),
        Ok(None) => return Ok(Ok(Data::Null)),
        Err(Stop::Fault(fault)) => return Err(fault),
        Err(Stop::Yaml(problem)) => return Ok(Err(problem)),
    };
    let mut decoder = Decoder {
        nodes: &nodes,
        limits,
        active: HashSet::new(),
        count: 0,
        aliased: 0,
        depth: 0,
    };
    match decoder.decode(root) {
        Ok(data) => Ok(Ok(data)),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Yaml(problem)) => Ok(Err(problem)),
    }
}

/// What is wrong with a text.
pub struct Problem {
    /// In Go's words where a template can see them.
    pub text: String,
    /// Whether these show a part of the text, which then must stay among the template's data.
    pub shows: bool,
}

impl Problem {
    fn plain(text: &str) -> Self {
        Self {
            text: format!("yaml: {text}"),
            shows: false,
        }
    }
}

/// Why reading ended.
enum Stop {
    Fault(Fault),
    Yaml(Problem),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn wrong(text: &str) -> Stop {
    Stop::Yaml(Problem::plain(text))
}

enum Node {
    /// Text, tag, and whether it stands without quotes.
    Scalar(String, Option<String>, bool),
    List(Vec<usize>),
    Map(Vec<usize>),
    Alias(usize),
}

/// The tag in full; `None` for the `!` that stands for none.
fn full(tag: Option<&Tag>) -> Option<String> {
    let tag = tag?;
    let full = format!("{}{}", tag.handle(), tag.suffix());
    (full != "!").then_some(full)
}

/// The nodes of the first document, and the root's index.
fn tree(limits: &mut Limits, text: &str) -> Result<Option<(Vec<Node>, usize)>, Stop> {
    let options = options! { block_scalar_eof_without_line_feed: true, emit_comments: false };
    let mut nodes: Vec<Node> = Vec::new();
    let mut anchors: HashMap<usize, usize> = HashMap::new();
    let mut open: Vec<usize> = Vec::new();
    let mut root = None;
    let mut tabs = Tabs::new(text);
    for event in Parser::new_from_str_with_options(text, options) {
        limits.step(1)?;
        limits.grow(size_of::<Node>())?;
        let (event, span) =
            event.map_err(|error| wrong(&format!("line {}: wrong syntax", error.marker().line())))?;
        let index = nodes.len();
        let line = span.start.line();
        if tabs.misplaced(&event, line, span.start.col()) {
            return Err(wrong(&format!(
                "line {line}: found character that cannot start any token"
            )));
        }
        let (node, anchor, opens) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let bare = tag.as_deref().is_some_and(|tag| full(Some(tag)).is_none());
                // Nothing after such a tag is an empty text.
                let plain =
                    style == ScalarStyle::Plain && !(bare && text.is_empty()) || bare && !text.is_empty();
                (
                    Node::Scalar(text.into_owned(), full(tag.as_deref()), plain),
                    anchor,
                    false,
                )
            }
            Event::SequenceStart(_, anchor, _) => (Node::List(Vec::new()), anchor, true),
            Event::MappingStart(_, anchor, _) => (Node::Map(Vec::new()), anchor, true),
            Event::Alias(id) => match anchors.get(&id) {
                Some(target) => (Node::Alias(*target), 0, false),
                None => return Err(wrong("unknown anchor referenced")),
            },
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                continue;
            }
            Event::DocumentEnd | Event::StreamEnd => break,
            _ => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, index);
        }
        nodes.push(node);
        match open.last().and_then(|parent| nodes.get_mut(*parent)) {
            Some(Node::List(items) | Node::Map(items)) => items.push(index),
            _ => root = root.or(Some(index)),
        }
        if opens {
            open.push(index);
        }
    }
    Ok(root.map(|root| (nodes, root)))
}

/// Looks for tabs where Go's library wants spaces.
struct Tabs<'a> {
    /// The lines of a text that has tabs.
    lines: Vec<&'a str>,
    /// How many lists and maps in brackets are open; within these tabs may stand anywhere.
    flows: usize,
}

impl<'a> Tabs<'a> {
    fn new(text: &'a str) -> Self {
        let lines = if text.contains('\t') {
            text.split('\n').collect()
        } else {
            Vec::new()
        };
        Self { lines, flows: 0 }
    }

    /// Whether a tab comes before a node at the start of a line, after `-` or after `?`.
    fn misplaced(&mut self, event: &Event, line: usize, column: usize) -> bool {
        let outside = self.flows == 0;
        let node = match event {
            // A value that is not there has no place of its own.
            Event::Scalar(text, style, ..) => *style != ScalarStyle::Plain || !text.is_empty(),
            Event::Alias(_) => true,
            Event::SequenceStart(style, ..) | Event::MappingStart(style, ..) => {
                // Within brackets there are no others.
                if self.flows > 0 || *style == StructureStyle::Flow {
                    self.flows = self.flows.saturating_add(1);
                }
                true
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.flows = self.flows.saturating_sub(1);
                false
            }
            _ => false,
        };
        let Some(line) = line.checked_sub(1).and_then(|line| self.lines.get(line)) else {
            return false;
        };
        let before: String = line.chars().take(column).collect();
        let indicators = before.trim_end_matches([' ', '\t']);
        let spaces = before.get(indicators.len()..).unwrap_or_default();
        let last = indicators.rsplit([' ', '\t']).next().unwrap_or_default();
        node && outside && spaces.contains('\t') && matches!(last, "" | "-" | "?")
    }
}

struct Decoder<'a> {
    nodes: &'a [Node],
    limits: &'a mut Limits,
    /// The aliases that are being followed.
    active: HashSet<usize>,
    count: u64,
    /// How many of them came from aliases.
    aliased: u64,
    depth: usize,
}

impl Decoder<'_> {
    /// Counts a node as the library does, against aliases that multiply.
    fn enter(&mut self) -> Result<(), Stop> {
        self.limits.step(1)?;
        self.limits.grow(size_of::<Data>())?;
        if self.depth > NESTING.saturating_mul(2) {
            return Err(wrong("the text is nested too deeply"));
        }
        self.count = self.count.saturating_add(1);
        if !self.active.is_empty() {
            self.aliased = self.aliased.saturating_add(1);
        }
        let (low, high) = (400_000.0, 4_000_000.0);
        let over = ((self.count as f64 - low) / (high - low)).clamp(0.0, 1.0);
        let allowed = 0.99 - 0.89 * over;
        if self.aliased > 100 && self.count > 1000 && self.aliased as f64 / self.count as f64 > allowed {
            return Err(wrong("document contains excessive aliasing"));
        }
        Ok(())
    }

    fn decode(&mut self, index: usize) -> Result<Data, Stop> {
        self.enter()?;
        let nodes = self.nodes;
        self.depth = self.depth.saturating_add(1);
        let data = match nodes.get(index) {
            Some(Node::Scalar(text, tag, plain)) => {
                self.limits.grow(text.len())?;
                scalar(text, tag.as_deref(), *plain)?
            }
            Some(Node::List(items)) => Data::List(
                items
                    .iter()
                    .map(|item| self.decode(*item))
                    .collect::<Result<_, _>>()?,
            ),
            Some(Node::Map(items)) => {
                let mut map = BTreeMap::new();
                self.entries(items, &mut map)?;
                Data::Map(map)
            }
            Some(Node::Alias(target)) => {
                self.follow(index)?;
                let data = self.decode(*target)?;
                self.active.remove(&index);
                data
            }
            None => Data::Null,
        };
        self.depth = self.depth.saturating_sub(1);
        Ok(data)
    }

    fn follow(&mut self, alias: usize) -> Result<(), Stop> {
        if self.active.insert(alias) {
            return Ok(());
        }
        Err(wrong("the value of an anchor contains itself"))
    }

    fn entries(&mut self, items: &[usize], map: &mut BTreeMap<Vec<u8>, Data>) -> Result<(), Stop> {
        let nodes = self.nodes;
        for pair in items.chunks(2) {
            let &[key, value] = pair else {
                continue;
            };
            if let Some(Node::Scalar(text, tag, plain)) = nodes.get(key) {
                let merges = tag
                    .as_ref()
                    .map_or(*plain, |tag| tag.strip_prefix(CORE) == Some("merge"));
                if text == "<<" && merges {
                    self.merge(value, map, true)?;
                    continue;
                }
            }
            let key = match self.decode(key)? {
                Data::Text(text) => text,
                Data::Bool(is) => is.to_string().into_bytes(),
                Data::Int(number) => number.to_string().into_bytes(),
                Data::Float(number) => match go_float(number, true).as_str() {
                    "+Inf" => b".inf".to_vec(),
                    "-Inf" => b"-.inf".to_vec(),
                    "NaN" => b".nan".to_vec(),
                    text => text.as_bytes().to_vec(),
                },
                key @ (Data::Null | Data::Uint(_)) => {
                    let value = self.decode(value)?;
                    return Err(Stop::Yaml(Problem {
                        text: bad_key(&key, &value),
                        shows: true,
                    }));
                }
                Data::List(_) | Data::Map(_) => return Err(wrong("invalid map key: a list or a map")),
            };
            let value = self.decode(value)?;
            map.insert(key, value);
        }
        Ok(())
    }

    /// Takes over the entries of the map or maps behind `<<`, also in place of entries before it.
    fn merge(&mut self, index: usize, map: &mut BTreeMap<Vec<u8>, Data>, list: bool) -> Result<(), Stop> {
        let want = || wrong("map merge requires map or sequence of maps as the value");
        let nodes = self.nodes;
        self.enter()?;
        self.depth = self.depth.saturating_add(1);
        match nodes.get(index) {
            Some(Node::Map(items)) => self.entries(items, map)?,
            Some(Node::Alias(target)) => match nodes.get(*target) {
                Some(Node::Map(items)) => {
                    self.follow(index)?;
                    self.enter()?;
                    self.entries(items, map)?;
                    self.active.remove(&index);
                }
                _ => return Err(want()),
            },
            // Earlier ones win.
            Some(Node::List(items)) if list => {
                for item in items.iter().rev() {
                    self.merge(*item, map, false)?;
                }
            }
            _ => return Err(want()),
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }
}

/// Go's words for a key that JSON cannot have. They are put into the template's data.
fn bad_key(key: &Data, value: &Data) -> String {
    let shown = |data: &Data| match data {
        Data::Null => "<nil>".into(),
        Data::Bool(is) => is.to_string(),
        Data::Int(number) => number.to_string(),
        Data::Uint(number) => format!("{number:#x}"),
        Data::Float(number) => go_float(*number, false),
        Data::Text(text) => quote(text, false),
        Data::List(_) => "a list".into(),
        Data::Map(_) => "a map".into(),
    };
    let kind = if matches!(key, Data::Null) {
        "%!s(<nil>)"
    } else {
        "uint64"
    };
    format!(
        "unsupported map key of type: {kind}, key: {}, value: {}",
        shown(key),
        shown(value)
    )
}

fn scalar(text: &str, tag: Option<&str>, plain: bool) -> Result<Data, Stop> {
    let own = || Data::Text(text.as_bytes().to_vec());
    let core = match tag {
        None if !plain => return Ok(own()),
        None => "",
        Some(tag) => tag.strip_prefix(CORE).unwrap_or("other"),
    };
    let found = resolve(text);
    let fits = match (core, &found) {
        ("str", _) => true,
        ("binary", _) => {
            let data = decode_64(text.as_bytes()).map(Data::Text);
            return data.map_err(|_| wrong("!!binary value contains invalid base64 data"));
        }
        ("" | "null", Scalar::Null) => return Ok(Data::Null),
        ("" | "bool", Scalar::Bool(is)) => return Ok(Data::Bool(*is)),
        ("" | "int", Scalar::Int(number)) => return Ok(Data::Int(*number)),
        ("" | "int", Scalar::Uint(number)) => return Ok(Data::Uint(*number)),
        ("" | "float", Scalar::Float(number)) => return Ok(Data::Float(*number)),
        ("float", Scalar::Int(number)) => return Ok(Data::Float(*number as f64)),
        ("timestamp", found) => matches!(found, Scalar::Time),
        ("", Scalar::Text | Scalar::Time) => true,
        (core, _) => !matches!(core, "null" | "bool" | "int" | "float"),
    };
    if fits {
        return Ok(own());
    }
    let is = match found {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) | Scalar::Uint(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::Time => "timestamp",
        Scalar::Text => "str",
    };
    let text = format!("yaml: cannot decode !!{is} `{text}` as a !!{core}");
    Err(Stop::Yaml(Problem { text, shows: true }))
}
