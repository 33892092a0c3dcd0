//! Case of words, and the splitting into words that goes with it.

use std::sync::LazyLock;

use regex::RegexSet;

use super::super::{Answer, args};
use super::runes;
use crate::template::limits::Limits;
use crate::template::value::Value;

/// Unicode's general categories that the functions ask for, in the order of the patterns.
#[derive(Clone, Copy)]
enum Category {
    Upper,
    Lower,
    Title,
    Letter,
    Digit,
    Number,
    Punct,
}

fn is(c: char, category: Category) -> bool {
    static SETS: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
        RegexSet::new([
            r"\p{Lu}", r"\p{Ll}", r"\p{Lt}", r"\p{L}", r"\p{Nd}", r"\p{N}", r"\p{P}",
        ])
        .ok()
    });
    if c.is_ascii() && !matches!(category, Category::Punct) {
        return match category {
            Category::Upper => c.is_ascii_uppercase(),
            Category::Lower => c.is_ascii_lowercase(),
            Category::Letter => c.is_ascii_alphabetic(),
            Category::Digit | Category::Number => c.is_ascii_digit(),
            Category::Title | Category::Punct => false,
        };
    }
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    SETS.as_ref()
        .is_some_and(|sets| sets.matches(text).matched(category as usize))
}

/// Whether Go's `unicode.IsLetter` holds.
pub fn is_letter(c: char) -> bool {
    is(c, Category::Letter)
}

/// Whether Go's `unicode.IsDigit` holds.
pub fn is_digit(c: char) -> bool {
    is(c, Category::Digit)
}

/// The upper-case rune. Go maps rune to rune, where Rust's mapping may give several.
fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => {
            let shift = match c {
                '\u{1F80}'..='\u{1F87}' | '\u{1F90}'..='\u{1F97}' | '\u{1FA0}'..='\u{1FA7}' => 8,
                '\u{1FB3}' | '\u{1FC3}' | '\u{1FF3}' => 9,
                _ => 0,
            };
            char::from_u32((c as u32).saturating_add(shift)).unwrap_or(c)
        }
    }
}

fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    match (all.next(), all.next()) {
        (Some(one), _) if c == '\u{130}' => one,
        (Some(one), None) => one,
        _ => c,
    }
}

fn to_title(c: char) -> char {
    match c {
        '\u{1C4}'..='\u{1C6}' => '\u{1C5}',
        '\u{1C7}'..='\u{1C9}' => '\u{1C8}',
        '\u{1CA}'..='\u{1CC}' => '\u{1CB}',
        '\u{1F1}'..='\u{1F3}' => '\u{1F2}',
        '\u{10D0}'..='\u{10FF}' => c,
        _ => upper(c),
    }
}

/// Maps rune by rune; the state goes from one to the next.
fn map<S>(limits: &mut Limits, text: &[u8], mut state: S, rune: impl Fn(&mut S, char) -> char) -> Answer {
    limits.grow(text.len())?;
    let made: String = runes(text).map(|(c, _)| rune(&mut state, c)).collect();
    Ok(Value::text(made))
}

/// `upper` and `lower`.
pub fn all(limits: &mut Limits, args: &[Value], big: bool) -> Answer {
    let text = args::text(args, 0);
    if text.is_ascii() {
        limits.grow(text.len())?;
        return Ok(Value::text(if big {
            text.to_ascii_uppercase()
        } else {
            text.to_ascii_lowercase()
        }));
    }
    map(limits, text, (), |(), c| if big { upper(c) } else { lower(c) })
}

/// `title`.
pub fn title(limits: &mut Limits, args: &[Value]) -> Answer {
    let separator = |c: char| match c {
        '_' => false,
        c if c.is_ascii() => !c.is_ascii_alphanumeric(),
        c => !is(c, Category::Letter) && !is(c, Category::Digit) && c.is_whitespace(),
    };
    map(limits, args::text(args, 0), ' ', |before, c| {
        let starts = separator(*before);
        *before = c;
        if starts { to_title(c) } else { c }
    })
}

/// `untitle`.
pub fn untitle(limits: &mut Limits, args: &[Value]) -> Answer {
    map(limits, args::text(args, 0), true, |starts, c| {
        if c.is_whitespace() {
            *starts = true;
        } else if std::mem::take(starts) {
            return lower(c);
        }
        c
    })
}

/// `swapcase`.
pub fn swapcase(limits: &mut Limits, args: &[Value]) -> Answer {
    map(limits, args::text(args, 0), true, |starts, c| {
        if is(c, Category::Upper) || is(c, Category::Title) {
            *starts = false;
            lower(c)
        } else if is(c, Category::Lower) {
            if std::mem::take(starts) {
                to_title(c)
            } else {
                upper(c)
            }
        } else {
            *starts = c.is_whitespace();
            c
        }
    })
}

/// Whether a rune separates words.
fn connects(c: char) -> bool {
    c == '-' || c == '_' || c.is_whitespace()
}

/// `camelcase`.
pub fn camelcase(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = args::text(args, 0);
    limits.grow(text.len())?;
    let mut made = String::with_capacity(text.len());
    let mut rest = runes(text).map(|(c, _)| c).peekable();
    // Leading connectors stay.
    let mut last = '\0';
    let mut big = false;
    for c in rest.by_ref() {
        last = c;
        if !connects(c) {
            big = is(c, Category::Upper);
            last = upper(c);
            break;
        }
        // sprig's library writes the last of nothing but connectors twice.
        made.push(c);
    }
    if text.is_empty() {
        return Ok(Value::text(""));
    }
    for c in rest {
        let before = std::mem::replace(&mut last, c);
        match (connects(before), connects(c)) {
            (true, true) => made.push(before),
            (true, false) => {
                big = is(c, Category::Upper);
                last = upper(c);
            }
            (false, _) => {
                big = big && is(c, Category::Upper);
                if big {
                    last = lower(c);
                }
                made.push(before);
            }
        }
    }
    made.push(last);
    Ok(Value::text(made))
}

/// What a run of runes is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Invalid,
    Number,
    Upper,
    Alphabet,
    Connector,
    Punct,
    Other,
}

type Rune<'a> = (char, &'a [u8]);

/// Letters of scripts that have words; not Chinese characters.
fn alphabetic(c: char) -> bool {
    is_letter(c)
        && !matches!(c, '\u{3400}'..='\u{4D85}' | '\u{4E00}'..='\u{9FCC}' | '\u{20000}'..='\u{2B81D}')
}

/// The next rune that is valid, and how many runes it takes; at the end, the one before.
fn valid(runes: &[Rune], at: usize, before: char) -> (char, usize) {
    let rest = runes.get(at..).unwrap_or_default();
    match rest.iter().position(|(c, _)| *c != '\u{FFFD}') {
        Some(index) => (
            rest.get(index).map_or(before, |(c, _)| *c),
            index.saturating_add(1),
        ),
        None => (before, rest.len()),
    }
}

/// Where a run ends; also the rune that ends it and the size of its last step.
fn run(
    runes: &[Rune],
    mut at: usize,
    mut before: char,
    belongs: impl Fn(char) -> bool,
) -> (usize, char, usize) {
    let mut step = 0;
    while at < runes.len() {
        let (c, size) = valid(runes, at, before);
        if !belongs(c) {
            return (at, c, step);
        }
        (before, step) = (c, size);
        at = at.saturating_add(size);
    }
    (at, before, step)
}

/// Splits off the first word.
fn next_word<'a, 'b>(runes: &'b [Rune<'a>]) -> (Word, &'b [Rune<'a>], &'b [Rune<'a>]) {
    let small = |c: char| alphabetic(c) && !is(c, Category::Upper);
    let (first, start) = valid(runes, 0, '\u{FFFD}');
    let to_end = |belongs: &dyn Fn(char) -> bool| run(runes, start, first, belongs).0;
    let (word, end) = if first == '\u{FFFD}' {
        (Word::Invalid, start)
    } else if connects(first) {
        (Word::Connector, to_end(&connects))
    } else if is(first, Category::Punct) {
        (Word::Punct, to_end(&|c| is(c, Category::Punct)))
    } else if is(first, Category::Upper) {
        let (next, size) = valid(runes, start, first);
        let end = if start >= runes.len() {
            start
        } else if is(next, Category::Upper) {
            let (end, c, step) = run(runes, start, first, |c| is(c, Category::Upper));
            // The last upper-case letter belongs to the word that follows.
            if end < runes.len() && alphabetic(c) {
                end.saturating_sub(step)
            } else {
                end
            }
        } else if alphabetic(next) {
            run(runes, start.saturating_add(size), next, small).0
        } else {
            start
        };
        (Word::Upper, end)
    } else if alphabetic(first) {
        (Word::Alphabet, to_end(&small))
    } else if is(first, Category::Number) {
        (Word::Number, to_end(&|c| is(c, Category::Number)))
    } else {
        let other =
            |c: char| !(connects(c) || alphabetic(c) || is(c, Category::Number) || is(c, Category::Punct));
        (Word::Other, to_end(&other))
    };
    let (head, tail) = runes.split_at_checked(end).unwrap_or((runes, &[]));
    (word, head, tail)
}

fn push_word(made: &mut Vec<u8>, word: Word, runes: &[Rune], connector: char) {
    for (c, raw) in runes {
        if word != Word::Upper && word != Word::Connector {
            made.extend_from_slice(raw);
            continue;
        }
        let c = match *c {
            c if connects(c) => connector,
            c if is(c, Category::Upper) => lower(c),
            c => c,
        };
        made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// `snakecase` and `kebabcase`.
pub fn parts(limits: &mut Limits, args: &[Value], connector: char) -> Answer {
    let text = args::text(args, 0);
    limits.grow(text.len().saturating_mul(2))?;
    limits.step(text.len() as u64)?;
    let runes: Vec<Rune> = runes(text).collect();
    let mut made = Vec::with_capacity(text.len());
    let byte = connector as u8;
    let (mut word, mut head, mut rest) = next_word(&runes);
    while !rest.is_empty() {
        if word != Word::Connector {
            push_word(&mut made, word, head, connector);
        }
        let (before, last) = (word, head);
        (word, head, rest) = next_word(rest);
        match before {
            Word::Number => {
                while matches!(word, Word::Alphabet | Word::Number) {
                    push_word(&mut made, word, head, connector);
                    (word, head, rest) = next_word(rest);
                }
                if !matches!(word, Word::Invalid | Word::Punct | Word::Connector) {
                    made.push(byte);
                }
            }
            Word::Connector => push_word(&mut made, before, last, connector),
            Word::Punct => {}
            _ if word != Word::Number => {
                if !matches!(word, Word::Connector | Word::Punct) {
                    made.push(byte);
                }
            }
            _ if rest.is_empty() => {}
            _ => {
                let digits = head;
                (word, head, rest) = next_word(rest);
                if word != Word::Alphabet {
                    // A number belongs to the word before it ...
                    push_word(&mut made, Word::Number, digits, connector);
                    if !matches!(word, Word::Connector | Word::Punct) {
                        made.push(byte);
                    }
                    continue;
                }
                // ... unless lower-case letters follow.
                made.push(byte);
                push_word(&mut made, Word::Number, digits, connector);
                while matches!(word, Word::Alphabet | Word::Number) {
                    push_word(&mut made, word, head, connector);
                    (word, head, rest) = next_word(rest);
                }
                if !matches!(word, Word::Invalid | Word::Punct | Word::Connector) {
                    made.push(byte);
                }
            }
        }
    }
    push_word(&mut made, word, head, connector);
    Ok(Value::text(made))
}
