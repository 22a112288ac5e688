//! Rust source without its comments and literals. In: a file's text. Out: text of the same lines in which only code is left.
//!
//! Enough of a lexer for tidy: a word found in the result is a word of the program, never of its prose.

/// Blanks comments, strings and character literals; every newline and every other byte's column stays.
pub fn without_text(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = text_end(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that begins at `at`; `at` itself if code stands there.
fn text_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return block_comment_end(bytes, at);
    }
    match rest[0] {
        b'"' => string_end(bytes, at + 1),
        b'r' if !follows_word(bytes, at) => raw_string_end(bytes, at),
        b'\'' => character_end(bytes, at),
        _ => at,
    }
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"` and `r#"…"#`; `at` itself for a raw identifier or a word that begins with r.
fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = at + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return at;
    }
    let mut closing = vec![b'"'];
    closing.resize(hashes + 1, b'#');
    let body = &bytes[quote + 1..];
    body.windows(closing.len()).position(|window| window == closing).map_or(bytes.len(), |found| quote + 1 + found + closing.len())
}

/// A character literal's end; `at` itself for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes[at + 3..].iter().position(|byte| *byte == b'\'');
        return close.map_or(bytes.len(), |found| at + 3 + found + 1);
    }
    // One character of up to four bytes, then the closing quote; a lifetime has none there.
    let width = match bytes.get(at + 1) {
        Some(first) if *first >= 0xF0 => 4,
        Some(first) if *first >= 0xE0 => 3,
        Some(first) if *first >= 0xC0 => 2,
        _ => 1,
    };
    if bytes.get(at + 1 + width) == Some(&b'\'') { at + 2 + width } else { at }
}

/// Whether the byte before `at` belongs to the same word; `b` and `c` may stand before a raw string.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1]) && !matches!(bytes[at - 1], b'b' | b'c')
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every word of the code with the offset where it begins.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is_word(bytes[at]) {
            at += 1;
        }
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        (start < at).then(|| (start, &code[start..at]))
    })
}

/// The line of an offset, counted from 1.
pub fn line_of(code: &str, offset: usize) -> usize {
    1 + code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_words(source: &str) -> Vec<String> {
        words(&without_text(source)).map(|(_, word)| word.to_string()).collect()
    }

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        let source = "let a = \"Mutex \\\" Mutex\"; // Mutex\n/* Mutex /* nested */ Mutex */ b('\"', 'x', '\\'', '\\u{1F}', 'é');";
        assert_eq!(code_words(source), ["let", "a", "b"]);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(code_words("x(r#\"one \" two\"#, br\"three\"); radius(r#type)"), ["x", "b", "radius", "r", "type"]);
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(code_words("fn f<'a>(x: &'a str) {}"), ["fn", "f", "a", "x", "a", "str"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = without_text("\"one\ntwo\"\nthree");
        let (offset, _) = words(&code).next().unwrap();
        assert_eq!(line_of(&code, offset), 3);
    }
}
