//! Go's own functions but for the comparisons. `slice` is missing: sprig has its own.

use super::{Answer, Fault, Func, Ty, bytes, func, func_more};
use crate::template::fmt::{sprint, sprintf, sprintln};
use crate::template::fmt_quote::is_printable;
use crate::template::limits::Limits;
use crate::template::value::{IntKind, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    // The executor carries these two out, since they do not look at all of their arguments.
    func_more("and", &[Ty::Any], Ty::Any, no_call),
    func_more("or", &[Ty::Any], Ty::Any, no_call),
    func("not", &[Ty::Any], |_, args| {
        Ok(Value::Bool(!args.iter().all(Value::truth)))
    }),
    func_more("call", &[Ty::Any], Ty::Any, no_call),
    func_more("index", &[Ty::Any], Ty::Any, |_, args| index(args)),
    func("len", &[Ty::Any], |_, args| length(args)),
    func_more("print", &[], Ty::Any, |limits, args| {
        sprint(limits, args).map(Value::text)
    }),
    func_more("printf", &[Ty::Text], Ty::Any, printf),
    func_more("println", &[], Ty::Any, |limits, args| {
        sprintln(limits, args).map(Value::text)
    }),
    func_more("html", &[], Ty::Any, |limits, args| escaped(limits, args, html)),
    func_more("js", &[], Ty::Any, |limits, args| escaped(limits, args, js)),
    func_more("urlquery", &[], Ty::Any, |limits, args| {
        escaped(limits, args, urlquery)
    }),
];

/// No value of a template is a function.
fn no_call(_: &mut Limits, args: &[Value]) -> Answer {
    match args.first() {
        None | Some(Value::Nil) => Err("call of nil".into()),
        Some(value) => Err(format!("non-function of type {}", value.type_name()).into()),
    }
}

fn printf(limits: &mut Limits, args: &[Value]) -> Answer {
    match args.split_first() {
        Some((format, args)) => sprintf(limits, bytes(format), args).map(Value::text),
        None => Err("printf without format".into()),
    }
}

fn length(args: &[Value]) -> Answer {
    let length = match args.first() {
        Some(Value::Text(text)) => text.len(),
        Some(Value::List(list)) => list.items.len(),
        Some(Value::Map(map)) => map.items.borrow().len(),
        None | Some(Value::Nil) => return Err("len of nil pointer".into()),
        Some(value) => return Err(format!("len of type {}", value.type_name()).into()),
    };
    Ok(Value::int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(args: &[Value]) -> Answer {
    let Some((first, indexes)) = args.split_first() else {
        return Err("index of untyped nil".into());
    };
    let mut value = first.clone();
    if matches!(value, Value::Nil) {
        return Err("index of untyped nil".into());
    }
    for index in indexes {
        value = one(&value, index)?;
    }
    Ok(value)
}

fn one(value: &Value, index: &Value) -> Answer {
    match value {
        Value::Text(text) => {
            let place = place(index, text.len())?;
            let byte = text.get(place).copied().unwrap_or_default();
            Ok(Value::Int(IntKind::Uint8, i64::from(byte)))
        }
        Value::List(list) => {
            let place = place(index, list.items.len())?;
            Ok(list.items.get(place).cloned().unwrap_or(Value::Nil))
        }
        Value::Map(map) => match index {
            Value::Text(key) => Ok(map
                .items
                .borrow()
                .get(key)
                .cloned()
                .unwrap_or_else(|| map.elem.zero())),
            Value::Nil => Err("value is nil; should be of type string".into()),
            other => Err(format!("value has type {}; should be string", other.type_name()).into()),
        },
        Value::Nil => Err("index of nil pointer".into()),
        other => Err(format!("can't index item of type {}", other.type_name()).into()),
    }
}

/// An index of a list or text of this length.
fn place(index: &Value, length: usize) -> Result<usize, Fault> {
    let number = match index {
        Value::Int(_, number) | Value::Duration(number) => *number,
        Value::Nil => return Err("cannot index slice/array with nil".into()),
        other => return Err(format!("cannot index slice/array with type {}", other.type_name()).into()),
    };
    match usize::try_from(number) {
        Ok(place) if place < length => Ok(place),
        _ => Err(format!("index out of range: {number}").into()),
    }
}

/// What the arguments print as, escaped. A nil is what a template prints for it.
fn escaped(limits: &mut Limits, args: &[Value], escape: fn(&[u8]) -> Vec<u8>) -> Answer {
    let shown: Vec<Value> = args
        .iter()
        .map(|arg| match arg {
            Value::Nil => Value::text("<no value>"),
            other => other.clone(),
        })
        .collect();
    let text = sprint(limits, &shown)?;
    limits.grow(text.len().saturating_mul(6))?;
    Ok(Value::text(escape(&text)))
}

fn html(text: &[u8]) -> Vec<u8> {
    let mut made = Vec::with_capacity(text.len());
    for byte in text {
        let escape: &[u8] = match byte {
            0 => "\u{FFFD}".as_bytes(),
            b'"' => b"&#34;",
            b'\'' => b"&#39;",
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            _ => std::slice::from_ref(byte),
        };
        made.extend_from_slice(escape);
    }
    made
}

fn js(text: &[u8]) -> Vec<u8> {
    let mut made = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '\'' | '"' => made.extend([b'\\', c as u8]),
                '<' | '>' | '&' | '=' | '\0'..='\x1F' => {
                    made.extend_from_slice(format!("\\u{:04X}", u32::from(c)).as_bytes());
                }
                c if c.is_ascii() || is_printable(c) => {
                    made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes())
                }
                c => made.extend_from_slice(format!("\\u{:04X}", u32::from(c)).as_bytes()),
            }
        }
        // Go prints U+FFFD only if that is what the text holds; other bytes stay.
        made.extend_from_slice(chunk.invalid());
    }
    made
}

fn urlquery(text: &[u8]) -> Vec<u8> {
    let mut made = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' => made.push(b'+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => made.push(*byte),
            _ => made.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    made
}
