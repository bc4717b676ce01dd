//! What the catalogs of a database say of its own functions, operators and relations.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::Classifier;
use super::names::{self, Class};

/// Functions outside `pg_catalog`, by schema and name: `true` where an overload may write. The third column says that the
/// name stands for this function without its schema.
///
/// What is not `VOLATILE` cannot run a statement that writes (PostgreSQL documentation, section 36.7), unless by way of a
/// function that is; a standby refuses that.
const FUNCTIONS: &str = "
    select nspname, proname, bool_or(provolatile = 'v'), bool_or(pg_function_is_visible(p.oid))
    from pg_proc p join pg_namespace n on n.oid = pronamespace
    where prokind in ('f', 'a', 'w') and nspname not in ('pg_catalog', 'information_schema')
    group by 1, 2";

/// Operators outside `pg_catalog`. One name has one class, wherever it stands: a single function that may write counts.
const OPERATORS: &str = "
    select oprname from pg_operator o join pg_proc p on p.oid = oprcode
    group by 1
    having bool_and(provolatile <> 'v') and bool_or(oprnamespace <> 'pg_catalog'::regnamespace)";

/// Relations that a standby cannot answer for: unlogged ones, and views over functions that may write, however deep.
const RELATIONS: &str = "
    with recursive writing as (
        select c.oid from pg_class c
        where relkind in ('v', 'm') and relnamespace <> 'pg_catalog'::regnamespace
          and exists (select from pg_rewrite r
              join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_proc'::regclass
              join pg_proc p on p.oid = d.refobjid
              where r.ev_class = c.oid and provolatile = 'v')
        union
        select v.oid from writing w
        join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = w.oid and d.classid = 'pg_rewrite'::regclass
        join pg_rewrite r on r.oid = d.objid
        join pg_class v on v.oid = r.ev_class and v.relkind = 'v' and v.oid <> w.oid)
    select distinct relname from pg_class c
    where relkind in ('r', 'p', 'v', 'm') and (
        relpersistence = 'u'
        or (relkind = 'v' and c.oid in (select oid from writing)))";

impl Classifier {
    /// Adds what the catalogs of a database say: its own functions by their volatility, operators by their functions, and
    /// unlogged tables and views over functions that may write as the primary's. What was listed by hand before or is
    /// listed afterwards wins over it.
    ///
    /// It is read once: functions that are made later are unknown, so that calls of them go to the primary. Names without a
    /// schema mean what the search path of `client` finds.
    ///
    /// # Errors
    ///
    /// The server refused a question, or the connection was lost.
    pub async fn with_catalog(mut self, client: &Client) -> Result<Self, tokio_postgres::Error> {
        // A name that stands for one function here may stand for another one elsewhere: whatever may write, counts.
        let mut plain = HashMap::<String, bool>::new();
        for row in client.query(FUNCTIONS, &[]).await? {
            let (schema, name, writes, visible): (String, String, bool, bool) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            self.learn(format!("{schema}.{name}"), writes);
            if visible {
                *plain.entry(name).or_default() |= writes;
            }
        }
        for (name, writes) in plain {
            // An overload of a function of `pg_catalog` cannot be told from it, and takes nothing away from what that does.
            match names::function(name.as_bytes(), true) {
                None => self.learn(name, writes),
                Some(Class::Read) if writes => self.learn(name, true),
                Some(_) => {}
            }
        }
        for row in client.query(OPERATORS, &[]).await? {
            self = self.read_operator(row.get::<_, String>(0));
        }
        for row in client.query(RELATIONS, &[]).await? {
            self = self.primary_relation(row.get::<_, String>(0));
        }
        Ok(self)
    }
}
