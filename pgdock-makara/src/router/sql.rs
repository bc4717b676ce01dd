//! What a router takes for a statement.

use std::sync::Arc;

use tokio_postgres::Column;
use tokio_postgres::types::Type;

use super::work::Text;
use crate::Decision;

/// A statement: a text, or a [`Statement`] that was prepared.
pub trait Sql: sealed::Sealed + Sync {
    #[doc(hidden)]
    fn text(&self) -> &str;

    #[doc(hidden)]
    fn types(&self) -> &[Type] {
        &[]
    }

    #[doc(hidden)]
    fn decided(&self) -> Option<Decision> {
        None
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for str {}
    impl Sealed for String {}
    impl Sealed for super::Statement {}
}

impl Sql for str {
    fn text(&self) -> &str {
        self
    }
}

impl Sql for String {
    fn text(&self) -> &str {
        self
    }
}

impl Sql for Statement {
    fn text(&self) -> &str {
        &self.0.sql
    }

    fn types(&self) -> &[Type] {
        &self.0.types
    }

    fn decided(&self) -> Option<Decision> {
        Some(self.0.decision)
    }
}

pub(super) fn text<S: Sql + ?Sized>(sql: &S) -> Text<'_> {
    Text { sql: sql.text(), types: sql.types() }
}

/// A statement that was prepared once on some node: it is right, and classified. Each connection that runs it prepares
/// it for itself, the first time. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Statement(Arc<Prepared>);

#[derive(Debug)]
struct Prepared {
    sql: String,
    types: Vec<Type>,
    params: Vec<Type>,
    columns: Vec<(String, Type)>,
    decision: Decision,
}

impl Statement {
    pub(super) fn new(sql: &str, types: &[Type], decision: Decision, on_node: &tokio_postgres::Statement) -> Self {
        let column = |column: &Column| (column.name().to_owned(), column.type_().clone());
        Self(Arc::new(Prepared {
            sql: sql.to_owned(),
            types: types.to_vec(),
            params: on_node.params().to_vec(),
            columns: on_node.columns().iter().map(column).collect(),
            decision,
        }))
    }

    /// The types of its parameters.
    #[must_use]
    pub fn params(&self) -> &[Type] {
        &self.0.params
    }

    /// The names and types of the columns that it brings.
    #[must_use]
    pub fn columns(&self) -> &[(String, Type)] {
        &self.0.columns
    }

    /// Where it runs, and why.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.0.decision
    }
}
