//! The parser: from tokens to a tree, by Go's rules (`text/template/parse`).

use std::borrow::Cow;

use super::funcs;
use super::lex::{Kind, SyntaxError, Token, lex};
use super::limits::DEPTH;
use super::parse_literal::{char_constant, number, unquote};
use super::tree::{
    Branches, Command, DOLLAR, Invocation, Name, Node, Operand, Pipe, Range, Span, Term, Trees,
};

/// What a text gives.
pub(super) struct Parsed {
    pub trees: Trees,
    /// Names of variables, `$` first.
    pub names: Vec<Box<str>>,
    /// Whether no function is named that gives something new each time.
    pub stable: bool,
}

/// Parses the text of a template of this name.
pub(super) fn parse(name: &str, text: &str, left: &str, right: &str) -> Result<Parsed, SyntaxError> {
    let tokens = lex(text, left, right);
    let mut parser = Parser {
        text,
        tokens: tokens.all,
        error: tokens.error,
        next: 0,
        names: vec!["$".into()],
        variables: vec![DOLLAR],
        ranges: 0,
        depth: 0,
        stable: true,
        trees: Trees::new(),
    };
    let body = parser.root()?;
    parser.add(name, body)?;
    Ok(Parsed {
        trees: parser.trees,
        names: parser.names,
        stable: parser.stable,
    })
}

type Outcome<T> = Result<T, SyntaxError>;

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    End,
    Else,
    /// `else if` or `else with`, whose second word is still to be read.
    ElseControl,
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    error: Option<SyntaxError>,
    /// Index of the token to be read next.
    next: usize,
    names: Vec<Box<str>>,
    /// Variables in scope.
    variables: Vec<Name>,
    /// Ranges around this place.
    ranges: usize,
    /// Controls, definitions and parentheses around this place.
    depth: usize,
    stable: bool,
    trees: Trees,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token {
        // The last token is the end or the lexer's complaint; nothing reads past it.
        let last = Token {
            kind: Kind::Eof,
            at: self.text.len(),
            end: self.text.len(),
        };
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .copied()
            .unwrap_or(last)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        if self.next < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn peek_non_space(&mut self) -> Token {
        self.skip_space();
        self.peek()
    }

    fn next_non_space(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    fn word(&self, token: Token) -> &'t str {
        self.text.get(token.at..token.end).unwrap_or_default()
    }

    fn fail<T>(&self, token: Token, message: impl Into<Cow<'static, str>>) -> Outcome<T> {
        Err(SyntaxError {
            at: token.at,
            message: message.into(),
        })
    }

    fn unexpected<T>(&mut self, token: Token, context: &str) -> Outcome<T> {
        if token.kind == Kind::Error
            && let Some(error) = self.error.take()
        {
            return Err(error);
        }
        let word = self.word(token);
        let found = match token.kind {
            Kind::Eof | Kind::Error => "EOF".into(),
            Kind::Right => format!("{word:?}"),
            Kind::Text => "text".into(),
            _ => format!("<{}>", shorten(word)),
        };
        self.fail(token, format!("unexpected {found} in {context}"))
    }

    fn expect_right(&mut self, context: &str) -> Outcome<Token> {
        let token = self.next_non_space();
        if token.kind == Kind::Right {
            return Ok(token);
        }
        self.unexpected(token, context)
    }

    /// Goes one level down.
    fn enter(&mut self, token: Token) -> Outcome<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.fail(
                token,
                format!("more than {DEPTH} controls and parentheses in one another"),
            );
        }
        Ok(())
    }

    /// The whole text; only here may templates be defined.
    fn root(&mut self) -> Outcome<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next();
            match token.kind {
                Kind::Eof => return Ok(nodes),
                Kind::Text => nodes.push(text(token)),
                Kind::Left if self.peek_non_space().kind == Kind::Define => {
                    self.next();
                    self.definition()?;
                }
                Kind::Left => match self.action()? {
                    Ok(node) => nodes.push(node),
                    Err(Closing::End) => return self.fail(token, "unexpected {{end}}"),
                    Err(_) => return self.fail(token, "unexpected {{else}}"),
                },
                _ => return self.unexpected(token, "input"),
            }
        }
    }

    fn definition(&mut self) -> Outcome<()> {
        let name = self.template_name("define clause")?;
        self.expect_right("define clause")?;
        self.template(&name, "define clause")
    }

    /// The body of a definition or block, up to its end.
    fn template(&mut self, name: &str, context: &str) -> Outcome<()> {
        let token = self.peek();
        self.enter(token)?;
        let variables = std::mem::replace(&mut self.variables, vec![DOLLAR]);
        let ranges = std::mem::take(&mut self.ranges);
        let (body, closing) = self.list()?;
        if closing != Closing::End {
            return self.fail(self.peek(), format!("unexpected {{{{else}}}} in {context}"));
        }
        self.variables = variables;
        self.ranges = ranges;
        self.depth -= 1;
        self.add(name, body)
    }

    /// Keeps a template. One that is empty gives way to one that is not.
    fn add(&mut self, name: &str, body: Vec<Node>) -> Outcome<()> {
        let is_empty = self.text_is_empty(&body);
        match self.trees.get(name).map(|other| self.text_is_empty(other)) {
            Some(false) if is_empty => {}
            Some(false) => {
                let here = self.peek();
                return self.fail(here, format!("multiple definition of template {name:?}"));
            }
            Some(true) | None => {
                self.trees.insert(name.into(), body);
            }
        }
        Ok(())
    }

    /// Nodes up to the end or else.
    fn list(&mut self) -> Outcome<(Vec<Node>, Closing)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next_non_space();
            match token.kind {
                Kind::Text => nodes.push(text(token)),
                Kind::Left => match self.action()? {
                    Ok(node) => nodes.push(node),
                    Err(closing) => return Ok((nodes, closing)),
                },
                Kind::Eof => return self.fail(token, "unexpected EOF"),
                _ => return self.unexpected(token, "input"),
            }
        }
    }

    /// An action, whose left delimiter is read already.
    fn action(&mut self) -> Outcome<Result<Node, Closing>> {
        let token = self.next_non_space();
        let node = match token.kind {
            Kind::Block => self.block(token)?,
            Kind::Break => self.leave(Node::Break, "{{break}}")?,
            Kind::Continue => self.leave(Node::Continue, "{{continue}}")?,
            Kind::Else => {
                if matches!(self.peek_non_space().kind, Kind::If | Kind::With) {
                    return Ok(Err(Closing::ElseControl));
                }
                self.expect_right("else")?;
                return Ok(Err(Closing::Else));
            }
            Kind::End => {
                self.expect_right("end")?;
                return Ok(Err(Closing::End));
            }
            Kind::If => Node::If(self.branches(token, "if")?),
            Kind::With => Node::With(self.branches(token, "with")?),
            Kind::Range => self.range(token)?,
            Kind::Template => self.invocation(token)?,
            _ => {
                self.next -= 1;
                Node::Action(self.pipe("command", Kind::Right)?)
            }
        };
        Ok(Ok(node))
    }

    fn leave(&mut self, node: Node, name: &'static str) -> Outcome<Node> {
        let token = self.expect_right(name)?;
        if self.ranges == 0 {
            return self.fail(token, format!("{name} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    /// `if` and `with`. Each arm's variables last until the end of all.
    fn branches(&mut self, token: Token, context: &str) -> Outcome<Branches> {
        self.enter(token)?;
        let scope = self.variables.len();
        let kind = token.kind;
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let pipe = self.pipe(context, Kind::Right)?;
            let (body, closing) = self.list()?;
            arms.push((pipe, body));
            match closing {
                Closing::End => break,
                Closing::ElseControl if self.peek().kind == kind => {
                    self.next();
                }
                _ => {
                    otherwise = self.otherwise()?;
                    break;
                }
            }
        }
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Branches { arms, otherwise })
    }

    /// What follows an else, up to the end.
    fn otherwise(&mut self) -> Outcome<Vec<Node>> {
        let (nodes, closing) = self.list()?;
        if closing != Closing::End {
            return self.fail(self.peek(), "expected end; found {{else}}");
        }
        Ok(nodes)
    }

    fn range(&mut self, token: Token) -> Outcome<Node> {
        self.enter(token)?;
        let scope = self.variables.len();
        let pipe = self.pipe("range", Kind::Right)?;
        self.ranges += 1;
        let (body, closing) = self.list()?;
        self.ranges -= 1;
        let otherwise = if closing == Closing::End {
            Vec::new()
        } else {
            self.otherwise()?
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Node::Range(Box::new(Range {
            span: self.span(token),
            pipe,
            body,
            otherwise,
        })))
    }

    fn block(&mut self, token: Token) -> Outcome<Node> {
        let name = self.template_name("block clause")?;
        let pipe = self.pipe("block clause", Kind::Right)?;
        self.template(&name, "block clause")?;
        Ok(Node::Template(Box::new(Invocation {
            span: self.span(token),
            name: name.into(),
            pipe: Some(pipe),
        })))
    }

    fn invocation(&mut self, token: Token) -> Outcome<Node> {
        let name = self.template_name("template clause")?;
        let pipe = if self.peek_non_space().kind == Kind::Right {
            self.next();
            None
        } else {
            Some(self.pipe("template clause", Kind::Right)?)
        };
        Ok(Node::Template(Box::new(Invocation {
            span: self.span(token),
            name: name.into(),
            pipe,
        })))
    }

    fn template_name(&mut self, context: &str) -> Outcome<String> {
        let token = self.next_non_space();
        if !matches!(token.kind, Kind::String | Kind::RawString) {
            return self.unexpected(token, context);
        }
        let name = self.literal(token)?;
        String::from_utf8(name).or_else(|_| self.fail(token, "the name of a template is not UTF-8"))
    }

    /// From a token that was read to the one before the next, without space.
    fn span(&self, from: Token) -> Span {
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
    fn pipe(&mut self, context: &str, end: Kind) -> Outcome<Pipe> {
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
                    self.declare(variable, pipe);
                    return Ok(());
                }
                Kind::Comma => {
                    self.next();
                    self.declare(variable, pipe);
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

    fn declare(&mut self, token: Token, pipe: &mut Pipe) {
        let word = self.word(token);
        let name = self.name(word).unwrap_or_else(|| {
            self.names.push(word.into());
            self.names.len() - 1
        });
        pipe.variables.push(name);
        self.variables.push(name);
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

    fn literal(&self, token: Token) -> Outcome<Vec<u8>> {
        unquote(self.word(token)).or_else(|message| self.fail(token, message))
    }

    /// Whether a template is nothing but space.
    fn text_is_empty(&self, nodes: &[Node]) -> bool {
        nodes.iter().all(|node| match node {
            Node::Text(span) => self
                .text
                .get(span.at..span.end)
                .unwrap_or_default()
                .trim()
                .is_empty(),
            _ => false,
        })
    }
}

fn text(token: Token) -> Node {
    Node::Text(Span {
        at: token.at,
        end: token.end,
    })
}

/// Whether a command is something that takes no argument, and so nothing from a pipe.
fn is_constant(operand: &Operand) -> bool {
    operand.fields.is_empty()
        && matches!(
            operand.term,
            Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text(_)
        )
}

/// A part of the text that is short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().nth(MOST).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MOST).collect();
    format!("{kept}…")
}
