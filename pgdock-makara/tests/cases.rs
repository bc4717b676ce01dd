//! The table of statements with their right target. Each was tried on a primary and on a hot standby of PostgreSQL 15;
//! what they answered stands in the last two columns.

use pgdock_makara::{Classifier, PinTo, Reason, Target, classify};

struct Case {
    sql: String,
    target: Target,
    why: String,
    sticks: bool,
    standby: String,
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut bytes = text.chars();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            '\\' => match bytes.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('\\') => '\\',
                other => panic!("unknown escape {other:?} in {text:?}"),
            },
            byte => byte,
        });
    }
    plain
}

/// The reason of a pinned case begins with the connection that it needs, where that is not the current one.
fn pinned(why: &str) -> PinTo {
    let any = ["replica ok", "outlives the transaction; replica ok", "any node"];
    let primary = ["primary", "named remote connection", "descriptor lives"];
    if why.starts_with("primary: current transaction") {
        PinTo::Current
    } else if any.iter().any(|prefix| why.starts_with(prefix)) {
        PinTo::Any
    } else if primary.iter().any(|prefix| why.starts_with(prefix)) {
        PinTo::Primary
    } else {
        PinTo::Current
    }
}

fn cases() -> Vec<Case> {
    let rows = include_str!("cases.tsv").lines().skip(1);
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let &[sql, target, why, _group, sticks, _primary, standby] = columns.as_slice() else {
            panic!("a row has seven columns: {row:?}")
        };
        let target = match target {
            "replica" => Target::Replica,
            "primary" => Target::Primary,
            "all" => Target::All,
            "pin" => Target::Pin(pinned(why)),
            other => panic!("unknown target {other:?}"),
        };
        Case { sql: unescape(sql), target, why: why.to_owned(), sticks: sticks == "1", standby: standby.to_owned() }
    })
    .collect()
}

/// What an application that knows its own functions would say.
fn classifier() -> Classifier {
    Classifier::new().read_function("stable_fn")
}

#[test]
fn every_case_goes_where_it_should() {
    let cases = cases();
    assert!(cases.len() >= 160, "the table is here");
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let decision = classifier().classify(&case.sql);
            let right = decision.target == case.target && decision.sticks() == case.sticks;
            (!right).then(|| format!("{:?} ({}): {decision:?}, not {:?}", case.sql, case.why, case.target))
        })
        .collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn without_a_list_an_unknown_function_is_the_only_difference() {
    for case in cases() {
        let (bare, listed) = (classify(&case.sql), classifier().classify(&case.sql));
        if case.sql.contains("stable_fn") {
            assert_eq!((bare.target, bare.reason), (Target::Primary, Reason::UnknownFunction));
            assert_eq!(bare.culprit(&case.sql), Some("stable_fn"));
        } else {
            assert_eq!(bare, listed, "{}", case.sql);
        }
    }
}

#[test]
fn nothing_that_a_standby_refused_goes_to_a_replica() {
    for case in cases().iter().filter(|case| matches!(case.standby.as_str(), "25006" | "55000" | "XX000" | "0A000")) {
        assert_ne!(classify(&case.sql).target, Target::Replica, "{}", case.sql);
    }
}

#[test]
fn a_case_goes_the_same_way_twice_in_one_text() {
    for case in cases().iter().filter(|case| matches!(case.target, Target::Replica | Target::Primary)) {
        if classify(&case.sql).reason == Reason::Unreadable {
            continue;
        }
        let twice = format!("{}\n;\n{}", case.sql, case.sql);
        assert_eq!(classifier().classify(&twice).target, case.target, "{twice}");
    }
}
