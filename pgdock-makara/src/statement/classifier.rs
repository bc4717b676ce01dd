//! A classifier that knows more than `pg_catalog`.

use std::collections::{HashMap, HashSet};

use super::lexer::Word;
use super::names::Class;
use super::{Decision, verb};

/// Classifies statements with lists of your own beside those of `pg_catalog`.
///
/// Names are given as PostgreSQL stores them (in lower case unless they were quoted), functions and relations with
/// their schema where the statements name it. What a list says of a name wins over what `pg_catalog` says.
///
/// ```
/// use pgdock_makara::{Classifier, Target};
///
/// let classifier = Classifier::new().read_function("visible_to").primary_relation("session_cache");
/// assert_eq!(classifier.classify("SELECT visible_to(7)").target, Target::Replica);
/// assert_eq!(classifier.classify("SELECT * FROM session_cache").target, Target::Primary);
/// ```
#[derive(Clone, Debug)]
pub struct Classifier {
    rules: Rules,
}

impl Default for Classifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Classifier {
    /// One that knows `pg_catalog` and reads hints in comments.
    #[must_use]
    pub fn new() -> Self {
        let (functions, operators, relations) = Default::default();
        Self { rules: Rules { functions, operators, relations, hints: true } }
    }

    /// A function that any node may answer, such as `visible_to` or `app.visible_to`.
    #[must_use]
    pub fn read_function(self, name: impl Into<String>) -> Self {
        self.function(name.into(), Class::Read)
    }

    /// A function that writes, or that must not run elsewhere for another reason.
    #[must_use]
    pub fn write_function(self, name: impl Into<String>) -> Self {
        self.function(name.into(), Class::Write)
    }

    fn function(mut self, name: String, class: Class) -> Self {
        self.rules.functions.insert(name.into_bytes(), class);
        self
    }

    /// A function of which the catalogs tell; what was listed by hand stays.
    pub(super) fn learn(&mut self, name: String, writes: bool) {
        let class = if writes { Class::Write } else { Class::Read };
        self.rules.functions.entry(name.into_bytes()).or_insert(class);
    }

    /// An operator that any node may apply, such as `%>` of `pg_trgm`.
    #[must_use]
    pub fn read_operator(mut self, name: impl Into<String>) -> Self {
        self.rules.operators.insert(name.into().into_bytes());
        self
    }

    /// A relation to read on the primary alone: an unlogged table, or a view over functions that write. The last part
    /// of its name is what counts, wherever it stands in a statement.
    #[must_use]
    pub fn primary_relation(mut self, name: impl Into<String>) -> Self {
        self.rules.relations.insert(name.into().into_bytes());
        self
    }

    /// Whether comments `pgdock: primary` and `pgdock: replica` count. They do unless this says otherwise; turn them
    /// off where statements carry comments that strangers can write.
    #[must_use]
    pub fn hints(mut self, on: bool) -> Self {
        self.rules.hints = on;
        self
    }

    /// Says where a text of one or more statements may run. See [`classify`](super::classify).
    #[must_use]
    pub fn classify(&self, sql: &str) -> Decision {
        verb::analyse(sql, Some(&self.rules))
    }
}

/// The lists, as the analysis asks for them.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    functions: HashMap<Vec<u8>, Class>,
    operators: HashSet<Vec<u8>>,
    relations: HashSet<Vec<u8>>,
    pub(super) hints: bool,
}

/// PostgreSQL cuts a name at 63 bytes, so that a longer one is in no list; two parts and a point fit as well.
const NAME_BYTES_MAX: usize = 128;

impl Rules {
    pub(super) fn function(&self, schema: Option<Word<'_>>, name: Word<'_>) -> Option<Class> {
        if self.functions.is_empty() {
            return None;
        }
        let mut folded = Folded::default();
        if let Some(schema) = schema {
            folded.push(schema)?;
            folded.push(Word { text: b".", quoted: true })?;
        }
        folded.push(name)?;
        self.functions.get(folded.bytes()).copied()
    }

    pub(super) fn operator(&self, name: &[u8]) -> bool {
        self.operators.contains(name)
    }

    pub(super) fn relation(&self, name: Word<'_>) -> bool {
        let mut folded = Folded::default();
        !self.relations.is_empty() && folded.push(name).is_some() && self.relations.contains(folded.bytes())
    }
}

/// A name in the form that PostgreSQL stores, on the stack.
struct Folded {
    buffer: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Default for Folded {
    fn default() -> Self {
        Self { buffer: [0; NAME_BYTES_MAX], length: 0 }
    }
}

impl Folded {
    fn push(&mut self, word: Word<'_>) -> Option<()> {
        let target = self.buffer.get_mut(self.length..self.length + word.text.len())?;
        target.copy_from_slice(word.text);
        if !word.quoted {
            target.make_ascii_lowercase();
        }
        self.length += word.text.len();
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, Target};

    #[test]
    fn names_are_compared_as_postgresql_stores_them() {
        let classifier = Classifier::new().read_function("app.total").read_function("Mixed").write_function("lower");
        let target = |sql: &str| classifier.classify(sql).target;
        assert_eq!(target("select APP.Total(1)"), Target::Replica);
        assert_eq!(target("select \"app\".\"total\"(1)"), Target::Replica);
        assert_eq!(target("select \"App\".total(1)"), Target::Primary);
        assert_eq!(target("select total(1)"), Target::Primary);
        assert_eq!(target("select \"Mixed\"()"), Target::Replica);
        assert_eq!(target("select Mixed()"), Target::Primary);
        assert_eq!(classifier.classify("select lower('A')").reason, Reason::WritingFunction);
        assert_eq!(target(&format!("select {}()", "x".repeat(4096))), Target::Primary);
    }

    #[test]
    fn operators_and_relations_can_be_listed() {
        let classifier = Classifier::new().read_operator("%>").primary_relation("cache");
        assert_eq!(classifier.classify("select 'a' %> 'b'").target, Target::Replica);
        assert_eq!(crate::classify("select 'a' %> 'b'").reason, Reason::UnknownOperator);
        assert_eq!(classifier.classify("select * from app.CACHE").reason, Reason::ListedRelation);
        assert_eq!(classifier.classify("select * from app.caches").target, Target::Replica);
    }

    #[test]
    fn hints_can_be_turned_off() {
        let classifier = Classifier::new().hints(false);
        assert_eq!(classifier.classify("/* pgdock: primary */ select 1").target, Target::Replica);
        assert_eq!(classifier.classify("/* pgdock: replica */ select f()").target, Target::Primary);
    }
}
