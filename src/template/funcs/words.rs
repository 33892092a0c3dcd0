//! Case (in `words_cases.rs`), abbreviation and wrapping of words, as sprig's helpers do them: some by byte, some by rune.

#[path = "words_cases.rs"]
mod cases;

use rand::seq::SliceRandom as _;

use cases::{all, camelcase, parts, swapcase, title, untitle};
pub(in crate::template) use cases::{is_digit, is_letter};

use super::{Answer, Fault, Func, Ty, args, func};
use crate::template::limits::Limits;
use crate::template::value::Value;

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("upper", &[Ty::Text], |limits, args| all(limits, args, true)),
    func("lower", &[Ty::Text], |limits, args| all(limits, args, false)),
    func("title", &[Ty::Text], title),
    func("untitle", &[Ty::Text], untitle),
    func("camelcase", &[Ty::Text], camelcase),
    func("snakecase", &[Ty::Text], |limits, args| parts(limits, args, '_')),
    func("kebabcase", &[Ty::Text], |limits, args| parts(limits, args, '-')),
    func("swapcase", &[Ty::Text], swapcase),
    func("initials", &[Ty::Text], initials),
    func("wrap", &[Ty::Int, Ty::Text], wrap),
    func("wrapWith", &[Ty::Int, Ty::Text, Ty::Text], wrap_with),
    func("abbrev", &[Ty::Int, Ty::Text], abbrev),
    func("abbrevboth", &[Ty::Int, Ty::Int, Ty::Text], abbrevboth),
    func("plural", &[Ty::Text, Ty::Text, Ty::Int], plural),
    func("nospace", &[Ty::Text], nospace),
    func("shuffle", &[Ty::Text], shuffle),
    func("substr", &[Ty::Int, Ty::Int, Ty::Text], substr),
    func("trunc", &[Ty::Int, Ty::Text], trunc),
];

/// A text's runes as Go reads them, each with its bytes: every byte that is not UTF-8 is one U+FFFD.
pub(in crate::template) fn runes(text: &[u8]) -> impl Iterator<Item = (char, &[u8])> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid();
        let good = valid.char_indices().map(move |(at, c)| {
            let raw = valid.as_bytes().get(at..at.saturating_add(c.len_utf8()));
            (c, raw.unwrap_or_default())
        });
        good.chain(chunk.invalid().chunks(1).map(|byte| ('\u{FFFD}', byte)))
    })
}

/// By byte, each read as a rune of its own.
fn initials(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = args::text(args, 0);
    limits.grow(text.len())?;
    let mut gap = true;
    let starts = |byte: &u8| {
        let space = char::from(*byte).is_whitespace();
        let start = gap && !space;
        gap = space;
        start
    };
    let made: String = text.iter().copied().filter(starts).map(char::from).collect();
    Ok(Value::text(made))
}

/// By byte as well; a text without spaces stays as it is.
fn nospace(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = args::text(args, 0);
    limits.grow(text.len().saturating_mul(2))?;
    if !text.iter().any(|byte| char::from(*byte).is_whitespace()) {
        return Ok(Value::text(text));
    }
    let made: String = text
        .iter()
        .copied()
        .map(char::from)
        .filter(|c| !c.is_whitespace())
        .collect();
    Ok(Value::text(made))
}

fn wrap(limits: &mut Limits, args: &[Value]) -> Answer {
    wrapped(limits, args::int(args, 0), b"\n", args::text(args, 1), false)
}

fn wrap_with(limits: &mut Limits, args: &[Value]) -> Answer {
    let between = match args::text(args, 1) {
        b"" => b"\n",
        between => between,
    };
    wrapped(limits, args::int(args, 0), between, args::text(args, 2), true)
}

fn wrapped(limits: &mut Limits, width: i64, between: &[u8], mut text: &[u8], cut: bool) -> Answer {
    let width = usize::try_from(width).unwrap_or(0).max(1);
    limits.grow(text.len())?;
    let mut made = Vec::with_capacity(text.len());
    while text.len() > width {
        if let Some(rest) = text.strip_prefix(b" ") {
            text = rest;
            continue;
        }
        let space = |byte: &u8| *byte == b' ';
        let window = text.get(..=width).unwrap_or(text);
        let later = || {
            text.iter()
                .skip(width)
                .position(space)
                .map(|index| index.saturating_add(width))
        };
        // Where the line ends, and how many bytes of space go with it.
        let (end, gap) = match window.iter().rposition(space) {
            Some(at) => (at, 1),
            None if cut => (width, 0),
            None => match later() {
                Some(at) => (at, 1),
                None => break,
            },
        };
        limits.grow(between.len())?;
        limits.step(1)?;
        made.extend_from_slice(text.get(..end).unwrap_or_default());
        made.extend_from_slice(between);
        text = text.get(end.saturating_add(gap)..).unwrap_or_default();
    }
    made.extend_from_slice(text);
    Ok(Value::text(made))
}

fn abbrev(limits: &mut Limits, args: &[Value]) -> Answer {
    let (width, text) = (args::int(args, 0), args::text(args, 1));
    shortened(limits, text, 0, width, width < 4)
}

fn abbrevboth(limits: &mut Limits, args: &[Value]) -> Answer {
    let (left, right, text) = (args::int(args, 0), args::int(args, 1), args::text(args, 2));
    shortened(limits, text, left, right, right < 4 || left > 0 && right < 7)
}

fn shortened(limits: &mut Limits, text: &[u8], left: i64, width: i64, keep: bool) -> Answer {
    limits.grow(text.len())?;
    let width = usize::try_from(width).unwrap_or(0);
    if keep || text.len() <= width {
        return Ok(Value::text(text));
    }
    let room = width.saturating_sub(3);
    let left = usize::try_from(left)
        .unwrap_or(0)
        .min(text.len())
        .min(text.len().saturating_sub(room));
    let piece = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let made = if left <= 4 {
        [piece(0, room), b"..."].concat()
    } else if left.saturating_add(room) < text.len() {
        let end = left.saturating_add(room.saturating_sub(3));
        [b"...", piece(left, end), b"..."].concat()
    } else {
        [b"...", piece(text.len().saturating_sub(room), text.len())].concat()
    };
    Ok(Value::text(made))
}

fn plural(limits: &mut Limits, args: &[Value]) -> Answer {
    let index = usize::from(args::int(args, 2) != 1);
    limits.grow(args::text(args, index).len())?;
    Ok(args.get(index).cloned().unwrap_or(Value::Nil))
}

fn shuffle(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = args::text(args, 0);
    limits.grow(text.len().saturating_mul(4))?;
    let mut all: Vec<char> = runes(text).map(|(c, _)| c).collect();
    all.shuffle(&mut rand::rng());
    Ok(Value::text(all.into_iter().collect::<String>()))
}

/// By byte, and only the range that Go's slice expression allows.
fn substr(limits: &mut Limits, args: &[Value]) -> Answer {
    let (start, end, text) = (args::int(args, 0), args::int(args, 1), args::text(args, 2));
    let index = |number: i64| usize::try_from(number).ok();
    let piece = match (index(start), index(end)) {
        (None, None) => None,
        (None, Some(end)) => text.get(..end),
        (Some(start), Some(end)) if end <= text.len() => text.get(start..end),
        (Some(start), _) => text.get(start..),
    };
    let piece = piece.ok_or(Fault::from("the range lies outside the text"))?;
    limits.grow(piece.len())?;
    Ok(Value::text(piece))
}

fn trunc(limits: &mut Limits, args: &[Value]) -> Answer {
    let (count, text) = (args::int(args, 0), args::text(args, 1));
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let piece = match text.len().checked_sub(size) {
        Some(cut) if count < 0 && cut > 0 => text.get(cut..),
        Some(_) if count >= 0 => text.get(..size),
        _ => None,
    };
    limits.grow(text.len())?;
    Ok(Value::text(piece.unwrap_or(text)))
}
