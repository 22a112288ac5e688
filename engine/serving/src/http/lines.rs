//! A JSON body becomes lines. In: an array of values, or one value. Out: one value a line. Only cuts, without recursion: whether a value is one
//! its decoder says, so that a bad one is a dead letter beside good ones.

/// Errors: the body is neither, or does not end.
pub fn lines_of_json(body: &[u8]) -> Result<Vec<u8>, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match body.first() {
        None => Ok(Vec::new()),
        Some(b'[') => elements(body),
        Some(_) => one(body),
    }
}

/// The elements between the brackets that enclose all.
fn elements(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut lines = Vec::with_capacity(body.len());
    let (mut depth, mut text, mut begin) = (0_u32, Text::default(), 1);
    for (at, byte) in body.iter().enumerate() {
        if text.is_inside(*byte) {
            continue;
        }
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.checked_sub(1).ok_or("the body has a bracket too many")?;
                if depth == 0 {
                    let empty = begin == 1 && body[1..at].trim_ascii().is_empty();
                    if !empty {
                        push_line(&body[begin..at], &mut lines)?;
                    }
                    let more = body[at + 1..].trim_ascii();
                    return if more.is_empty() { Ok(lines) } else { Err("the body goes on after its array".into()) };
                }
            }
            b',' if depth == 1 => {
                push_line(&body[begin..at], &mut lines)?;
                begin = at + 1;
            }
            _ => {}
        }
    }
    Err("the array in the body does not end".into())
}

fn one(body: &[u8]) -> Result<Vec<u8>, String> {
    let (mut depth, mut text) = (0_u32, Text::default());
    for (at, byte) in body.iter().enumerate() {
        if text.is_inside(*byte) {
            continue;
        }
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 && at + 1 < body.len() {
            return Err("the body goes on after its object; send lines as application/x-ndjson, or an array".into());
        }
    }
    let mut lines = Vec::with_capacity(body.len() + 1);
    push_line(body, &mut lines)?;
    Ok(lines)
}

/// Line ends outside of texts are space; inside they are no JSON, which the decoder must see.
fn push_line(value: &[u8], lines: &mut Vec<u8>) -> Result<(), String> {
    let value = value.trim_ascii();
    if value.is_empty() {
        return Err("the array in the body has nothing between two commas".into());
    }
    let mut text = Text::default();
    for byte in value {
        let inside = text.is_inside(*byte);
        lines.push(match byte {
            b'\n' | b'\r' if inside => 0,
            b'\n' | b'\r' => b' ',
            other => *other,
        });
    }
    lines.push(b'\n');
    Ok(())
}

/// Whether a byte belongs to a text, its quotes included.
#[derive(Default)]
struct Text {
    open: bool,
    escaped: bool,
}

impl Text {
    fn is_inside(&mut self, byte: u8) -> bool {
        if self.open {
            let ends = byte == b'"' && !self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            self.open = !ends;
            return true;
        }
        self.open = byte == b'"';
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &str) -> Result<String, String> {
        lines_of_json(body.as_bytes()).map(|lines| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn arrays_and_objects_become_lines() {
        assert_eq!(lines("[{\"a\": 1},\n {\"b\": [1, {\"c\": \"],\\\"\"}]} ]").unwrap(), "{\"a\": 1}\n{\"b\": [1, {\"c\": \"],\\\"\"}]}\n");
        assert_eq!(lines(" {\"a\":\n 1}\n").unwrap(), "{\"a\":  1}\n");
        assert_eq!(lines("[ ]").unwrap(), "");
        assert_eq!(lines("").unwrap(), "");
        assert_eq!(lines("[7, nonsense]").unwrap(), "7\nnonsense\n");
        assert_eq!(lines("[\"a\nb\"]").unwrap(), "\"a\0b\"\n", "a line end in a text is no JSON and stays none");
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_refused_as_a_whole() {
        for (body, words) in [
            ("[{\"a\": 1}, {\"a\"", "does not end"),
            ("[1] 2", "goes on"),
            ("{\"a\": 1}\n{\"a\": 2}", "application/x-ndjson"),
            ("[1,,2]", "between two commas"),
            ("[1,]", "between two commas"),
        ] {
            assert!(lines(body).unwrap_err().contains(words), "{body}");
        }
        assert!(lines(&"[".repeat(1 << 20)).is_err());
    }
}
