//! URLs as Go's `net/url` reads and writes them, and paths of slashes.

use std::net::Ipv6Addr;

use super::{Answer, Fault, Func, Ty, args, func, key};
use crate::template::limits::Limits;
use crate::template::value::{Map, Value};

/// The functions of this file. On Linux, the paths of the operating system are the same.
pub const TABLE: &[Func] = &[
    func("base", &[Ty::Text], |limits, list| path(limits, list, base)),
    func("osBase", &[Ty::Text], |limits, list| path(limits, list, base)),
    func("dir", &[Ty::Text], |limits, list| path(limits, list, dir)),
    func("osDir", &[Ty::Text], |limits, list| path(limits, list, dir)),
    func("clean", &[Ty::Text], |limits, list| path(limits, list, clean)),
    func("osClean", &[Ty::Text], |limits, list| path(limits, list, clean)),
    func("ext", &[Ty::Text], |limits, list| path(limits, list, ext)),
    func("osExt", &[Ty::Text], |limits, list| path(limits, list, ext)),
    func("isAbs", &[Ty::Text], is_abs),
    func("osIsAbs", &[Ty::Text], is_abs),
    func("urlParse", &[Ty::Text], url_parse),
    func("urlJoin", &[Ty::Dict], url_join),
];

fn path(limits: &mut Limits, list: &[Value], make: fn(&[u8]) -> Vec<u8>) -> Answer {
    let path = args::text(list, 0);
    limits.grow(path.len())?;
    Ok(Value::text(make(path)))
}

fn is_abs(_: &mut Limits, list: &[Value]) -> Answer {
    Ok(Value::Bool(args::text(list, 0).starts_with(b"/")))
}

fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

fn base(path: &[u8]) -> Vec<u8> {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map(|last| last.saturating_add(1));
    match (path.is_empty(), end) {
        (true, _) => b".".to_vec(),
        (false, None) => b"/".to_vec(),
        (false, Some(end)) => {
            let path = path.get(..end).unwrap_or_default();
            path.rsplit(|byte| *byte == b'/')
                .next()
                .unwrap_or_default()
                .to_vec()
        }
    }
}

fn dir(path: &[u8]) -> Vec<u8> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    clean(slash.and_then(|slash| path.get(..=slash)).unwrap_or_default())
}

fn ext(path: &[u8]) -> Vec<u8> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let dot = name.iter().rposition(|byte| *byte == b'.');
    dot.and_then(|dot| name.get(dot..)).unwrap_or_default().to_vec()
}

/// A part of a URL, for which Go escapes more or less.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    User,
    Fragment,
}

/// Whether a byte stands as it is.
fn plain(byte: u8, part: Part) -> bool {
    match byte {
        b'-' | b'_' | b'.' | b'~' => true,
        byte if byte.is_ascii_alphanumeric() => true,
        b'$' | b'&' | b'+' | b',' | b';' | b'=' => true,
        b':' => part != Part::User,
        b'/' => matches!(part, Part::Path | Part::Fragment),
        b'@' => matches!(part, Part::Path | Part::Fragment),
        b'?' => part == Part::Fragment,
        b'!' | b'(' | b')' | b'*' => matches!(part, Part::Host | Part::Zone | Part::Fragment),
        b'\'' | b'[' | b']' | b'<' | b'>' | b'"' => matches!(part, Part::Host | Part::Zone),
        _ => false,
    }
}

fn escape(text: &[u8], part: Part) -> Vec<u8> {
    let mut made = Vec::with_capacity(text.len());
    for byte in text {
        if plain(*byte, part) {
            made.push(*byte);
        } else {
            made.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    made
}

/// Decodes what is escaped, and refuses what the part must not hold.
fn unescape(text: &[u8], part: Part) -> Result<Vec<u8>, Fault> {
    let mut made = Vec::with_capacity(text.len());
    let mut rest = text;
    let hosted = matches!(part, Part::Host | Part::Zone);
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            if hosted && byte.is_ascii() && !plain(*byte, part) {
                return Err("the URL's host holds a character that it must not hold".into());
            }
            made.push(*byte);
            continue;
        }
        let digit = |index: usize| after.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        let code = match (digit(0), digit(1)) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        let code = code.ok_or(Fault::from("the URL holds a % without two hexadecimal digits"))?;
        rest = after.get(2..).unwrap_or_default();
        let percent = code == b'%';
        let allowed = match part {
            // A host may escape only what is not ASCII.
            Part::Host => percent || !code.is_ascii(),
            Part::Zone => percent || code == b' ' || plain(code, Part::Host),
            _ => true,
        };
        if !allowed {
            return Err("the URL's host holds an escape that it must not hold".into());
        }
        made.push(code);
    }
    Ok(made)
}

/// A URL in its parts.
#[derive(Default)]
struct Url {
    scheme: Vec<u8>,
    opaque: Vec<u8>,
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    host: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    fragment: Vec<u8>,
}

/// What comes before and after the first such byte.
fn cut(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|found| *found == byte) {
        Some(at) => {
            let (before, after) = text.split_at_checked(at).unwrap_or((text, b""));
            (before, after.get(1..))
        }
        None => (text, None),
    }
}

fn scheme(text: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return Err("the URL's scheme is missing before its colon".into()),
            b':' => {
                return Ok((
                    text.get(..index).unwrap_or_default(),
                    text.get(index + 1..).unwrap_or_default(),
                ));
            }
            _ => break,
        }
    }
    Ok((b"", text))
}

fn parse(text: &[u8]) -> Result<Url, Fault> {
    let (text, fragment) = cut(text, b'#');
    let mut url = Url {
        fragment: unescape(fragment.unwrap_or_default(), Part::Fragment)?,
        ..Url::default()
    };
    if text.iter().any(u8::is_ascii_control) {
        return Err("the URL holds a control character".into());
    }
    if text == b"*" {
        url.path = text.to_vec();
        return Ok(url);
    }
    let (scheme, rest) = scheme(text)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (mut rest, query) = cut(rest, b'?');
    url.query = query.unwrap_or_default().to_vec();
    if !rest.starts_with(b"/") {
        if !url.scheme.is_empty() {
            url.opaque = rest.to_vec();
            return Ok(url);
        }
        if cut(rest, b'/').0.contains(&b':') {
            return Err("the first segment of a relative URL's path cannot hold a colon".into());
        }
    }
    if let Some(after) = rest.strip_prefix(b"//")
        && (!url.scheme.is_empty() || !after.starts_with(b"/"))
    {
        let end = after.iter().position(|byte| *byte == b'/').unwrap_or(after.len());
        let (authority, path) = after.split_at_checked(end).unwrap_or((after, b""));
        parse_authority(&mut url, authority)?;
        rest = path;
    }
    url.path = unescape(rest, Part::Path)?;
    Ok(url)
}

fn parse_authority(url: &mut Url, authority: &[u8]) -> Result<(), Fault> {
    let Some(at) = authority.iter().rposition(|byte| *byte == b'@') else {
        url.host = parse_host(&url.scheme, authority)?;
        return Ok(());
    };
    url.host = parse_host(&url.scheme, authority.get(at + 1..).unwrap_or_default())?;
    let user = authority.get(..at).unwrap_or_default();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || br"-._:~!$&'()*+,;=%@".contains(byte);
    if !user.iter().all(allowed) {
        return Err("the URL's user or password holds a character that must be escaped".into());
    }
    let (name, password) = cut(user, b':');
    let password = password
        .map(|password| unescape(password, Part::User))
        .transpose()?;
    url.user = Some((unescape(name, Part::User)?, password));
    Ok(())
}

/// Whether it is a colon and digits, or nothing.
fn port(text: &[u8]) -> bool {
    text.strip_prefix(b":")
        .map_or(text.is_empty(), |port| port.iter().all(u8::is_ascii_digit))
}

fn parse_host(scheme: &[u8], host: &[u8]) -> Result<Vec<u8>, Fault> {
    let bad_port = || Fault::from("the URL's port is no number");
    match host.iter().rposition(|byte| *byte == b'[') {
        Some(0) => return parse_address(host),
        Some(_) => return Err("the URL's host holds a [ within".into()),
        None => {}
    }
    let first = host.iter().position(|byte| *byte == b':');
    // Only http and https keep colons out of the name.
    let colon = match scheme {
        b"http" | b"https" => first,
        _ => host.iter().rposition(|byte| *byte == b':'),
    };
    if colon.is_some_and(|colon| !port(host.get(colon..).unwrap_or_default())) {
        return Err(bad_port());
    }
    unescape(host, Part::Host)
}

/// An IPv6 address in brackets, which may have a zone, and the port.
fn parse_address(host: &[u8]) -> Result<Vec<u8>, Fault> {
    let end = host
        .iter()
        .rposition(|byte| *byte == b']')
        .ok_or(Fault::from("the URL's host lacks a ]"))?;
    let (address, after) = host.split_at_checked(end).unwrap_or((host, b""));
    let (address, after) = (
        address.get(1..).unwrap_or_default(),
        after.get(1..).unwrap_or_default(),
    );
    if !port(after) {
        return Err("the URL's port is no number".into());
    }
    let zone = memchr::memmem::find(address, b"%25").unwrap_or(address.len());
    let (name, zone) = address.split_at_checked(zone).unwrap_or((address, b""));
    let name = unescape(name, Part::Host)?;
    let zone = unescape(zone, Part::Zone)?;
    let whole = [name, zone].concat();
    let (number, zone) = cut(&whole, b'%');
    let number = str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok());
    if number.is_none() || zone.is_some_and(<[u8]>::is_empty) {
        return Err("the URL's host is no IPv6 address".into());
    }
    Ok([b"[", whole.as_slice(), b"]", after].concat())
}

/// The host without its port and brackets.
fn hostname(host: &[u8]) -> &[u8] {
    let colon = host.iter().rposition(|byte| *byte == b':');
    let split = colon.filter(|colon| port(host.get(*colon..).unwrap_or_default()));
    let name = split.and_then(|colon| host.get(..colon)).unwrap_or(host);
    name.strip_prefix(b"[")
        .and_then(|name| name.strip_suffix(b"]"))
        .unwrap_or(name)
}

fn userinfo(user: &(Vec<u8>, Option<Vec<u8>>)) -> Vec<u8> {
    let mut made = escape(&user.0, Part::User);
    if let Some(password) = &user.1 {
        made.push(b':');
        made.extend(escape(password, Part::User));
    }
    made
}

fn url_parse(limits: &mut Limits, list: &[Value]) -> Answer {
    let text = args::text(list, 0);
    limits.grow(text.len().saturating_mul(4).saturating_add(512))?;
    let url = parse(text)?;
    let entries = [
        ("scheme", url.scheme),
        ("hostname", hostname(&url.host).to_vec()),
        ("host", url.host),
        ("path", url.path),
        ("query", url.query),
        ("opaque", url.opaque),
        ("fragment", url.fragment),
        ("userinfo", url.user.as_ref().map(userinfo).unwrap_or_default()),
    ];
    Ok(Value::dict(
        entries
            .into_iter()
            .map(|(name, text)| (key(name), Value::text(text)))
            .collect(),
    ))
}

fn part_of(map: Option<&Map>, name: &str) -> Result<Vec<u8>, Fault> {
    match map.and_then(|map| map.items.borrow().get(name.as_bytes()).cloned()) {
        None => Ok(Vec::new()),
        Some(Value::Text(text)) => Ok(text.to_vec()),
        Some(other) => Err(format!("the key {name} must be a string, not a {}", other.kind_name()).into()),
    }
}

fn url_join(limits: &mut Limits, list: &[Value]) -> Answer {
    let map = args::dict(list, 0).map(AsRef::as_ref);
    let part = |name| part_of(map, name);
    let mut url = Url {
        scheme: part("scheme")?,
        opaque: part("opaque")?,
        user: None,
        host: part("host")?,
        path: part("path")?,
        query: part("query")?,
        fragment: part("fragment")?,
    };
    let user = part("userinfo")?;
    if !user.is_empty() {
        url.user = parse(&[b"proto://", user.as_slice(), b"@host"].concat())?.user;
    }
    let made = write(&url);
    limits.grow(made.len())?;
    Ok(Value::text(made))
}

fn write(url: &Url) -> Vec<u8> {
    let mut made = Vec::new();
    if !url.scheme.is_empty() {
        made.extend_from_slice(&url.scheme);
        made.push(b':');
    }
    if url.opaque.is_empty() {
        write_authority(url, &mut made);
        let path = if url.path == b"*" {
            url.path.clone()
        } else {
            escape(&url.path, Part::Path)
        };
        if !path.is_empty() && !path.starts_with(b"/") && !url.host.is_empty() {
            made.push(b'/');
        }
        // A colon in the first segment would end a scheme.
        if made.is_empty() && cut(&path, b'/').0.contains(&b':') {
            made.extend_from_slice(b"./");
        }
        made.extend_from_slice(&path);
    } else {
        made.extend_from_slice(&url.opaque);
    }
    if !url.query.is_empty() {
        made.push(b'?');
        made.extend_from_slice(&url.query);
    }
    if !url.fragment.is_empty() {
        made.push(b'#');
        made.extend(escape(&url.fragment, Part::Fragment));
    }
    made
}

fn write_authority(url: &Url, made: &mut Vec<u8>) {
    if url.scheme.is_empty() && url.host.is_empty() && url.user.is_none() {
        return;
    }
    if !url.host.is_empty() || !url.path.is_empty() || url.user.is_some() {
        made.extend_from_slice(b"//");
    }
    if let Some(user) = &url.user {
        made.extend(userinfo(user));
        made.push(b'@');
    }
    made.extend(escape(&url.host, Part::Host));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Option<Vec<u8>> {
        parse(text.as_bytes()).ok().map(|url| url.host)
    }

    #[test]
    fn addresses_in_brackets_are_checked_as_go_checks_them() {
        assert_eq!(
            host("http://[fe80::1%25en0]:80/"),
            Some(b"[fe80::1%en0]:80".to_vec())
        );
        assert_eq!(host("http://[fe80::1%25e%20n]/"), Some(b"[fe80::1%e n]".to_vec()));
        assert_eq!(
            host("http://[::ffff:1.2.3.4]/"),
            Some(b"[::ffff:1.2.3.4]".to_vec())
        );
        for wrong in [
            "http://[1.2.3.4]/",
            "http://[::1/",
            "http://a[::1]/",
            "http://[::1]x/",
            "http://[fe80::1%25]/",
        ] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_hosts_are_left_to_other_schemes_than_http() {
        assert_eq!(host("mongodb://a:1,b:2/db"), Some(b"a:1,b:2".to_vec()));
        assert_eq!(host("http://a:1,b:2/db"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text).map(|url| write(&url));
        }

        #[test]
        fn no_url_like_text_makes_the_parser_panic(text in r"[a-z]{0,3}:?/{0,3}[a-z:@%\[\]0-9.]{0,20}[/?#%a-f0-9]{0,10}") {
            let _ = parse(text.as_bytes()).map(|url| write(&url));
            let _ = clean(text.as_bytes());
        }
    }
}
