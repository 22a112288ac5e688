//! What tidy found. In: findings of the rules. Out: text for a person, failures apart from notices.

/// Failures break the build; notices are printed for whoever edits the place next.
#[derive(Debug, Default)]
pub struct Report {
    pub failures: Vec<String>,
    pub notices: Vec<String>,
}

impl Report {
    pub fn fail(&mut self, place: &str, message: impl std::fmt::Display) {
        self.failures.push(format!("{place}: {message}"));
    }

    pub fn notice(&mut self, place: &str, message: impl std::fmt::Display) {
        self.notices.push(format!("{place}: {message}"));
    }
}
