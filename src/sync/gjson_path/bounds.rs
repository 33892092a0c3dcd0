//! What a path may cost. The crate has no limits of its own, so the cost is estimated from above before it is
//! called.

use super::PathError;

/// Longest path in bytes: the crate recurses for every component.
pub const MAX_PATH: usize = 512;
/// Most bytes that a path may blow a secret up to: `[@this,@this]|[@this,@this]|…` doubles it at every step.
const MAX_SIZE: usize = 16 << 20;
/// Most comparisons that matching `*` may need: with n of them they grow with the n-th power of the length.
const MAX_COMPARISONS: usize = 50_000_000;

/// Refuses a path that could cost too much on this JSON.
pub fn check(json: &str, path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let shape = Shape::of(json, path.contains('%'));
    let stars = path.bytes().filter(|b| *b == b'*').count();
    if comparisons(&shape, stars) > MAX_COMPARISONS {
        return Err(PathError::TooCostly);
    }
    check_size(json.len().saturating_mul(growth(path, shape.depth)))
}

/// Refuses an intermediate result of this size.
pub fn check_size(bytes: usize) -> Result<(), PathError> {
    if bytes > MAX_SIZE {
        Err(PathError::TooCostly)
    } else {
        Ok(())
    }
}

/// The texts that wildcards are compared with, and the depth of nesting.
struct Shape {
    lengths: Vec<usize>,
    depth: usize,
}

impl Shape {
    /// Wildcards in a path are compared with keys; only the operator `%` compares with values too.
    fn of(json: &str, with_values: bool) -> Self {
        let bytes = json.as_bytes();
        let mut shape = Self {
            lengths: Vec::new(),
            depth: 0,
        };
        let (mut depth, mut i) = (0_usize, 0);
        while i < bytes.len() {
            match bytes[i] {
                b'"' => {
                    let end = super::syntax::string_end(bytes, i);
                    if with_values || bytes.get(end) == Some(&b':') {
                        shape.lengths.push(end - i);
                    }
                    i = end;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            shape.depth = shape.depth.max(depth);
            i += 1;
        }
        shape
    }
}

fn comparisons(shape: &Shape, stars: usize) -> usize {
    let power = u32::try_from(stars).unwrap_or(u32::MAX);
    shape.lengths.iter().fold(0, |sum: usize, length| {
        sum.saturating_add(length.saturating_pow(power))
    })
}

/// How many times larger than the secret a result can get: every group of brackets repeats it once per part and
/// may add names, and `@pretty` adds an indent per level.
fn growth(path: &str, depth: usize) -> usize {
    let mut factor = 1_usize;
    let mut groups = Vec::new();
    let mut all_groups = 0;
    for (i, b) in path.bytes().enumerate() {
        match b {
            b'{' | b'[' => {
                groups.push((i, 1));
                all_groups += 1;
            }
            b',' => {
                if let Some((_, parts)) = groups.last_mut() {
                    *parts += 1;
                }
            }
            b'}' | b']' => {
                if let Some((start, parts)) = groups.pop() {
                    factor = factor.saturating_mul(parts + i - start);
                }
            }
            _ => {}
        }
    }
    for (start, parts) in groups {
        factor = factor.saturating_mul(parts + path.len() - start);
    }
    let indent = if path.contains("@pretty:") { path.len() } else { 2 };
    for _ in path.matches("@pretty") {
        factor = factor.saturating_mul(indent * (depth + all_groups + 1) + 2);
    }
    factor
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn usual_paths_are_allowed_on_large_secrets() {
        let json = format!(
            r#"{{"tls.crt":"{}","db":{{"password":"p"}}}}"#,
            "A".repeat(1 << 20)
        );
        for path in [
            "db.password",
            "d*.pass*",
            "db.*word*",
            "tls*",
            "@this",
            "db|@pretty|@ugly",
        ] {
            assert_eq!(check(&json, path), Ok(()), "{path}");
        }
        assert_eq!(
            check(r#"{"a":[{"b":1,"c":2}]}"#, "a.#.{b,c,d:[b,c]}|@pretty"),
            Ok(())
        );
    }

    #[test]
    fn a_path_that_multiplies_the_secret_is_refused() {
        let path = ["[@this,@this]"; 20].join("|");
        assert_eq!(check(r#"{"a":"0123456789"}"#, &path), Err(PathError::TooCostly));
        assert_eq!(
            check(
                r#"{"a":1}"#,
                &["@pretty:{\"prefix\":\"xxxxxxxxxxxx\"}"; 12].join("|")
            ),
            Err(PathError::TooCostly)
        );
    }

    #[test]
    fn wildcards_that_would_be_compared_for_ever_are_refused() {
        let json = format!(r#"{{"{}":1}}"#, "a".repeat(2000));
        assert_eq!(check(&json, "*a*a*a*a*a*b"), Err(PathError::TooCostly));
        let json = format!(r#"{{"v":["{}"]}}"#, "a".repeat(20_000));
        assert_eq!(check(&json, r#"v.#(%"*a*a*b")"#), Err(PathError::TooCostly));
        assert_eq!(check(&json, r#"v.#(%"*ab")"#), Ok(()));
    }

    #[test]
    fn a_long_path_is_refused() {
        assert_eq!(check("{}", &"a".repeat(MAX_PATH + 1)), Err(PathError::TooLong));
        assert_eq!(check("{}", &"a".repeat(MAX_PATH)), Ok(()));
    }
}
