//! The functions that templates may call: ESO's, none of which reaches the environment, a file, the network
//! or another object.

mod args;
pub mod builtin;
pub mod certs;
pub mod certs_make;
pub mod compare;
pub mod convert;
pub mod crypto;
pub mod dates;
pub mod defaults;
pub mod dicts;
pub mod encoding;
pub mod json;
mod json_read;
pub mod jwk;
pub mod lists;
pub mod math;
mod merge;
pub mod numbers;
mod p12;
mod p12_mac;
pub mod pem;
pub mod pkcs12;
pub mod reflection;
pub mod regexes;
pub mod semver;
pub mod strings;
pub mod urls;
pub mod words;
pub mod yaml;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use super::limits::Limits;
use super::value::{Elem, IntKind, Map, Text, Value};

/// Why a function failed. The text never holds a value of the template's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub Cow<'static, str>);

impl From<&'static str> for Fault {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// The result of a function.
pub type Answer = Result<Value, Fault>;

/// The declared type of a parameter. Like Go, nothing is converted: an `int64` is no `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    /// `interface {}`.
    Any,
    /// `string`.
    Text,
    /// `int`.
    Int,
    /// `int64`.
    Int64,
    /// `float64`.
    Float,
    /// `bool`.
    Bool,
    /// `map[string]interface {}`.
    Dict,
    /// `[]interface {}`.
    List,
    /// `time.Time`.
    Time,
    /// `sprig.certificate`.
    Certificate,
}

impl Ty {
    /// Go's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Float => "float64",
            Self::Bool => "bool",
            Self::Dict => "map[string]interface {}",
            Self::List => "[]interface {}",
            Self::Time => "time.Time",
            Self::Certificate => "sprig.certificate",
        }
    }

    /// Whether a value may be passed as it is.
    #[must_use]
    pub fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _)
            | (Self::Text, Value::Text(_))
            | (Self::Int, Value::Int(IntKind::Int, _))
            | (Self::Int64, Value::Int(IntKind::Int64, _))
            | (Self::Float, Value::Float(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::Time, Value::Time(_))
            | (Self::Certificate, Value::Certificate(_)) => true,
            (Self::Dict, Value::Map(map)) => map.elem == Elem::Any,
            (Self::List, Value::List(list)) => list.elem == Elem::Any,
            _ => false,
        }
    }
}

/// A function of templates.
pub struct Func {
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Ty],
    /// Type of any number of further arguments.
    pub more: Option<Ty>,
    /// Does it. The arguments have the declared number and types.
    pub call: fn(&mut Limits, &[Value]) -> Answer,
}

/// A function with so many parameters.
pub(super) const fn func(
    name: &'static str,
    params: &'static [Ty],
    call: fn(&mut Limits, &[Value]) -> Answer,
) -> Func {
    Func {
        name,
        params,
        more: None,
        call,
    }
}

/// A function with further arguments.
pub(super) const fn func_more(
    name: &'static str,
    params: &'static [Ty],
    more: Ty,
    call: fn(&mut Limits, &[Value]) -> Answer,
) -> Func {
    Func {
        name,
        params,
        more: Some(more),
        call,
    }
}

/// The function of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Func> {
    static ALL: LazyLock<HashMap<&'static str, &'static Func>> = LazyLock::new(|| {
        TABLES
            .iter()
            .flat_map(|table| table.iter())
            .map(|f| (f.name, f))
            .collect()
    });
    ALL.get(name).copied()
}

/// Functions that give something new each time: random numbers, keys, certificates, salts, and the time.
pub(super) const UNSTABLE: &[&str] = &[
    "ago",
    "bcrypt",
    // What is no time is the time of the rendering.
    "date",
    "dateInZone",
    "date_in_zone",
    "encryptAES",
    "fullPemToPkcs12",
    "fullPemToPkcs12Pass",
    "genCA",
    "genCAWithKey",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSelfSignedCertWithKey",
    "genSignedCert",
    "genSignedCertWithKey",
    "htmlDate",
    "htmlDateInZone",
    "htpasswd",
    "now",
    "pemToPkcs12",
    "pemToPkcs12Pass",
    "pemTruststoreToPKCS12",
    "pemTruststoreToPKCS12Pass",
    "randAlpha",
    "randAlphaNum",
    "randAscii",
    "randBytes",
    "randInt",
    "randNumeric",
    "shuffle",
    "uuidv4",
];

/// Whether the function of this name gives something new each time.
#[must_use]
pub fn is_unstable(name: &str) -> bool {
    UNSTABLE.contains(&name)
}

/// The tables of all files.
pub const TABLES: &[&[Func]] = &[
    dates::TABLE,
    semver::TABLE,
    pem::TABLE,
    crypto::TABLE,
    jwk::TABLE,
    certs::TABLE,
    certs_make::TABLE,
    pkcs12::TABLE,
    convert::TABLE,
    defaults::TABLE,
    dicts::TABLE,
    encoding::TABLE,
    json::TABLE,
    lists::TABLE,
    math::TABLE,
    reflection::TABLE,
    regexes::TABLE,
    strings::TABLE,
    urls::TABLE,
    builtin::TABLE,
    compare::TABLE,
    words::TABLE,
    yaml::TABLE,
];

/// The bytes of an argument that was declared as [`Ty::Text`].
#[must_use]
pub fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Text(text) => text,
        _ => &[],
    }
}

/// The same, where Go's function reads runes: what is not UTF-8 becomes U+FFFD.
#[must_use]
pub fn utf8(value: &Value) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes(value))
}

/// The number of an argument that was declared as [`Ty::Int`] or [`Ty::Int64`].
#[must_use]
pub fn number(value: &Value) -> i64 {
    match value {
        Value::Int(_, number) => *number,
        _ => 0,
    }
}

/// The map of an argument that was declared as [`Ty::Dict`].
///
/// # Errors
/// If it is none, which cannot happen.
pub fn dict(value: &Value) -> Result<&Rc<Map>, Fault> {
    match value {
        Value::Map(map) => Ok(map),
        _ => Err("expected a dict".into()),
    }
}

/// A key of a map.
#[must_use]
pub fn key(text: &str) -> Text {
    Rc::from(text.as_bytes())
}
