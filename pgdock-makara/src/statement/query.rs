//! Reading a query: calls, locks, `INTO`, data-modifying `WITH`, relations that only the primary answers for.
//!
//! There is no parser here. A query is walked once, parenthesis by parenthesis, and each `name (` is judged by the
//! few tokens before it. Whatever the walk does not positively recognise is a finding.

use super::classifier::Rules;
use super::finding::Finding;
use super::lexer::{Lexer, Token, Word};
use super::names::{self, Class};
use super::{PinTo, Reason};

/// How many parentheses may be open at once. Each costs a frame of the stack.
const DEPTH_MAX: u32 = 128;

/// The text cannot be read to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop(pub(super) Reason);

/// The walk over one text.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) rules: Option<&'a Rules>,
    /// What the current statement showed so far.
    pub(super) finding: Finding,
    depth: u32,
}

/// What a parenthesis, or a statement, holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// A whole statement, whose first word was read: `WITH` or another.
    Statement { with: bool },
    /// A query in parentheses where a statement was expected.
    Query,
    /// `AS (`: the body of a common table expression, or a list of columns.
    Body,
    /// `ON (` and `OPERATOR (`: an expression may follow at once.
    Prefix { operator: bool },
    /// An expression, a list, a subquery.
    Plain,
}

/// The token before the current one, as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Before<'a> {
    /// The text of a word.
    text: &'a [u8],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    /// A word without quotes where a keyword may stand.
    Keyword,
    /// A word without quotes whose place makes it a name, whatever it spells.
    Label,
    Quoted,
    /// `)` with which an expression ends.
    Close,
    /// `)` behind which an expression may begin.
    PrefixClose,
    Comma,
    Dot,
    Cast,
    Other,
}

impl Before<'_> {
    const fn of(kind: Kind) -> Self {
        Self { text: &[], kind }
    }

    fn is_word(&self) -> bool {
        matches!(self.kind, Kind::Keyword | Kind::Label | Kind::Quoted)
    }

    fn keyword(&self, keyword: &str) -> bool {
        self.kind == Kind::Keyword && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// Whether the word it is spells this, label or not.
    fn spells(&self, keyword: &str) -> bool {
        matches!(self.kind, Kind::Keyword | Kind::Label) && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// A possibly qualified name, and the two tokens before it.
#[derive(Clone, Copy, Debug)]
struct Name<'a> {
    schema: Option<Word<'a>>,
    last: Word<'a>,
    parts: u32,
    before: Before<'a>,
    earlier: Before<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(sql: &'a str, rules: Option<&'a Rules>) -> Self {
        Self { lexer: Lexer::new(sql), rules, finding: Finding::EMPTY, depth: 0 }
    }

    /// The next token that is none of the invalid ones.
    pub(super) fn next(&mut self) -> Result<Token<'a>, Stop> {
        match self.lexer.next() {
            Token::Invalid => Err(Stop(Reason::Unreadable)),
            token => Ok(token),
        }
    }

    fn note(&mut self, finding: Finding, culprit: &'a [u8]) {
        self.finding.add(finding.at(self.lexer.span(culprit)));
    }

    /// Walks to the end of a statement, or to the parenthesis that closes this one. Returns the token that ended it.
    pub(super) fn group(&mut self, opener: Opener) -> Result<Token<'a>, Stop> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Stop(Reason::TooDeep));
        }
        let statement = matches!(opener, Opener::Statement { .. });
        let mut with = opener == Opener::Statement { with: true };
        let mut before = Before::of(match opener {
            Opener::Statement { with: true } => Kind::Comma,
            Opener::Statement { with: false } => Kind::Other,
            _ => Kind::Start,
        });
        let (mut earlier, mut earliest) = (Before::of(Kind::Other), Before::of(Kind::Other));
        let mut qualified: Option<Name<'a>> = None;
        let end = loop {
            let token = self.next()?;
            // `last_value` of a sequence runs ahead on a standby; called, it is the window function.
            if before.text.len() == 10 && token != Token::Open && is_last_value(before) && !earlier.keyword("as") {
                self.note(Finding::primary(Reason::NodeLocal), before.text);
            }
            if before.kind == Kind::Start && opener == Opener::Query && !matches!(token, Token::Word(_) | Token::Open) {
                self.finding.add(Finding::primary(Reason::UnknownStatement));
            }
            let now = match token {
                Token::Word(word) => {
                    self.relation(word);
                    let field = before.kind == Kind::Dot;
                    if let Some(name) = &mut qualified {
                        if field {
                            (name.last, name.parts) = (word, name.parts + 1);
                        } else {
                            qualified = None;
                        }
                    }
                    let label = field || before.keyword("as") || (with && names_expression(before, word));
                    if before.keyword("into") {
                        self.into(word);
                    }
                    if !label && !word.quoted {
                        if before.kind == Kind::Start {
                            with = self.first(word, opener);
                        } else if with {
                            with = self.main(word, before);
                        }
                        self.keyword(word, before);
                    }
                    if opener == (Opener::Prefix { operator: true }) && !word.names("pg_catalog") {
                        self.note(Finding::primary(Reason::UnknownOperator), word.text);
                    }
                    let kind = match (word.quoted, label) {
                        (true, _) => Kind::Quoted,
                        (_, true) => Kind::Label,
                        _ => Kind::Keyword,
                    };
                    Before { text: word.text, kind }
                }
                Token::Open => {
                    let inner = if before.is_word() {
                        let last = Word { text: before.text, quoted: before.kind == Kind::Quoted };
                        let plain = Name { schema: None, last, parts: 1, before: earlier, earlier: earliest };
                        self.named(before, with, &qualified.unwrap_or(plain))
                    } else if (before.kind == Kind::Start && opener == Opener::Query)
                        || (before.kind == Kind::Close && with)
                    {
                        with = false;
                        Opener::Query
                    } else {
                        Opener::Plain
                    };
                    self.group(inner)?;
                    Before::of(if matches!(inner, Opener::Prefix { .. }) { Kind::PrefixClose } else { Kind::Close })
                }
                Token::Close if statement => return Err(Stop(Reason::Unreadable)),
                Token::Close => break token,
                Token::Semicolon | Token::End if !statement => return Err(Stop(Reason::Unreadable)),
                Token::Semicolon | Token::End => break token,
                Token::Operator(text) => {
                    self.operator(text);
                    Before::of(Kind::Other)
                }
                Token::Dot => {
                    if before.is_word() && qualified.is_none() {
                        let last = Word { text: before.text, quoted: before.kind == Kind::Quoted };
                        let schema = Some(last);
                        qualified = Some(Name { schema, last, parts: 1, before: earlier, earlier: earliest });
                    }
                    Before::of(Kind::Dot)
                }
                Token::Comma => Before::of(Kind::Comma),
                Token::Cast => Before::of(Kind::Cast),
                _ => Before::of(Kind::Other),
            };
            if qualified.is_some() && !now.is_word() && now.kind != Kind::Dot {
                qualified = None;
            }
            (earliest, earlier, before) = (earlier, before, now);
        };
        if with {
            self.finding.add(Finding::primary(Reason::UnknownStatement));
        }
        self.depth -= 1;
        Ok(end)
    }

    /// What the parenthesis behind a word holds; judges the call, if it is one.
    fn named(&mut self, before: Before<'a>, with: bool, name: &Name<'a>) -> Opener {
        match () {
            () if before.keyword("as") => Opener::Body,
            () if before.spells("materialized") && follows_as(name) => Opener::Body,
            () if before.keyword("on") => Opener::Prefix { operator: false },
            () if before.keyword("operator") => Opener::Prefix { operator: true },
            () => {
                self.call(name, with);
                Opener::Plain
            }
        }
    }

    /// The first word between parentheses. Returns whether it begins a list of common table expressions.
    fn first(&mut self, word: Word<'a>, opener: Opener) -> bool {
        if word.is("with") {
            return true;
        }
        match opener {
            Opener::Body if is_write(word) => self.note(Finding::primary(Reason::Write), word.text),
            Opener::Query if is_write(word) => self.note(Finding::primary(Reason::Write), word.text),
            Opener::Query if !is_query(word) => self.note(Finding::primary(Reason::UnknownStatement), word.text),
            _ => {}
        }
        false
    }

    /// A word in a list of common table expressions that names none of them. Returns whether the list goes on.
    fn main(&mut self, word: Word<'a>, before: Before<'a>) -> bool {
        if is_write(word) {
            self.note(Finding::primary(Reason::Write), word.text);
            return false;
        }
        let ended = before.kind == Kind::Close;
        if ended && !["as", "search", "cycle"].iter().any(|next| word.is(next)) && !is_query(word) {
            self.note(Finding::primary(Reason::UnknownStatement), word.text);
        }
        !is_query(word)
    }

    /// Words that say more wherever they stand.
    fn keyword(&mut self, word: Word<'a>, before: Before<'a>) {
        match word.text.len() {
            2 | 3 | 5 | 6
                if before.keyword("for") && ["update", "share", "no", "key"].iter().any(|next| word.is(next)) =>
            {
                self.note(Finding::primary(Reason::Lock), word.text);
            }
            // `LOCK IN SHARE MODE`, which PostgreSQL refuses.
            5 if word.is("share") && before.keyword("in") => self.note(Finding::primary(Reason::Lock), word.text),
            4 if word.is("into") => self.note(Finding::primary(Reason::Write), word.text),
            _ => {}
        }
    }

    /// The word behind `SELECT … INTO`.
    fn into(&mut self, word: Word<'a>) {
        if ["temp", "temporary", "local", "global"].iter().any(|next| word.is(next)) {
            self.note(Finding::pin(PinTo::Primary, Reason::Temporary).sticking(true), word.text);
        }
    }

    /// Names that not every node can answer for, wherever they stand.
    pub(super) fn relation(&mut self, word: Word<'a>) {
        if word.text.len() > 3 && word.text[..3].eq_ignore_ascii_case(b"pg_") {
            if word.names("pg_temp") {
                self.note(Finding::pin(PinTo::Current, Reason::Temporary), word.text);
            } else if let Some(finding) = names::relation(word.text, word.quoted).and_then(Finding::of) {
                self.note(finding, word.text);
            }
        }
        if self.rules.is_some_and(|rules| rules.relation(word)) {
            self.note(Finding::primary(Reason::ListedRelation), word.text);
        }
    }

    fn operator(&mut self, text: &'a [u8]) {
        let known = matches!(text, b"=" | b"*" | b"!=" | b":=" | b"=>") || names::operator(text);
        if !known && !self.rules.is_some_and(|rules| rules.operator(text)) {
            self.note(Finding::primary(Reason::UnknownOperator), text);
        }
    }

    /// Judges `name (`.
    fn call(&mut self, name: &Name<'a>, with: bool) {
        let before = name.before;
        // A type with its modifiers, or an alias with its columns.
        let labels = before.kind == Kind::Cast || before.keyword("as");
        // An alias without AS; it is one word.
        let aliases = before.kind == Kind::Close && name.parts == 1;
        if labels || aliases || (with && names_expression(before, name.last)) {
            return;
        }
        let class = match (name.parts, name.schema) {
            (1, _) => self.function(None, name.last).or_else(|| in_context(name)),
            (2, Some(schema)) => self.function(Some(schema), name.last),
            _ => None,
        };
        match class {
            Some(class) => {
                if let Some(finding) = Finding::of(class) {
                    self.note(finding, name.last.text);
                }
            }
            None => self.note(Finding::primary(Reason::UnknownFunction), name.last.text),
        }
    }

    fn function(&self, schema: Option<Word<'a>>, name: Word<'a>) -> Option<Class> {
        if let Some(class) = self.rules.and_then(|rules| rules.function(schema, name)) {
            return Some(class);
        }
        match schema {
            Some(schema) if !schema.names("pg_catalog") => None,
            qualified => match names::function(name.text, name.quoted) {
                // Quoted or qualified, it is a name and no grammar.
                Some(Class::Grammar) if name.quoted || qualified.is_some() => None,
                class => class,
            },
        }
    }
}

/// Whether a word at this place of a list of common table expressions is the name of one.
fn names_expression(before: Before<'_>, word: Word<'_>) -> bool {
    match before.kind {
        Kind::Comma => !word.is("recursive"),
        _ => before.keyword("recursive") || (before.keyword("with") && !word.is("recursive")),
    }
}

/// The word that was just passed is the column of a sequence, or the window function.
fn is_last_value(word: Before<'_>) -> bool {
    word.text.eq_ignore_ascii_case(b"last_value")
}

fn follows_as(name: &Name<'_>) -> bool {
    name.before.spells("as") || (name.before.spells("not") && name.earlier.spells("as"))
}

pub(super) fn is_query(word: Word<'_>) -> bool {
    ["select", "values", "table"].iter().any(|verb| word.is(verb))
}

fn is_write(word: Word<'_>) -> bool {
    ["insert", "update", "delete", "merge"].iter().any(|verb| word.is(verb))
}

/// Words that are grammar in one place, and could be the name of a function in another.
fn in_context(name: &Name<'_>) -> Option<Class> {
    let (word, before) = (name.last, name.before);
    let grammar = (word.is("by") && (before.spells("order") || before.spells("group") || before.spells("partition")))
        || ((word.is("rollup") || word.is("cube")) && before.spells("by") && name.earlier.spells("group"))
        || (word.is("sets") && before.spells("grouping"))
        || ((word.is("system") || word.is("bernoulli")) && before.spells("tablesample"))
        || ((word.is("first") || word.is("next")) && before.spells("fetch"))
        || (word.is("zone") && before.spells("time"))
        || (word.is("varying") && (before.spells("character") || before.spells("char") || before.spells("bit")))
        || (word.is("join") && joins(before))
        || (word.is("ilike") && !matches!(before.kind, Kind::Comma | Kind::Start))
        || (word.is("set") && before.spells("order"));
    grammar.then_some(Class::Grammar)
}

/// Whether `JOIN` behind this joins, rather than being called: it stands behind a relation or the kind of the join.
fn joins(before: Before<'_>) -> bool {
    match before.kind {
        Kind::Close | Kind::Label | Kind::Quoted => true,
        Kind::Keyword => {
            ["left", "right", "full", "inner", "outer", "cross", "natural"].iter().any(|kind| before.spells(kind))
                || names::function(before.text, false) != Some(Class::Grammar)
        }
        _ => false,
    }
}
