//! Reads JSON by Go's rules: bytes that are not UTF-8 and halves of surrogate pairs become U+FFFD, of equal
//! keys the last one counts, and all numbers are `float64`. No crate reads such texts.

use std::collections::BTreeMap;

use super::words::runes;
use super::{Fault, dicts};
use crate::template::limits::Limits;
use crate::template::value::{NESTING, Text, Value};

/// Why reading stopped.
enum Stop {
    Syntax,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The value and whether all its numbers fit; those that do not are nil. The inner error is the offset at
/// which the text is no JSON.
///
/// # Errors
/// If a limit is reached.
pub(super) fn document(limits: &mut Limits, text: &[u8]) -> Result<Result<(Value, bool), usize>, Fault> {
    limits.grow(text.len())?;
    let mut reader = Reader {
        text,
        at: 0,
        limits,
        numbers_fit: true,
    };
    let value = reader.value(0);
    reader.space();
    match value {
        Ok(value) if reader.at == text.len() => Ok(Ok((value, reader.numbers_fit))),
        Ok(_) | Err(Stop::Syntax) => Ok(Err(reader.at)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    limits: &'a mut Limits,
    numbers_fit: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    fn space(&mut self) {
        let spaces = self
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        self.skip(spaces.count());
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.skip(usize::from(found));
        found
    }

    fn want(&mut self, byte: u8) -> Result<(), Stop> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(Stop::Syntax)
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, Stop> {
        if !self.rest().starts_with(word) {
            return Err(Stop::Syntax);
        }
        self.skip(word.len());
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        self.limits.step(1)?;
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= NESTING => {
                Err(Fault::from("the JSON text is nested too deeply").into())
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Nil),
            _ => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Stop> {
        self.skip(1);
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::list(items));
        }
        loop {
            self.limits.grow(size_of::<Value>())?;
            items.push(self.value(depth.saturating_add(1))?);
            self.space();
            if !self.take(b',') {
                self.want(b']')?;
                return Ok(Value::list(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Stop> {
        self.skip(1);
        let mut items = BTreeMap::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::dict(items));
        }
        loop {
            dicts::room(self.limits, 1)?;
            self.space();
            if self.peek() != Some(b'"') {
                return Err(Stop::Syntax);
            }
            let key = self.string()?;
            self.space();
            self.want(b':')?;
            items.insert(key, self.value(depth.saturating_add(1))?);
            self.space();
            if !self.take(b',') {
                self.want(b'}')?;
                return Ok(Value::dict(items));
            }
        }
    }

    fn digits(&mut self) -> Result<(), Stop> {
        let count = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.skip(count);
        if count == 0 { Err(Stop::Syntax) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value, Stop> {
        let from = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        Ok(match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Value::Float(number),
            None => {
                self.numbers_fit = false;
                Value::Nil
            }
        })
    }

    fn string(&mut self) -> Result<Text, Stop> {
        self.skip(1);
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
        let mut made = Vec::new();
        loop {
            let rest = self.rest();
            let plain = rest.iter().position(special).ok_or(Stop::Syntax)?;
            let piece = rest.get(..plain).unwrap_or_default();
            self.skip(plain);
            let last = self.peek() == Some(b'"');
            match str::from_utf8(piece) {
                Ok(text) if last && made.is_empty() => {
                    self.skip(1);
                    return Ok(Text::from(text.as_bytes()));
                }
                Ok(text) => made.extend_from_slice(text.as_bytes()),
                Err(_) => made.extend_from_slice(runes(piece).map(|(c, _)| c).collect::<String>().as_bytes()),
            }
            if self.take(b'"') {
                return Ok(Text::from(made));
            }
            self.want(b'\\')?;
            let c = self.escape()?;
            made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// What follows the backslash.
    fn escape(&mut self) -> Result<char, Stop> {
        let letter = self.peek().ok_or(Stop::Syntax)?;
        let c = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.skip(1);
                return self.unicode();
            }
            _ => return Err(Stop::Syntax),
        };
        self.skip(1);
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, Stop> {
        let unit = self.hex(0).ok_or(Stop::Syntax)?;
        self.skip(4);
        if !(0xD800..0xE000).contains(&unit) {
            return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let second = if self.rest().starts_with(b"\\u") {
            self.hex(2)
        } else {
            None
        };
        if let Some(second @ 0xDC00..0xE000) = second
            && unit < 0xDC00
        {
            self.skip(6);
            let code = 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    /// The four digits that follow after so many bytes.
    fn hex(&self, after: usize) -> Option<u32> {
        let digits = self.rest().get(after..after.saturating_add(4))?;
        digits.iter().try_fold(0, |number, byte| {
            Some(number << 4 | char::from(*byte).to_digit(16)?)
        })
    }
}
