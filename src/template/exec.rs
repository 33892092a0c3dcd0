//! The executor: walks a tree and writes the result, by Go's rules (`text/template`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::fmt;
use super::funcs::{Fault, Func, Ty};
use super::limits::{CALLS, Limits};
use super::methods;
use super::parse::shorten;
use super::tree::{
    Branches, Command, DOLLAR, Ideal, Invocation, Name, Node, Number, Operand, Pipe, Range, Span, Term,
};
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

    fn place(&self, name: Name) -> Option<usize> {
        let own = self.variables.get(self.scope..).unwrap_or_default();
        own.iter()
            .rposition(|(other, _)| *other == name)
            .map(|index| self.scope + index)
    }

    fn undefined<T>(&self, span: Span, name: Name) -> Outcome<T> {
        let name = self
            .template
            .names
            .get(name)
            .map(|name| &**name)
            .unwrap_or_default();
        self.fail(span, format!("undefined variable: {name}"))
    }

    fn variable(&self, span: Span, name: Name) -> Outcome<&Dot> {
        match self.place(name).and_then(|place| self.variables.get(place)) {
            Some((_, value)) => Ok(value),
            None => self.undefined(span, name),
        }
    }

    fn assign(&mut self, span: Span, name: Name, value: Dot) -> Outcome<()> {
        let place = self.place(name);
        match place.and_then(|place| self.variables.get_mut(place)) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => self.undefined(span, name),
        }
    }

    /// The value of a dot, for those who look at it as a whole.
    fn value(&mut self, span: Span, dot: &Dot) -> Outcome<Value> {
        if let Some(value) = dot {
            return Ok(value.clone());
        }
        if self.whole.is_none() {
            let size = self
                .data
                .iter()
                .map(|(key, value)| key.len() + value.expose().len())
                .sum();
            let grown = self.limits.grow(size);
            self.check(span, grown)?;
            let items = self
                .data
                .iter()
                .map(|(key, value)| (Text::from(key.as_bytes()), Text::from(value.expose())));
            self.whole = Some(Value::text_map(items));
        }
        Ok(self.whole.clone().unwrap_or(Value::Nil))
    }

    fn no_function(&self, command: &Command, piped: Option<&Value>) -> Outcome<()> {
        if command.args.is_empty() && piped.is_none() {
            return Ok(());
        }
        let what = shorten(self.template.source(command.first.span));
        self.fail(
            command.span,
            format!("can't give argument to non-function {what}"),
        )
    }

    fn command(&mut self, dot: &Dot, command: &'t Command, piped: Option<Value>) -> Outcome<Value> {
        let first = &command.first;
        if !first.fields.is_empty() {
            let receiver = self.receiver(dot, first)?;
            return self.chain(dot, first, receiver, &command.args, piped);
        }
        if let Term::Func(func) = first.term {
            return self.call(dot, command.span, func, &command.args, piped);
        }
        self.no_function(command, piped.as_ref())?;
        match &first.term {
            Term::Nil => self.fail(first.span, "nil is not a command"),
            Term::Bool(is) => Ok(Value::Bool(*is)),
            Term::Number(number) => self.ideal(first.span, number),
            Term::Text(text) => Ok(Value::text(text)),
            _ => self.term(dot, first),
        }
    }

    /// The value of a term without its fields.
    fn term(&mut self, dot: &Dot, operand: &'t Operand) -> Outcome<Value> {
        match &operand.term {
            Term::Func(func) => self.call(dot, operand.span, func, &[], None),
            Term::Pipe(pipe) => {
                self.enter(operand.span)?;
                let value = self.pipe(dot, pipe)?;
                self.depth -= 1;
                Ok(value)
            }
            _ => {
                let receiver = self.receiver(dot, operand)?;
                self.value(operand.span, &receiver)
            }
        }
    }

    /// What the fields of an operand are looked up in.
    fn receiver(&mut self, dot: &Dot, operand: &'t Operand) -> Outcome<Dot> {
        match operand.term {
            Term::Dot => Ok(dot.clone()),
            Term::Variable(name) => self.variable(operand.span, name).cloned(),
            _ => self.term(dot, operand).map(Some),
        }
    }

    fn ideal(&self, span: Span, number: &Number) -> Outcome<Value> {
        match number.ideal {
            Ideal::Int(number) => Ok(Value::int(number)),
            Ideal::Float(number) => Ok(Value::Float(number)),
            Ideal::Complex(real, imaginary) => Ok(Value::Complex(real, imaginary)),
            Ideal::Overflow => {
                let word = shorten(self.template.source(span));
                self.fail(span, format!("{word} overflows int"))
            }
        }
    }

    /// Fields of fields; the last one, if it is a method, gets the arguments.
    fn chain(
        &mut self,
        dot: &Dot,
        operand: &'t Operand,
        receiver: Dot,
        args: &'t [Operand],
        piped: Option<Value>,
    ) -> Outcome<Value> {
        let mut receiver = receiver;
        let mut absent = matches!(receiver, Some(Value::Nil));
        let last = operand.fields.len().saturating_sub(1);
        for (index, name) in operand.fields.iter().enumerate() {
            let (args, piped) = if index == last {
                (args, piped.clone())
            } else {
                (&[][..], None)
            };
            if let Some(value) = receiver.take_if(|value| methods::has_methods(value)) {
                receiver = Some(self.method(dot, operand.span, &value, name, args, piped)?);
                continue;
            }
            match self.field(operand.span, &receiver, name, absent)? {
                Some(_) if !args.is_empty() || piped.is_some() => {
                    return self.fail(operand.span, format!("{name} is not a method but has arguments"));
                }
                found => {
                    absent = found.is_none();
                    receiver = Some(found.unwrap_or(Value::Nil));
                }
            }
        }
        Ok(receiver.unwrap_or(Value::Nil))
    }

    fn method(
        &mut self,
        dot: &Dot,
        span: Span,
        value: &Value,
        name: &str,
        args: &'t [Operand],
        piped: Option<Value>,
    ) -> Outcome<Value> {
        let mut given = Vec::with_capacity(args.len() + 1);
        for arg in args {
            given.push(self.arg(dot, arg, Ty::Any)?);
        }
        given.extend(piped);
        match methods::call(&mut self.limits, value, name, &given) {
            Some(Ok(value)) => Ok(value),
            Some(Err(Fault(message))) => self.fail(span, format!("error calling {name}: {message}")),
            None => self.fail(
                span,
                format!("can't evaluate field {name} in type {}", value.type_name()),
            ),
        }
    }

    /// A field of a value; nothing if it is absent and that is no error. A receiver that was absent itself
    /// is something else to Go than one that is nil.
    fn field(&mut self, span: Span, receiver: &Dot, name: &str, absent: bool) -> Outcome<Option<Value>> {
        let found = match receiver {
            None => match self.data.get(name) {
                Some(value) => {
                    let grown = self.limits.grow(value.expose().len());
                    self.check(span, grown)?;
                    Some(Value::text(value.expose()))
                }
                None => None,
            },
            Some(Value::Map(map)) => map.items.borrow().get(name.as_bytes()).cloned(),
            Some(Value::Nil) if absent => {
                if self.missing == MissingKey::Error {
                    return self.fail(span, format!("nil data; no entry for key {name:?}"));
                }
                return Ok(None);
            }
            Some(Value::Nil) => {
                return self.fail(span, format!("nil pointer evaluating interface {{}}.{name}"));
            }
            Some(value) => match methods::field(value, name) {
                Some(value) => Some(value),
                None => {
                    let kind = value.type_name();
                    return self.fail(span, format!("can't evaluate field {name} in type {kind}"));
                }
            },
        };
        if found.is_none() && self.missing == MissingKey::Error {
            return self.fail(span, format!("map has no entry for key {name:?}"));
        }
        Ok(found)
    }

    fn call(
        &mut self,
        dot: &Dot,
        span: Span,
        func: &'static Func,
        args: &'t [Operand],
        piped: Option<Value>,
    ) -> Outcome<Value> {
        self.count_args(span, func, args.len() + usize::from(piped.is_some()))?;
        if let Some(until) = short_circuit(func) {
            return self.logic(dot, until, args, piped);
        }
        let bottom = self.stack.len();
        for arg in args {
            let ty = self.param(func, bottom);
            let value = self.arg(dot, arg, ty)?;
            self.stack.push(value);
        }
        if let Some(value) = piped {
            let ty = self.param(func, bottom);
            let value = self.fit(span, value, ty, true)?;
            self.stack.push(value);
        }
        let step = self.limits.step(1);
        self.check(span, step)?;
        let given = self.stack.get(bottom..).unwrap_or_default();
        let answer = (func.call)(&mut self.limits, given);
        self.stack.truncate(bottom);
        answer.or_else(|Fault(message)| self.fail(span, format!("error calling {}: {message}", func.name)))
    }

    /// The type of the argument that comes next.
    fn param(&self, func: &Func, bottom: usize) -> Ty {
        let index = self.stack.len().saturating_sub(bottom);
        func.params.get(index).copied().or(func.more).unwrap_or(Ty::Any)
    }

    fn count_args(&self, span: Span, func: &Func, count: usize) -> Outcome<()> {
        let want = func.params.len();
        let name = func.name;
        if func.more.is_some() && count < want {
            return self.fail(
                span,
                format!("wrong number of args for {name}: want at least {want} got {count}"),
            );
        }
        if func.more.is_none() && count != want {
            return self.fail(
                span,
                format!("wrong number of args for {name}: want {want} got {count}"),
            );
        }
        Ok(())
    }

    /// `and` and `or`: the first argument that is false or true, or the last one.
    fn logic(&mut self, dot: &Dot, until: bool, args: &'t [Operand], piped: Option<Value>) -> Outcome<Value> {
        let mut value = Value::Nil;
        for arg in args {
            value = self.arg(dot, arg, Ty::Any)?;
            if value.truth() == until {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }

    /// The value of an argument for a parameter of this type.
    fn arg(&mut self, dot: &Dot, operand: &'t Operand, ty: Ty) -> Outcome<Value> {
        if !operand.fields.is_empty() {
            let receiver = self.receiver(dot, operand)?;
            let value = self.chain(dot, operand, receiver, &[], None)?;
            return self.fit(operand.span, value, ty, false);
        }
        let constant = match (&operand.term, ty) {
            (Term::Bool(is), Ty::Any | Ty::Bool) => Some(Value::Bool(*is)),
            (Term::Text(text), Ty::Any | Ty::Text) => Some(Value::text(text)),
            (Term::Number(number), Ty::Any) => Some(self.ideal(operand.span, number)?),
            (Term::Number(number), Ty::Int) => number.int.map(Value::int),
            (Term::Number(number), Ty::Int64) => number.int.map(Value::int64),
            (Term::Number(number), Ty::Float) => number.float.map(Value::Float),
            (Term::Nil, _) => return self.fit(operand.span, Value::Nil, ty, true),
            (Term::Bool(_) | Term::Text(_) | Term::Number(_), _) => None,
            _ => {
                let value = self.term(dot, operand)?;
                return self.fit(operand.span, value, ty, true);
            }
        };
        match constant {
            Some(value) => Ok(value),
            None => {
                let found = shorten(self.template.source(operand.span));
                self.fail(operand.span, format!("expected {}; found {found}", ty.name()))
            }
        }
    }

    /// Checks a value against the type of a parameter. A nil that comes from no field becomes a nil map or list.
    fn fit(&self, span: Span, value: Value, ty: Ty, zero: bool) -> Outcome<Value> {
        if ty.takes(&value) {
            return Ok(value);
        }
        let name = ty.name();
        match (value, ty) {
            (Value::Nil, Ty::Dict) if zero => Ok(Value::Nil),
            (Value::Nil, Ty::List) if zero => Ok(Value::nil_list()),
            (Value::Nil, _) => self.fail(span, format!("invalid value; expected {name}")),
            (value, _) => {
                let got = value.type_name();
                self.fail(span, format!("wrong type for value; expected {name}; got {got}"))
            }
        }
    }
}

/// What ends `or` (true) and `and` (false) before all arguments are known.
fn short_circuit(func: &Func) -> Option<bool> {
    match func.name {
        "or" => Some(true),
        "and" => Some(false),
        _ => None,
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
