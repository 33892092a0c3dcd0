//! The executor: walks a tree and writes the result, by Go's rules (`text/template`).

#[path = "exec_eval.rs"]
mod eval;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::fmt;
use super::funcs::Fault;
use super::limits::{CALLS, Limits};
use super::tree::{Branches, DOLLAR, Invocation, Name, Node, Pipe, Range, Span, Term};
use super::value::{Text, Value};
use super::{MissingKey, Template};
use crate::secret::SecretBytes;

/// Why a rendering failed, and where.
pub(super) struct Failure {
    pub span: Span,
    /// Name of the template.
    pub executing: String,
    pub message: Cow<'static, str>,
}

/// Why a list of nodes was left.
enum Stop {
    Break,
    Continue,
    Failed(Box<Failure>),
}

impl From<Box<Failure>> for Stop {
    fn from(failure: Box<Failure>) -> Self {
        Self::Failed(failure)
    }
}

type Outcome<T> = Result<T, Box<Failure>>;

/// The value of `.` or `$`; nothing stands for the whole data, which is not copied as long as nobody looks at it as a whole.
type Dot = Option<Value>;

/// Renders a template.
pub(super) fn render(
    template: &Template,
    data: &BTreeMap<String, SecretBytes>,
    missing: MissingKey,
) -> Result<Vec<u8>, Box<Failure>> {
    let mut exec = Exec {
        template,
        data,
        missing,
        whole: None,
        limits: Limits::default(),
        out: Vec::new(),
        variables: vec![(DOLLAR, None)],
        scope: 0,
        depth: 0,
        executing: &template.name,
        stack: Vec::new(),
    };
    let body = template
        .trees
        .get(&*template.name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    match exec.walk(&None, body) {
        Ok(()) => Ok(exec.out),
        Err(Stop::Failed(failure)) => Err(failure),
        // The parser allows both only in ranges.
        Err(Stop::Break | Stop::Continue) => exec.fail(Span::default(), "break or continue outside range"),
    }
}

struct Exec<'t> {
    template: &'t Template,
    data: &'t BTreeMap<String, SecretBytes>,
    missing: MissingKey,
    /// The whole data as a value, once somebody asked for it.
    whole: Option<Value>,
    limits: Limits,
    out: Vec<u8>,
    /// Variables; those of the template that is being carried out begin at `scope`.
    variables: Vec<(Name, Dot)>,
    scope: usize,
    /// Bodies, templates and parentheses around this place.
    depth: usize,
    executing: &'t str,
    /// Arguments of the functions that are being called.
    stack: Vec<Value>,
}

impl<'t> Exec<'t> {
    fn fail<T>(&self, span: Span, message: impl Into<Cow<'static, str>>) -> Outcome<T> {
        Err(Box::new(Failure {
            span,
            executing: self.executing.to_owned(),
            message: message.into(),
        }))
    }

    fn check<T>(&self, span: Span, result: Result<T, Fault>) -> Outcome<T> {
        result.or_else(|Fault(message)| self.fail(span, message))
    }

    fn enter(&mut self, span: Span) -> Outcome<()> {
        self.depth += 1;
        if self.depth > CALLS {
            return self.fail(span, format!("exceeded maximum template depth ({CALLS})"));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.limits.grow(bytes.len())?;
        self.out.extend_from_slice(bytes);
        Limits::output(self.out.len())
    }

    fn walk(&mut self, dot: &Dot, nodes: &'t [Node]) -> Result<(), Stop> {
        for node in nodes {
            match node {
                Node::Text(span) => {
                    let text = self.template.text.get(span.at..span.end).unwrap_or_default();
                    let done = self.write(text.as_bytes());
                    self.check(*span, done)?;
                }
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        let done = self.print(&value);
                        self.check(span_of(pipe), done)?;
                    }
                }
                Node::If(branches) => self.branches(dot, branches, false)?,
                Node::With(branches) => self.branches(dot, branches, true)?,
                Node::Range(range) => self.range(dot, range)?,
                Node::Template(invocation) => self.invoke(dot, invocation)?,
                Node::Break => return Err(Stop::Break),
                Node::Continue => return Err(Stop::Continue),
            }
        }
        Ok(())
    }

    fn print(&mut self, value: &Value) -> Result<(), Fault> {
        match value {
            Value::Text(text) => self.write(text),
            Value::Nil => self.write(b"<no value>"),
            _ => {
                fmt::display(&mut self.limits, &mut self.out, value)?;
                Limits::output(self.out.len())
            }
        }
    }

    fn branches(&mut self, dot: &Dot, branches: &'t Branches, with: bool) -> Result<(), Stop> {
        let mark = self.variables.len();
        for (pipe, body) in &branches.arms {
            self.enter(span_of(pipe))?;
            let value = self.dot_of(dot, pipe)?;
            if self.truth(&value) {
                if with {
                    self.walk(&value, body)?;
                } else {
                    self.walk(dot, body)?;
                }
                self.depth -= 1;
                self.variables.truncate(mark);
                return Ok(());
            }
            self.depth -= 1;
        }
        if !branches.otherwise.is_empty() {
            self.depth += 1;
            self.walk(dot, &branches.otherwise)?;
            self.depth -= 1;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn truth(&self, value: &Dot) -> bool {
        value.as_ref().map_or(!self.data.is_empty(), Value::truth)
    }

    fn range(&mut self, dot: &Dot, range: &'t Range) -> Result<(), Stop> {
        let mark = self.variables.len();
        self.enter(range.span)?;
        let value = self.pipe(dot, &range.pipe)?;
        let run = match value {
            Value::Int(kind, end) => self.count(range, end, |number| Value::Int(kind, number))?,
            Value::Duration(end) => self.count(range, end, Value::Duration)?,
            Value::List(list) => {
                for (index, item) in list.items.iter().enumerate() {
                    let index = Value::int(i64::try_from(index).unwrap_or(i64::MAX));
                    if !self.iterate(range, index, item.clone())? {
                        break;
                    }
                }
                !list.items.is_empty()
            }
            Value::Map(map) => {
                // The body may change the map.
                let items: Vec<(Text, Value)> = map
                    .items
                    .borrow()
                    .iter()
                    .map(|(key, item)| (Rc::clone(key), item.clone()))
                    .collect();
                let run = !items.is_empty();
                for (key, item) in items {
                    if !self.iterate(range, Value::Text(key), item)? {
                        break;
                    }
                }
                run
            }
            Value::Nil => false,
            other => {
                let kind = other.type_name();
                return Ok(self.fail(
                    range.span,
                    format!("range can't iterate over a value of type {kind}"),
                )?);
            }
        };
        if !run {
            self.walk(dot, &range.otherwise)?;
        }
        self.depth -= 1;
        self.variables.truncate(mark);
        Ok(())
    }

    /// A range over a number.
    fn count(&mut self, range: &'t Range, end: i64, value: impl Fn(i64) -> Value) -> Result<bool, Stop> {
        if range.pipe.variables.len() > 1 {
            return Ok(self.fail(
                range.span,
                "can't use an integer to iterate over more than one variable",
            )?);
        }
        for number in 0..end {
            if !self.iterate(range, Value::Nil, value(number))? {
                break;
            }
        }
        Ok(end > 0)
    }

    /// One round of a range; whether another one may follow.
    fn iterate(&mut self, range: &'t Range, index: Value, item: Value) -> Result<bool, Stop> {
        let step = self.limits.step(1);
        self.check(range.span, step)?;
        match range.pipe.variables.as_slice() {
            [] => {}
            [name] => self.set_range(range, *name, 1, &item)?,
            [first, second, ..] => {
                self.set_range(range, *first, 2, &index)?;
                self.set_range(range, *second, 1, &item)?;
            }
        }
        let mark = self.variables.len();
        let depth = self.depth;
        let done = self.walk(&Some(item), &range.body);
        self.variables.truncate(mark);
        self.depth = depth;
        match done {
            Ok(()) | Err(Stop::Continue) => Ok(true),
            Err(Stop::Break) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Sets a variable of a range, which is the top-most or the one below unless it existed before.
    fn set_range(&mut self, range: &'t Range, name: Name, from_top: usize, value: &Value) -> Outcome<()> {
        let value = Some(value.clone());
        if range.pipe.assigns {
            return self.assign(range.span, name, value);
        }
        let place = self.variables.len().checked_sub(from_top);
        if let Some(variable) = place.and_then(|place| self.variables.get_mut(place)) {
            variable.1 = value;
        }
        Ok(())
    }

    fn invoke(&mut self, dot: &Dot, invocation: &'t Invocation) -> Result<(), Stop> {
        let template = self.template;
        let Some((name, body)) = template.trees.get_key_value(&invocation.name) else {
            let name = &invocation.name;
            return Ok(self.fail(invocation.span, format!("template {name:?} not defined"))?);
        };
        self.enter(invocation.span)?;
        let dot = match &invocation.pipe {
            Some(pipe) => self.dot_of(dot, pipe)?,
            None => Some(Value::Nil),
        };
        let scope = std::mem::replace(&mut self.scope, self.variables.len());
        let executing = std::mem::replace(&mut self.executing, name);
        self.variables.push((DOLLAR, dot.clone()));
        self.walk(&dot, body)?;
        self.variables.truncate(self.scope);
        self.scope = scope;
        self.executing = executing;
        self.depth -= 1;
        Ok(())
    }

    /// The value of a pipe that becomes a dot: the whole data is passed on as it is.
    fn dot_of(&mut self, dot: &Dot, pipe: &'t Pipe) -> Outcome<Dot> {
        if let ([command], []) = (pipe.commands.as_slice(), pipe.variables.as_slice())
            && command.args.is_empty()
            && command.first.fields.is_empty()
        {
            match command.first.term {
                Term::Dot if dot.is_none() => return Ok(None),
                Term::Variable(name) => return self.variable(command.span, name).cloned(),
                _ => {}
            }
        }
        Ok(Some(self.pipe(dot, pipe)?))
    }

    fn pipe(&mut self, dot: &Dot, pipe: &'t Pipe) -> Outcome<Value> {
        let step = self.limits.step(1);
        self.check(span_of(pipe), step)?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.assigns {
                self.assign(span_of(pipe), *name, Some(value.clone()))?;
            } else {
                self.variables.push((*name, Some(value.clone())));
            }
        }
        Ok(value)
    }
}

fn span_of(pipe: &Pipe) -> Span {
    match (pipe.commands.first(), pipe.commands.last()) {
        (Some(first), Some(last)) => Span {
            at: first.span.at,
            end: last.span.end,
        },
        _ => Span::default(),
    }
}
