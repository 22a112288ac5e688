//! The loop over a month, with a policy to fit: what the tests of bytes, policies, faults and exports run.

use std::path::{Path, PathBuf};

use crate::node::{Setting, edited, first_days};
use crate::year::data_folder;

pub const RUNS: &str = "SELECT * FROM runs(retrain_delay)";
const DAYS: i64 = 30;

/// Trains from 12 January on, looks at five days, and may train every three.
pub const POLICY: [(&str, &str); 7] = [
    ("FIRST AT TIMESTAMP '2013-02-01 05:00:00'", "FIRST AT TIMESTAMP '2013-01-12 05:00:00'"),
    ("MIN ROWS 15000", "MIN ROWS 3000"),
    ("HOLDOUT LAST INTERVAL '7 days'", "HOLDOUT LAST INTERVAL '2 days'"),
    ("WINDOW INTERVAL '28 days'", "WINDOW INTERVAL '4 days'"),
    ("MIN ROWS 5000", "MIN ROWS 1000"),
    ("EVERY INTERVAL '60 days'", "EVERY INTERVAL '7 days'"),
    ("COOLDOWN INTERVAL '14 days'", "COOLDOWN INTERVAL '3 days'"),
];

/// A month of the year and a folder for what runs over it.
pub struct Month {
    pub data: PathBuf,
    folder: tempfile::TempDir,
}

impl Month {
    pub fn open() -> Month {
        Month::of(DAYS)
    }

    /// A short one.
    pub fn of(days: i64) -> Month {
        let folder = tempfile::tempdir().unwrap();
        Month { data: first_days(&data_folder(), days, &folder.path().join("data")), folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A run of its own under this name: the small policy, edited further.
    pub fn setting(&self, name: &str, edits: &[(&str, &str)]) -> Setting {
        let folder = self.folder.path().join(name);
        let all: Vec<(&str, &str)> = POLICY.iter().chain(edits).copied().collect();
        Setting::new(edited(&folder.join("pipeline"), &all), &self.data, folder)
    }
}
