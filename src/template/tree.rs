//! What the parser makes of a template. It holds no `Rc`, so that parsed templates can be shared by threads.

use std::collections::BTreeMap;

use super::funcs::Func;

/// Where something stands in the text, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub at: usize,
    pub end: usize,
}

/// The templates of a text by name: those that it defines, and itself.
pub(super) type Trees = BTreeMap<Box<str>, Vec<Node>>;

/// A variable's place in the list of names; [`DOLLAR`] is `$`.
pub(super) type Name = usize;

/// The variable `$`.
pub(super) const DOLLAR: Name = 0;

pub(super) enum Node {
    Text(Span),
    Action(Pipe),
    If(Branches),
    With(Branches),
    Range(Box<Range>),
    Template(Box<Invocation>),
    Break,
    Continue,
}

/// `if` or `with`, their `else if` or `else with`, and `else`.
pub(super) struct Branches {
    pub arms: Vec<(Pipe, Vec<Node>)>,
    pub otherwise: Vec<Node>,
}

pub(super) struct Range {
    pub span: Span,
    pub pipe: Pipe,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

pub(super) struct Invocation {
    pub span: Span,
    pub name: Box<str>,
    pub pipe: Option<Pipe>,
}

pub(super) struct Pipe {
    /// Variables that get the value.
    pub variables: Vec<Name>,
    /// Whether they exist already (`=`).
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// An operand and its arguments.
pub(super) struct Command {
    pub span: Span,
    pub first: Operand,
    pub args: Vec<Operand>,
}

pub(super) struct Operand {
    pub span: Span,
    pub term: Term,
    /// Names of the fields that follow.
    pub fields: Vec<Box<str>>,
}

pub(super) enum Term {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    Text(Box<[u8]>),
    Variable(Name),
    Func(&'static Func),
    Pipe(Box<Pipe>),
}

/// A constant, under every type that can hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    pub int: Option<i64>,
    pub float: Option<f64>,
    /// What it is where no type is asked for.
    pub ideal: Ideal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ideal {
    Int(i64),
    Float(f64),
    Complex(f64, f64),
    /// No `int` holds it.
    Overflow,
}
