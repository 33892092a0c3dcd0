//! The parts of a path: enough of its grammar to find what the crate does not know.

use super::PathError;

/// Modifiers that the crate knows.
const MODIFIERS: [&str; 7] = ["this", "reverse", "ugly", "pretty", "valid", "flatten", "join"];
/// Modifiers that only Go's gjson knows, and that we do not serve anywhere.
const NOT_SERVED: [&str; 2] = ["group", "dig"];

/// A stretch of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// One that the crate can follow.
    Path(String),
    /// A modifier that it lacks.
    Own(OwnModifier),
}

/// A modifier that the crate lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnModifier {
    /// `@keys`
    Keys,
    /// `@values`
    Values,
    /// `@tostr`
    ToStr,
    /// `@fromstr`
    FromStr,
}

impl OwnModifier {
    fn named(name: &str) -> Option<Self> {
        match name {
            "keys" => Some(Self::Keys),
            "values" => Some(Self::Values),
            "tostr" => Some(Self::ToStr),
            "fromstr" => Some(Self::FromStr),
            _ => None,
        }
    }
}

/// Cuts a path into what the crate can follow and what it cannot.
pub fn steps(path: &str) -> Result<Vec<Step>, PathError> {
    let mut steps: Vec<Step> = Vec::new();
    let mut each_element = false;
    let mut separator = "";
    let mut start = 0;
    loop {
        let end = component_end(path.as_bytes(), start);
        let component = &path[start..end];
        if separator == "|" {
            each_element = false;
        }
        match component.strip_prefix('@').and_then(OwnModifier::named) {
            // After `#.` a modifier applies to every element, which cannot be done from outside.
            Some(_) if each_element => return Err(PathError::NotServed(component.to_owned())),
            Some(modifier) => steps.push(Step::Own(modifier)),
            None => {
                let component = for_the_crate(component)?;
                match steps.last_mut() {
                    Some(Step::Path(before)) => {
                        before.push_str(separator);
                        before.push_str(&component);
                    }
                    _ => steps.push(Step::Path(component)),
                }
            }
        }
        each_element |= component == "#" || (component.starts_with("#(") && component.ends_with('#'));
        match path.as_bytes().get(end) {
            None => return Ok(steps),
            Some(b'.') => separator = ".",
            Some(b'|') => separator = "|",
            Some(_) => return Err(PathError::NotServed(path[start..].to_owned())),
        }
        start = end + 1;
    }
}

/// Where the component that starts here ends: at a separator, at the end, or at what cannot follow it.
fn component_end(path: &[u8], start: usize) -> usize {
    match (path.get(start), path.get(start + 1)) {
        (Some(b'{' | b'['), _) => group_end(path, start),
        (Some(b'#'), Some(b'(')) => {
            let end = group_end(path, start + 1);
            if path.get(end) == Some(&b'#') {
                end + 1
            } else {
                end
            }
        }
        (Some(b'@'), _) => {
            let end = plain_end(path, start, b".|:");
            if path.get(end) == Some(&b':') && is_modifier(path, start, end) {
                argument_end(path, end + 1)
            } else {
                plain_end(path, start, b".|")
            }
        }
        _ => plain_end(path, start, b".|"),
    }
}

fn is_modifier(path: &[u8], start: usize, end: usize) -> bool {
    MODIFIERS
        .iter()
        .any(|name| name.as_bytes() == &path[start + 1..end])
}

/// The first of the stop characters that is not escaped.
fn plain_end(path: &[u8], start: usize, stop: &[u8]) -> usize {
    let mut i = start;
    while i < path.len() && !stop.contains(&path[i]) {
        i += if path[i] == b'\\' { 2 } else { 1 };
    }
    i.min(path.len())
}

/// Where the argument of a modifier ends.
fn argument_end(path: &[u8], start: usize) -> usize {
    match path.get(start) {
        Some(b'{' | b'[') => group_end(path, start),
        Some(b'"') => string_end(path, start),
        _ => plain_end(path, start, b".|"),
    }
}

/// The place after the bracket that closes the one at `start`; the end if none does.
fn group_end(path: &[u8], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0_usize);
    while i < path.len() {
        match path[i] {
            b'"' => {
                i = string_end(path, i);
                continue;
            }
            b'\\' => i += 1,
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
        i += 1;
    }
    path.len()
}

/// The place after the quote that closes the one at `start`; the end if none does.
pub fn string_end(text: &[u8], start: usize) -> usize {
    let end = plain_end(text, start + 1, b"\"");
    (end + 1).min(text.len())
}

/// A component in a form that the crate reads as Go would.
fn for_the_crate(component: &str) -> Result<String, PathError> {
    let refuse = || Err(PathError::NotServed(component.to_owned()));
    match component.as_bytes() {
        [b'@', ..] => {
            let name = &component[1..plain_end(component.as_bytes(), 0, b":")];
            if MODIFIERS.contains(&name) {
                Ok(component.to_owned())
            } else if NOT_SERVED.contains(&name) || OwnModifier::named(name).is_some() {
                refuse()
            } else {
                // For Go a key like `@type`, for the crate a modifier that does not exist.
                Ok(format!("\\{component}"))
            }
        }
        // A literal in Go, a key in the crate.
        [b'!', _, ..] => refuse(),
        [b'{' | b'[', ..] | [b'#', b'(', ..] => nested(component),
        // A key like `#1`, which the crate takes for a broken query.
        [b'#', _, ..] => Ok(format!("\\{component}")),
        _ => Ok(component.to_owned()),
    }
}

/// Brackets with what is in them: refuses what the crate would silently leave out or name differently.
fn nested(group: &str) -> Result<String, PathError> {
    let bytes = group.as_bytes();
    let mut out = String::with_capacity(group.len());
    let mut open = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let at_start = i == 0 || b"{[(,:.|".contains(&bytes[i - 1]);
        let mut end = i + 1;
        match bytes[i] {
            b'{' | b'[' | b'(' => open.push(bytes[i]),
            b'}' | b']' | b')' => {
                open.pop();
            }
            b'\\' => end = (i + 2).min(bytes.len()),
            b'"' => {
                end = string_end(bytes, i);
                let is_name = open.last() == Some(&b'{') && at_start && bytes.get(end) == Some(&b':');
                if is_name {
                    out.push_str(simple_name(&group[i..end])?);
                    i = end;
                    continue;
                }
            }
            b'@' if at_start => end = nested_modifier(group, i)?,
            b'!' if at_start && !matches!(bytes.get(end), Some(b'=' | b'%')) => {
                return Err(PathError::NotServed("!".to_owned()));
            }
            _ => {}
        }
        while !group.is_char_boundary(end) {
            end += 1;
        }
        out.push_str(&group[i..end]);
        i = end;
    }
    Ok(out)
}

/// Where a modifier inside of brackets ends.
fn nested_modifier(group: &str, start: usize) -> Result<usize, PathError> {
    let bytes = group.as_bytes();
    let end = plain_end(bytes, start, b".|:,{}[]()");
    if !is_modifier(bytes, start, end) {
        return Err(PathError::NotServed(group[start..end].to_owned()));
    }
    match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b':'), Some(b'{' | b'[' | b'"')) => Ok(argument_end(bytes, end + 1)),
        _ => Ok(end),
    }
}

/// The crate would keep the quotes of a quoted name as part of the name.
fn simple_name(quoted: &str) -> Result<&str, PathError> {
    let name = quoted.trim_matches('"');
    let simple = !name.is_empty() && !name.contains(['\\', '"', '(', '[', '{', ')', ']', '}', ',', ':']);
    if simple {
        Ok(name)
    } else {
        Err(PathError::NotServed(quoted.to_owned()))
    }
}
