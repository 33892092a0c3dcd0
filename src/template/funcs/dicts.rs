//! Dicts. `set`, `unset` and the merging functions change the dict they are given.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Answer, Fault, Func, Ty, args, bytes, convert, func, func_more, merge};
use crate::template::limits::Limits;
use crate::template::value::{Elem, List, Map, NESTING, Text, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func_more("dict", &[], Ty::Any, dict),
    func("get", &[Ty::Dict, Ty::Text], get),
    func("set", &[Ty::Dict, Ty::Text, Ty::Any], set),
    func("unset", &[Ty::Dict, Ty::Text], unset),
    func("hasKey", &[Ty::Dict, Ty::Text], has_key),
    func_more("pluck", &[Ty::Text], Ty::Dict, pluck),
    func_more("keys", &[], Ty::Dict, keys),
    func("values", &[Ty::Dict], values),
    func_more("pick", &[Ty::Dict], Ty::Text, pick),
    func_more("omit", &[Ty::Dict], Ty::Text, omit),
    func_more("dig", &[], Ty::Any, dig),
    func_more("merge", &[Ty::Dict], Ty::Dict, |limits, list| {
        merge::soft(limits, list, false)
    }),
    func_more("mergeOverwrite", &[Ty::Dict], Ty::Dict, |limits, list| {
        merge::soft(limits, list, true)
    }),
    func_more("mustMerge", &[Ty::Dict], Ty::Dict, |limits, list| {
        merge::hard(limits, list, false)
    }),
    func_more("mustMergeOverwrite", &[Ty::Dict], Ty::Dict, |limits, list| {
        merge::hard(limits, list, true)
    }),
    func("deepCopy", &[Ty::Any], copy),
    func("mustDeepCopy", &[Ty::Any], copy),
];

/// What an entry of a dict may cost besides its text.
const ENTRY: usize = 64;

/// Makes room for so many entries.
pub(super) fn room(limits: &mut Limits, count: usize) -> Result<(), Fault> {
    limits.step(count as u64)?;
    limits.grow(count.saturating_mul(ENTRY))
}

/// A key without an entry; nil is a map without any.
fn entry(list: &[Value], index: usize, key: &[u8]) -> Option<Value> {
    args::dict(list, index)?.items.borrow().get(key).cloned()
}

fn key(list: &[Value], index: usize) -> Text {
    match args::value(list, index) {
        Value::Text(text) => Rc::clone(text),
        other => Rc::from(bytes(other)),
    }
}

fn dict(limits: &mut Limits, list: &[Value]) -> Answer {
    room(limits, list.len().div_ceil(2))?;
    let mut items = BTreeMap::new();
    for pair in list.chunks(2) {
        let key = convert::text(limits, args::value(pair, 0))?;
        items.insert(key, pair.get(1).cloned().unwrap_or_else(|| Value::text("")));
    }
    Ok(Value::dict(items))
}

fn get(_: &mut Limits, list: &[Value]) -> Answer {
    Ok(entry(list, 0, args::text(list, 1)).unwrap_or_else(|| Value::text("")))
}

fn set(limits: &mut Limits, list: &[Value]) -> Answer {
    let map = args::dict(list, 0).ok_or(Fault::from("nil has no room for an entry; use a dict"))?;
    insert(limits, map, key(list, 1), args::value(list, 2).clone())?;
    Ok(args::value(list, 0).clone())
}

/// Adds an entry. A dict that came to hold itself could never be freed, and nothing can print it.
///
/// # Errors
/// If the dict would come to hold itself, or holds another type, or a limit is reached.
pub(super) fn insert(limits: &mut Limits, map: &Rc<Map>, key: Text, value: Value) -> Result<(), Fault> {
    room(limits, 1)?;
    let fits = map.elem == Elem::Any || matches!((map.elem, &value), (Elem::Str, Value::Text(_)));
    if !fits {
        return Err(format!(
            "a {} is no element of a map[string]{}",
            value.type_name(),
            map.elem.name()
        )
        .into());
    }
    if holds(limits, &value, map)? {
        return Err("a dict cannot hold itself".into());
    }
    map.items.borrow_mut().insert(key, value);
    Ok(())
}

/// Whether a map can be reached from a value.
fn holds(limits: &mut Limits, value: &Value, map: &Rc<Map>) -> Result<bool, Fault> {
    let container = |value: &&Value| matches!(value, Value::List(_) | Value::Map(_));
    let mut rest: Vec<Value> = Some(value).filter(container).cloned().into_iter().collect();
    while let Some(value) = rest.pop() {
        match value {
            Value::Map(inner) if Rc::ptr_eq(&inner, map) => return Ok(true),
            Value::Map(inner) => {
                let items = inner.items.borrow();
                limits.step(items.len() as u64)?;
                rest.extend(items.values().filter(container).cloned());
            }
            Value::List(list) => {
                limits.step(list.items.len() as u64)?;
                rest.extend(list.items.iter().filter(container).cloned());
            }
            _ => {}
        }
    }
    Ok(false)
}

fn unset(_: &mut Limits, list: &[Value]) -> Answer {
    if let Some(map) = args::dict(list, 0) {
        map.items.borrow_mut().remove(args::text(list, 1));
    }
    Ok(args::value(list, 0).clone())
}

fn has_key(_: &mut Limits, list: &[Value]) -> Answer {
    Ok(Value::Bool(entry(list, 0, args::text(list, 1)).is_some()))
}

fn pluck(_: &mut Limits, list: &[Value]) -> Answer {
    let key = args::text(list, 0);
    Ok(Value::list(
        (1..list.len())
            .filter_map(|index| entry(list, index, key))
            .collect(),
    ))
}

/// In order, where Go has none.
fn keys(limits: &mut Limits, list: &[Value]) -> Answer {
    let mut texts = Vec::new();
    for map in (0..list.len()).filter_map(|index| args::dict(list, index)) {
        let items = map.items.borrow();
        room(limits, items.len())?;
        texts.extend(items.keys().cloned().map(Value::Text));
    }
    Ok(Value::slice(Elem::Str, texts))
}

/// In the order of the keys, where Go has none.
fn values(limits: &mut Limits, list: &[Value]) -> Answer {
    let Some(map) = args::dict(list, 0) else {
        return Ok(Value::list(Vec::new()));
    };
    let items = map.items.borrow();
    room(limits, items.len())?;
    Ok(Value::list(items.values().cloned().collect()))
}

fn pick(limits: &mut Limits, list: &[Value]) -> Answer {
    room(limits, list.len())?;
    let picked = (1..list.len()).filter_map(|index| {
        let value = entry(list, 0, args::text(list, index))?;
        Some((key(list, index), value))
    });
    Ok(Value::dict(picked.collect()))
}

fn omit(limits: &mut Limits, list: &[Value]) -> Answer {
    let Some(map) = args::dict(list, 0) else {
        return Ok(Value::dict(BTreeMap::new()));
    };
    let mut items = map.items.borrow().clone();
    room(limits, items.len())?;
    for index in 1..list.len() {
        items.remove(args::text(list, index));
    }
    Ok(Value::dict(items))
}

/// Keys from the outermost to the innermost, the default, the dict.
fn dig(_: &mut Limits, list: &[Value]) -> Answer {
    let [keys @ .., default, dict] = list else {
        return Err("dig needs at least three arguments".into());
    };
    if keys.is_empty() {
        return Err("dig needs at least three arguments".into());
    }
    if keys.iter().any(|key| !matches!(key, Value::Text(_))) {
        return Err("the keys of dig must be strings".into());
    }
    let mut at = dict.clone();
    for key in keys {
        let next = match &at {
            Value::Map(map) if map.elem == Elem::Any => map.items.borrow().get(bytes(key)).cloned(),
            other => return Err(format!("cannot dig in type {}, only in a dict", other.type_name()).into()),
        };
        match next {
            Some(next) => at = next,
            None => return Ok(default.clone()),
        }
    }
    Ok(at)
}

fn copy(limits: &mut Limits, list: &[Value]) -> Answer {
    match args::value(list, 0) {
        Value::Nil => Err("nil cannot be copied".into()),
        value => deep_copy(limits, value, 0),
    }
}

fn deep_copy(limits: &mut Limits, value: &Value, depth: usize) -> Answer {
    if depth > NESTING {
        return Err("the value is nested too deeply".into());
    }
    let deeper = depth.saturating_add(1);
    Ok(match value {
        Value::List(list) => {
            limits.grow(list.items.len().saturating_mul(size_of::<Value>()))?;
            limits.step(list.items.len() as u64)?;
            let items = list.items.iter().map(|item| deep_copy(limits, item, deeper));
            Value::List(Rc::new(List {
                elem: list.elem,
                items: items.collect::<Result<_, _>>()?,
                nil: list.nil,
            }))
        }
        Value::Map(map) => {
            let items = map.items.borrow();
            room(limits, items.len())?;
            let entry =
                |(key, value): (&Text, &Value)| Ok((Rc::clone(key), deep_copy(limits, value, deeper)?));
            let items: BTreeMap<Text, Value> = items.iter().map(entry).collect::<Result<_, Fault>>()?;
            Value::Map(Rc::new(Map {
                elem: map.elem,
                items: items.into(),
            }))
        }
        other => other.clone(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn empty() -> Value {
        Value::dict(BTreeMap::new())
    }

    #[test]
    fn a_dict_cannot_come_to_hold_itself() {
        let limits = &mut Limits::default();
        let (outer, inner) = (empty(), empty());
        set(
            limits,
            &[outer.clone(), Value::text("a"), Value::list(vec![inner.clone()])],
        )
        .unwrap();
        assert!(set(limits, &[outer.clone(), Value::text("b"), outer.clone()]).is_err());
        assert!(set(limits, &[inner.clone(), Value::text("b"), outer.clone()]).is_err());
        let wrapped = dict(limits, &[Value::text("x"), outer]).unwrap();
        assert!(merge::hard(limits, &[inner.clone(), wrapped.clone()], false).is_err());
        assert!(set(limits, &[wrapped, Value::text("y"), inner]).is_ok());
    }

    #[test]
    fn a_value_that_is_nested_deeply_is_freed_without_recursion() {
        let limits = &mut Limits::default();
        let mut value = Value::Nil;
        for _ in 0..100_000 {
            value = Value::list(vec![dict(limits, &[Value::text("k"), value]).unwrap()]);
        }
        assert!(deep_copy(limits, &value, 0).is_err());
        drop(value);
    }
}
