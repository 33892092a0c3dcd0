//! The parser: from tokens to a tree, by Go's rules (`text/template/parse`).

#[path = "parse_pipe.rs"]
mod pipe;

use std::borrow::Cow;

use super::lex::{Kind, SyntaxError, Token, lex};
use super::limits::DEPTH;
use super::tree::{Branches, DOLLAR, Invocation, Name, Node, Range, Span, Trees};

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

/// A part of the text that is short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().nth(MOST).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MOST).collect();
    format!("{kept}…")
}
