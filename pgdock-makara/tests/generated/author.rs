//! Writes statements that are SQL often enough, from a list of choices.

/// Turns a list of choices into the tokens of a text of SQL. The same choices give the same tokens, and fewer choices
/// a shorter text, so that a failure shrinks.
pub(crate) struct Author<'a> {
    choices: std::slice::Iter<'a, u8>,
    tokens: Vec<&'static str>,
    depth: u32,
}

impl Author<'_> {
    pub(crate) fn write(choices: &[u8]) -> Vec<&'static str> {
        let mut author = Author { choices: choices.iter(), tokens: Vec::new(), depth: 0 };
        author.statement();
        while author.one_in(4) {
            author.push(";");
            author.statement();
        }
        author.tokens
    }

    fn choose(&mut self, among: u8) -> u8 {
        self.choices.next().map_or(0, |choice| choice % among)
    }

    fn one_in(&mut self, chances: u8) -> bool {
        self.choose(chances) == chances - 1
    }

    fn push(&mut self, text: &'static str) {
        self.tokens.extend(text.split(' '));
    }

    fn any(&mut self, of: &[&'static str]) {
        let choice = self.choose(of.len() as u8);
        self.push(of[usize::from(choice)]);
    }

    fn maybe(&mut self, text: &'static str) {
        if self.one_in(6) {
            self.push(text);
        }
    }

    fn statement(&mut self) {
        match self.choose(8) {
            0..=4 => self.query(),
            5 => self.any(&["insert into t values ( 1 )", "update t set a = 1", "delete from t", "truncate t"]),
            6 => {
                self.any(&["explain analyze", "explain ( analyze )"]);
                self.query();
            }
            _ => {
                self.push("copy (");
                self.query();
                self.push(") to stdout");
            }
        }
    }

    fn query(&mut self) {
        self.depth += 1;
        if self.depth < 5 && self.one_in(4) {
            self.push("with");
            self.maybe("recursive");
            self.expression_table();
            while self.one_in(3) {
                self.push(",");
                self.expression_table();
            }
        }
        match self.choose(6) {
            0 => self.any(&["values ( 1 )", "table t"]),
            1 if self.depth < 5 => {
                self.push("(");
                self.query();
                self.push(")");
            }
            _ => self.select(),
        }
        if self.one_in(6) {
            self.any(&["union all", "intersect", "except"]);
            self.select();
        }
        self.maybe("order by 1");
        self.maybe("limit 1");
        if self.one_in(8) {
            self.any(&["for update", "for share", "for no key update skip locked", "for key share of t"]);
        }
        self.depth -= 1;
    }

    fn expression_table(&mut self) {
        self.any(&["x", "y", "update", "\"delete\"", "materialized"]);
        self.maybe("( a , b )");
        self.any(&["as (", "as materialized (", "as not materialized ("]);
        if self.one_in(5) {
            self.any(&[
                "delete from t returning a",
                "insert into t values ( 1 ) returning a",
                "update t set a = 1 returning a",
            ]);
        } else {
            self.query();
        }
        self.push(")");
    }

    fn select(&mut self) {
        self.push("select");
        self.maybe("distinct on ( a )");
        self.value();
        while self.one_in(4) {
            self.push(",");
            self.value();
        }
        if self.one_in(10) {
            self.push("into t2");
        }
        if self.one_in(2) {
            self.push("from");
            self.relation();
            if self.one_in(4) {
                self.any(&["join", "left join", "cross join"]);
                self.relation();
                self.maybe("on ( a = b )");
            }
            if self.one_in(3) {
                self.push("where");
                self.value();
            }
        }
    }

    fn relation(&mut self) {
        match self.choose(6) {
            0..=2 => self.any(&["t", "app.t as u", "\"for;update\"", "only t"]),
            3 if self.depth < 5 => {
                self.push("(");
                self.query();
                self.any(&[") q", ") as q ( a )", ") q ( a , b )"]);
            }
            4 => self.any(&["generate_series ( 1 , 2 ) g ( i )", "my_func ( 1 ) as f ( a int )", "unnest ( a ) u"]),
            _ => self.push("t tablesample system ( 1 )"),
        }
    }

    fn value(&mut self) {
        self.depth += 1;
        match self.choose(14) {
            0 => self.push("1"),
            1 => self.any(&["a", "t.a", "update", "t.into", "\"x;y\"", "$1"]),
            2 => self.any(&["';delete/**/from/**/t;'", "E'\\';delete'", "$$;delete$$", "'it''s'"]),
            3 => self.any(&["lower ( 'A' )", "count ( * )", "coalesce ( a , 1 )", "cast ( a as numeric ( 1 , 2 ) )"]),
            4 => self.any(&["nextval ( 's' )", "\"nextval\" ( 's' )", "pg_catalog.nextval ( 's' )", "my_func ( )"]),
            5 if self.depth < 6 => {
                self.any(&["(", "exists (", "array ("]);
                self.query();
                self.push(")");
            }
            6 if self.depth < 6 => {
                self.value();
                self.any(&["=", "+", "||", "and", "is distinct from", "->>", "operator(pg_catalog.+)"]);
                self.value();
            }
            7 if self.depth < 6 => {
                self.push("case when");
                self.value();
                self.push("then");
                self.value();
                self.push("end");
            }
            8 => self.any(&["1 as into", "a as update", "1 as \"into\"", "2 as for"]),
            9 => self.any(&["a :: varchar ( 3 )", "substring ( a from 1 for 2 )", "sum ( a ) over ( order by b )"]),
            10 => self.any(&["a in ( 1 , 2 )", "a = any ( $1 )", "a between 1 and 2", "a like 'b'"]),
            _ => self.push("b"),
        }
        self.depth -= 1;
    }
}

/// Joins tokens with what PostgreSQL takes for white space.
pub(crate) fn spaced(tokens: &[&str], gaps: &[u8]) -> String {
    const GAPS: [&str; 7] = [" ", "\n", "\t\r\n", "/* c */", "-- c ; delete\n", " /* /* ' */ ; delete */ ", ""];
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let gap = GAPS[usize::from(gaps.get(index).copied().unwrap_or(0)) % GAPS.len()];
        let touches = text.ends_with(['(', ')', ',', ';']) || token.starts_with(['(', ')', ',', ';']);
        text.push_str(if gap.is_empty() && !touches { " " } else { gap });
        text.push_str(token);
    }
    text
}
