//! JSON as text. In: a document. Out: pieces of it, as they stand there.

/// One step into a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    /// From 0; negative from the end.
    Index(i64),
    /// Every element or member.
    All,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// Nesting beyond this is refused rather than followed.
const DEPTH_MAX: usize = 512;

/// The document without the space around it. None if it is not JSON.
pub(super) fn document(text: &str) -> Option<&str> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    let start = scan.at;
    scan.value(0)?;
    let end = scan.at;
    scan.space();
    (scan.at == text.len()).then(|| &text[start..end])
}

/// Of a value of a document.
pub(super) fn kind(value: &str) -> Kind {
    match value.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// All values that the steps lead to, in the order of the text. Of members with one name the last counts.
pub(super) fn find<'a>(value: &'a str, steps: &[Step]) -> Vec<&'a str> {
    let Some((step, rest)) = steps.split_first() else { return vec![value] };
    let parts = children(value);
    let found: Vec<&str> = match step {
        Step::All => parts.into_iter().map(|(_, part)| part).collect(),
        Step::Key(key) if kind(value) == Kind::Object => {
            parts.into_iter().rev().find(|(name, _)| name.as_ref() == Some(key)).map(|(_, part)| part).into_iter().collect()
        }
        // A number among names may be a member's name.
        Step::Index(index) if kind(value) == Kind::Object => {
            let key = index.to_string();
            parts.into_iter().rev().find(|(name, _)| name.as_deref() == Some(key.as_str())).map(|(_, part)| part).into_iter().collect()
        }
        Step::Index(index) if kind(value) == Kind::Array => {
            let place = if *index < 0 { parts.len() as i64 + index } else { *index };
            usize::try_from(place).ok().and_then(|place| parts.get(place)).map(|(_, part)| *part).into_iter().collect()
        }
        _ => Vec::new(),
    };
    found.into_iter().flat_map(|part| find(part, rest)).collect()
}

/// Members with their names, or elements.
pub(super) fn children(value: &str) -> Vec<(Option<String>, &str)> {
    let is_object = match kind(value) {
        Kind::Object => true,
        Kind::Array => false,
        _ => return Vec::new(),
    };
    let mut scan = Scan { text: value, at: 1 };
    let mut parts = Vec::new();
    loop {
        scan.space();
        if matches!(scan.byte(), None | Some(b'}' | b']')) {
            return parts;
        }
        let mut name = None;
        if is_object {
            let start = scan.at;
            if scan.string().is_none() {
                return parts;
            }
            name = Some(unquoted(&value[start..scan.at]));
            scan.space();
            scan.at += 1;
            scan.space();
        }
        let start = scan.at;
        if scan.value(0).is_none() {
            return parts;
        }
        parts.push((name, &value[start..scan.at]));
        scan.space();
        if scan.byte() == Some(b',') {
            scan.at += 1;
        }
    }
}

/// A value as SQL text: strings without quotes, JSON's null as None.
pub(super) fn as_text(value: &str) -> Option<String> {
    match kind(value) {
        Kind::Null => None,
        Kind::String => Some(unquoted(value)),
        _ => Some(value.to_string()),
    }
}

/// What a quoted string says. A surrogate without its other half becomes U+FFFD.
fn unquoted(quoted: &str) -> String {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.contains('\\') {
        return inner.to_string();
    }
    let mut units: Vec<u16> = Vec::new();
    let mut text = String::with_capacity(inner.len());
    let flush = |units: &mut Vec<u16>, text: &mut String| {
        text.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
    };
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            flush(&mut units, &mut text);
            text.push(letter);
            continue;
        }
        let escaped = letters.next().unwrap_or('\\');
        if escaped == 'u' {
            let digits: String = letters.by_ref().take(4).collect();
            units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd));
            continue;
        }
        flush(&mut units, &mut text);
        text.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            other => other,
        });
    }
    flush(&mut units, &mut text);
    text
}

/// The steps of `$.a.b[0]['c'].*`. None if it is none.
pub(super) fn path(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.trim();
    for mode in ["lax ", "strict "] {
        rest = rest.strip_prefix(mode).unwrap_or(rest).trim_start();
    }
    rest = rest.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            if let Some(after) = after.strip_prefix('*') {
                steps.push(Step::All);
                rest = after;
                continue;
            }
            if after.starts_with('"') {
                let mut scan = Scan { text: after, at: 0 };
                scan.string()?;
                steps.push(Step::Key(unquoted(&after[..scan.at])));
                rest = &after[scan.at..];
                continue;
            }
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return None;
            }
            steps.push(Step::Key(after[..end].trim().to_string()));
            rest = &after[end..];
        } else {
            let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
            let inside = inside.trim();
            steps.push(match inside.as_bytes() {
                [b'*'] => Step::All,
                [quote @ (b'\'' | b'"'), .., end] if quote == end => Step::Key(inside[1..inside.len() - 1].to_string()),
                _ => Step::Index(inside.parse().ok()?),
            });
            rest = after;
        }
    }
    Some(steps)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl Scan<'_> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte() == Some(byte)).then(|| self.at += 1)
    }

    /// Goes behind a value. None if there is none.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.byte()? {
            b'"' => self.string(),
            open @ (b'{' | b'[') if depth < DEPTH_MAX => {
                self.at += 1;
                self.space();
                let close = if open == b'{' { b'}' } else { b']' };
                if self.take(close).is_some() {
                    return Some(());
                }
                loop {
                    self.space();
                    if open == b'{' {
                        self.string()?;
                        self.space();
                        self.take(b':')?;
                        self.space();
                    }
                    self.value(depth + 1)?;
                    self.space();
                    if self.take(close).is_some() {
                        return Some(());
                    }
                    self.take(b',')?;
                }
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        let first = self.byte()?;
        let whole = self.digits();
        if whole == 0 || (first == b'0' && whole > 1) {
            return None;
        }
        if self.take(b'.').is_some() && self.digits() == 0 {
            return None;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            return (self.digits() > 0).then_some(());
        }
        Some(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            let byte = self.byte()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escaped = self.byte()?;
                    self.at += 1;
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_json() {
        for good in ["{}", " [1, -2.5e+3, {\"a\": [true, null]}] ", "\"\\u00e9\\n\"", "0", "-0.1", "null"] {
            assert!(document(good).is_some(), "{good}");
        }
        for bad in ["", "{", "{a:1}", "[1,]", "01", "1.", "\"\u{1}\"", "\"\\x\"", "[1] 2", "nul", "{\"a\" 1}", "'a'", "+1"] {
            assert!(document(bad).is_none(), "{bad}");
        }
        assert!(document(&"[".repeat(100_000)).is_none());
    }

    #[test]
    fn pieces_are_as_they_stand_there() {
        let text = r#"{"a": {"b": [10, "x\ty", {"c": 1.50}]}, "k": null, "a.b": 1, "d": 1, "d": 2}"#;
        let found = |text_path: &str| find(text, &path(text_path).unwrap());
        assert_eq!(found("$.a.b[2].c"), ["1.50"]);
        assert_eq!(found("$['a.b']"), ["1"]);
        assert_eq!(found("$.a.b[-1]"), [r#"{"c": 1.50}"#]);
        assert_eq!(found("$.a.b[*]"), ["10", r#""x\ty""#, r#"{"c": 1.50}"#]);
        assert_eq!(found("$.d"), ["2"]);
        assert_eq!(found("$.a[0]"), [] as [&str; 0]);
        assert_eq!(as_text(found("$.a.b[1]")[0]).as_deref(), Some("x\ty"));
        assert_eq!(as_text(found("$.k")[0]), None);
        assert_eq!(unquoted(r#""\ud83d\ude00 \ud83d!""#), "😀 \u{fffd}!");
        assert_eq!([path("a"), path("$.")], [None, None]);
    }
}
