//! `merge` and its relatives, as sprig's library `mergo` does it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Answer, Fault, args, dicts};
use crate::template::limits::Limits;
use crate::template::value::{Map, NESTING, Text, Value};

/// Why merging stopped.
enum Stop {
    /// The library's own error, which `merge` turns into an empty text.
    Types,
    /// A limit, or what is a panic in Go.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Gives an empty text where the types cannot be merged.
pub(super) fn soft(limits: &mut Limits, list: &[Value], overwrite: bool) -> Answer {
    match all(limits, list, overwrite) {
        Err(Stop::Types) => Ok(Value::text("")),
        Err(Stop::Fault(fault)) => Err(fault),
        Ok(value) => Ok(value),
    }
}

/// Fails where the types cannot be merged.
pub(super) fn hard(limits: &mut Limits, list: &[Value], overwrite: bool) -> Answer {
    all(limits, list, overwrite).map_err(|stop| match stop {
        Stop::Types => Fault::from("src and dst must be of same type"),
        Stop::Fault(fault) => fault,
    })
}

fn all(limits: &mut Limits, list: &[Value], overwrite: bool) -> Result<Value, Stop> {
    let target = match args::value(list, 0) {
        Value::Map(_) => args::value(list, 0).clone(),
        _ => Value::dict(BTreeMap::new()),
    };
    if let Value::Map(target) = &target {
        for source in (1..list.len()).filter_map(|index| args::dict(list, index)) {
            maps(limits, target, source, overwrite, 0)?;
        }
    }
    Ok(target)
}

fn maps(
    limits: &mut Limits,
    target: &Rc<Map>,
    source: &Rc<Map>,
    overwrite: bool,
    depth: usize,
) -> Result<(), Stop> {
    if depth > NESTING {
        return Err(Fault::from("the value is nested too deeply").into());
    }
    // A copy, because the two may be the same map.
    let entries: Vec<(Text, Value)> = source
        .items
        .borrow()
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    dicts::room(limits, entries.len())?;
    for (key, value) in entries {
        let before = target.items.borrow().get(&key).cloned();
        match (&value, &before) {
            (Value::Nil, _) if overwrite => dicts::insert(limits, target, key, value)?,
            (Value::Nil, _) => {}
            _ => one(limits, target, (key, value), before, overwrite, depth)?,
        }
    }
    Ok(())
}

/// An entry that is not nil, and what stood in its place.
fn one(
    limits: &mut Limits,
    target: &Rc<Map>,
    (key, value): (Text, Value),
    before: Option<Value>,
    overwrite: bool,
    depth: usize,
) -> Result<(), Stop> {
    match (&before, &value) {
        (Some(Value::Map(inner)), Value::Map(source)) => {
            maps(limits, inner, source, overwrite, depth.saturating_add(1))?;
            // What got entries this way is not replaced.
            if empty(&before) {
                dicts::insert(limits, target, key, value)?;
            }
            return Ok(());
        }
        (Some(Value::Version(_)), Value::Map(_) | Value::Time(_) | Value::Certificate(_)) if !overwrite => {
            return Err(Stop::Types);
        }
        _ => {}
    }
    if overwrite || empty(&before) {
        dicts::insert(limits, target, key, value)?;
    }
    Ok(())
}

/// Whether nothing is lost by replacing it.
fn empty(before: &Option<Value>) -> bool {
    match before {
        Some(value) => !value.truth(),
        None => true,
    }
}
