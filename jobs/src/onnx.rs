//! Finds and loads ONNX Runtime for pipelines with models. In: the configuration. Out: the runtime, or where it was looked for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freshet_core::{Error, Result};
use freshet_inference::OnnxRuntime;

use crate::config::Config;

/// Python starts in 20 ms from the page cache, in seconds from a cold disk.
const PYTHON_ANSWER_MAX: Duration = Duration::from_secs(20);

/// How often the wait looks whether Python has answered.
const PYTHON_POLL: Duration = Duration::from_millis(5);

/// Prints the library of the onnxruntime package without importing it. Not from the caller's folder: a file of that name there would be taken
/// for the package.
const PYTHON_QUESTION: &str = r#"
import glob, importlib.util, os, sys
sys.path = [path for path in sys.path if path]
spec = importlib.util.find_spec("onnxruntime")
places = (spec and spec.submodule_search_locations) or []
print(*(path for place in places for path in glob.glob(os.path.join(place, "capi", "libonnxruntime.*"))), sep="\n")
"#;

/// Loads the library of the setting, of ORT_DYLIB_PATH, beside the executable, or of Python's onnxruntime package, the first there is.
/// To be called only if a plan has models. Errors: Invalid, with the places and the remedy.
pub fn runtime(config: &Config) -> Result<OnnxRuntime> {
    let executable = std::env::current_exe().ok();
    OnnxRuntime::open(&find(config, executable.as_deref().and_then(Path::parent))?)
}

fn find(config: &Config, beside: Option<&Path>) -> Result<PathBuf> {
    if let Some(library) = &config.onnxruntime {
        return Ok(library.clone());
    }
    if let Some(library) = beside.and_then(beside_executable) {
        return Ok(library);
    }
    ask_python(&config.python, PYTHON_ANSWER_MAX).map_err(|reason| {
        let beside = beside.map_or_else(|| "beside the executable".to_string(), |folder| format!("in {}", folder.display()));
        Error::invalid(format!(
            "the pipeline has models, but no ONNX Runtime was found: none {beside}, and {reason}; pip install onnxruntime==1.31.1, or set onnxruntime in \
             freshet.toml, FRESHET_ONNXRUNTIME or --onnxruntime to the path of its libonnxruntime.so"
        ))
    })
}

/// Of several versions the last by name.
fn beside_executable(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| is_library(name)).max().map(|name| folder.join(name))
}

/// As Linux (`.so`, `.so.1.31.1`) and macOS (`.dylib`) name it; `libonnxruntime_providers_shared.so` is another.
fn is_library(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.").is_some_and(|rest| rest.starts_with("so") || rest.ends_with("dylib"))
}

/// Errors: the reason, as text.
fn ask_python(python: &Path, answer_max: Duration) -> Result<PathBuf, String> {
    let name = python.display();
    let mut command = Command::new(python);
    command.args(["-c", PYTHON_QUESTION]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{name} does not start ({error})"))?;
    if !ended(&mut child, answer_max) {
        // It may end by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{name} did not answer within {} s", answer_max.as_secs_f64()));
    }
    let mut answer = String::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut answer));
    let found = answer.lines().filter(|line| Path::new(line).file_name().and_then(|name| name.to_str()).is_some_and(is_library)).max();
    match (read, found) {
        (Some(Ok(_)), Some(library)) => Ok(PathBuf::from(library)),
        _ => Err(format!("{name} has no onnxruntime package")),
    }
}

/// Waits; the answer is a few lines, so the child never waits for a reader.
fn ended(child: &mut Child, answer_max: Duration) -> bool {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if started.elapsed() < answer_max => std::thread::park_timeout(PYTHON_POLL),
            Ok(Some(_)) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layer;

    #[cfg(unix)]
    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_setting_wins_over_the_executables_folder_over_python() {
        let folder = tempfile::tempdir().unwrap();
        let python = script(folder.path(), "python", "echo /opt/capi/libonnxruntime.so.1.31.1; echo /opt/capi/libonnxruntime_providers_shared.so");
        let mut config = Config { python, ..Config::load(None, Layer::default()).unwrap() };
        config.onnxruntime = None;
        assert_eq!(find(&config, Some(folder.path())).unwrap(), Path::new("/opt/capi/libonnxruntime.so.1.31.1"));
        for name in ["libonnxruntime.so.1.24.0", "libonnxruntime.so.1.31.1", "libonnxruntime_providers_shared.so"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(find(&config, Some(folder.path())).unwrap(), folder.path().join("libonnxruntime.so.1.31.1"));
        config.onnxruntime = Some(PathBuf::from("mine.so"));
        assert_eq!(find(&config, Some(folder.path())).unwrap(), Path::new("mine.so"));
    }

    #[test]
    fn where_it_was_looked_for_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { onnxruntime: None, ..Config::load(None, Layer::default()).unwrap() };
        for (python, reason) in
            [(script(folder.path(), "bare", "exit 0"), "has no onnxruntime package"), (folder.path().join("nowhere"), "does not start")]
        {
            config.python = python.clone();
            let message = find(&config, Some(folder.path())).unwrap_err().message;
            assert!(message.contains(&format!("none in {}, and {} {reason}", folder.path().display(), python.display())), "{message}");
            assert!(message.contains("pip install onnxruntime==1.31.1"), "{message}");
        }
        let slow = script(folder.path(), "slow", "exec sleep 60");
        let reason = ask_python(&slow, Duration::from_millis(20)).unwrap_err();
        assert_eq!(reason, format!("{} did not answer within 0.02 s", slow.display()));
    }
}
