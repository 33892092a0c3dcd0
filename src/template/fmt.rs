//! Go's `fmt`: what `print`, `printf` and `println` write, and how a value is shown.

use super::fmt_value::print_arg;
use super::funcs::Fault;
use super::limits::Limits;
use super::value::Value;

/// Go refuses larger widths, precisions and numbers of arguments.
const LARGEST: i64 = 1_000_000;

/// What stands between `%` and the verb.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub width: Option<usize>,
    pub precision: Option<usize>,
    pub minus: bool,
    pub plus: bool,
    pub sharp: bool,
    pub space: bool,
    pub zero: bool,
    /// `%+v`, and `%#v`.
    pub plus_v: bool,
    pub sharp_v: bool,
}

/// Text that is being made.
pub(super) struct Printer<'l> {
    pub limits: &'l mut Limits,
    pub out: Vec<u8>,
    pub flags: Flags,
}

impl Printer<'_> {
    /// Writes bytes, and spaces or zeros up to the width.
    pub fn pad(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some(width) = self.flags.width else {
            return self.write(bytes);
        };
        let missing = width.saturating_sub(runes(bytes));
        if self.flags.minus {
            self.write(bytes)?;
            self.fill(missing)
        } else {
            self.fill(missing)?;
            self.write(bytes)
        }
    }

    /// Writes spaces or zeros.
    pub fn fill(&mut self, count: usize) -> Result<(), Fault> {
        self.limits.grow(count)?;
        let byte = if self.flags.zero && !self.flags.minus {
            b'0'
        } else {
            b' '
        };
        self.out.resize(self.out.len() + count, byte);
        Ok(())
    }

    /// The same with spaces, whatever the flags say.
    pub fn pad_with_spaces(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let zero = std::mem::replace(&mut self.flags.zero, false);
        let done = self.pad(bytes);
        self.flags.zero = zero;
        done
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.limits.grow(bytes.len())?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// How many runes Go counts: what is not UTF-8 counts by the byte.
fn runes(bytes: &[u8]) -> usize {
    if bytes.is_ascii() {
        return bytes.len();
    }
    bytes
        .utf8_chunks()
        .map(|chunk| chunk.valid().chars().count() + chunk.invalid().len())
        .sum()
}

/// Writes a value as `%v` does.
///
/// # Errors
/// If it is too much text, or values lie in one another too deep.
pub fn display(limits: &mut Limits, out: &mut Vec<u8>, value: &Value) -> Result<(), Fault> {
    let mut printer = Printer {
        limits,
        out: std::mem::take(out),
        flags: Flags::default(),
    };
    let done = print_arg(&mut printer, value, 'v');
    *out = printer.out;
    done
}

/// A value as `%v` shows it.
///
/// # Errors
/// If it is too much text, or values lie in one another too deep.
pub fn text_of(limits: &mut Limits, value: &Value) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    display(limits, &mut out, value)?;
    Ok(out)
}

/// Go's `Sprint`: spaces only between two that are no text.
///
/// # Errors
/// Those of [`display`].
pub fn sprint(limits: &mut Limits, args: &[Value]) -> Result<Vec<u8>, Fault> {
    let mut printer = new(limits);
    let mut after_text = true;
    for arg in args {
        let is_text = matches!(arg, Value::Text(_));
        if !is_text && !after_text {
            printer.write(b" ")?;
        }
        print_arg(&mut printer, arg, 'v')?;
        after_text = is_text;
    }
    Ok(printer.out)
}

/// Go's `Sprintln`.
///
/// # Errors
/// Those of [`display`].
pub fn sprintln(limits: &mut Limits, args: &[Value]) -> Result<Vec<u8>, Fault> {
    let mut printer = new(limits);
    for (index, arg) in args.iter().enumerate() {
        if index > 0 {
            printer.write(b" ")?;
        }
        print_arg(&mut printer, arg, 'v')?;
    }
    printer.write(b"\n")?;
    Ok(printer.out)
}

fn new(limits: &mut Limits) -> Printer<'_> {
    Printer {
        limits,
        out: Vec::new(),
        flags: Flags::default(),
    }
}

/// Go's `Sprintf`.
///
/// # Errors
/// Those of [`display`].
pub fn sprintf(limits: &mut Limits, format: &[u8], args: &[Value]) -> Result<Vec<u8>, Fault> {
    let mut run = Run {
        rest: format,
        args,
        next: 0,
        reordered: false,
        good: true,
        printer: new(limits),
    };
    while let Some(at) = run.rest.iter().position(|byte| *byte == b'%') {
        let (text, rest) = run.rest.split_at_checked(at).unwrap_or_default();
        run.printer.write(text)?;
        run.rest = rest.get(1..).unwrap_or_default();
        if !run.verb()? {
            break;
        }
    }
    let rest = run.rest;
    run.printer.write(rest)?;
    run.extra()?;
    Ok(run.printer.out)
}

/// A format that is being carried out.
struct Run<'f, 'l> {
    rest: &'f [u8],
    args: &'f [Value],
    /// Index of the next argument.
    next: usize,
    /// Whether the format chose its arguments by number.
    reordered: bool,
    /// Whether the numbers of the arguments of this verb exist.
    good: bool,
    printer: Printer<'l>,
}

impl Run<'_, '_> {
    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// What follows a `%`; whether the format goes on.
    fn verb(&mut self) -> Result<bool, Fault> {
        self.good = true;
        self.printer.flags = Flags::default();
        self.flags();
        let mut numbered = self.number();
        numbered = self.width(numbered)?;
        numbered = self.precision(numbered)?;
        if !numbered {
            self.number();
        }
        let Some((verb, size)) = first_rune(self.rest) else {
            self.printer.write(b"%!(NOVERB)")?;
            return Ok(false);
        };
        // Go writes bytes that are no rune as U+FFFD, and goes on behind them.
        self.skip(size);
        if verb == '%' {
            self.printer.write(b"%")?;
        } else if !self.good {
            self.complain(verb, "(BADINDEX)")?;
        } else if let Some(arg) = self.args.get(self.next) {
            if verb == 'v' {
                let flags = &mut self.printer.flags;
                flags.sharp_v = std::mem::take(&mut flags.sharp);
                flags.plus_v = std::mem::take(&mut flags.plus);
            }
            print_arg(&mut self.printer, arg, verb)?;
            self.next += 1;
        } else {
            self.complain(verb, "(MISSING)")?;
        }
        Ok(true)
    }

    fn complain(&mut self, verb: char, what: &str) -> Result<(), Fault> {
        self.printer.write(format!("%!{verb}{what}").as_bytes())
    }

    fn flags(&mut self) {
        let flags = &mut self.printer.flags;
        while let Some((byte, rest)) = self.rest.split_first() {
            match byte {
                b'#' => flags.sharp = true,
                b'0' => flags.zero = true,
                b'+' => flags.plus = true,
                b'-' => flags.minus = true,
                b' ' => flags.space = true,
                _ => break,
            }
            self.rest = rest;
        }
    }

    /// `[n]`: the number of the next argument; whether there was one.
    fn number(&mut self) -> bool {
        if self.rest.first() != Some(&b'[') {
            return false;
        }
        self.reordered = true;
        let close = self
            .rest
            .iter()
            .position(|byte| *byte == b']')
            .filter(|_| self.rest.len() >= 3);
        let Some(close) = close else {
            self.good = false;
            self.skip(1);
            return false;
        };
        let inner = self.rest.get(1..close).unwrap_or_default();
        let (number, length) = decimal(inner);
        self.skip(close + 1);
        let Some(number) = number.filter(|_| length == inner.len()) else {
            self.good = false;
            return false;
        };
        match number.checked_sub(1).filter(|index| *index < self.args.len()) {
            Some(index) => self.next = index,
            None => self.good = false,
        }
        true
    }

    fn width(&mut self, numbered: bool) -> Result<bool, Fault> {
        if self.rest.first() == Some(&b'*') {
            self.skip(1);
            let width = self.int_arg();
            if width.is_none() {
                self.printer.write(b"%!(BADWIDTH)")?;
            }
            let flags = &mut self.printer.flags;
            flags.width = width
                .map(i64::unsigned_abs)
                .and_then(|width| usize::try_from(width).ok());
            if width.is_some_and(i64::is_negative) {
                flags.minus = true;
                flags.zero = false;
            }
            return Ok(false);
        }
        self.printer.flags.width = self.decimal();
        if numbered && self.printer.flags.width.is_some() {
            self.good = false;
        }
        Ok(numbered)
    }

    fn precision(&mut self, numbered: bool) -> Result<bool, Fault> {
        if self.rest.first() != Some(&b'.') || self.rest.len() < 2 {
            return Ok(numbered);
        }
        self.skip(1);
        if numbered {
            self.good = false;
        }
        let numbered = self.number();
        if self.rest.first() == Some(&b'*') {
            self.skip(1);
            self.printer.flags.precision = self.int_arg().and_then(|number| usize::try_from(number).ok());
            if self.printer.flags.precision.is_none() {
                self.printer.write(b"%!(BADPREC)")?;
            }
            return Ok(false);
        }
        self.printer.flags.precision = Some(self.decimal().unwrap_or(0));
        Ok(numbered)
    }

    fn decimal(&mut self) -> Option<usize> {
        let (number, length) = decimal(self.rest);
        self.skip(length);
        number
    }

    /// The next argument, as a width or precision.
    fn int_arg(&mut self) -> Option<i64> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        match arg {
            Value::Int(kind, number) if !(kind.unsigned() && *number < 0) => Some(*number),
            Value::Duration(number) => Some(*number),
            _ => None,
        }
        .filter(|number| (-LARGEST..=LARGEST).contains(number))
    }

    /// Shows the arguments that no verb asked for.
    fn extra(&mut self) -> Result<(), Fault> {
        let extra = self.args.get(self.next..).unwrap_or_default();
        if self.reordered || extra.is_empty() {
            return Ok(());
        }
        self.printer.flags = Flags::default();
        self.printer.write(b"%!(EXTRA ")?;
        for (index, arg) in extra.iter().enumerate() {
            if index > 0 {
                self.printer.write(b", ")?;
            }
            if matches!(arg, Value::Nil) {
                self.printer.write(b"<nil>")?;
            } else {
                self.printer.write(format!("{}=", arg.type_name()).as_bytes())?;
                print_arg(&mut self.printer, arg, 'v')?;
            }
        }
        self.printer.write(b")")
    }
}

/// A number at the beginning of a text, if there is one that is not too large, and how many bytes were read:
/// all of them if it is too large, as in Go.
fn decimal(text: &[u8]) -> (Option<usize>, usize) {
    let mut number = None;
    for (index, byte) in text.iter().enumerate() {
        if !byte.is_ascii_digit() {
            return (number, index);
        }
        let before = number.unwrap_or(0);
        if i64::try_from(before).map_or(true, |before| before > LARGEST) {
            return (None, text.len());
        }
        number = Some(before * 10 + usize::from(byte - b'0'));
    }
    (number, text.len())
}

/// The first rune and its length in bytes.
pub(super) fn first_rune(text: &[u8]) -> Option<(char, usize)> {
    let start = text.get(..4.min(text.len())).unwrap_or_default();
    let chunk = start.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some(('\u{FFFD}', 1)),
    }
}
