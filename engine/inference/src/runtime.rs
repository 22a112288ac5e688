//! ONNX Runtime itself: a shared library, found by the caller and loaded once a process. In: its path. Out: loaded models.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use freshet_core::{Error, Model, ModelDef, Models, Result};
use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::model::OnnxModel;

/// What this build was tested with; 1.24 is the oldest whose functions it asks for.
const REMEDY: &str =
    "pip install onnxruntime==1.31.1, or set onnxruntime in freshet.toml, FRESHET_ONNXRUNTIME or --onnxruntime to the path of its libonnxruntime.so";

/// The library and its environment are the process's: the first `open` decides.
static OPENED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

/// ONNX Runtime on the CPU.
#[derive(Debug, Clone)]
pub struct OnnxRuntime {
    library: PathBuf,
    environment: Environment,
}

impl OnnxRuntime {
    /// Loads the shared library, the first time about 30 ms; telemetry is off. Errors: Invalid if there is none, it is no ONNX Runtime, too
    /// old, or another one is loaded already.
    pub fn open(library: &Path) -> Result<OnnxRuntime> {
        let unusable =
            |reason: &dyn std::fmt::Display| Error::invalid(format!("ONNX Runtime cannot be loaded from {}: {reason}; {REMEDY}", library.display()));
        let path = library.canonicalize().map_err(|error| unusable(&error))?;
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        match opened.as_ref() {
            Some(runtime) if runtime.library == path => return Ok(runtime.clone()),
            Some(runtime) => return Err(unusable(&format!("{} is loaded already, and a process loads one", runtime.library.display()))),
            None => {}
        }
        // Never ort's own search: where it finds nothing, it panics.
        let builder = ort::init_from(&path).map_err(|error| unusable(&error))?;
        let environment = builder.with_name("freshet").with_telemetry(false).build().map_err(|error| unusable(&error))?;
        // Every error comes back as a value; ONNX Runtime would print it as well.
        environment.set_log_level(LogLevel::Fatal);
        let runtime = OnnxRuntime { library: path, environment };
        *opened = Some(runtime.clone());
        Ok(runtime)
    }

    /// As `Models::open`, with what the file says of itself.
    pub fn load(&self, def: &ModelDef, file: &Path) -> Result<OnnxModel> {
        OnnxModel::open(&self.environment, def, file)
    }
}

impl Models for OnnxRuntime {
    fn open(&self, def: &ModelDef, file: &Path) -> Result<Arc<dyn Model>> {
        Ok(Arc::new(self.load(def, file)?))
    }
}
