//! Any bytes as SQL: the classifier never panics, and never takes for a read what a full parser knows to be a write.
//!
//! ```console
//! $ cargo install cargo-fuzz
//! $ cd pgdock-makara && mkdir -p fuzz/corpus/classify
//! $ tail -n +2 tests/cases.tsv | cut -f 1 | split -l 1 -a 3 - fuzz/corpus/classify/case-      # a start
//! $ cargo fuzz run classify --sanitizer none -- -max_len=4096                 # without nightly
//! ```
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use pgdock_makara::{Reason, Target, classify};
use sqlparser::ast::{Query, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// The parser recurses; what it is given must not be as deep as its stack.
const PARSED_BYTES_MAX: usize = 2048;

struct Writes;

impl Visitor for Writes {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<String> {
        match statement {
            Statement::Insert(_) | Statement::Update { .. } | Statement::Delete(_) | Statement::Truncate { .. } => {
                ControlFlow::Break(statement.to_string())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let writes = matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_))
            || matches!(&*query.body, SetExpr::Select(select) if select.into.is_some());
        if writes || !query.locks.is_empty() { ControlFlow::Break(query.to_string()) } else { ControlFlow::Continue(()) }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(sql) = std::str::from_utf8(bytes) else { return };
    let decision = classify(sql);
    let _ = decision.culprit(sql);
    // A plan is made, and the statement not run.
    if decision.target != Target::Replica || decision.reason == Reason::Plan || sql.len() > PARSED_BYTES_MAX {
        return;
    }
    if let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, sql)
        && let ControlFlow::Break(write) = statements.visit(&mut Writes)
    {
        panic!("a write was taken for a read: {write}");
    }
});
