//! Writes a pattern of Go's syntax in the crate's, and refuses what Go refuses.

use std::collections::HashSet;

use super::Error;

/// What `\d`, `\s` and `\w` stand for within a class.
const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0C\r ";
const WORD: &str = "0-9A-Za-z_";
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];
/// Go's largest count of a repetition.
const REPEAT: u32 = 1000;

/// Translates a whole pattern.
pub(super) fn pattern(pattern: &str) -> Result<String, Error> {
    let mut translator = Translator {
        chars: pattern.chars().collect(),
        at: 0,
        out: String::with_capacity(pattern.len().saturating_mul(2)),
        names: HashSet::new(),
        named: 0,
    };
    let mut repeated = false;
    while let Some(c) = translator.peek() {
        repeated = translator.item(c, repeated)?;
    }
    Ok(translator.out)
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
    /// The names of groups so far.
    names: HashSet<String>,
    /// How many groups have one.
    named: usize,
}

impl Translator {
    fn peek(&self) -> Option<char> {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> Option<char> {
        self.chars.get(self.at.saturating_add(count)).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.skip(usize::from(c.is_some()));
        c
    }

    fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    fn wrong<T>(&self, problem: &'static str) -> Result<T, Error> {
        Err(Error::Syntax {
            position: self.at.saturating_add(1).min(self.chars.len().max(1)),
            problem,
        })
    }

    /// Translates what comes next; gives back whether it was a repetition.
    fn item(&mut self, c: char, repeated: bool) -> Result<bool, Error> {
        match c {
            '(' if self.ahead(1) == Some('?') => self.group()?,
            '(' | ')' | '|' | '^' | '$' | '.' => {
                self.out.push(c);
                self.skip(1);
            }
            '*' | '+' | '?' => {
                self.skip(1);
                return self.repeat(&c.to_string(), repeated);
            }
            '{' => {
                let Some((least, most, size)) = self.counts() else {
                    literal(&mut self.out, c);
                    self.skip(1);
                    return Ok(false);
                };
                let fits = least.is_some_and(|least| most.is_none_or(|most| most >= least));
                if !fits || least.max(most).is_some_and(|count| count > REPEAT) {
                    return self.wrong("invalid repeat count");
                }
                let text: String = self.chars.iter().skip(self.at).take(size).collect();
                self.skip(size);
                return self.repeat(&text, repeated);
            }
            '[' => self.class()?,
            '\\' => self.escape()?,
            c => {
                literal(&mut self.out, c);
                self.skip(1);
            }
        }
        Ok(false)
    }

    fn repeat(&mut self, operator: &str, repeated: bool) -> Result<bool, Error> {
        if repeated {
            return self.wrong("invalid nested repetition operator");
        }
        self.out.push_str(operator);
        if self.peek() == Some('?') {
            self.out.push('?');
            self.skip(1);
        }
        Ok(true)
    }

    /// The counts of `{2}`, `{2,}` or `{2,5}` and how many characters it has. `None` if it is none of them; too
    /// large a first count is `None` within, too large a second one more than is allowed.
    fn counts(&self) -> Option<(Option<u32>, Option<u32>, usize)> {
        let rest: String = self
            .chars
            .iter()
            .skip(self.at.saturating_add(1))
            // Not up to the end of a pattern of braces that are never closed.
            .take_while(|c| c.is_ascii_digit() || **c == ',')
            .collect();
        let closed = self.ahead(rest.chars().count().saturating_add(1)) == Some('}');
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits && (text.len() == 1 || !text.starts_with('0'))).then(|| text.parse::<u32>().ok())
        };
        let (least, most) = match rest.split_once(',') {
            None => (number(&rest)?, None),
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?.unwrap_or(u32::MAX))),
        };
        closed.then(|| (least, most, rest.chars().count().saturating_add(2)))
    }

    /// A group that begins with `(?`: it has a name, sets flags or captures nothing.
    fn group(&mut self) -> Result<(), Error> {
        let name_at = match (self.ahead(2), self.ahead(3)) {
            (Some('P'), Some('<')) => Some(4),
            (Some('<'), _) => Some(3),
            _ => None,
        };
        if let Some(skip) = name_at {
            self.skip(skip);
            let name: String = self
                .chars
                .iter()
                .skip(self.at)
                .take_while(|c| **c != '>')
                .collect();
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                return self.wrong("invalid name of a group");
            }
            self.out.push_str("(?P<");
            // The crate takes no name twice and none that begins with a digit. No name of Go's has a dot.
            if self.names.contains(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
                self.out.push_str(&format!("_{}.", self.named));
            }
            self.out.push_str(&name);
            self.skip(name.len());
            self.names.insert(name);
            self.named = self.named.saturating_add(1);
            if self.next() != Some('>') {
                return self.wrong("invalid name of a group");
            }
            self.out.push('>');
            return Ok(());
        }
        self.skip(2);
        let (mut flags, mut minus, mut any) = (String::new(), false, false);
        while let Some(c) = self.next() {
            match c {
                'i' | 'm' | 's' | 'U' => any = true,
                '-' if !minus => (minus, any) = (true, false),
                ':' | ')' if any || !minus => {
                    if c == ':' || !flags.is_empty() {
                        self.out.push_str("(?");
                        self.out.push_str(&unrepeated(&flags));
                        self.out.push(c);
                    }
                    return Ok(());
                }
                _ => break,
            }
            flags.push(c);
        }
        self.wrong("invalid or unsupported syntax after (?")
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), Error> {
        match self.ahead(1) {
            Some('A' | 'z') => {
                self.out.push('\\');
                self.out.extend(self.ahead(1));
            }
            Some('b') => self.out.push_str(r"(?-u:\b)"),
            Some('B') => self.out.push_str(r"(?-u:\B)"),
            Some('Q') => {
                self.skip(2);
                while let Some(c) = self.next() {
                    if c == '\\' && self.peek() == Some('E') {
                        self.skip(1);
                        break;
                    }
                    literal(&mut self.out, c);
                }
                return Ok(());
            }
            Some('p' | 'P') => return self.unicode_class(),
            Some(c) => {
                if let Some((negated, set)) = perl_class(c) {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(set);
                    self.out.push(']');
                } else {
                    let c = self.escaped_char()?;
                    literal(&mut self.out, c);
                    return Ok(());
                }
            }
            None => return self.wrong("trailing backslash"),
        }
        self.skip(2);
        Ok(())
    }

    /// `\pN`, `\p{Greek}` and `\p{^Greek}`.
    fn unicode_class(&mut self) -> Result<(), Error> {
        let mut negated = self.ahead(1) == Some('P');
        let braces = self.ahead(2) == Some('{');
        self.skip(if braces { 3 } else { 2 });
        let mut name: String = if braces {
            self.chars
                .iter()
                .skip(self.at)
                .take_while(|c| **c != '}')
                .collect()
        } else {
            self.peek().into_iter().collect()
        };
        self.skip(name.chars().count());
        if braces && self.next() != Some('}') {
            return self.wrong("invalid character class range");
        }
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest.to_owned();
        }
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
        if name.is_empty() || !name.chars().all(part) {
            return self.wrong("invalid character class range");
        }
        self.out.push_str(if negated { r"\P{" } else { r"\p{" });
        self.out.push_str(&name);
        self.out.push('}');
        Ok(())
    }

    /// A character that is written with a backslash, as Go allows it.
    fn escaped_char(&mut self) -> Result<char, Error> {
        self.skip(1);
        let octal = |c: Option<char>| c.and_then(|c| c.to_digit(8));
        let Some(c) = self.next() else {
            return self.wrong("trailing backslash");
        };
        let code = match c {
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => match self.hex() {
                Some(code) => code,
                None => return self.wrong("invalid escape sequence"),
            },
            '1'..='7' if octal(self.peek()).is_none() => return self.wrong("invalid escape sequence"),
            '0'..='7' => {
                let mut code = octal(Some(c)).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = octal(self.peek()) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.skip(1);
                }
                code
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return self.wrong("invalid escape sequence"),
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.wrong("invalid escape sequence"),
        }
    }

    fn hex(&mut self) -> Option<u32> {
        if self.peek() != Some('{') {
            let (high, low) = (self.next()?.to_digit(16)?, self.next()?.to_digit(16)?);
            return Some(high * 16 + low);
        }
        self.skip(1);
        let mut code: Option<u32> = None;
        loop {
            match self.next()? {
                '}' => return code,
                c => {
                    let next = code.unwrap_or(0) * 16 + c.to_digit(16)?;
                    code = Some(next).filter(|code| *code <= 0x10_FFFF);
                    code?;
                }
            }
        }
    }

    fn class(&mut self) -> Result<(), Error> {
        let from = self.at;
        self.skip(1);
        self.out.push('[');
        if self.peek() == Some('^') {
            self.out.push('^');
            self.skip(1);
        }
        let mut first = true;
        loop {
            match self.peek() {
                None => {
                    self.at = from;
                    return self.wrong("missing closing ]");
                }
                Some(']') if !first => break,
                Some('[') if self.ahead(1) == Some(':') && self.named()? => {}
                Some('\\') if matches!(self.ahead(1), Some('p' | 'P')) => self.unicode_class()?,
                Some('\\') if self.ahead(1).and_then(perl_class).is_some() => {
                    let (negated, set) = self.ahead(1).and_then(perl_class).unwrap_or_default();
                    self.out.push_str(if negated { "[^" } else { "" });
                    self.out.push_str(set);
                    self.out.push_str(if negated { "]" } else { "" });
                    self.skip(2);
                }
                Some(_) => self.range()?,
            }
            first = false;
        }
        self.skip(1);
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]` and the like; `false` if it is none, and the bracket stands for itself.
    fn named(&mut self) -> Result<bool, Error> {
        let inner: Vec<char> = self
            .chars
            .iter()
            .skip(self.at.saturating_add(2))
            .copied()
            .collect();
        let Some(size) = inner.windows(2).position(|pair| matches!(pair, [':', ']'])) else {
            return Ok(false);
        };
        let name: String = inner.iter().take(size).collect();
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(&name)) {
            return self.wrong("invalid character class range");
        }
        self.out.push_str("[:");
        self.out.push_str(&name);
        self.out.push_str(":]");
        self.skip(size.saturating_add(4));
        Ok(true)
    }

    fn range(&mut self) -> Result<(), Error> {
        let low = self.class_char()?;
        literal(&mut self.out, low);
        if self.peek() == Some('-') && self.ahead(1).is_some_and(|c| c != ']') {
            self.skip(1);
            let high = self.class_char()?;
            if high < low {
                return self.wrong("invalid character class range");
            }
            self.out.push('-');
            literal(&mut self.out, high);
        }
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, Error> {
        match self.peek() {
            Some('\\') => self.escaped_char(),
            Some(c) => {
                self.skip(1);
                Ok(c)
            }
            None => self.wrong("missing closing ]"),
        }
    }
}

/// Whether `\d` and the like are negated, and what they hold.
fn perl_class(c: char) -> Option<(bool, &'static str)> {
    Some(match c {
        'd' => (false, DIGIT),
        'D' => (true, DIGIT),
        's' => (false, SPACE),
        'S' => (true, SPACE),
        'w' => (false, WORD),
        'W' => (true, WORD),
        _ => return None,
    })
}

/// The flags with each once, which the crate wants; of one that is set and cleared Go keeps it cleared.
fn unrepeated(flags: &str) -> String {
    let (set, cleared) = flags.split_once('-').unwrap_or((flags, ""));
    let once = |flags: &str| -> String {
        ['i', 'm', 's', 'U']
            .into_iter()
            .filter(|c| flags.contains(*c))
            .collect()
    };
    let set: String = once(set).chars().filter(|c| !cleared.contains(*c)).collect();
    if cleared.is_empty() {
        set
    } else {
        format!("{set}-{}", once(cleared))
    }
}

/// Writes a character that stands for itself.
fn literal(out: &mut String, c: char) {
    // These two must not be escaped: that would be the bounds of a word.
    if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
        out.push('\\');
    }
    out.push(c);
}
