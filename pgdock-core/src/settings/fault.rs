//! [`Fault`]: one thing that is wrong in a settings file, and what to do about it.

use std::path::PathBuf;

use crate::Error;

/// One thing that is wrong in a settings file.
///
/// It reads `FILE:LINE: KEY: expected …, found …; REMEDY`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {}expected {expected}, found {found}; {remedy}", file.display(), Line(*line), Key(key))]
#[non_exhaustive]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1. None where the fault is that something is not there.
    pub line: Option<usize>,
    /// The key, as a dotted path. Empty where the fault is one of the file as a whole.
    pub key: String,
    /// What would be right.
    pub expected: String,
    /// What stands there. Never a secret.
    pub found: String,
    /// What a person can do.
    pub remedy: String,
}

struct Line(Option<usize>);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

struct Key<'a>(&'a str);

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// All that is wrong in the settings, in the order of the lines.
///
/// It is the [source](std::error::Error::source) of the error that reading settings returns:
/// `error.source().and_then(|e| e.downcast_ref::<Faults>())`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, sorted by file and line; those without a line come last.
    #[must_use]
    pub fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| {
            let place = |fault: &Fault| (fault.file.clone(), fault.line.unwrap_or(usize::MAX));
            place(a).cmp(&place(b))
        });
        Self(faults)
    }

    /// Each fault.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same as an error of kind `Invalid`, whose text lists them all.
    #[must_use]
    pub fn into_error(self) -> Error {
        let head = match self.len() {
            1 => "the settings have a fault".to_owned(),
            n => format!("the settings have {n} faults"),
        };
        Error::invalid(format!("{head}:\n{self}")).because(self)
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
