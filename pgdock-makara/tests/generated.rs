//! Statements that no one wrote: the classifier never panics, is not moved by white space or comments, allocates
//! nothing, and never takes for a read what a full parser takes for a write.

use std::ops::ControlFlow;

use pgdock_makara::{Target, classify};
use proptest::prelude::*;
use sqlparser::ast::{Expr, Query, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

#[path = "generated/author.rs"]
mod author;

use author::{Author, spaced};

/// What a full parser finds in a text that a replica must not see.
#[derive(Default)]
struct Writes(Option<String>);

impl Visitor for Writes {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) | Statement::Explain { .. } | Statement::Copy { .. } => ControlFlow::Continue(()),
            Statement::StartTransaction { .. } | Statement::Commit { .. } => ControlFlow::Continue(()),
            other => self.found(other),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !query.locks.is_empty() {
            return self.found(query);
        }
        if body_writes(&query.body) { self.found(query) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(call) if ["nextval", "my_func"].iter().any(|name| call.name.to_string().contains(name)) => {
                self.found(expression)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn body_writes(body: &SetExpr) -> bool {
    match body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
        SetExpr::Select(select) => select.into.is_some(),
        SetExpr::SetOperation { left, right, .. } => body_writes(left) || body_writes(right),
        _ => false,
    }
}

impl Writes {
    fn found(&mut self, what: &impl ToString) -> ControlFlow<()> {
        self.0 = Some(what.to_string());
        ControlFlow::Break(())
    }
}

/// `None` when the parser does not understand the text.
fn writes(sql: &str) -> Option<Option<String>> {
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let mut writes = Writes::default();
    let _ = statements.visit(&mut writes);
    Some(writes.0)
}

#[test]
fn the_parser_that_judges_knows_writes() {
    assert_eq!(writes("select 1"), Some(None));
    for sql in [
        "delete from t",
        "select a from t for update",
        "with x as (delete from t returning 1) select 1",
        "select my_func()",
    ] {
        assert!(matches!(writes(sql), Some(Some(_))), "{sql}: {:?}", Parser::parse_sql(&PostgreSqlDialect {}, sql));
    }
    let understood = (0..=255_u8).filter(|seed| {
        let choices: Vec<u8> =
            (0..40_u8).map(|step| seed.wrapping_mul(73).wrapping_add(step.wrapping_mul(29))).collect();
        writes(&spaced(&Author::write(&choices), &[])).is_some()
    });
    assert!(understood.count() > 64, "the generated statements are SQL often enough");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_write_is_never_taken_for_a_read(choices in prop::collection::vec(any::<u8>(), 0..80)) {
        let sql = spaced(&Author::write(&choices), &[]);
        if classify(&sql).target == Target::Replica {
            prop_assert!(!matches!(writes(&sql), Some(Some(_))), "{sql}: {:?}", writes(&sql));
        }
    }

    #[test]
    fn what_is_only_reads_reaches_a_replica(choices in prop::collection::vec(any::<u8>(), 0..80)) {
        let sql = spaced(&Author::write(&choices), &[]);
        // To this parser a call in FROM is no expression, and it drops the lock of a TABLE.
        let blind = sql.contains("my_func") || sql.contains("table t");
        if writes(&sql) == Some(None) && !blind {
            prop_assert_eq!(classify(&sql).target, Target::Replica, "{}: {:?}", sql, classify(&sql));
        }
    }

    #[test]
    fn white_space_and_comments_change_nothing(
        choices in prop::collection::vec(any::<u8>(), 0..80),
        gaps in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let tokens = Author::write(&choices);
        let (plain, spread) = (spaced(&tokens, &[]), spaced(&tokens, &gaps));
        let (left, right) = (classify(&plain), classify(&spread));
        prop_assert_eq!((left.target, left.reason, left.sticks()), (right.target, right.reason, right.sticks()), "{}", spread);
    }

    #[test]
    fn no_text_makes_it_panic(sql in any::<String>()) {
        let decision = classify(&sql);
        let _ = decision.culprit(&sql);
    }

    #[test]
    fn no_order_of_fragments_hides_a_write(
        fragments in prop::collection::vec(prop::sample::select(vec![
            "select", "1", "a", "(", ")", ",", ";", "from", "t", "as", "with", "x", "for", "update", "delete from t", "'", "\"", "$$",
            "$a$", "--", "\n", "/*", "*/", "E'", "\\", "nextval", "on", "distinct", "into", "::", ".", "insert into t values (1)",
            "materialized", "union", "begin", "commit", "set", "explain", "analyze", "copy", "to", "stdout", "operator", "+", "-", " ",
        ]), 0..24),
        separator in prop::sample::select(vec![" ", ""]),
    ) {
        let sql = fragments.join(separator);
        if classify(&sql).target == Target::Replica && !sql.to_lowercase().contains("explain") {
            prop_assert!(!matches!(writes(&sql), Some(Some(_))), "{sql}: {:?}", writes(&sql));
        }
    }

    #[test]
    fn it_allocates_nothing(choices in prop::collection::vec(any::<u8>(), 0..80)) {
        let sql = spaced(&Author::write(&choices), &[]);
        let used = allocation_counter::measure(|| _ = std::hint::black_box(classify(&sql)));
        prop_assert_eq!(used.count_total, 0, "{}", sql);
    }
}
