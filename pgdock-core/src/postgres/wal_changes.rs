//! What a stretch of WAL did to rows, read off what `pg_waldump` prints.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// How many transactions and relations are listed, and counted apart.
const LISTED_MAX: usize = 1000;

/// A transaction that committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number.
    pub xid: u64,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// When it committed, by the clock of its node.
    pub at: String,
}

/// How many rows of a relation were changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Inserted, also by `COPY`.
    pub inserted: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted one by one. `TRUNCATE` leaves no trace of its rows.
    pub deleted: u64,
}

impl Rows {
    fn add(&mut self, other: Self) {
        self.inserted = self.inserted.saturating_add(other.inserted);
        self.updated = self.updated.saturating_add(other.updated);
        self.deleted = self.deleted.saturating_add(other.deleted);
    }
}

/// What the transactions did that committed behind a position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// How many there are.
    pub transactions: u64,
    /// They themselves, oldest first, at most 1000.
    pub commits: Vec<Commit>,
    /// How many rows they changed, by relation, written `tablespace/database/relfilenode`, at most 1000.
    pub rows: BTreeMap<String, Rows>,
}

/// Reads the lines that `pg_waldump` prints, one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    from: Lsn,
    /// What transactions have done of which it is not known yet how they end.
    open: HashMap<u64, BTreeMap<String, Rows>>,
    changes: Changes,
}

impl Reader {
    /// A reader that counts what commits at and behind a position. It may be given WAL before it: a transaction that
    /// began there counts as a whole, as far as the WAL tells.
    pub(crate) fn new(from: Lsn) -> Self {
        Self { from, open: HashMap::new(), changes: Changes::default() }
    }

    /// Reads a line.
    pub(crate) fn line(&mut self, line: &str) {
        let Some((record, desc)) = line.split_once(", desc: ") else { return };
        let (operation, rest) = desc.split_once(' ').unwrap_or((desc, ""));
        let xid = field(record, "tx:").and_then(|x| x.parse().ok()).unwrap_or(0u64);
        match record.strip_prefix("rmgr: ").and_then(|r| r.split_whitespace().next()) {
            Some("Heap" | "Heap2") => self.rows(xid, operation, rest),
            Some("Transaction") => self.end(xid, operation, rest, field(record, "lsn:")),
            _ => {}
        }
    }

    /// What was read.
    pub(crate) fn finish(self) -> Changes {
        self.changes
    }

    fn rows(&mut self, xid: u64, operation: &str, rest: &str) {
        let one = Rows::default();
        let rows = match operation.split('+').next().unwrap_or_default() {
            "INSERT" => Rows { inserted: 1, ..one },
            "MULTI_INSERT" => Rows { inserted: first_number(rest).unwrap_or(0), ..one },
            "UPDATE" | "HOT_UPDATE" => Rows { updated: 1, ..one },
            "DELETE" if takes_back_an_insert(rest) => {
                if let Some(rows) = relation(rest).and_then(|r| self.open.get_mut(&xid)?.get_mut(r)) {
                    rows.inserted = rows.inserted.saturating_sub(1);
                }
                return;
            }
            "DELETE" => Rows { deleted: 1, ..one },
            _ => return,
        };
        if let (Some(relation), true) = (relation(rest), xid != 0) {
            self.open.entry(xid).or_default().entry(relation.to_owned()).or_default().add(rows);
        }
    }

    fn end(&mut self, xid: u64, operation: &str, rest: &str, lsn: Option<&str>) {
        let commits = operation.starts_with("COMMIT");
        if !commits && !operation.starts_with("ABORT") {
            return;
        }
        // What was prepared ends in another transaction's record, which begins with its number.
        let (xid, rest) = match rest.split_once(": ").map(|(number, rest)| (number.parse(), rest)) {
            Some((Ok(prepared), rest)) => (prepared, rest),
            _ => (xid, rest),
        };
        let subtransactions = rest.split_once("subxacts: ").map(|(_, list)| list.split(';').next().unwrap_or_default());
        let all: BTreeSet<u64> = subtransactions
            .into_iter()
            .flat_map(|list| list.split_whitespace().map_while(|x| x.parse().ok()))
            .chain([xid])
            .collect();
        let done: Vec<_> = all.iter().filter_map(|x| self.open.remove(x)).flatten().collect();
        let Some(lsn) = lsn.and_then(|l| l.parse::<Lsn>().ok()).filter(|lsn| commits && *lsn >= self.from) else {
            return;
        };
        let changes = &mut self.changes;
        changes.transactions += 1;
        if changes.commits.len() < LISTED_MAX {
            let at = rest.split(';').next().unwrap_or_default().trim().to_owned();
            changes.commits.push(Commit { xid, lsn, at });
        }
        for (relation, rows) in done {
            if changes.rows.len() < LISTED_MAX || changes.rows.contains_key(&relation) {
                changes.rows.entry(relation).or_default().add(rows);
            }
        }
    }
}

/// The value behind a key, up to a comma.
fn field<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.split_once(key)?.1.split(',').next().map(str::trim)
}

/// The relation that the first block of a record belongs to.
fn relation(rest: &str) -> Option<&str> {
    let name = rest.split_once("rel ")?.1.split([' ', ',']).next()?;
    (name.split('/').count() == 3).then_some(name)
}

/// `4 tuples flags 0x02`, since version 16 `ntuples: 4, flags: 0x02`.
fn first_number(rest: &str) -> Option<u64> {
    rest.split([' ', ',']).find_map(|word| word.parse().ok())
}

/// The second half of an insert that lost against another one (`ON CONFLICT`), `XLH_DELETE_IS_SUPER`.
fn takes_back_an_insert(rest: &str) -> bool {
    let flags = rest.split_once("flags").and_then(|(_, f)| f.trim_start_matches(':').split_whitespace().next());
    let flags = flags.and_then(|f| u8::from_str_radix(f.trim_end_matches(',').strip_prefix("0x")?, 16).ok());
    flags.is_some_and(|flags| flags & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: u64, dump: &str) -> Changes {
        let mut reader = Reader::new(Lsn(from));
        dump.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    fn heap(xid: u64, desc: &str) -> String {
        format!(
            "rmgr: Heap        len (rec/tot):     59/    59, tx: {xid:10}, lsn: 0/03000148, prev 0/030000D8, desc: {desc}, \
             blkref #0: rel 1663/5/16384 blk 0\n"
        )
    }

    fn transaction(xid: u64, lsn: &str, desc: &str) -> String {
        format!(
            "rmgr: Transaction len (rec/tot):     34/    34, tx: {xid:10}, lsn: {lsn}, prev 0/03000148, desc: {desc}\n"
        )
    }

    #[test]
    fn rows_count_once_their_transaction_commits() {
        let dump = [
            heap(735, "INSERT+INIT off 1 flags 0x08"),
            heap(735, "HOT_UPDATE off 1 xmax 735 flags 0x10 ; new off 2 xmax 0"),
            heap(736, "DELETE off 4 flags 0x00 KEYS_UPDATED "),
            heap(737, "MULTI_INSERT+INIT 40 tuples flags 0x02"),
            heap(738, "MULTI_INSERT ntuples: 3, flags: 0x02, offsets: [1, 2, 3]"),
            heap(739, "INSERT off: 5, flags: 0x00"),
            heap(735, "LOCK off 3: xid 735: flags 0x00 LOCK_ONLY EXCL_LOCK "),
            transaction(
                735,
                "0/03000188",
                "COMMIT 2026-11-23 22:00:00.000000 UTC; subxacts: 736 738; inval msgs: catcache 7",
            ),
            transaction(737, "0/03000200", "ABORT 2026-11-23 22:00:00.000000 UTC"),
        ];
        let changes = read(0, &dump.concat());
        let rows = Rows { inserted: 4, updated: 1, deleted: 1 };
        assert_eq!(changes.rows, [("1663/5/16384".to_owned(), rows)].into());
        let at = "2026-11-23 22:00:00.000000 UTC".to_owned();
        assert_eq!(changes.commits, [Commit { xid: 735, lsn: Lsn(0x0300_0188), at }]);
    }

    #[test]
    fn what_committed_before_counts_for_nothing_and_what_began_before_for_all() {
        let dump = [
            heap(7, "INSERT off 1 flags 0x00"),
            heap(8, "INSERT off 2 flags 0x00"),
            transaction(7, "0/00000100", "COMMIT 2026-11-23 22:00:00 UTC"),
            transaction(8, "0/00000200", "COMMIT 2026-11-23 22:00:00 UTC"),
        ];
        let changes = read(0x200, &dump.concat());
        assert_eq!((changes.transactions, changes.rows["1663/5/16384"].inserted), (1, 1));
    }

    #[test]
    fn prepared_transactions_end_in_the_record_of_another() {
        let dump = [
            heap(7, "INSERT off 1 flags 0x00"),
            transaction(7, "0/00000100", "PREPARE gid x: 2026-11-23 22:00:00 UTC"),
            transaction(0, "0/00000200", "COMMIT_PREPARED 7: 2026-11-23 22:00:01 UTC"),
        ];
        let changes = read(0, &dump.concat());
        assert_eq!((changes.commits[0].xid, changes.rows["1663/5/16384"].inserted), (7, 1));
        assert_eq!(changes.commits[0].at, "2026-11-23 22:00:01 UTC");
    }

    #[test]
    fn an_insert_that_was_taken_back_is_none() {
        let dump = [
            heap(7, "INSERT off 1 flags 0x10"),
            heap(7, "DELETE off 1 flags 0x08 "),
            transaction(7, "0/00000200", "COMMIT 2026-11-23 22:00:00 UTC"),
        ];
        assert_eq!(read(0, &dump.concat()).rows["1663/5/16384"], Rows::default());
    }
}
