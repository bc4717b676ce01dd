//! What it costs to say where a statement belongs, beside a full parser on the same texts.
//!
//! ```console
//! $ cargo bench -p pgdock-makara --bench classify_statement
//! ```
//!
//! The texts are those of `tests/cases.tsv`, and some of the length that applications send. Rounds of both take turns, so that a
//! machine that slows down slows both; the median of the rounds counts.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pgdock_makara::classify;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

const CASES: &str = include_str!("../tests/cases.tsv");
const ROUNDS: usize = 41;
const REPEATS: usize = 20;

/// As an object mapper writes it.
const LONG: &str = "SELECT \"orders\".\"id\", \"orders\".\"customer_id\", \"orders\".\"placed_at\", \"orders\".\"total\", \"customers\".\"name\", \
    \"customers\".\"email\" FROM \"orders\" INNER JOIN \"customers\" ON \"customers\".\"id\" = \"orders\".\"customer_id\" WHERE \
    \"orders\".\"state\" IN ('paid', 'sent', 'returned') AND \"orders\".\"placed_at\" BETWEEN $1 AND $2 AND lower(\"customers\".\"email\") \
    LIKE $3 ORDER BY \"orders\".\"placed_at\" DESC, \"orders\".\"id\" ASC LIMIT 50 OFFSET 100";

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort();
    rounds[rounds.len() / 2]
}

fn timed(texts: &[&str], work: impl Fn(&str)) -> Duration {
    let began = Instant::now();
    for _ in 0..REPEATS {
        for text in texts {
            work(black_box(text));
        }
    }
    began.elapsed()
}

fn measure(name: &str, texts: &[&str]) {
    let bytes = texts.iter().map(|text| text.len()).sum::<usize>() * REPEATS;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(texts, |sql| _ = black_box(classify(sql))));
        theirs.push(timed(texts, |sql| _ = black_box(Parser::parse_sql(&PostgreSqlDialect {}, sql))));
    }
    let allocations = allocation_counter::measure(|| _ = timed(texts, |sql| _ = black_box(classify(sql)))).count_total;
    let (ours, theirs) = (median(ours).as_secs_f64(), median(theirs).as_secs_f64());
    println!(
        "{name:<28} {:>4} texts, {:>6} bytes: classify {:5.2} ns a byte, {allocations} allocations; sqlparser {:6.1} ns a byte, ratio {:.0}",
        texts.len(),
        bytes / REPEATS,
        ours * 1e9 / bytes as f64,
        theirs * 1e9 / bytes as f64,
        theirs / ours,
    );
}

fn main() {
    let cases: Vec<_> = CASES.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    measure("all cases", &cases);
    measure("an object mapper's read", &[LONG]);
    measure("a read by its key", &["select id, name, balance from accounts where id = $1 limit 1"]);
    let insert = format!("insert into t values {}", vec!["(1, 'two', 3.0)"; 1000].join(", "));
    measure("an insert of 1000 rows", &[&insert]);
}
