//! The statements of a text: what each begins with, and what they are together.

use super::classifier::Rules;
use super::finding::Finding;
use super::lexer::{Token, Word};
use super::query::{Opener, Stop, Walk, is_query};
use super::{Decision, PinTo, Reason, Target};

/// Classifies a whole text.
pub(super) fn analyse(sql: &str, rules: Option<&Rules>) -> Decision {
    let mut walk = Walk::new(sql, rules);
    let found = match Script::default().run(&mut walk) {
        Ok(found) => found,
        // The server parses the whole text before it runs any of it.
        Err(Stop(reason)) => return Finding::primary(reason).decision(),
    };
    let hints = walk.lexer.hints;
    match rules.is_none_or(|rules| rules.hints) {
        true if hints.primary => found.hinted_primary(),
        true if hints.replica => found.hinted_replica(),
        _ => found,
    }
    .decision()
}

/// What carries over from one statement of a text to the next.
#[derive(Debug, Default)]
struct Script {
    /// The connection that an open transaction of this text would leave pinned.
    transaction: Option<Finding>,
}

impl Script {
    fn run(mut self, walk: &mut Walk<'_>) -> Result<Finding, Stop> {
        let mut total = Finding::EMPTY;
        loop {
            let token = walk.next()?;
            match token {
                Token::End => break,
                Token::Semicolon => continue,
                _ => {}
            }
            walk.finding = Finding::READ;
            let end = self.statement(walk, token)?;
            total.add_statement(walk.finding);
            if end == Token::End {
                break;
            }
        }
        if let Some(left_open) = self.transaction {
            total.add(left_open);
        }
        Ok(total)
    }

    /// Reads a statement to its end, from its first token. Returns what ended it.
    fn statement<'a>(&mut self, walk: &mut Walk<'a>, first: Token<'a>) -> Result<Token<'a>, Stop> {
        let word = match first {
            Token::Word(word) if !word.quoted => word,
            Token::Open => {
                walk.group(Opener::Query)?;
                return walk.group(Opener::Statement { with: false });
            }
            _ => {
                walk.finding.add(Finding::primary(Reason::UnknownStatement));
                return skip(walk);
            }
        };
        if word.is("select") {
            return walk.group(Opener::Statement { with: false });
        }
        let mut buffer = [0; 16];
        let verb = buffer.get_mut(..word.text.len()).map_or(&b""[..], |buffer| {
            buffer.copy_from_slice(word.text);
            buffer.make_ascii_lowercase();
            &*buffer
        });
        let found = match verb {
            b"values" | b"table" => return walk.group(Opener::Statement { with: false }),
            b"with" => return walk.group(Opener::Statement { with: true }),
            b"insert" | b"update" | b"delete" | b"merge" | b"truncate" | b"drop" | b"grant" | b"revoke"
            | b"comment" | b"analyze" | b"analyse" | b"vacuum" | b"reindex" | b"cluster" | b"refresh" | b"reassign"
            | b"security" | b"import" | b"call" | b"do" | b"notify" => Finding::primary(Reason::Write),
            b"create" => return create(walk, word),
            b"alter" => return alter(walk, word),
            b"show" => Finding::READ,
            b"set" => return self.set(walk, word),
            b"reset" => Finding::new(Target::All, Reason::Setting),
            b"explain" => return self.explain(walk),
            b"copy" => return copy(walk, word),
            b"begin" | b"start" => return self.begin(walk, word),
            b"commit" | b"end" | b"rollback" | b"abort" => return self.finish(walk, word),
            b"savepoint" | b"release" => match self.transaction {
                Some(_) => return skip(walk),
                None => Finding::pin(PinTo::Current, Reason::Transaction).sticking(true),
            },
            // Inside a block of this text the lock ends with the text.
            b"lock" => match self.transaction {
                Some(_) => Finding::primary(Reason::Transaction),
                None => Finding::pin(PinTo::Primary, Reason::Transaction),
            },
            b"prepare" => return self.prepare(walk, word),
            b"declare" => return self.declare(walk, word),
            b"execute" | b"deallocate" | b"fetch" | b"move" | b"close" | b"unlisten" | b"discard" => {
                Finding::pin(PinTo::Current, Reason::SessionState)
            }
            b"listen" => Finding::pin(PinTo::Primary, Reason::SessionState),
            b"load" => Finding::pin(PinTo::Any, Reason::SessionState),
            b"checkpoint" => Finding::primary(Reason::NodeLocal),
            _ => Finding::primary(Reason::UnknownStatement),
        };
        walk.finding.add(found.at(walk.lexer.span(word.text)));
        skip(walk)
    }

    fn set<'a>(&mut self, walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
        let mut token = walk.next()?;
        let local = matches!(token, Token::Word(word) if word.is("local"));
        if local {
            token = walk.next()?;
        }
        let within = matches!(token, Token::Word(word) if word.is("transaction") || word.is("constraints"));
        let found = match self.transaction {
            _ if !local && !within => Some(Finding::new(Target::All, Reason::Setting)),
            None => Some(Finding::pin(PinTo::Current, Reason::Setting)),
            // A standby refuses some modes, whichever way they are spelt.
            Some(_) if is_transaction_mode(token) => Some(Finding::primary(Reason::Transaction)),
            Some(_) => None,
        };
        if let Some(found) = found {
            walk.finding.add(found.at(walk.lexer.span(verb.text)));
        }
        skip_from(walk, token)
    }

    fn begin<'a>(&mut self, walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
        let (mut read_only, mut serializable, mut after_read) = (false, false, false);
        let end = loop {
            match walk.next()? {
                Token::Word(word) => {
                    serializable |= word.is("serializable");
                    if after_read && (word.is("only") || word.is("write")) {
                        read_only = word.is("only");
                    }
                    after_read = word.is("read");
                }
                end @ (Token::Semicolon | Token::End) => break end,
                _ => {}
            }
        };
        // A hot standby refuses SERIALIZABLE even to those who only read.
        if serializable {
            walk.finding.add(Finding::primary(Reason::Transaction).at(walk.lexer.span(verb.text)));
        }
        let pin = if read_only && !serializable { PinTo::Any } else { PinTo::Primary };
        self.transaction = Some(Finding::pin(pin, Reason::Transaction).at(walk.lexer.span(verb.text)));
        Ok(end)
    }

    fn finish<'a>(&mut self, walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
        let (mut prepared, mut stays_open, mut before) = (false, false, None);
        let end = loop {
            let token = walk.next()?;
            match token {
                Token::Word(word) => {
                    prepared |= word.is("prepared");
                    // ROLLBACK TO a savepoint, and AND CHAIN, leave a transaction open; AND NO CHAIN does not.
                    stays_open |=
                        word.is("to") || (word.is("chain") && before.is_some_and(|word: Word<'_>| word.is("and")));
                    before = Some(word);
                }
                Token::Semicolon | Token::End => break token,
                _ => before = None,
            }
        };
        let found = if prepared {
            Finding::primary(Reason::Write)
        } else if self.transaction.is_none() {
            Finding::pin(PinTo::Current, Reason::Transaction).sticking(true)
        } else {
            if !stays_open {
                self.transaction = None;
            }
            return Ok(end);
        };
        walk.finding.add(found.at(walk.lexer.span(verb.text)));
        Ok(end)
    }

    /// `EXPLAIN` runs its statement only with `ANALYZE`.
    fn explain<'a>(&mut self, walk: &mut Walk<'a>) -> Result<Token<'a>, Stop> {
        let mut analyze = false;
        let mut token = walk.next()?;
        if token == Token::Open {
            let ahead = walk.lexer.clone().next();
            // EXPLAIN (SELECT …) has no options.
            if ahead != Token::Open && !matches!(ahead, Token::Word(word) if is_query(word) || word.is("with")) {
                analyze = explain_options(walk)?;
                token = walk.next()?;
            }
        } else {
            while let Token::Word(word) = token
                && (word.is("analyze") || word.is("analyse") || word.is("verbose"))
            {
                analyze |= !word.is("verbose");
                token = walk.next()?;
            }
        }
        let end = self.statement(walk, token)?;
        if !analyze {
            walk.finding = walk.finding.planned();
        }
        Ok(end)
    }

    fn prepare<'a>(&mut self, walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
        let mut token = walk.next()?;
        if matches!(token, Token::Word(word) if word.is("transaction")) {
            // It ends the transaction of the connection, which lives on without it.
            let found = match self.transaction.take() {
                Some(_) => Finding::primary(Reason::Write),
                None => Finding::pin(PinTo::Current, Reason::Transaction).sticking(true),
            };
            walk.finding.add(found.at(walk.lexer.span(verb.text)));
            return skip(walk);
        }
        while !matches!(token, Token::Word(word) if word.is("as")) {
            if matches!(token, Token::Semicolon | Token::End) {
                return Err(Stop(Reason::Unreadable));
            }
            token = walk.next()?;
        }
        let token = walk.next()?;
        let end = self.statement(walk, token)?;
        let pin = if walk.finding.is_read() { PinTo::Any } else { PinTo::Primary };
        let found = Finding::pin(pin, Reason::SessionState).at(walk.lexer.span(verb.text));
        walk.finding.add(found);
        walk.finding.sticks = false;
        Ok(end)
    }

    fn declare<'a>(&mut self, walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
        let (mut hold, mut without) = (false, false);
        loop {
            match walk.next()? {
                Token::Word(word) if word.is("for") => break,
                Token::Word(word) => {
                    without |= word.is("without");
                    hold |= word.is("hold") && !without;
                }
                Token::Semicolon | Token::End => return Err(Stop(Reason::Unreadable)),
                _ => {}
            }
        }
        let token = walk.next()?;
        let end = self.statement(walk, token)?;
        let pin = match walk.finding.is_read() {
            true if hold => PinTo::Any,
            true => PinTo::Current,
            false => PinTo::Primary,
        };
        let found = Finding::pin(pin, Reason::SessionState).at(walk.lexer.span(verb.text));
        walk.finding.add(found);
        Ok(end)
    }
}

/// Whether a setting is one of `transaction_isolation` and its kin, or `SET TRANSACTION` itself.
fn is_transaction_mode(token: Token<'_>) -> bool {
    let prefix = b"transaction";
    matches!(token, Token::Word(word) if word.text.len() >= prefix.len()
        && word.text[..prefix.len()].eq_ignore_ascii_case(prefix))
}

/// The options in parentheses. Returns whether the statement is run.
fn explain_options(walk: &mut Walk<'_>) -> Result<bool, Stop> {
    let (mut analyze, mut option) = (false, None);
    loop {
        match walk.next()? {
            Token::Word(word) if option.is_none() => {
                option = Some(word);
                analyze |= word.is("analyze") || word.is("analyse");
            }
            Token::Word(word) if is_analyze(option) && (word.is("false") || word.is("off")) => analyze = false,
            Token::Number(b"0") if is_analyze(option) => analyze = false,
            Token::Comma => option = None,
            Token::Close => return Ok(analyze),
            Token::Open | Token::Semicolon | Token::End => return Err(Stop(Reason::Unreadable)),
            _ => {}
        }
    }
}

fn is_analyze(option: Option<Word<'_>>) -> bool {
    option.is_some_and(|word| word.is("analyze") || word.is("analyse"))
}

/// `COPY` reads when it copies a relation or a query to the client.
fn copy<'a>(walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
    let mut token = walk.next()?;
    if token == Token::Open {
        walk.group(Opener::Query)?;
        token = walk.next()?;
    }
    loop {
        match token {
            Token::Word(word) if word.is("to") => break,
            Token::Word(word) if word.is("from") => {
                walk.finding.add(Finding::primary(Reason::Write).at(walk.lexer.span(verb.text)));
                return skip(walk);
            }
            Token::Word(word) => walk.relation(word),
            Token::Semicolon | Token::End => return Err(Stop(Reason::Unreadable)),
            _ => {}
        }
        token = walk.next()?;
    }
    // A file or a program is on one server; and a standby would not refuse.
    let token = walk.next()?;
    if !matches!(token, Token::Word(word) if word.is("stdout") || word.is("stdin")) {
        walk.finding.add(Finding::primary(Reason::NodeLocal).at(walk.lexer.span(verb.text)));
    }
    skip_from(walk, token)
}

fn create<'a>(walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
    let mut token = walk.next()?;
    while let Token::Word(word) = token
        && ["or", "replace", "global", "local"].iter().any(|skipped| word.is(skipped))
    {
        token = walk.next()?;
    }
    let temporary = matches!(token, Token::Word(word) if word.is("temp") || word.is("temporary"));
    let found = match temporary {
        true => Finding::pin(PinTo::Primary, Reason::Temporary).sticking(true),
        false => Finding::primary(Reason::Write),
    };
    walk.finding.add(found.at(walk.lexer.span(verb.text)));
    // The body of a function in SQL holds statements that are not this text's.
    let mut begins = false;
    loop {
        match token {
            Token::Word(word) if begins && word.is("atomic") => {
                while token != Token::End {
                    token = walk.next()?;
                }
                return Ok(token);
            }
            Token::Word(word) => {
                walk.relation(word);
                begins = word.is("begin");
            }
            Token::Open => _ = skip_parentheses(walk)?,
            Token::Semicolon | Token::End => return Ok(token),
            _ => begins = false,
        }
        token = walk.next()?;
    }
}

fn alter<'a>(walk: &mut Walk<'a>, verb: Word<'a>) -> Result<Token<'a>, Stop> {
    let token = walk.next()?;
    let system = matches!(token, Token::Word(word) if word.is("system"));
    let reason = if system { Reason::NodeLocal } else { Reason::Write };
    walk.finding.add(Finding::primary(reason).at(walk.lexer.span(verb.text)));
    skip_from(walk, token)
}

/// Passes the rest of a statement about which enough is known. Temporary objects still count.
fn skip<'a>(walk: &mut Walk<'a>) -> Result<Token<'a>, Stop> {
    let token = walk.next()?;
    skip_from(walk, token)
}

fn skip_from<'a>(walk: &mut Walk<'a>, mut token: Token<'a>) -> Result<Token<'a>, Stop> {
    loop {
        match token {
            Token::Semicolon | Token::End => return Ok(token),
            Token::Close => return Err(Stop(Reason::Unreadable)),
            Token::Open => _ = skip_parentheses(walk)?,
            Token::Word(word) if word.names("pg_temp") => walk.relation(word),
            _ => {}
        }
        token = walk.next()?;
    }
}

/// Passes everything to the parenthesis that closes the one just opened, without a limit to the depth.
fn skip_parentheses<'a>(walk: &mut Walk<'a>) -> Result<Token<'a>, Stop> {
    let mut depth = 1_u64;
    loop {
        let token = walk.next()?;
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::End => return Err(Stop(Reason::Unreadable)),
            Token::Word(word) if word.names("pg_temp") => walk.relation(word),
            _ => {}
        }
        if depth == 0 {
            return Ok(token);
        }
    }
}
