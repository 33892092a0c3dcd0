//! The values of templates: Go's, as far as templates can see the difference.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::time::Time;

/// Text of a template: bytes, which need not be UTF-8 (a keystore is text to Go as well).
pub type Text = Rc<[u8]>;

/// The integer types that functions give and take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntKind {
    /// `int`.
    Int,
    /// `int32`.
    Int32,
    /// `int64`.
    Int64,
    /// `uint8`.
    Uint8,
    /// `uint64`, whose bits are kept in an `i64`.
    Uint64,
}

impl IntKind {
    /// Go's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint64 => "uint64",
        }
    }

    /// Whether Go's type has no sign.
    #[must_use]
    pub fn unsigned(self) -> bool {
        matches!(self, Self::Uint8 | Self::Uint64)
    }
}

/// The declared type of the elements of a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    /// `interface {}`.
    Any,
    /// `string`.
    Str,
    /// `int`.
    Int,
    /// `uint8`.
    Byte,
    /// `[]interface {}`, as `chunk` gives them.
    List,
}

impl Elem {
    /// Go's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Str => "string",
            Self::Int => "int",
            Self::Byte => "uint8",
            Self::List => "[]interface {}",
        }
    }

    /// What a missing element reads as.
    #[must_use]
    pub fn zero(self) -> Value {
        match self {
            Self::Any => Value::Nil,
            Self::Str => Value::text(""),
            Self::Int => Value::int(0),
            Self::Byte => Value::Int(IntKind::Uint8, 0),
            Self::List => Value::nil_list(),
        }
    }
}

/// How deep values may lie in one another where a function walks through them.
pub const NESTING: usize = 250;

/// A list. Go's functions never change one in place.
pub struct List {
    /// Type of the elements.
    pub elem: Elem,
    /// The elements.
    pub items: Vec<Value>,
    /// Whether it is Go's nil slice, which is empty and JSON's `null`.
    pub nil: bool,
}

/// A map from text; `set` and others change it in place.
pub struct Map {
    /// Type of the elements.
    pub elem: Elem,
    /// The elements.
    pub items: RefCell<BTreeMap<Text, Value>>,
}

impl Drop for List {
    fn drop(&mut self) {
        free(std::mem::take(&mut self.items));
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let deeper = |value: &Value| matches!(value, Value::List(_) | Value::Map(_));
        free(
            std::mem::take(self.items.get_mut())
                .into_values()
                .filter(deeper)
                .collect(),
        );
    }
}

/// Frees values one after the other: freeing what lies within would go as deep as they are nested.
fn free(mut values: Vec<Value>) {
    while let Some(value) = values.pop() {
        match value {
            Value::List(mut list) => {
                if let Some(list) = Rc::get_mut(&mut list) {
                    values.append(&mut list.items);
                }
            }
            Value::Map(mut map) => {
                if let Some(map) = Rc::get_mut(&mut map) {
                    values.extend(std::mem::take(map.items.get_mut()).into_values());
                }
            }
            _ => {}
        }
    }
}

/// A version as `semver` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major, minor and patch.
    pub numbers: [u64; 3],
    /// Without the `-`.
    pub prerelease: String,
    /// Without the `+`.
    pub metadata: String,
    /// As it was written.
    pub original: String,
}

/// A certificate and its key, as `genCA` and others give them.
pub struct Certificate {
    /// The certificate as PEM.
    pub cert: Text,
    /// The private key as PEM.
    pub key: Text,
}

/// A value. There is no `Debug`: a value may be secret.
#[derive(Clone)]
pub enum Value {
    /// An absent value, or an interface that holds none.
    Nil,
    /// `bool`.
    Bool(bool),
    /// One of the integers.
    Int(IntKind, i64),
    /// `float64`.
    Float(f64),
    /// `complex128`, which only a constant like `2i` makes.
    Complex(f64, f64),
    /// `string`.
    Text(Text),
    /// A slice.
    List(Rc<List>),
    /// A map.
    Map(Rc<Map>),
    /// `time.Time`. Its text, its fields and methods are in [`Time`].
    Time(Rc<Time>),
    /// `time.Duration`, in nanoseconds.
    Duration(i64),
    /// `*semver.Version`.
    Version(Rc<Version>),
    /// sprig's `certificate`, a struct with the fields `Cert` and `Key`.
    Certificate(Rc<Certificate>),
}

impl Value {
    /// Text.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Text(Rc::from(text.as_ref()))
    }

    /// `int`.
    #[must_use]
    pub fn int(number: i64) -> Self {
        Self::Int(IntKind::Int, number)
    }

    /// `int64`.
    #[must_use]
    pub fn int64(number: i64) -> Self {
        Self::Int(IntKind::Int64, number)
    }

    /// A slice of this type.
    #[must_use]
    pub fn slice(elem: Elem, items: Vec<Self>) -> Self {
        Self::List(Rc::new(List {
            elem,
            items,
            nil: false,
        }))
    }

    /// `[]interface {}`.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::slice(Elem::Any, items)
    }

    /// `[]interface {}(nil)`.
    #[must_use]
    pub fn nil_list() -> Self {
        Self::List(Rc::new(List {
            elem: Elem::Any,
            items: Vec::new(),
            nil: true,
        }))
    }

    /// `[]string`.
    #[must_use]
    pub fn texts<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::slice(Elem::Str, items.into_iter().map(Self::text).collect())
    }

    /// `[]int`.
    #[must_use]
    pub fn ints(items: impl IntoIterator<Item = i64>) -> Self {
        Self::slice(Elem::Int, items.into_iter().map(Self::int).collect())
    }

    /// `map[string]interface {}`.
    #[must_use]
    pub fn dict(items: BTreeMap<Text, Self>) -> Self {
        Self::Map(Rc::new(Map {
            elem: Elem::Any,
            items: RefCell::new(items),
        }))
    }

    /// `map[string]string`.
    #[must_use]
    pub fn text_map(items: impl IntoIterator<Item = (Text, Text)>) -> Self {
        Self::Map(Rc::new(Map {
            elem: Elem::Str,
            items: RefCell::new(
                items
                    .into_iter()
                    .map(|(key, text)| (key, Self::Text(text)))
                    .collect(),
            ),
        }))
    }

    /// What `%T` prints.
    #[must_use]
    pub fn type_name(&self) -> String {
        match self {
            Self::Nil => "<nil>".into(),
            Self::Bool(_) => "bool".into(),
            Self::Int(kind, _) => kind.name().into(),
            Self::Float(_) => "float64".into(),
            Self::Complex(..) => "complex128".into(),
            Self::Text(_) => "string".into(),
            Self::List(list) => format!("[]{}", list.elem.name()),
            Self::Map(map) => format!("map[string]{}", map.elem.name()),
            Self::Time(_) => "time.Time".into(),
            Self::Duration(_) => "time.Duration".into(),
            Self::Version(_) => "*semver.Version".into(),
            Self::Certificate(_) => "sprig.certificate".into(),
        }
    }

    /// What `kindOf` gives.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Nil => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(kind, _) => kind.name(),
            Self::Float(_) => "float64",
            Self::Complex(..) => "complex128",
            Self::Text(_) => "string",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Time(_) | Self::Certificate(_) => "struct",
            Self::Duration(_) => "int64",
            Self::Version(_) => "ptr",
        }
    }

    /// What `if` makes of it; also the opposite of what sprig calls empty.
    #[must_use]
    pub fn truth(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(is) => *is,
            Self::Int(_, number) | Self::Duration(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Complex(real, imaginary) => *real != 0.0 || *imaginary != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.items.borrow().is_empty(),
            Self::Time(_) | Self::Version(_) | Self::Certificate(_) => true,
        }
    }
}
