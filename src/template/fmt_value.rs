//! Values of all types under the verbs of `printf`.

use super::fmt::Printer;
use super::fmt_number::{complex, float, integer};
use super::fmt_quote::text;
use super::funcs::Fault;
use super::funcs::semver;
use super::layout;
use super::time::{MONTHS, Time, Zone, duration_text};
use super::value::{Certificate, NESTING, Value, Version};

type Outcome = Result<(), Fault>;

/// Writes an argument.
pub(super) fn print_arg(printer: &mut Printer, value: &Value, verb: char) -> Outcome {
    match (value, verb) {
        (Value::Nil, 'T' | 'v') => printer.pad(b"<nil>"),
        (Value::Nil, _) => bad_verb(printer, value, verb),
        (_, 'T') => text(printer, value.type_name().as_bytes(), 's'),
        // Addresses are no one's business, and new each time.
        (_, 'p' | 'w') => bad_verb(printer, value, verb),
        _ => print(printer, value, verb, 0),
    }
}

/// `%!verb(type=value)`.
pub(super) fn bad_verb(printer: &mut Printer, value: &Value, verb: char) -> Outcome {
    if matches!(value, Value::Nil) {
        return printer.write(format!("%!{verb}(<nil>)").as_bytes());
    }
    printer.write(format!("%!{verb}({}=", value.type_name()).as_bytes())?;
    print(printer, value, 'v', 0)?;
    printer.write(b")")
}

fn print(printer: &mut Printer, value: &Value, verb: char, depth: usize) -> Outcome {
    if depth > NESTING {
        return Err("values lie in one another too deep to be printed".into());
    }
    match value {
        Value::Nil if printer.flags.sharp_v => printer.write(b"interface {}(nil)"),
        Value::Nil => printer.write(b"<nil>"),
        Value::Bool(is) if matches!(verb, 't' | 'v') => printer.pad(if *is { b"true" } else { b"false" }),
        Value::Bool(_) => bad_verb(printer, value, verb),
        Value::Int(..) => integer(printer, value, verb),
        Value::Float(number) => float(printer, *number, verb, value),
        Value::Complex(real, imaginary) => complex(printer, *real, *imaginary, verb, value),
        Value::Text(bytes) => text(printer, bytes, verb),
        Value::List(list) => {
            let open = if !printer.flags.sharp_v {
                "[".to_owned()
            } else if list.nil {
                return printer.write(format!("{}(nil)", value.type_name()).as_bytes());
            } else {
                format!("{}{{", value.type_name())
            };
            let items = list.items.iter().map(|item| (None, item));
            all(printer, &open, items, verb, depth)?;
            printer.write(if printer.flags.sharp_v { b"}" } else { b"]" })
        }
        Value::Map(map) => {
            let open = if printer.flags.sharp_v {
                format!("{}{{", value.type_name())
            } else {
                "map[".to_owned()
            };
            let items = map.items.borrow();
            let items = items
                .iter()
                .map(|(key, item)| (Some(Value::Text(key.clone())), item));
            all(printer, &open, items, verb, depth)?;
            printer.write(if printer.flags.sharp_v { b"}" } else { b"]" })
        }
        Value::Time(time) if printer.flags.sharp_v => printer.pad(&time_code(time)),
        Value::Time(time) if is_stringy(verb) => text(printer, &layout::text(time), verb),
        Value::Time(_) => {
            printer.write(format!("%!{verb}(time.Time=").as_bytes())?;
            print(printer, value, 'v', depth)?;
            printer.write(b")")
        }
        Value::Duration(nanos) if is_stringy(verb) && !printer.flags.sharp_v => {
            text(printer, duration_text(*nanos).as_bytes(), verb)
        }
        Value::Duration(_) => integer(printer, value, verb),
        Value::Version(version) => self::version(printer, version, verb, depth),
        Value::Certificate(pair) => certificate(printer, pair, verb, depth),
    }
}

/// Whether Go asks a value for its text under this verb.
fn is_stringy(verb: char) -> bool {
    matches!(verb, 'v' | 's' | 'x' | 'X' | 'q')
}

/// Elements, each with its key if it has one.
fn all<'v>(
    printer: &mut Printer,
    open: &str,
    items: impl Iterator<Item = (Option<Value>, &'v Value)>,
    verb: char,
    depth: usize,
) -> Outcome {
    printer.write(open.as_bytes())?;
    for (index, (key, item)) in items.enumerate() {
        printer.limits.step(1)?;
        if index > 0 {
            separate(printer)?;
        }
        if let Some(key) = key {
            print(printer, &key, verb, depth + 1)?;
            printer.write(b":")?;
        }
        print(printer, item, verb, depth + 1)?;
    }
    Ok(())
}

fn separate(printer: &mut Printer) -> Outcome {
    printer.write(if printer.flags.sharp_v { b", " } else { b" " })
}

fn version(printer: &mut Printer, version: &Version, verb: char, depth: usize) -> Outcome {
    if is_stringy(verb) && !printer.flags.sharp_v {
        return text(printer, semver::text(version).as_bytes(), verb);
    }
    let [major, minor, patch] = version.numbers.map(|number| {
        Value::Int(
            super::value::IntKind::Uint64,
            i64::from_ne_bytes(number.to_ne_bytes()),
        )
    });
    let fields = [
        ("major", major),
        ("minor", minor),
        ("patch", patch),
        ("pre", Value::text(&version.prerelease)),
        ("metadata", Value::text(&version.metadata)),
        ("original", Value::text(&version.original)),
    ];
    fields_of(printer, "&", "semver.Version", &fields, verb, depth)
}

fn certificate(printer: &mut Printer, pair: &Certificate, verb: char, depth: usize) -> Outcome {
    let fields = [
        ("Cert", Value::Text(pair.cert.clone())),
        ("Key", Value::Text(pair.key.clone())),
    ];
    fields_of(printer, "", "sprig.certificate", &fields, verb, depth)
}

/// The fields of a struct.
fn fields_of(
    printer: &mut Printer,
    pointer: &str,
    name: &str,
    fields: &[(&str, Value)],
    verb: char,
    depth: usize,
) -> Outcome {
    printer.write(pointer.as_bytes())?;
    if printer.flags.sharp_v {
        printer.write(name.as_bytes())?;
    }
    printer.write(b"{")?;
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            separate(printer)?;
        }
        if printer.flags.sharp_v || printer.flags.plus_v {
            printer.write(format!("{name}:").as_bytes())?;
        }
        print(printer, value, verb, depth + 1)?;
    }
    printer.write(b"}")
}

/// A time as Go code, as `%#v` writes it.
fn time_code(time: &Time) -> Vec<u8> {
    let civil = time.civil();
    let month = usize::try_from(civil.month - 1)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .copied()
        .unwrap_or_default();
    let zone = match &time.zone {
        Zone::Utc => "time.UTC".to_owned(),
        zone => format!("time.Location({:?})", zone.name()),
    };
    format!(
        "time.Date({}, time.{month}, {}, {}, {}, {}, {}, {zone})",
        civil.year, civil.day, civil.hour, civil.minute, civil.second, time.nanos
    )
    .into_bytes()
}
