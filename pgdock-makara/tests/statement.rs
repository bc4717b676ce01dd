//! Statements beside the table: what Makara's regular expressions get wrong and right, texts of several statements,
//! hints, and input that no one should have written.

use pgdock_makara::{PinTo, Reason, Target, classify};

fn assert_all(target: Target, statements: &[&str]) {
    for sql in statements {
        let decision = classify(sql);
        assert_eq!(decision.target, target, "{sql:?}: {decision:?}");
    }
}

#[test]
fn what_makara_sends_to_the_primary_never_reaches_a_replica() {
    for sql in [
        "insert into dogs (name) values ('a')",
        "insert into cats (select * from felines)",
        "savepoint active_record_1",
        "begin",
        "begin deferred transaction",
        "commit",
        "rollback",
        "release savepoint active_record_1",
        "update users set name = 'a'",
        "UPDATE\n  dogs\nSET\n  max_treats = 10\nWHERE\n  max_treats IS NULL",
        "delete from people",
        "describe table",
        "select * from users for update",
        "  select * from users for update",
        "select * from users where id = 1 lock in share mode",
        "select nextval('s')",
        "select currval('s')",
        "select lastval()",
        "select get_lock('a', 1)",
        "select release_lock('a')",
        "select pg_advisory_lock(1)",
        "select pg_advisory_unlock(1)",
        "with fence as (select * from users) insert to cats",
        "insert into cats (name) values ('set')",
    ] {
        let decision = classify(sql);
        assert!(matches!(decision.target, Target::Primary | Target::Pin(_)), "{sql:?}: {decision:?}");
        assert_ne!(decision.target, Target::Pin(PinTo::Any), "{sql:?}");
    }
}

#[test]
fn what_makara_sends_to_a_replica_and_to_all_goes_there() {
    assert_all(
        Target::Replica,
        &[
            "select * from felines",
            "    select * from felines",
            "with fence as (select * from users) select * from fence",
            "select * from users where name = \"for update\"",
            "select * from users where name = \"lock in share mode\"",
        ],
    );
    assert_all(Target::All, &["SET @@things", "set client_min_messages to warning", "RESET ALL"]);
}

#[test]
fn makara_misroutes_these_to_a_replica() {
    for sql in [
        "select * from t for update;",
        "select * from t for update -- now",
        "select * from t\nfor update",
        "select * from t for key share",
        "select nextval ('s')",
        "SELECT\nnextval('s')",
        "select setval('s', 1)",
        "select pg_advisory_xact_lock(1)",
        "select pg_advisory_unlock_all()",
        "select txid_current()",
        "select pg_notify('a', 'b')",
        "select set_config('a.b', 'c', false)",
        "select refresh_totals()",
        "select * into t2 from t",
        "with x as (insert into t values (1) returning *) select * from x",
        "with x as (select 1) insert into t (a) select 1",
        "select 1; insert into t values (1)",
    ] {
        assert_ne!(classify(sql).target, Target::Replica, "{sql:?}");
    }
}

#[test]
fn makara_sends_these_to_the_primary_without_need() {
    assert_all(
        Target::Replica,
        &[
            "(select 1) union (select 2)",
            "-- why\nselect 1",
            "/* why */ select 1",
            "SELECT(1)",
            "SELECT*FROM t",
            "with a as (\n select 1\n), b as (\n select 2\n)\nselect * from a, b",
            "values (1)",
            "table t",
            "show timezone",
            "explain select 1",
            "select 'nextval(1)'",
        ],
    );
}

#[test]
fn calls_are_told_from_everything_that_looks_like_one() {
    assert_all(
        Target::Replica,
        &[
            "select * from (values (1, 2)) v(a, b)",
            "select * from generate_series(1, 3) g(i)",
            "select * from unnest(array[1], array[2]) with ordinality as u(a, b, n)",
            "select x::numeric(10, 2), x::varchar(3), cast(x as pg_catalog.bpchar(3)), x::geometry(point, 4326) from t",
            "select x::character varying(10), cast(x as bit varying(3)) from t",
            "select * from a join (select 1) b on (true) left join (b cross join c) on a.x = b.x",
            "select a from t group by rollup (a), a order by (a)",
            "select a from t group by grouping sets ((a), ())",
            "select * from t tablesample system (1) repeatable (7)",
            "select * from t fetch first (2) rows only",
            "select now() at time zone ('UTC')",
            "select sum(a) filter (where b) over (partition by (c) order by (d)) from t",
            "select sum(a) over w from t window w as (partition by c)",
            "select pg_catalog.lower('A'), \"lower\"('A'), LOWER('A')",
            "select a operator(pg_catalog.+) 1 from t",
            "select 'a' like ('b'), 'a' similar to ('b'), 'a' not ilike ('b')",
            "select xmlelement(name a, xmlattributes(1 as b)), json_value('{}', '$')",
            "with recursive t(n) as (select 1 union all select n + 1 from t where n < 9), u(m) as (select 1) select * from t, u",
            "with recursive t as (select 1 as n) search depth first by n set o select * from t",
            "select -1, 1-1, a-(-1), 2*-1, array[1]@>array[1] from t",
            "select '{}'::jsonb ? 'a', '{}'::jsonb #>> '{a}', a != b, f => 1 from t",
            "select t.update, t.into, \"delete\" from t",
        ],
    );
    for (sql, reason, culprit) in [
        ("select distinct on (a) nextval('s') from t", Reason::WritingFunction, "nextval"),
        ("select a operator(app.+) 1", Reason::UnknownOperator, "app"),
        ("select a order by rollup(1)", Reason::UnknownFunction, "rollup"),
        ("select join(1)", Reason::UnknownFunction, "join"),
        ("select public.values(1)", Reason::UnknownFunction, "values"),
        ("select \"values\"(1)", Reason::UnknownFunction, "values"),
        ("select \"NextVal\"(1)", Reason::UnknownFunction, "NextVal"),
        ("select (with x as (select my(1)) select 1)", Reason::UnknownFunction, "my"),
        ("with x as (select 1), my(a) as (select 2) select my(a) from my", Reason::UnknownFunction, "my"),
        ("with x as (select 1) (select my(2))", Reason::UnknownFunction, "my"),
        ("with x as (select 1) select 1, my(2)", Reason::UnknownFunction, "my"),
        ("with x as ((select 1)) foo", Reason::UnknownStatement, "foo"),
        ("(with x as (select 1) delete from t)", Reason::Write, "delete"),
        ("select last_value from s", Reason::NodeLocal, "last_value"),
        ("select 1for update", Reason::Lock, "update"),
        ("(foo bar)", Reason::UnknownStatement, "foo"),
    ] {
        let decision = classify(sql);
        assert_eq!((decision.reason, decision.culprit(sql)), (reason, Some(culprit)), "{sql:?}");
        assert_eq!(decision.target, Target::Primary, "{sql:?}");
    }
    assert_all(Target::Replica, &["select last_value(a) over () from t", "select 1 as last_value"]);
}

#[test]
fn literals_end_where_postgresql_ends_them() {
    assert_all(
        Target::Replica,
        &[
            "select 'it''s; delete from t'",
            "select E'it\\'s; delete from t'",
            "select e'a'\n  'b\\'; delete from t'",
            "select e'a' -- more\n 'b\\'; delete from t'",
            "select $$; delete from t$$, $a$ $b$ $a$",
            "select U&'\\0441; delete', u&\"d\\0061ta\" from t",
            "select \"a\"\"b; delete from t\"",
            "select 1 /* /* */ ; delete from t */",
        ],
    );
    for sql in [
        "select 'a\\'; delete from t; --'",
        "select a$$ from t; delete from t; select b$$",
        "select e'a' 'b\\'; delete from t; --'",
        "select 1 -- \r; delete from t",
    ] {
        assert_eq!(classify(sql).reason, Reason::Write, "{sql:?}");
    }
}

#[test]
fn what_cannot_be_read_to_its_end_goes_to_the_primary() {
    let deep = format!("select {}1{}", "(".repeat(200), ")".repeat(200));
    assert_eq!((classify(&deep).target, classify(&deep).reason), (Target::Primary, Reason::TooDeep));
    let long = format!("select '{}", "a".repeat(1 << 20));
    for sql in [
        "select 'a",
        "select E'a\\'",
        "select \"a",
        "select \"\"",
        "select $a$ $b$",
        "select /* /* */",
        "select (1",
        "select 1)",
        "select (1; delete from t)",
        "select 'a\0b'",
        "select \\1",
        "select {1}",
        "begin; select 'a",
        &long,
    ] {
        let decision = classify(sql);
        assert_eq!(
            (decision.target, decision.reason),
            (Target::Primary, Reason::Unreadable),
            "{:?}",
            &sql[..sql.len().min(40)]
        );
        assert_eq!(decision.culprit(sql), None);
    }
    let ids = format!("select * from t where id in (0{})", ", 1".repeat(200_000));
    assert_eq!(classify(&ids).target, Target::Replica);
}

#[test]
fn a_text_of_several_statements_is_what_they_need_together() {
    for (sql, target) in [
        (";;", Target::Replica),
        ("begin; select 1; commit", Target::Replica),
        ("begin; select 1; commit and chain", Target::Pin(PinTo::Primary)),
        ("begin; savepoint a; rollback to a", Target::Pin(PinTo::Primary)),
        ("begin; rollback and no chain; select 1", Target::Replica),
        ("begin read only; select 1", Target::Pin(PinTo::Any)),
        ("begin read write, read only; select 1", Target::Pin(PinTo::Any)),
        ("begin isolation level serializable; select 1; end", Target::Primary),
        ("begin; set transaction isolation level serializable; select 1; end", Target::Primary),
        ("begin; set local app.tenant = '7'; select 1; end", Target::Replica),
        ("begin; lock table t; end", Target::Primary),
        ("begin; update t set a = 1; prepare transaction 'a'", Target::Primary),
        ("set a.b = 1; set a.c = 2", Target::All),
        ("set a.b = 1; select 1", Target::Pin(PinTo::Any)),
        ("select 1; set a.b = 1", Target::Pin(PinTo::Any)),
        ("set a.b = 1; delete from t", Target::Pin(PinTo::Primary)),
        ("delete from t; listen a", Target::Pin(PinTo::Primary)),
        ("select 1; commit", Target::Pin(PinTo::Current)),
        ("create function f() returns int begin atomic select 1; select 2; end", Target::Primary),
        ("create rule r as on insert to t do also (delete from a; delete from b)", Target::Primary),
        ("insert into t values (1); select my()", Target::Primary),
    ] {
        assert_eq!(classify(sql).target, target, "{sql:?}");
    }
}

#[test]
fn explain_runs_its_statement_only_with_analyze() {
    assert_all(
        Target::Replica,
        &[
            "explain delete from t",
            "explain verbose select my()",
            "explain (analyze false) delete from t",
            "explain (analyze 0, costs off) delete from t",
            "explain (analyze on, format json) select 1",
            "explain (select 1)",
            "explain ((select 1) union select 2)",
        ],
    );
    assert_all(
        Target::Primary,
        &[
            "explain (costs off, analyze) delete from t",
            "explain (analyze true) delete from t",
            "explain (analyze, costs false) delete from t",
            "explain analyze verbose select my()",
            "explain foo",
        ],
    );
    assert_eq!(classify("explain execute p").target, Target::Pin(PinTo::Current));
}

#[test]
fn hints_help_where_nothing_is_known_and_never_against_what_is() {
    for (sql, target, reason) in [
        ("/* pgdock: primary */ select 1", Target::Primary, Reason::Hint),
        ("select 1 -- PGDOCK:PRIMARY", Target::Primary, Reason::Hint),
        ("/* pgdock: replica */ select my()", Target::Replica, Reason::Hint),
        ("/* pgdock: replica */ select * from pg_locks", Target::Replica, Reason::Hint),
        ("/* pgdock: replica */ /* pgdock: primary */ select my()", Target::Primary, Reason::UnknownFunction),
        ("/* pgdock: replica */ select my(), nextval('s')", Target::Primary, Reason::WritingFunction),
        ("/* pgdock: replica */ select my() for update", Target::Primary, Reason::Lock),
        ("/* pgdock: replica */ select my(); delete from t", Target::Primary, Reason::Write),
        ("/* pgdock: replica */ delete from t", Target::Primary, Reason::Write),
        ("/* pgdock: replica */ select 'a", Target::Primary, Reason::Unreadable),
        ("/* pgdock: somewhere */ select 1", Target::Replica, Reason::Read),
        ("/* not pgdock: primary */ select 1", Target::Replica, Reason::Read),
        ("/* pgdock: primary */ begin read only", Target::Pin(PinTo::Primary), Reason::Transaction),
    ] {
        let decision = classify(sql);
        assert_eq!((decision.target, decision.reason), (target, reason), "{sql:?}");
    }
}
