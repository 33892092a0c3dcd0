//! Changes of inputs.

use std::sync::LazyLock;

use keyferry::template::funcs::TABLES;
use proptest::prelude::*;
use proptest::sample::Index;

/// What may be put anywhere.
static TOKENS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    const TEXTS: &[&str] = &[
        "{{",
        "}}",
        "{{- ",
        " -}}",
        "{{/*",
        "*/}}",
        "-",
        "if ",
        "else ",
        "end",
        "{{ end }}",
        "range ",
        "with ",
        "define \"T\"",
        "template \"T\" .",
        "block \"T\" .",
        "break",
        "continue",
        "nil",
        "true",
        "$x := ",
        "$x = ",
        "$",
        "|",
        "(",
        ")",
        "\"",
        "'",
        "`",
        "\\",
        ".",
        "..",
        ",",
        ":",
        "#",
        "*",
        "?",
        "@this",
        "%",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!!binary ",
        "- ",
        "\n",
        "\r\n",
        "\t",
        "  ",
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999",
        "1e309",
        "1e-400",
        "0x1p-1074",
        "1000000000",
        "%1000000d",
        "%.999999f",
        "%[9]*.[1]*v",
        "((((((((((((((((((((((((((((((",
        "[[[[[[[[[[[[[[[[[[[[",
        "{\"a\":{\"a\":",
        "\u{0}",
        "\u{FFFD}",
        "\u{85}",
        "\u{2028}",
        "\u{10FFFF}",
        "é",
        "-----BEGIN ",
        "-----END ",
        "-----",
        "(?:",
        "(?P<a>",
        "{1000}",
        "\\pL",
        "\\Q",
        "[:alpha:]",
        "=",
        "null",
        "0s",
        "h",
        "\\ud800",
        "~",
    ];
    let bytes: &[&[u8]] = &[
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\x30\x82\xff\xff",
        b"\x30\x80",
    ];
    let names = TABLES.iter().flat_map(|table| table.iter());
    let names = names.map(|func| format!(" {} ", func.name).into_bytes());
    let texts = TEXTS.iter().map(|text| text.as_bytes().to_vec());
    let bytes = bytes.iter().map(|bytes| bytes.to_vec());
    texts.chain(bytes).chain(names).collect()
});

#[derive(Clone, Debug)]
pub enum Change {
    /// Takes a part out.
    Cut(Index, usize),
    /// Puts a part of another seed in.
    Splice(Index, Index, Index, usize),
    /// Puts a token in.
    Token(Index, Index),
    /// Repeats a part.
    Repeat(Index, usize, usize),
    /// Changes a byte.
    Byte(Index, u8),
}

/// A seed and what is done to it.
pub type Changed = (Index, Vec<Change>);

pub fn changed() -> impl Strategy<Value = Changed> {
    let place = any::<Index>;
    let change = prop_oneof![
        2 => (place(), 1..40_usize).prop_map(|(at, size)| Change::Cut(at, size)),
        2 => (place(), place(), place(), 1..80_usize)
            .prop_map(|(at, seed, from, size)| Change::Splice(at, seed, from, size)),
        4 => (place(), place()).prop_map(|(at, token)| Change::Token(at, token)),
        1 => (place(), 1..30_usize, 1..60_usize).prop_map(|(at, size, times)| Change::Repeat(at, size, times)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
    ];
    (place(), prop::collection::vec(change, 0..5))
}

/// Carries changes out.
pub fn apply<T: AsRef<[u8]>>((seed, changes): &Changed, seeds: &[T]) -> Vec<u8> {
    let mut made = seed.get(seeds).as_ref().to_vec();
    for change in changes {
        one(&mut made, change, seeds);
    }
    made
}

fn one<T: AsRef<[u8]>>(made: &mut Vec<u8>, change: &Change, seeds: &[T]) {
    let end = made.len();
    let place = |at: &Index| at.index(end + 1);
    match change {
        Change::Cut(at, size) => {
            let at = place(at);
            made.drain(at..(at + size).min(end));
        }
        Change::Splice(at, seed, from, size) => {
            let other = seed.get(seeds).as_ref();
            let from = from.index(other.len() + 1);
            let part = other[from..(from + size).min(other.len())].to_vec();
            let at = place(at);
            made.splice(at..at, part);
        }
        Change::Token(at, token) => {
            let at = place(at);
            made.splice(at..at, token.get(&TOKENS).iter().copied());
        }
        Change::Repeat(at, size, times) => {
            let at = place(at);
            let part = made[at..(at + size).min(end)].repeat(*times);
            made.splice(at..at, part);
        }
        Change::Byte(at, byte) => {
            let at = place(at);
            if let Some(old) = made.get_mut(at) {
                *old = *byte;
            }
        }
    }
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
