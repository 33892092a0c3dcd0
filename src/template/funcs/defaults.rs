//! Choices between values, by whether they are empty.

use super::{Answer, Fault, Func, Ty, args, func, func_more};
use crate::template::limits::Limits;
use crate::template::value::Value;

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func_more("default", &[Ty::Any], Ty::Any, default),
    func("empty", &[Ty::Any], |_, list| {
        Ok(Value::Bool(!args::value(list, 0).truth()))
    }),
    func_more("coalesce", &[], Ty::Any, |_, list| {
        Ok(list
            .iter()
            .find(|value| value.truth())
            .cloned()
            .unwrap_or(Value::Nil))
    }),
    func_more("all", &[], Ty::Any, |_, list| {
        Ok(Value::Bool(list.iter().all(Value::truth)))
    }),
    func_more("any", &[], Ty::Any, |_, list| {
        Ok(Value::Bool(list.iter().any(Value::truth)))
    }),
    func("ternary", &[Ty::Any, Ty::Any, Ty::Bool], ternary),
    func("fail", &[Ty::Text], fail),
    func("hello", &[], |_, _| Ok(Value::text("Hello!"))),
];

fn default(_: &mut Limits, list: &[Value]) -> Answer {
    let given = list.get(1).filter(|value| value.truth());
    Ok(given.unwrap_or(args::value(list, 0)).clone())
}

fn ternary(_: &mut Limits, list: &[Value]) -> Answer {
    let index = usize::from(!args::value(list, 2).truth());
    Ok(args::value(list, index).clone())
}

/// The message may have been put together from values, so it stays here.
fn fail(_: &mut Limits, _: &[Value]) -> Answer {
    Err(Fault::from(
        "the template gave up; its message is not shown, because it may hold a value",
    ))
}
