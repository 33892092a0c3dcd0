//! How the executor evaluates operands: variables, fields, calls and constants.

use super::{Dot, Exec, Outcome};
use crate::template::MissingKey;
use crate::template::funcs::{Fault, Func, Ty};
use crate::template::methods;
use crate::template::parse::shorten;
use crate::template::tree::{Command, Ideal, Name, Number, Operand, Span, Term};
use crate::template::value::{Text, Value};

impl<'t> Exec<'t> {
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

    pub(super) fn variable(&self, span: Span, name: Name) -> Outcome<&Dot> {
        match self.place(name).and_then(|place| self.variables.get(place)) {
            Some((_, value)) => Ok(value),
            None => self.undefined(span, name),
        }
    }

    pub(super) fn assign(&mut self, span: Span, name: Name, value: Dot) -> Outcome<()> {
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

    pub(super) fn command(
        &mut self,
        dot: &Dot,
        command: &'t Command,
        piped: Option<Value>,
    ) -> Outcome<Value> {
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
