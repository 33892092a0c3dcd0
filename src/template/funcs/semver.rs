//! Versions and the constraints on them, in the grammar of Masterminds' Go package.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::LazyLock;

use regex::Regex;

use super::super::limits::Limits;
use super::super::value::{Value, Version};
use super::{Answer, Fault, Func, Ty, func, utf8};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("semver", &[Ty::Text], |_, args| {
        let version = args
            .first()
            .and_then(|text| parse(&utf8(text)))
            .ok_or(NO_VERSION)?;
        Ok(Value::Version(Rc::new(version)))
    }),
    func("semverCompare", &[Ty::Text, Ty::Text], compare_with),
];

const NO_VERSION: &str = "the text is no version such as 1.2.3-rc.1";
const NO_CONSTRAINT: &str = "the text is no constraint such as >=1.2.0 <2 || ~3.1";

/// What follows the numbers of a version: a prerelease and metadata.
const TAIL: &str =
    r"(?<pre>-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?<meta>\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?";
/// A whole version without names, for the places where it stands twice. The bar is a number's part in Go as well, so
/// that a range takes what stands before `||`.
const WILD: &str = concat!(
    r"v?[0-9|xX*]+(?:\.[0-9|xX*]+)?(?:\.[0-9|xX*]+)?",
    r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
);
const OPERATOR: &str = r"(?:=>|=<|=|!=|>=|>|<=|<|~>|~|\^|)";
/// Go's `\s`.
const BLANKS: &str = r"[\t\n\f\r ]*";

static VERSION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{TAIL}$")).ok());
static RANGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(
        r"{BLANKS}({WILD})[\t\n\f\r ]+-[\t\n\f\r ]+({WILD}){BLANKS}"
    ))
    .ok()
});
static ALL_OF: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let one = format!("{OPERATOR}{BLANKS}{WILD}{BLANKS}");
    Regex::new(&format!(r"^{BLANKS}{one}(?:(?:[\t\n\f\r ]+|,{BLANKS}){one})*$")).ok()
});
static ONE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let numbers = r"v?([0-9|xX*]+)(?:\.([0-9|xX*]+))?(?:\.([0-9|xX*]+))?";
    Regex::new(&format!("(?<op>{OPERATOR}){BLANKS}{numbers}{TAIL}")).ok()
});

/// Reads a version; numbers that are missing are 0, and may begin with zeros.
fn parse(text: &str) -> Option<Version> {
    let found = VERSION.as_ref()?.captures(text)?;
    let number = |index| {
        found
            .get(index)
            .map_or(Some(0), |digits| digits.as_str().parse().ok())
    };
    let tail = |name| {
        found
            .name(name)
            .map_or("", |part| part.as_str().get(1..).unwrap_or_default())
    };
    let prerelease = valid_prerelease(tail("pre"))?;
    Some(Version {
        numbers: [number(1)?, number(2)?, number(3)?],
        prerelease: prerelease.into(),
        metadata: tail("meta").into(),
        original: text.into(),
    })
}

/// Numbers in a prerelease must not begin with a zero.
fn valid_prerelease(text: &str) -> Option<&str> {
    let valid = text.split('.').all(|part| {
        part.len() < 2 || !part.starts_with('0') || !part.bytes().all(|byte| byte.is_ascii_digit())
    });
    valid.then_some(text)
}

/// Go's `Version.Compare`: metadata does not count.
#[must_use]
pub fn compare(one: &Version, other: &Version) -> Ordering {
    one.numbers.cmp(&other.numbers).then_with(|| {
        match (one.prerelease.is_empty(), other.prerelease.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_prerelease(&one.prerelease, &other.prerelease),
        }
    })
}

fn compare_prerelease(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        let (one, other) = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => (one, other),
        };
        // Numbers come before words.
        let order = match (one.parse::<u64>(), other.parse::<u64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => one.cmp(other),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// What `String` prints.
#[must_use]
pub fn text(version: &Version) -> String {
    let [major, minor, patch] = version.numbers;
    let mut text = format!("{major}.{minor}.{patch}");
    for (sign, part) in [('-', &version.prerelease), ('+', &version.metadata)] {
        if !part.is_empty() {
            text.push(sign);
            text.push_str(part);
        }
    }
    text
}

/// How much of a constraint's version was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// Only a placeholder.
    Nothing,
    Major,
    Minor,
    All,
}

/// A version with an operator.
struct Constraint {
    operator: String,
    version: Version,
    given: Given,
}

impl Constraint {
    fn parse(found: &regex::Captures<'_>) -> Option<Self> {
        let group = |index: usize| found.get(index).map_or("", |part| part.as_str());
        let named = |name| found.name(name).map_or("", |part| part.as_str());
        let wild = |text: &str| matches!(text, "" | "x" | "X" | "*");
        // The operator is the first group.
        let (major, minor, patch) = (group(2), group(3), group(4));
        let (pre, meta) = (named("pre"), named("meta"));
        let (given, text) = if wild(major) {
            (Given::Nothing, format!("0.0.0{pre}"))
        } else if wild(minor) {
            (Given::Major, format!("{major}.0.0{pre}"))
        } else if wild(patch) {
            (Given::Minor, format!("{major}.{minor}.0{pre}"))
        } else {
            (Given::All, format!("{major}.{minor}.{patch}{pre}{meta}"))
        };
        Some(Self {
            operator: named("op").into(),
            version: parse(&text)?,
            given,
        })
    }

    /// `prereleases` says whether one of the constraints that have to hold together names a prerelease.
    fn holds(&self, version: &Version, prereleases: bool) -> bool {
        if !version.prerelease.is_empty() && !prereleases {
            return false;
        }
        let order = compare(version, &self.version);
        match self.operator.as_str() {
            "!=" => self.differs(version, order),
            ">" => self.exceeds(version, order),
            "<" => order.is_lt(),
            ">=" | "=>" => order.is_ge(),
            "<=" | "=<" => self.reaches(version, order),
            "~" | "~>" => self.tilde(version, order),
            "^" => self.caret(version, order),
            _ if self.given == Given::All => order.is_eq(),
            _ => self.tilde(version, order),
        }
    }

    fn differs(&self, version: &Version, order: Ordering) -> bool {
        let ([major, minor, patch], [my_major, my_minor, my_patch]) = (version.numbers, self.version.numbers);
        match self.given {
            Given::All => order.is_ne(),
            _ if major != my_major => true,
            Given::Major => false,
            _ if minor != my_minor => true,
            Given::Minor => {
                (!version.prerelease.is_empty() || !self.version.prerelease.is_empty())
                    && compare_prerelease(&version.prerelease, &self.version.prerelease).is_ne()
            }
            Given::Nothing => patch != my_patch || order.is_ne(),
        }
    }

    fn exceeds(&self, version: &Version, order: Ordering) -> bool {
        let ([major, minor, _], [my_major, my_minor, _]) = (version.numbers, self.version.numbers);
        match (self.given, major.cmp(&my_major)) {
            (Given::All, _) => order.is_gt(),
            (_, Ordering::Greater) => true,
            (_, Ordering::Less) | (Given::Major, _) => false,
            (Given::Minor, _) => minor > my_minor,
            (Given::Nothing, _) => order.is_gt(),
        }
    }

    fn reaches(&self, version: &Version, order: Ordering) -> bool {
        let ([major, minor, _], [my_major, my_minor, _]) = (version.numbers, self.version.numbers);
        match self.given {
            Given::All => order.is_le(),
            Given::Major => major <= my_major,
            Given::Minor | Given::Nothing => major < my_major || (major == my_major && minor <= my_minor),
        }
    }

    fn tilde(&self, version: &Version, order: Ordering) -> bool {
        if order.is_lt() {
            return false;
        }
        let ([major, minor, _], [my_major, my_minor, _]) = (version.numbers, self.version.numbers);
        if self.version.numbers == [0, 0, 0] && matches!(self.given, Given::All | Given::Nothing) {
            return true;
        }
        major == my_major && (minor == my_minor || self.given == Given::Major)
    }

    fn caret(&self, version: &Version, order: Ordering) -> bool {
        if order.is_lt() {
            return false;
        }
        let ([major, minor, patch], [my_major, my_minor, my_patch]) = (version.numbers, self.version.numbers);
        if my_major > 0 || self.given == Given::Major {
            return major == my_major;
        }
        if major > 0 {
            return false;
        }
        if my_minor > 0 || self.given == Given::Minor {
            return minor == my_minor;
        }
        minor == 0 && patch == my_patch
    }
}

/// Whether a version satisfies one of the groups, in which all constraints have to hold.
fn satisfies(constraint: &str, version: &Version) -> Result<bool, Fault> {
    let (Some(range), Some(all_of), Some(one)) = (RANGE.as_ref(), ALL_OF.as_ref(), ONE.as_ref()) else {
        return Err("the grammar of constraints cannot be built".into());
    };
    let constraint = range.replace_all(constraint, ">= $1, <= $2 ");
    let mut satisfied = false;
    for group in constraint.split("||") {
        if !all_of.is_match(group) {
            return Err(NO_CONSTRAINT.into());
        }
        let parts: Option<Vec<Constraint>> = one
            .captures_iter(group)
            .map(|found| Constraint::parse(&found))
            .collect();
        let parts = parts.ok_or(NO_CONSTRAINT)?;
        let prereleases = parts.iter().any(|part| !part.version.prerelease.is_empty());
        satisfied |= parts.iter().all(|part| part.holds(version, prereleases));
    }
    Ok(satisfied)
}

fn compare_with(limits: &mut Limits, args: &[Value]) -> Answer {
    let [constraint, version] = args else {
        return Err("expected a constraint and a version".into());
    };
    let constraint = utf8(constraint);
    limits.step(constraint.len() as u64)?;
    // The constraint is read first, as in Go, so that its error comes first.
    let version = parse(&utf8(version));
    let zero = Version {
        numbers: [0; 3],
        prerelease: String::new(),
        metadata: String::new(),
        original: String::new(),
    };
    let satisfied = satisfies(&constraint, version.as_ref().unwrap_or(&zero))?;
    version.ok_or(NO_VERSION)?;
    Ok(Value::Bool(satisfied))
}

/// Calls a method of `semver.Version`; `None` if it has none of this name.
///
/// # Errors
/// If the arguments are none that the method takes.
pub fn version_method(version: &Version, name: &str, args: &[Value]) -> Option<Answer> {
    let [major, minor, patch] = version.numbers;
    // A `uint64` keeps its bits in an `i64`.
    let number = |number: u64| {
        Ok(Value::Int(
            super::super::value::IntKind::Uint64,
            number.cast_signed(),
        ))
    };
    let order = |other: &Version| compare(version, other);
    Some(match (name, args) {
        ("Major", []) => number(major),
        ("Minor", []) => number(minor),
        ("Patch", []) => number(patch),
        ("Prerelease", []) => Ok(Value::text(&version.prerelease)),
        ("Metadata", []) => Ok(Value::text(&version.metadata)),
        ("Original", []) => Ok(Value::text(&version.original)),
        ("String", []) => Ok(Value::text(text(version))),
        ("IncMajor", []) => Ok(changed(version, [major.wrapping_add(1), 0, 0], "", "")),
        ("IncMinor", []) => Ok(changed(version, [major, minor.wrapping_add(1), 0], "", "")),
        ("IncPatch", []) => {
            let step = u64::from(version.prerelease.is_empty());
            Ok(changed(version, [major, minor, patch.wrapping_add(step)], "", ""))
        }
        ("SetPrerelease", [Value::Text(pre)]) => {
            set(version, &format!("0.0.0-{}", String::from_utf8_lossy(pre)), pre)
        }
        ("SetMetadata", [Value::Text(meta)]) => {
            set(version, &format!("0.0.0+{}", String::from_utf8_lossy(meta)), meta)
        }
        ("Compare", [Value::Version(other)]) => Ok(Value::int(order(other) as i64)),
        ("Equal", [Value::Version(other)]) => Ok(Value::Bool(order(other).is_eq())),
        ("LessThan", [Value::Version(other)]) => Ok(Value::Bool(order(other).is_lt())),
        ("LessThanEqual", [Value::Version(other)]) => Ok(Value::Bool(order(other).is_le())),
        ("GreaterThan", [Value::Version(other)]) => Ok(Value::Bool(order(other).is_gt())),
        ("GreaterThanEqual", [Value::Version(other)]) => Ok(Value::Bool(order(other).is_ge())),
        (
            "Major" | "Minor" | "Patch" | "Prerelease" | "Metadata" | "Original" | "String" | "IncMajor"
            | "IncMinor" | "IncPatch" | "SetPrerelease" | "SetMetadata" | "Compare" | "Equal" | "LessThan"
            | "LessThanEqual" | "GreaterThan" | "GreaterThanEqual",
            _,
        ) => Err(Fault::from(format!(
            "wrong number or types of arguments for {name}"
        ))),
        _ => return None,
    })
}

fn changed(from: &Version, numbers: [u64; 3], prerelease: &str, metadata: &str) -> Value {
    let mut version = Version {
        numbers,
        prerelease: prerelease.into(),
        metadata: metadata.into(),
        original: String::new(),
    };
    let v = if from.original.starts_with('v') { "v" } else { "" };
    version.original = format!("{v}{}", text(&version));
    Value::Version(Rc::new(version))
}

/// A version with another prerelease or other metadata; an example that holds it shows whether it is valid.
fn set(version: &Version, example: &str, to: &[u8]) -> Answer {
    let (mut pre, mut meta) = (version.prerelease.clone(), version.metadata.clone());
    match (to.is_empty(), example.starts_with("0.0.0-"), parse(example)) {
        (true, true, _) => pre.clear(),
        (true, false, _) => meta.clear(),
        (false, true, Some(read)) if read.metadata.is_empty() => pre = read.prerelease,
        (false, false, Some(read)) => meta = read.metadata,
        _ => return Err("the text is no prerelease or metadata of a version".into()),
    }
    Ok(changed(version, version.numbers, &pre, &meta))
}
