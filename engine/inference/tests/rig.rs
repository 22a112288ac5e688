use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type};
use freshet_core::{Missing, ModelDef, Result};
use freshet_inference::{OnnxModel, OnnxRuntime};

/// The files of the tests, and the library that Python uses.
pub struct Rig {
    folder: tempfile::TempDir,
    pub library: PathBuf,
}

impl Rig {
    pub fn get() -> &'static Rig {
        static RIG: OnceLock<Rig> = OnceLock::new();
        RIG.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_models.py");
            let python = python();
            let made = Command::new(&python).arg(script).arg(folder.path()).output();
            let made = made.unwrap_or_else(|error| panic!("{} does not start: {error}; run ./dev setup, or set FRESHET_PYTHON", python.display()));
            let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
            assert!(made.status.success(), "{} cannot make the models; run ./dev setup, or set FRESHET_PYTHON\n{err}", python.display());
            let library = PathBuf::from(out.trim());
            assert!(library.is_file(), "{} is no library", library.display());
            Rig { folder, library }
        })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn load(&self, def: &ModelDef, name: &str) -> Result<OnnxModel> {
        OnnxRuntime::open(&self.library)?.load(def, &self.file(&format!("{name}.onnx")))
    }

    /// The columns a, b, c of the 1,000 rows.
    pub fn rows(&self) -> Vec<ArrayRef> {
        let numbers: Vec<f64> =
            std::fs::read(self.file("rows.f64")).unwrap().chunks(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
        (0..3).map(|column| doubles(numbers.iter().skip(column).step_by(3).map(|value| Some(*value)))).collect()
    }

    /// What Python's ONNX Runtime answered for them.
    pub fn expected(&self, name: &str) -> Vec<f32> {
        let bytes = std::fs::read(self.file(&format!("{name}.f32"))).unwrap();
        bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// Python with onnx, LightGBM and ONNX Runtime, as `./dev setup` installs it.
#[allow(clippy::disallowed_methods, reason = "where the tests' Python is is told by the environment")]
fn python() -> PathBuf {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(PathBuf::from);
    variable("FRESHET_PYTHON").unwrap_or_else(|| {
        let cache = variable("FRESHET_CACHE").or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("freshet")));
        let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache/freshet"))).expect("HOME is set");
        cache.join("venv/bin/python")
    })
}

/// A model of the columns a, b, c, all DOUBLE, with one DOUBLE output.
pub fn abc(missing: Missing) -> ModelDef {
    def(&[("a", DataType::Float64), ("b", DataType::Float64), ("c", DataType::Float64)], &[("score", DataType::Float64)], missing)
}

pub fn def(inputs: &[(&str, DataType)], outputs: &[(&str, DataType)], missing: Missing) -> ModelDef {
    let fields = |columns: &[(&str, DataType)]| columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    let (inputs, outputs) = (fields(inputs), fields(outputs));
    ModelDef { name: "m".to_string(), service: None, inputs, outputs, missing, from: None, references: Vec::new() }
}

pub fn doubles(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

pub fn values(array: &ArrayRef) -> Vec<Option<f64>> {
    array.as_primitive::<Float64Type>().iter().collect()
}
