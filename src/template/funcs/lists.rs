//! Lists. None of these changes a list in place.

use std::rc::Rc;

use super::convert::{self, text_list};
use super::numbers::to_int;
use super::reflection::deep_equal;
use super::{Answer, Fault, Func, Ty, args, func, func_more};
use crate::template::limits::Limits;
use crate::template::value::{Elem, List, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func_more("list", &[], Ty::Any, list),
    func_more("tuple", &[], Ty::Any, list),
    func("first", &[Ty::Any], first),
    func("mustFirst", &[Ty::Any], first),
    func("last", &[Ty::Any], last),
    func("mustLast", &[Ty::Any], last),
    func("rest", &[Ty::Any], rest),
    func("mustRest", &[Ty::Any], rest),
    func("initial", &[Ty::Any], initial),
    func("mustInitial", &[Ty::Any], initial),
    func("append", &[Ty::Any, Ty::Any], append),
    func("mustAppend", &[Ty::Any, Ty::Any], append),
    func("push", &[Ty::Any, Ty::Any], append),
    func("mustPush", &[Ty::Any, Ty::Any], append),
    func("prepend", &[Ty::Any, Ty::Any], prepend),
    func("mustPrepend", &[Ty::Any, Ty::Any], prepend),
    func_more("concat", &[], Ty::Any, concat),
    func("reverse", &[Ty::Any], reverse),
    func("mustReverse", &[Ty::Any], reverse),
    func("uniq", &[Ty::Any], uniq),
    func("mustUniq", &[Ty::Any], uniq),
    func_more("without", &[Ty::Any], Ty::Any, without),
    func_more("mustWithout", &[Ty::Any], Ty::Any, without),
    func("has", &[Ty::Any, Ty::Any], has),
    func("mustHas", &[Ty::Any, Ty::Any], has),
    func("compact", &[Ty::Any], compact),
    func("mustCompact", &[Ty::Any], compact),
    func_more("slice", &[Ty::Any], Ty::Any, slice),
    func_more("mustSlice", &[Ty::Any], Ty::Any, slice),
    func("chunk", &[Ty::Int, Ty::Any], chunk),
    func("mustChunk", &[Ty::Int, Ty::Any], chunk),
    func("until", &[Ty::Int], until),
    func("untilStep", &[Ty::Int, Ty::Int, Ty::Int], until_step),
    func_more("seq", &[], Ty::Int, seq),
    func("sortAlpha", &[Ty::Any], sort_alpha),
];

/// The list that a function is called with, which it cannot do without.
fn list_at<'a>(args: &'a [Value], index: usize, doing: &str) -> Result<&'a Rc<List>, Fault> {
    match args::value(args, index) {
        Value::List(list) => Ok(list),
        other => Err(format!("cannot {doing} on type {}", other.kind_name()).into()),
    }
}

/// Makes room for so many elements.
fn room(limits: &mut Limits, count: usize) -> Result<(), Fault> {
    limits.step(count as u64)?;
    limits.grow(count.saturating_mul(size_of::<Value>()))
}

fn made(limits: &mut Limits, items: Vec<Value>) -> Answer {
    room(limits, items.len())?;
    Ok(Value::list(items))
}

fn list(limits: &mut Limits, args: &[Value]) -> Answer {
    room(limits, args.len())?;
    Ok(Value::list(args.to_vec()))
}

fn first(_: &mut Limits, args: &[Value]) -> Answer {
    Ok(list_at(args, 0, "find first")?
        .items
        .first()
        .cloned()
        .unwrap_or(Value::Nil))
}

fn last(_: &mut Limits, args: &[Value]) -> Answer {
    Ok(list_at(args, 0, "find last")?
        .items
        .last()
        .cloned()
        .unwrap_or(Value::Nil))
}

/// Of a list without elements, Go's functions make a nil slice.
fn rest(limits: &mut Limits, args: &[Value]) -> Answer {
    match list_at(args, 0, "find rest")?.items.split_first() {
        Some((_, rest)) => {
            room(limits, rest.len())?;
            Ok(Value::list(rest.to_vec()))
        }
        None => Ok(Value::nil_list()),
    }
}

fn initial(limits: &mut Limits, args: &[Value]) -> Answer {
    match list_at(args, 0, "find initial")?.items.split_last() {
        Some((_, rest)) => {
            room(limits, rest.len())?;
            Ok(Value::list(rest.to_vec()))
        }
        None => Ok(Value::nil_list()),
    }
}

fn append(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "push")?;
    room(limits, list.items.len().saturating_add(1))?;
    let added = args::value(args, 1).clone();
    Ok(Value::list(list.items.iter().cloned().chain([added]).collect()))
}

fn prepend(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "prepend")?;
    room(limits, list.items.len().saturating_add(1))?;
    let added = args::value(args, 1).clone();
    Ok(Value::list(
        [added].into_iter().chain(list.items.iter().cloned()).collect(),
    ))
}

fn concat(limits: &mut Limits, args: &[Value]) -> Answer {
    let mut items = Vec::new();
    for index in 0..args.len() {
        let list = list_at(args, index, "concat")?;
        room(limits, list.items.len())?;
        items.extend(list.items.iter().cloned());
    }
    Ok(if items.is_empty() {
        Value::nil_list()
    } else {
        Value::list(items)
    })
}

fn reverse(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "find reverse")?;
    made(limits, list.items.iter().rev().cloned().collect())
}

fn in_list(limits: &mut Limits, items: &[Value], value: &Value) -> Result<bool, Fault> {
    for item in items {
        if deep_equal(limits, item, value, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn uniq(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "find uniq")?;
    let mut items = Vec::new();
    for item in &list.items {
        if !in_list(limits, &items, item)? {
            items.push(item.clone());
        }
    }
    made(limits, items)
}

fn without(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "find without")?;
    let omit = args::rest(args, 1);
    let mut items = Vec::new();
    for item in &list.items {
        if !in_list(limits, omit, item)? {
            items.push(item.clone());
        }
    }
    made(limits, items)
}

fn has(limits: &mut Limits, args: &[Value]) -> Answer {
    if matches!(args::value(args, 1), Value::Nil) {
        return Ok(Value::Bool(false));
    }
    let list = list_at(args, 1, "find has")?;
    Ok(Value::Bool(in_list(limits, &list.items, args::value(args, 0))?))
}

fn compact(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "compact")?;
    made(
        limits,
        list.items.iter().filter(|item| item.truth()).cloned().collect(),
    )
}

fn slice(limits: &mut Limits, args: &[Value]) -> Answer {
    let list = list_at(args, 0, "slice")?;
    if list.items.is_empty() {
        return Ok(Value::Nil);
    }
    let index = |at: usize, default: usize| match args.get(at) {
        Some(value) => usize::try_from(to_int(value)).ok(),
        None => Some(default),
    };
    let piece = match (index(1, 0), index(2, list.items.len())) {
        (Some(start), Some(end)) => list.items.get(start..end),
        _ => None,
    };
    let piece = piece.ok_or(Fault::from("the range lies outside the list"))?;
    room(limits, piece.len())?;
    Ok(Value::slice(list.elem, piece.to_vec()))
}

fn chunk(limits: &mut Limits, args: &[Value]) -> Answer {
    let size = args::int(args, 0);
    let list = list_at(args, 1, "chunk")?;
    let Ok(Some(size)) = usize::try_from(size).map(|size| (size > 0).then_some(size)) else {
        // As it comes out of sprig's arithmetic.
        let empty =
            list.items.len() > 1 && size.unsigned_abs() >= (list.items.len() as u64).saturating_sub(1);
        return if empty && size != 0 {
            Ok(Value::slice(Elem::List, Vec::new()))
        } else {
            Err("the size of a chunk must be more than 0".into())
        };
    };
    room(limits, list.items.len().saturating_mul(2))?;
    let chunks = list.items.chunks(size).map(|chunk| Value::list(chunk.to_vec()));
    Ok(Value::slice(Elem::List, chunks.collect()))
}

/// The numbers of `untilStep`.
fn steps(limits: &mut Limits, start: i64, stop: i64, step: i64) -> Result<Vec<i64>, Fault> {
    if step == 0 || (stop < start) != (step < 0) {
        return Ok(Vec::new());
    }
    let distance = i128::from(stop).abs_diff(i128::from(start));
    let count = distance.div_ceil(u128::from(step.unsigned_abs()));
    room(limits, usize::try_from(count).unwrap_or(usize::MAX))?;
    let numbers = std::iter::successors(Some(start), |number| number.checked_add(step));
    Ok(numbers.take(usize::try_from(count).unwrap_or(0)).collect())
}

fn until(limits: &mut Limits, args: &[Value]) -> Answer {
    let count = args::int(args, 0);
    Ok(Value::ints(steps(
        limits,
        0,
        count,
        if count < 0 { -1 } else { 1 },
    )?))
}

fn until_step(limits: &mut Limits, args: &[Value]) -> Answer {
    Ok(Value::ints(steps(
        limits,
        args::int(args, 0),
        args::int(args, 1),
        args::int(args, 2),
    )?))
}

/// The end belongs to the numbers.
fn seq(limits: &mut Limits, args: &[Value]) -> Answer {
    let number = |index| args::int(args, index);
    let (start, end, step) = match args.len() {
        1 => (1, number(0), None),
        2 => (number(0), number(1), None),
        3 => (number(0), number(2), Some(number(1))),
        _ => return Ok(Value::text("")),
    };
    let direction = if end < start { -1 } else { 1 };
    if direction < 0 && step.is_some_and(|step| step > 0) {
        return Ok(Value::text(""));
    }
    let numbers = steps(
        limits,
        start,
        end.wrapping_add(direction),
        step.unwrap_or(direction),
    )?;
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&number.to_string());
    }
    limits.grow(text.len())?;
    Ok(Value::text(text))
}

fn sort_alpha(limits: &mut Limits, args: &[Value]) -> Answer {
    let value = args::value(args, 0);
    let Value::List(list) = value else {
        return Ok(Value::texts([convert::text(limits, value)?]));
    };
    let mut texts = text_list(limits, value)?;
    // Each is compared with others as often as the count can be halved, and read to its end if they are alike.
    let size = texts
        .iter()
        .fold(0_usize, |sum, text| sum.saturating_add(text.len()));
    let rounds = texts.len().checked_ilog2().unwrap_or(0) as usize;
    limits.step(texts.len() as u64)?;
    limits.read(size.saturating_mul(rounds))?;
    texts.sort_unstable();
    Ok(Value::List(Rc::new(List {
        elem: Elem::Str,
        items: texts.into_iter().map(Value::Text).collect(),
        // Go sorts a `[]string` as it is.
        nil: list.nil && list.elem == Elem::Str,
    })))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_numbers_that_is_too_long_is_refused_before_it_is_made() {
        let endless = [Value::int(i64::MIN), Value::int(i64::MAX), Value::int(1)];
        assert!(until_step(&mut Limits::default(), &endless).is_err());
        assert!(until(&mut Limits::default(), &[Value::int(10_000_000)]).is_err());
    }

    #[test]
    fn a_row_of_numbers_ends_where_integers_end() {
        let numbers = steps(&mut Limits::default(), i64::MAX - 3, i64::MAX, 2).unwrap();
        assert_eq!(numbers, [i64::MAX - 3, i64::MAX - 1]);
        let numbers = steps(&mut Limits::default(), i64::MIN + 1, i64::MIN, i64::MIN).unwrap();
        assert_eq!(numbers, [i64::MIN + 1]);
    }
}
