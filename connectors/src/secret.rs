//! Values that no script holds. In: the name of a variable or the path of a file. Out: the value, or what is wrong with its place.

use freshet_core::{Error, Result, SecretFrom};

/// A password, a token, a key: what is longer is the wrong file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Errors: Invalid, naming the variable or file and never what is in it.
pub fn read(from: &SecretFrom) -> Result<String> {
    let (value, place) = match from {
        SecretFrom::Env(name) => (of_environment(name)?, format!("the environment variable {name}")),
        SecretFrom::File(path) => (of_file(path)?, format!("the file {path}")),
    };
    if value.is_empty() {
        return Err(Error::invalid(format!("{place} is empty")));
    }
    Ok(value)
}

#[expect(clippy::disallowed_methods, reason = "the script names the variable, so that its value need not stand in any setting")]
fn of_environment(name: &str) -> Result<String> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => Error::invalid(format!("the environment variable {name} is not set")),
        std::env::VarError::NotUnicode(_) => Error::invalid(format!("the environment variable {name} is not UTF-8")),
    })
}

fn of_file(path: &str) -> Result<String> {
    let failed = |error: std::io::Error| Error::invalid(format!("the file {path} cannot be read: {error}"));
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::invalid(format!("the file {path} has {bytes} bytes, a secret at most {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_last_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let from = SecretFrom::File(file.path().to_string_lossy().into_owned());
        for (written, expected) in [("hunter2\n", "hunter2"), ("a\r\n", "a"), ("two\nlines\n\n", "two\nlines\n"), (" spaces ", " spaces ")] {
            std::fs::write(file.path(), written).unwrap();
            assert_eq!(read(&from).unwrap(), expected);
        }
        std::fs::write(file.path(), "\n").unwrap();
        assert!(read(&from).unwrap_err().to_string().ends_with("is empty"));
        std::fs::write(file.path(), vec![b'x'; 70_000]).unwrap();
        assert!(read(&from).unwrap_err().to_string().contains("a secret at most 65536"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |from| read(&from).unwrap_err().to_string();
        assert_eq!(message(SecretFrom::Env("FRESHET_NO_SUCH".into())), "the environment variable FRESHET_NO_SUCH is not set");
        assert!(message(SecretFrom::File("/no/such".into())).starts_with("the file /no/such cannot be read"));
    }
}
