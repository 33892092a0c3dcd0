//! How the parser reads pipelines: declarations, commands and their operands.

use super::{Outcome, Parser, shorten};
use crate::template::funcs;
use crate::template::lex::{Kind, Token};
use crate::template::limits::VARIABLES;
use crate::template::parse_literal::{char_constant, number, unquote};
use crate::template::tree::{Command, Name, Operand, Pipe, Span, Term};

impl Parser<'_> {
    /// From a token that was read to the one before the next, without space.
    pub(super) fn span(&self, from: Token) -> Span {
        let last = self.next.checked_sub(1).and_then(|index| self.tokens.get(index));
        let end = match last {
            Some(token) if matches!(token.kind, Kind::Right | Kind::Space | Kind::Pipe) => token.at,
            Some(token) => token.end,
            None => from.end,
        };
        Span {
            at: from.at,
            end: end.max(from.end),
        }
    }

    /// Declarations, and commands with `|` between them.
    pub(super) fn pipe(&mut self, context: &str, end: Kind) -> Outcome<Pipe> {
        let mut pipe = Pipe {
            variables: Vec::new(),
            assigns: false,
            commands: Vec::new(),
        };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.next_non_space();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::OpenParen => {
                    self.next -= 1;
                    let command = self.command()?;
                    if !pipe.commands.is_empty() && is_constant(&command.first) {
                        let stage = pipe.commands.len() + 1;
                        return self.fail(token, format!("non executable command in pipeline stage {stage}"));
                    }
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(token, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.fail(self.peek(), format!("missing value for {context}"));
        }
        Ok(pipe)
    }

    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Outcome<()> {
        loop {
            let variable = self.peek_non_space();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let back = self.next;
            self.next();
            let sign = self.peek_non_space();
            match sign.kind {
                Kind::Assign | Kind::Declare => {
                    pipe.assigns = sign.kind == Kind::Assign;
                    self.next();
                    self.declare(variable, pipe)?;
                    return Ok(());
                }
                Kind::Comma => {
                    self.next();
                    self.declare(variable, pipe)?;
                    if context != "range" || pipe.variables.len() > 1 {
                        return self.fail(sign, format!("too many declarations in {context}"));
                    }
                    let token = self.peek_non_space();
                    if !matches!(token.kind, Kind::Variable | Kind::Right | Kind::CloseParen) {
                        return self.fail(token, "range can only initialize variables");
                    }
                }
                _ => {
                    self.next = back;
                    return Ok(());
                }
            }
        }
    }

    fn declare(&mut self, token: Token, pipe: &mut Pipe) -> Outcome<()> {
        let word = self.word(token);
        let name = self.name(word).unwrap_or_else(|| {
            self.names.push(word.into());
            self.names.len() - 1
        });
        pipe.variables.push(name);
        self.variables.push(name);
        if self.names.len().max(self.variables.len()) > VARIABLES {
            return self.fail(token, format!("more than {VARIABLES} variables"));
        }
        Ok(())
    }

    fn name(&self, word: &str) -> Option<Name> {
        self.names.iter().position(|name| **name == *word)
    }

    fn command(&mut self) -> Outcome<Command> {
        let start = self.peek_non_space();
        let mut first = None;
        let mut args = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                if first.is_none() {
                    first = Some(operand);
                } else {
                    args.push(operand);
                }
            }
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::Right | Kind::CloseParen => {
                    self.next -= 1;
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(token, "operand"),
            }
        }
        match first {
            Some(first) => Ok(Command {
                span: self.span(start),
                first,
                args,
            }),
            None => self.fail(start, "empty command"),
        }
    }

    /// A term and its fields; nothing if the next token begins none.
    fn operand(&mut self) -> Outcome<Option<Operand>> {
        let start = self.peek_non_space();
        let mut fields = Vec::new();
        let term = match start.kind {
            Kind::Field => Term::Dot,
            _ => match self.term()? {
                Some(term) => term,
                None => return Ok(None),
            },
        };
        while self.peek().kind == Kind::Field {
            let token = self.next();
            fields.push(self.word(token).trim_start_matches('.').into());
        }
        let bare = matches!(term, Term::Bool(_) | Term::Text(_) | Term::Number(_) | Term::Nil)
            || (start.kind == Kind::Dot);
        if bare && !fields.is_empty() {
            return self.fail(
                start,
                format!("unexpected . after term {:?}", shorten(self.word(start))),
            );
        }
        Ok(Some(Operand {
            span: self.span(start),
            term,
            fields,
        }))
    }

    fn term(&mut self) -> Outcome<Option<Term>> {
        let token = self.next_non_space();
        let word = self.word(token);
        let term = match token.kind {
            Kind::Identifier => {
                let Some(func) = funcs::find(word) else {
                    return self.fail(token, format!("function {word:?} not defined"));
                };
                self.stable &= !funcs::is_unstable(word);
                Term::Func(func)
            }
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Variable => match self.name(word).filter(|name| self.variables.contains(name)) {
                Some(name) => Term::Variable(name),
                None => return self.fail(token, format!("undefined variable {word:?}")),
            },
            Kind::Bool => Term::Bool(word == "true"),
            Kind::CharConstant => match char_constant(word) {
                Ok(number) => Term::Number(number),
                Err(message) => return self.fail(token, message),
            },
            Kind::Number | Kind::Complex => match number(word, token.kind == Kind::Complex) {
                Ok(number) => Term::Number(number),
                Err(message) => return self.fail(token, message),
            },
            Kind::OpenParen => {
                self.enter(token)?;
                let pipe = self.pipe("parenthesized pipeline", Kind::CloseParen)?;
                self.depth -= 1;
                Term::Pipe(Box::new(pipe))
            }
            Kind::String | Kind::RawString => Term::Text(self.literal(token)?.into()),
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        };
        Ok(Some(term))
    }

    pub(super) fn literal(&self, token: Token) -> Outcome<Vec<u8>> {
        unquote(self.word(token)).or_else(|message| self.fail(token, message))
    }
}

/// Whether a command is something that takes no argument, and so nothing from a pipe.
fn is_constant(operand: &Operand) -> bool {
    operand.fields.is_empty()
        && matches!(
            operand.term,
            Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text(_)
        )
}
