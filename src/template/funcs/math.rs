//! Arithmetic of integers, and of floats through decimal numbers, as sprig does it.

use num_bigint::BigInt;

use super::numbers::{to_float, to_int};
use super::{Answer, Fault, Func, Ty, args, func, func_more};
use crate::template::limits::Limits;
use crate::template::value::Value;

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func_more("add", &[], Ty::Any, |_, list| {
        Ok(fold(0, list, i64::wrapping_add))
    }),
    func("add1", &[Ty::Any], |_, list| {
        Ok(Value::int64(int(list, 0).wrapping_add(1)))
    }),
    func("sub", &[Ty::Any, Ty::Any], |_, list| {
        Ok(Value::int64(int(list, 0).wrapping_sub(int(list, 1))))
    }),
    func("div", &[Ty::Any, Ty::Any], |_, list| {
        divided(list, i64::wrapping_div)
    }),
    func("mod", &[Ty::Any, Ty::Any], |_, list| {
        divided(list, i64::wrapping_rem)
    }),
    func_more("mul", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold(1, list, i64::wrapping_mul))
    }),
    func_more("max", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold_from_first(list, i64::max))
    }),
    func_more("biggest", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold_from_first(list, i64::max))
    }),
    func_more("min", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold_from_first(list, i64::min))
    }),
    func_more("maxf", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold_floats(list, go_max))
    }),
    func_more("minf", &[Ty::Any], Ty::Any, |_, list| {
        Ok(fold_floats(list, go_min))
    }),
    func("ceil", &[Ty::Any], |_, list| {
        Ok(Value::Float(to_float(args::value(list, 0)).ceil()))
    }),
    func("floor", &[Ty::Any], |_, list| {
        Ok(Value::Float(to_float(args::value(list, 0)).floor()))
    }),
    func_more("round", &[Ty::Any, Ty::Int], Ty::Float, round),
    func("add1f", &[Ty::Any], |_, list| {
        decimal(to_float(args::value(list, 0)), &[Value::int(1)], add)
    }),
    func_more("addf", &[], Ty::Any, |_, list| decimal(0.0, list, add)),
    func_more("subf", &[Ty::Any], Ty::Any, |limits, list| {
        from_first(limits, list, sub)
    }),
    func_more("mulf", &[Ty::Any], Ty::Any, |limits, list| {
        from_first(limits, list, mul)
    }),
    func_more("divf", &[Ty::Any], Ty::Any, |limits, list| {
        from_first(limits, list, div)
    }),
];

fn int(list: &[Value], index: usize) -> i64 {
    to_int(args::value(list, index))
}

fn fold(start: i64, list: &[Value], step: fn(i64, i64) -> i64) -> Value {
    Value::int64(list.iter().map(to_int).fold(start, step))
}

fn fold_from_first(list: &[Value], step: fn(i64, i64) -> i64) -> Value {
    Value::int64(list.iter().map(to_int).reduce(step).unwrap_or(0))
}

fn divided(list: &[Value], by: fn(i64, i64) -> i64) -> Answer {
    match int(list, 1) {
        0 => Err("integer divide by zero".into()),
        divisor => Ok(Value::int64(by(int(list, 0), divisor))),
    }
}

fn fold_floats(list: &[Value], step: fn(f64, f64) -> f64) -> Value {
    Value::Float(list.iter().map(to_float).reduce(step).unwrap_or(0.0))
}

/// Go's `math.Max`: infinity before NaN, and 0 before -0.
fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// Rounds up from the given fraction, which is 0.5 if none is given, also below zero.
fn round(_: &mut Limits, list: &[Value]) -> Answer {
    let up_from = if list.len() > 2 { args::float(list, 2) } else { 0.5 };
    let power = pow_10(args::int(list, 1));
    let digits = power * to_float(args::value(list, 0));
    // Go's Modf gives NaN for the fraction of an infinite number.
    let fraction = if digits.is_finite() {
        digits.fract()
    } else {
        f64::NAN
    };
    let whole = if fraction >= up_from {
        digits.ceil()
    } else {
        digits.floor()
    };
    Ok(Value::Float(whole / power))
}

/// 10 to the power, in the steps of Go's `math.Pow`, which for large ones are not the nearest number.
fn pow_10(places: i64) -> f64 {
    let exponent = places.unsigned_abs();
    let (mut product, mut power) = (1.0_f64, 0_i64);
    // The base as a fraction and a power of 2.
    let (mut base, mut base_power) = (10.0 / 16.0, 4_i64);
    let mut rest = exponent;
    while rest != 0 {
        if !(-(1 << 12)..=1 << 12).contains(&base_power) {
            // More only over- or underflows.
            power = power.saturating_add(base_power);
            break;
        }
        if rest & 1 == 1 {
            product *= base;
            power = power.saturating_add(base_power);
        }
        base *= base;
        base_power <<= 1;
        if base < 0.5 {
            base += base;
            base_power = base_power.saturating_sub(1);
        }
        rest >>= 1;
    }
    if places < 0 {
        product = 1.0 / product;
        power = -power;
    }
    let power = power.clamp(-4096, 4096);
    let half = i32::try_from(power / 2).unwrap_or(0);
    let other = i32::try_from(power - power / 2).unwrap_or(0);
    product * 2.0_f64.powi(half) * 2.0_f64.powi(other)
}

/// A decimal number: the integer times 10 to the power.
struct Decimal {
    number: BigInt,
    power: i64,
}

/// Digits after the point of a quotient.
const QUOTIENT: i64 = 16;

fn power_of_10(power: i64) -> BigInt {
    BigInt::from(10).pow(u32::try_from(power).unwrap_or(0))
}

fn to_decimal(number: f64) -> Result<Decimal, Fault> {
    if !number.is_finite() {
        return Err("a number is not finite".into());
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number = format!("{whole}{fraction}")
        .parse::<i64>()
        .map_err(|_| Fault::from("a number is too long"))?;
    let exponent: i64 = exponent.parse().unwrap_or(0);
    Ok(Decimal {
        number: BigInt::from(number),
        power: exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(0)),
    })
}

fn from_first(
    limits: &mut Limits,
    list: &[Value],
    step: fn(Decimal, Decimal) -> Result<Decimal, Fault>,
) -> Answer {
    limits.step(list.len() as u64)?;
    decimal(to_float(args::value(list, 0)), args::rest(list, 1), step)
}

fn decimal(first: f64, rest: &[Value], step: fn(Decimal, Decimal) -> Result<Decimal, Fault>) -> Answer {
    let mut result = to_decimal(first)?;
    for value in rest {
        result = step(result, to_decimal(to_float(value))?)?;
        // Far more digits than a sum of floats has; only thousands of factors get there.
        if result.number.bits() > 1 << 16 {
            return Err("the result has too many digits".into());
        }
    }
    let text = format!("{}e{}", result.number, result.power);
    Ok(Value::Float(text.parse().unwrap_or(f64::NAN)))
}

/// Both with the smaller of their powers.
fn rescale(a: Decimal, b: Decimal) -> (BigInt, BigInt, i64) {
    let power = a.power.min(b.power);
    let scaled = |decimal: Decimal| match decimal.power.saturating_sub(power) {
        0 => decimal.number,
        more => decimal.number * power_of_10(more),
    };
    (scaled(a), scaled(b), power)
}

fn add(a: Decimal, b: Decimal) -> Result<Decimal, Fault> {
    let (a, b, power) = rescale(a, b);
    Ok(Decimal { number: a + b, power })
}

fn sub(a: Decimal, b: Decimal) -> Result<Decimal, Fault> {
    let (a, b, power) = rescale(a, b);
    Ok(Decimal { number: a - b, power })
}

fn mul(a: Decimal, b: Decimal) -> Result<Decimal, Fault> {
    Ok(Decimal {
        number: a.number * b.number,
        power: a.power.saturating_add(b.power),
    })
}

/// Rounds half away from zero.
fn div(a: Decimal, b: Decimal) -> Result<Decimal, Fault> {
    let zero = BigInt::ZERO;
    if b.number == zero {
        return Err("decimal division by 0".into());
    }
    let shift = a.power.saturating_sub(b.power).saturating_add(QUOTIENT);
    let (dividend, divisor) = if shift < 0 {
        (a.number, b.number * power_of_10(shift.saturating_neg()))
    } else {
        (a.number * power_of_10(shift), b.number)
    };
    let quotient = &dividend / &divisor;
    let remainder = &dividend - &quotient * &divisor;
    let negative = (dividend < zero) != (divisor < zero);
    let up = remainder.magnitude() * 2_u32 >= *divisor.magnitude();
    let number = match (up, negative) {
        (false, _) => quotient,
        (true, true) => quotient - 1,
        (true, false) => quotient + 1,
    };
    Ok(Decimal {
        number,
        power: QUOTIENT.saturating_neg(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_are_exact_as_far_as_floats_hold_them() {
        for places in 0..=22_i32 {
            assert_eq!(
                pow_10(places.into()),
                format!("1e{places}").parse::<f64>().unwrap_or(0.0)
            );
        }
        assert_eq!(pow_10(400), f64::INFINITY);
        assert_eq!(pow_10(-400), 0.0);
        assert_eq!(pow_10(i64::MIN), 0.0);
        assert_eq!(pow_10(i64::MAX), f64::INFINITY);
    }
}
