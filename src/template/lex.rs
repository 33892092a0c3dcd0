//! The lexer: from the text of a template to tokens, by Go's rules (`text/template/parse`).

use std::borrow::Cow;

use super::funcs::words::{is_digit, is_letter};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Assign,
    Block,
    Bool,
    Break,
    CharConstant,
    CloseParen,
    Comma,
    Complex,
    Continue,
    Declare,
    Define,
    Dot,
    Else,
    End,
    Eof,
    /// The lexer's complaint, which is always the last token.
    Error,
    Field,
    Identifier,
    If,
    Left,
    Nil,
    Number,
    OpenParen,
    Other,
    Pipe,
    Range,
    RawString,
    Right,
    Space,
    String,
    Template,
    Text,
    Variable,
    With,
}

/// A token and where it stands, in bytes of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub at: usize,
    pub end: usize,
}

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub at: usize,
    pub message: Cow<'static, str>,
}

/// The tokens of a text; when the lexer gives up, its complaint and a token [`Kind::Error`].
pub(super) struct Tokens {
    pub all: Vec<Token>,
    pub error: Option<SyntaxError>,
}

/// Cuts a text into tokens.
pub(super) fn lex(text: &str, left: &str, right: &str) -> Tokens {
    let mut lexer = Lexer {
        text,
        left,
        right,
        start: 0,
        at: 0,
        parens: 0,
        tokens: Vec::new(),
    };
    let error = lexer.run().err();
    let kind = if error.is_some() { Kind::Error } else { Kind::Eof };
    lexer.tokens.push(Token {
        kind,
        at: lexer.start,
        end: lexer.start,
    });
    Tokens {
        all: lexer.tokens,
        error,
    }
}

type Outcome = Result<(), SyntaxError>;

struct Lexer<'t> {
    text: &'t str,
    left: &'t str,
    right: &'t str,
    /// Where the token began.
    start: usize,
    /// Where the lexer stands.
    at: usize,
    parens: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, valid: impl Fn(char) -> bool) -> bool {
        match self.peek() {
            Some(c) if valid(c) => {
                self.at += c.len_utf8();
                true
            }
            _ => false,
        }
    }

    fn accept_run(&mut self, valid: impl Fn(char) -> bool) {
        while self.accept(&valid) {}
    }

    fn emit(&mut self, kind: Kind) {
        self.tokens.push(Token {
            kind,
            at: self.start,
            end: self.at,
        });
        self.start = self.at;
    }

    fn fail<T>(&self, message: impl Into<Cow<'static, str>>) -> Result<T, SyntaxError> {
        Err(SyntaxError {
            at: self.start,
            message: message.into(),
        })
    }

    fn run(&mut self) -> Outcome {
        while self.text_until_action()? {
            self.action()?;
        }
        Ok(())
    }

    /// Reads text and comments up to the next action; whether there is one.
    fn text_until_action(&mut self) -> Result<bool, SyntaxError> {
        loop {
            let found = find(self.rest().as_bytes(), self.left.as_bytes());
            let Some(length) = found else {
                self.at = self.text.len();
                if self.at > self.start {
                    self.emit(Kind::Text);
                }
                return Ok(false);
            };
            let delim = self.at + length;
            let after = delim + self.left.len();
            let trim = trims_left(self.text.as_bytes().get(after..).unwrap_or_default());
            let text = self.text.get(self.start..delim).unwrap_or_default();
            let kept = if trim {
                text.trim_end_matches(is_space).len()
            } else {
                text.len()
            };
            self.at = self.start + kept;
            if kept > 0 {
                self.emit(Kind::Text);
            }
            self.start = delim;
            self.at = if trim { after + 2 } else { after };
            if !self.rest().starts_with("/*") {
                self.emit(Kind::Left);
                self.parens = 0;
                return Ok(true);
            }
            self.comment()?;
        }
    }

    fn comment(&mut self) -> Outcome {
        let Some(length) = self.rest().get(2..).and_then(|rest| rest.find("*/")) else {
            return self.fail("unclosed comment");
        };
        self.at += length + 4;
        let Some(trim) = self.at_right() else {
            return self.fail("comment ends before closing delimiter");
        };
        self.skip_right(trim);
        self.start = self.at;
        Ok(())
    }

    /// Whether the lexer stands before the right delimiter, and whether that trims the text behind it.
    fn at_right(&self) -> Option<bool> {
        let rest = self.rest();
        if self.marked_right(rest) {
            return Some(true);
        }
        rest.starts_with(self.right).then_some(false)
    }

    fn marked_right(&self, rest: &str) -> bool {
        trims_right(rest.as_bytes()) && rest.get(2..).is_some_and(|rest| rest.starts_with(self.right))
    }

    fn skip_right(&mut self, trim: bool) {
        self.at += self.right.len();
        if trim {
            self.at += 2;
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_space).len();
        }
    }

    /// Reads what stands between the delimiters, and the right one.
    fn action(&mut self) -> Outcome {
        loop {
            if let Some(trim) = self.at_right() {
                if self.parens > 0 {
                    return self.fail("unclosed left paren");
                }
                self.skip_right(trim);
                self.emit(Kind::Right);
                return Ok(());
            }
            self.token()?;
        }
    }

    fn token(&mut self) -> Outcome {
        let Some(c) = self.next() else {
            return self.fail("unclosed action");
        };
        match c {
            ' ' | '\t' | '\r' | '\n' => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' if self.accept(|c| c == '=') => self.emit(Kind::Declare),
            ':' => return self.fail("expected :="),
            '|' => self.emit(Kind::Pipe),
            '"' => return self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => return self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => return self.raw(),
            '$' => return self.name(Kind::Variable, Kind::Variable),
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) && !self.rest().is_empty() => {
                return self.name(Kind::Field, Kind::Dot);
            }
            '.' | '+' | '-' | '0'..='9' => {
                self.at = self.start;
                return self.number();
            }
            '(' => {
                self.parens += 1;
                self.emit(Kind::OpenParen);
            }
            ')' => {
                let Some(parens) = self.parens.checked_sub(1) else {
                    return self.fail("unexpected right paren");
                };
                self.parens = parens;
                self.emit(Kind::CloseParen);
            }
            ',' => self.emit(Kind::Comma),
            c if is_alphanumeric(c) => return self.identifier(),
            c if c.is_ascii_graphic() => self.emit(Kind::Other),
            c => return self.fail(format!("unrecognized character in action: {}", code(c))),
        }
        Ok(())
    }

    /// Reads a run of space; the last one may belong to a right delimiter that trims.
    fn space(&mut self) {
        self.accept_run(is_space);
        let last = self.at - 1;
        if self.text.get(last..).is_some_and(|rest| self.marked_right(rest)) {
            self.at = last;
        }
        if self.at > self.start {
            self.emit(Kind::Space);
        }
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &'static str) -> Outcome {
        loop {
            match self.next() {
                Some('\\') => {
                    if matches!(self.next(), None | Some('\n')) {
                        return self.fail(unterminated);
                    }
                }
                None | Some('\n') => return self.fail(unterminated),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn raw(&mut self) -> Outcome {
        let Some(length) = self.rest().find('`') else {
            return self.fail("unterminated raw quoted string");
        };
        self.at += length + 1;
        self.emit(Kind::RawString);
        Ok(())
    }

    /// Reads a field or variable, whose `.` or `$` is read already; it may stand alone.
    fn name(&mut self, kind: Kind, alone: Kind) -> Outcome {
        if self.at_terminator() {
            self.emit(alone);
            return Ok(());
        }
        self.accept_run(is_alphanumeric);
        self.expect_terminator()?;
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Outcome {
        self.accept_run(is_alphanumeric);
        self.expect_terminator()?;
        let word = self.text.get(self.start..self.at).unwrap_or_default();
        self.emit(keyword(word));
        Ok(())
    }

    fn expect_terminator(&self) -> Outcome {
        if self.at_terminator() {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "end of text".into(), code);
        self.fail(format!("bad character {found}"))
    }

    /// Whether a name may end here: Go wants a space or one of a few signs after it.
    fn at_terminator(&self) -> bool {
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(_) => self.rest().starts_with(self.right),
        }
    }

    fn number(&mut self) -> Outcome {
        let mut good = self.scan_number();
        let mut kind = Kind::Number;
        if good && matches!(self.peek(), Some('+' | '-')) {
            good = self.scan_number() && self.text.get(..self.at).is_some_and(|text| text.ends_with('i'));
            kind = Kind::Complex;
        }
        if !good {
            let found = self.text.get(self.start..self.at).unwrap_or_default();
            return self.fail(format!("bad number syntax: {found:?}"));
        }
        self.emit(kind);
        Ok(())
    }

    fn scan_number(&mut self) -> bool {
        self.accept(|c| matches!(c, '+' | '-'));
        let mut radix = 10;
        if self.accept(|c| c == '0') {
            if self.accept(|c| matches!(c, 'x' | 'X')) {
                radix = 16;
            } else if self.accept(|c| matches!(c, 'o' | 'O')) {
                radix = 8;
            } else if self.accept(|c| matches!(c, 'b' | 'B')) {
                radix = 2;
            }
        }
        let digit = |c: char| c == '_' || c.is_digit(radix);
        self.accept_run(digit);
        if self.accept(|c| c == '.') {
            self.accept_run(digit);
        }
        let exponent = match radix {
            10 => self.accept(|c| matches!(c, 'e' | 'E')),
            16 => self.accept(|c| matches!(c, 'p' | 'P')),
            _ => false,
        };
        if exponent {
            self.accept(|c| matches!(c, '+' | '-'));
            self.accept_run(|c| c == '_' || c.is_ascii_digit());
        }
        self.accept(|c| c == 'i');
        !self.accept(is_alphanumeric)
    }
}

/// Where a pattern begins in a text.
fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    let first = pattern.first()?;
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = from + rest.iter().position(|byte| byte == first)?;
        if text.get(at..).is_some_and(|rest| rest.starts_with(pattern)) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn keyword(word: &str) -> Kind {
    match word {
        "block" => Kind::Block,
        "break" => Kind::Break,
        "continue" => Kind::Continue,
        "define" => Kind::Define,
        "else" => Kind::Else,
        "end" => Kind::End,
        "if" => Kind::If,
        "range" => Kind::Range,
        "nil" => Kind::Nil,
        "template" => Kind::Template,
        "with" => Kind::With,
        "true" | "false" => Kind::Bool,
        _ => Kind::Identifier,
    }
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && (is_letter(c) || is_digit(c)))
}

/// Whether the text after a left delimiter begins with a trim marker.
fn trims_left(text: &[u8]) -> bool {
    matches!(text, [b'-', b' ' | b'\t' | b'\r' | b'\n', ..])
}

/// Whether a trim marker begins here.
fn trims_right(text: &[u8]) -> bool {
    matches!(text, [b' ' | b'\t' | b'\r' | b'\n', b'-', ..])
}

/// As Go's `%#U` writes a rune that can be printed.
fn code(c: char) -> String {
    let number = format!("U+{:04X}", u32::from(c));
    if c.is_control() {
        number
    } else {
        format!("{number} '{c}'")
    }
}
