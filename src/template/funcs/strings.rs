//! Texts: trimming, searching, splitting, joining, quoting, indenting.

use std::rc::Rc;

use memchr::memmem;

use super::convert::{text, text_list};
use super::words::runes;
use super::{Answer, Fault, Func, Ty, args, func, func_more};
use crate::template::fmt;
use crate::template::fmt_quote::quote as quote_text;
use crate::template::limits::Limits;
use crate::template::value::{Elem, Text, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("trim", &[Ty::Text], |limits, list| {
        piece(limits, trim(args::text(list, 0), char::is_whitespace))
    }),
    func("trimAll", &[Ty::Text, Ty::Text], trim_all),
    func("trimall", &[Ty::Text, Ty::Text], trim_all),
    func("trimPrefix", &[Ty::Text, Ty::Text], trim_prefix),
    func("trimSuffix", &[Ty::Text, Ty::Text], trim_suffix),
    func("contains", &[Ty::Text, Ty::Text], |_, list| {
        Ok(Value::Bool(
            memmem::find(args::text(list, 1), args::text(list, 0)).is_some(),
        ))
    }),
    func("hasPrefix", &[Ty::Text, Ty::Text], |_, list| {
        Ok(Value::Bool(args::text(list, 1).starts_with(args::text(list, 0))))
    }),
    func("hasSuffix", &[Ty::Text, Ty::Text], |_, list| {
        Ok(Value::Bool(args::text(list, 1).ends_with(args::text(list, 0))))
    }),
    func("repeat", &[Ty::Int, Ty::Text], repeat),
    func("replace", &[Ty::Text, Ty::Text, Ty::Text], replace),
    func_more("quote", &[], Ty::Any, quote),
    func_more("squote", &[], Ty::Any, squote),
    func_more("cat", &[], Ty::Any, cat),
    func("indent", &[Ty::Int, Ty::Text], |limits, list| {
        indent(limits, list, b"")
    }),
    func("nindent", &[Ty::Int, Ty::Text], |limits, list| {
        indent(limits, list, b"\n")
    }),
    func("split", &[Ty::Text, Ty::Text], |limits, list| {
        split_map(limits, args::text(list, 1), args::text(list, 0), -1)
    }),
    func("splitn", &[Ty::Text, Ty::Int, Ty::Text], |limits, list| {
        split_map(
            limits,
            args::text(list, 2),
            args::text(list, 0),
            args::int(list, 1),
        )
    }),
    func("splitList", &[Ty::Text, Ty::Text], split_list),
    func("join", &[Ty::Text, Ty::Any], join),
];

fn piece(limits: &mut Limits, piece: &[u8]) -> Answer {
    limits.grow(piece.len())?;
    Ok(Value::text(piece))
}

/// The last rune as Go decodes it, and its size.
fn last_rune(text: &[u8]) -> Option<(char, usize)> {
    for size in 1..=4.min(text.len()) {
        let tail = text.get(text.len().saturating_sub(size)..).unwrap_or_default();
        if let Ok(tail) = str::from_utf8(tail) {
            return Some((tail.chars().next()?, size));
        }
    }
    text.last().map(|_| (char::REPLACEMENT_CHARACTER, 1))
}

fn trim(text: &[u8], goes: impl Fn(char) -> bool) -> &[u8] {
    let start: usize = runes(text)
        .take_while(|(c, _)| goes(*c))
        .map(|(_, bytes)| bytes.len())
        .sum();
    let mut rest = text.get(start..).unwrap_or_default();
    while let Some((_, size)) = last_rune(rest).filter(|(c, _)| goes(*c)) {
        rest = rest.get(..rest.len().saturating_sub(size)).unwrap_or_default();
    }
    rest
}

fn trim_all(limits: &mut Limits, list: &[Value]) -> Answer {
    let (set, text) = (args::text(list, 0), args::text(list, 1));
    let mut set: Vec<char> = runes(set).map(|(c, _)| c).collect();
    set.sort_unstable();
    piece(limits, trim(text, |c| set.binary_search(&c).is_ok()))
}

fn trim_prefix(limits: &mut Limits, list: &[Value]) -> Answer {
    let (prefix, text) = (args::text(list, 0), args::text(list, 1));
    piece(limits, text.strip_prefix(prefix).unwrap_or(text))
}

fn trim_suffix(limits: &mut Limits, list: &[Value]) -> Answer {
    let (suffix, text) = (args::text(list, 0), args::text(list, 1));
    piece(limits, text.strip_suffix(suffix).unwrap_or(text))
}

fn repeat(limits: &mut Limits, list: &[Value]) -> Answer {
    let count = usize::try_from(args::int(list, 0))
        .map_err(|_| Fault::from("a text cannot be repeated fewer than 0 times"))?;
    let text = args::text(list, 1);
    limits.grow(text.len().saturating_mul(count))?;
    Ok(Value::text(if text.is_empty() {
        Vec::new()
    } else {
        text.repeat(count)
    }))
}

/// Where an old text is empty, the new one comes before every rune and at the end.
fn replace(limits: &mut Limits, list: &[Value]) -> Answer {
    let (old, new, text) = (args::text(list, 0), args::text(list, 1), args::text(list, 2));
    limits.grow(text.len())?;
    let mut made = Vec::with_capacity(text.len());
    if old.is_empty() {
        for (_, bytes) in runes(text) {
            limits.grow(new.len())?;
            made.extend_from_slice(new);
            made.extend_from_slice(bytes);
        }
        limits.grow(new.len())?;
        made.extend_from_slice(new);
        return Ok(Value::text(made));
    }
    let mut from = 0;
    for at in memmem::find_iter(text, old) {
        limits.grow(new.len())?;
        made.extend_from_slice(text.get(from..at).unwrap_or_default());
        made.extend_from_slice(new);
        from = at.saturating_add(old.len());
    }
    made.extend_from_slice(text.get(from..).unwrap_or_default());
    Ok(Value::text(made))
}

/// The values that are not nil, each made a text, with spaces between.
fn spaced(
    limits: &mut Limits,
    list: &[Value],
    make: fn(&mut Limits, &Value) -> Result<Vec<u8>, Fault>,
) -> Answer {
    let mut made = Vec::new();
    for (index, value) in list
        .iter()
        .filter(|value| !matches!(value, Value::Nil))
        .enumerate()
    {
        if index > 0 {
            made.push(b' ');
        }
        made.extend(make(limits, value)?);
    }
    limits.grow(made.len())?;
    Ok(Value::text(made))
}

fn quote(limits: &mut Limits, list: &[Value]) -> Answer {
    spaced(limits, list, |limits, value| {
        let text = text(limits, value)?;
        // An escape takes up to four bytes for one.
        limits.grow(text.len().saturating_mul(2))?;
        Ok(quote_text(&text, false).into_bytes())
    })
}

fn squote(limits: &mut Limits, list: &[Value]) -> Answer {
    spaced(limits, list, |limits, value| {
        let mut text = fmt::text_of(limits, value)?;
        text.insert(0, b'\'');
        text.push(b'\'');
        Ok(text)
    })
}

fn cat(limits: &mut Limits, list: &[Value]) -> Answer {
    spaced(limits, list, fmt::text_of)
}

fn indent(limits: &mut Limits, list: &[Value], first: &[u8]) -> Answer {
    let count = usize::try_from(args::int(list, 0))
        .map_err(|_| Fault::from("an indentation cannot be less than 0"))?;
    let text = args::text(list, 1);
    let breaks = memchr::memchr_iter(b'\n', text).count();
    let size = count
        .saturating_mul(breaks.saturating_add(1))
        .saturating_add(text.len())
        .saturating_add(first.len());
    limits.grow(size)?;
    let mut made = Vec::with_capacity(size);
    made.extend_from_slice(first);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            made.push(b'\n');
        }
        made.resize(made.len().saturating_add(count), b' ');
        made.extend_from_slice(line);
    }
    Ok(Value::text(made))
}

/// Go's `strings.SplitN`: at most so many pieces, all if the count is negative.
fn split<'a>(
    limits: &mut Limits,
    text: &'a [u8],
    separator: &[u8],
    count: i64,
) -> Result<Vec<&'a [u8]>, Fault> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    limits.grow(text.len())?;
    let mut pieces = Vec::new();
    if count == 0 {
        return Ok(pieces);
    }
    let mut from = 0;
    let mut cut = |limits: &mut Limits, pieces: &mut Vec<&'a [u8]>, to: usize, next: usize| {
        limits.step(1)?;
        limits.grow(size_of::<Value>())?;
        pieces.push(text.get(from..to).unwrap_or_default());
        from = next;
        Ok::<(), Fault>(())
    };
    if separator.is_empty() {
        let mut end = 0;
        for (_, bytes) in runes(text) {
            if pieces.len().saturating_add(1) < count {
                let to = end + bytes.len();
                cut(limits, &mut pieces, to, to)?;
                end = to;
            }
        }
        if end < text.len() {
            cut(limits, &mut pieces, text.len(), text.len())?;
        }
        return Ok(pieces);
    }
    for at in memmem::find_iter(text, separator) {
        if pieces.len().saturating_add(1) >= count {
            break;
        }
        cut(limits, &mut pieces, at, at + separator.len())?;
    }
    cut(limits, &mut pieces, text.len(), text.len())?;
    Ok(pieces)
}

fn split_map(limits: &mut Limits, text: &[u8], separator: &[u8], count: i64) -> Answer {
    let pieces = split(limits, text, separator, count)?;
    super::dicts::room(limits, pieces.len())?;
    let entry =
        |(index, piece): (usize, &[u8])| (Text::from(format!("_{index}").as_bytes()), Text::from(piece));
    Ok(Value::text_map(pieces.into_iter().enumerate().map(entry)))
}

fn split_list(limits: &mut Limits, list: &[Value]) -> Answer {
    Ok(Value::texts(split(
        limits,
        args::text(list, 1),
        args::text(list, 0),
        -1,
    )?))
}

fn join(limits: &mut Limits, list: &[Value]) -> Answer {
    let separator = args::text(list, 0);
    // The elements of such a list need no conversion.
    if let Value::List(texts) = args::value(list, 1)
        && texts.elem == Elem::Str
    {
        let texts: Vec<&[u8]> = texts.items.iter().map(super::bytes).collect();
        return joined(limits, &texts, separator);
    }
    let texts = text_list(limits, args::value(list, 1))?;
    let texts: Vec<&[u8]> = texts.iter().map(Rc::as_ref).collect();
    joined(limits, &texts, separator)
}

fn joined(limits: &mut Limits, texts: &[&[u8]], separator: &[u8]) -> Answer {
    let between = texts.len().saturating_sub(1).saturating_mul(separator.len());
    limits.grow(
        texts
            .iter()
            .fold(between, |sum, text| sum.saturating_add(text.len())),
    )?;
    limits.step(texts.len() as u64)?;
    Ok(Value::text(texts.join(separator)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_would_be_too_large_is_refused_before_it_is_made() {
        let huge = [Value::int(i64::MAX), Value::text("xy")];
        assert!(repeat(&mut Limits::default(), &huge).is_err());
        assert!(indent(&mut Limits::default(), &huge, b"").is_err());
        let nothing = [Value::int(i64::MAX), Value::text("")];
        assert!(repeat(&mut Limits::default(), &nothing).is_ok());
    }

    #[test]
    fn splitting_stops_at_the_count_of_pieces() {
        let pieces = |text: &str, separator: &str, count: i64| -> Vec<String> {
            let pieces = split(
                &mut Limits::default(),
                text.as_bytes(),
                separator.as_bytes(),
                count,
            )
            .unwrap();
            pieces
                .into_iter()
                .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
                .collect()
        };
        assert_eq!(pieces("a,b,c", ",", 2), ["a", "b,c"]);
        assert_eq!(pieces("a,b,c", ",", 1), ["a,b,c"]);
        assert_eq!(pieces("a,b,c", ",", 9), ["a", "b", "c"]);
        assert_eq!(pieces("abc", "", 1), ["abc"]);
        assert_eq!(pieces("abc", "", 2), ["a", "bc"]);
        assert_eq!(pieces("abc", "", 3), ["a", "b", "c"]);
        assert_eq!(pieces("", "", 1), [""; 0]);
        assert_eq!(pieces("", ",", -1), [""]);
    }

    #[test]
    fn half_a_rune_at_the_end_is_one_byte() {
        assert_eq!(last_rune("é".as_bytes()), Some(('é', 2)));
        assert_eq!(last_rune(b"a\xC3"), Some(('\u{FFFD}', 1)));
        assert_eq!(last_rune(b"\xA9"), Some(('\u{FFFD}', 1)));
        assert_eq!(last_rune(b""), None);
    }
}
