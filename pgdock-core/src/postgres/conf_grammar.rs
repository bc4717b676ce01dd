//! The grammar of `postgresql.conf` and `pg_hba.conf` (PostgreSQL documentation, sections 20.1.2 and 21.1), for files
//! that users write.
//!
//! Pure: a text goes in, its lines come out, each with its number. What the values mean is not known here.

/// A setting of a `postgresql.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The name, in lower case.
    pub(crate) name: String,
    /// The value, without quotes and escapes.
    pub(crate) value: String,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// What would be right.
    pub(crate) expected: &'static str,
    /// What stands there. Never a value.
    pub(crate) found: &'static str,
    /// What a person can do.
    pub(crate) remedy: &'static str,
}

/// Reads a `postgresql.conf`: `NAME = VALUE`, `NAME VALUE`, comments. A directive such as `include` comes out as a setting
/// of that name.
pub(crate) fn settings(text: &str) -> Vec<Result<Setting, Unreadable>> {
    (1..).zip(text.lines()).filter_map(|(line, text)| setting(line, text).transpose()).collect()
}

fn setting(line: usize, text: &str) -> Result<Option<Setting>, Unreadable> {
    let fault = |expected, found, remedy| Err(Unreadable { line, expected, found, remedy });
    let text = blanks(text);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let end = text.find(|c: char| !is_word(c) && c != '.').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !is_name(name) {
        return fault(
            "the name of a setting",
            "something else at the beginning of the line",
            "write NAME = VALUE, or begin a comment with #",
        );
    }
    let rest = blanks(rest);
    let rest = rest.strip_prefix('=').map_or(rest, blanks);
    let (value, rest) = match rest.chars().next() {
        None | Some('#') => return fault("a value", "none", "write NAME = VALUE, or take the line out"),
        Some('\'') => match quoted(&rest[1..]) {
            Some((value, end)) => (value, &rest[1 + end..]),
            None => {
                return fault("a closing quote on the same line", "none", "close the quote; write '' for one within");
            }
        },
        Some(_) => {
            let end = rest.find(|c: char| c.is_whitespace() || c == '#' || c == '\'').unwrap_or(rest.len());
            let (word, rest) = rest.split_at(end);
            if !is_unquoted(word) {
                return fault(
                    "a word, a number, or a value in quotes",
                    "something else",
                    "put the value in single quotes",
                );
            }
            (word.to_owned(), rest)
        }
    };
    let rest = blanks(rest);
    if !rest.is_empty() && !rest.starts_with('#') {
        return fault("the end of the line after the value", "more", "put the whole value in single quotes");
    }
    if value.contains('\0') {
        return fault("a value without a zero byte", "one with it", "take it out");
    }
    Ok(Some(Setting { line, name: name.to_ascii_lowercase(), value }))
}

/// Without the blanks at the beginning. A carriage return is one.
fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r'])
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

fn is_name(name: &str) -> bool {
    let part = |part: &str| part.starts_with(|c: char| is_word(c) && !c.is_ascii_digit()) && part.chars().all(is_word);
    name.split('.').count() <= 2 && name.split('.').all(part)
}

/// A value that needs no quotes: a word, or a number with its unit.
fn is_unquoted(word: &str) -> bool {
    let first = word.chars().next().unwrap_or(' ');
    if is_word(first) && !first.is_ascii_digit() {
        return word.chars().all(|c| is_word(c) || "-._:/".contains(c));
    }
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    if let Some(hex) = digits.strip_prefix("0x") {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        return end > 0 && hex[end..].chars().all(|c| c.is_ascii_alphabetic());
    }
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let rest = &digits[whole..];
    match rest.strip_prefix('.') {
        None => whole > 0 && rest.chars().all(|c| c.is_ascii_alphabetic()),
        Some(fraction) => {
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            let exponent = fraction[end..].strip_prefix(['e', 'E']);
            whole + end > 0
                && match exponent {
                    None => fraction[end..].is_empty(),
                    Some(e) => {
                        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
                        !e.is_empty() && e.chars().all(|c| c.is_ascii_digit())
                    }
                }
        }
    }
}

/// Reads from behind the opening quote to behind the closing one: the value, and how many bytes that was.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                value.push('\'');
            }
            '\'' => return Some((value, at + 1)),
            '\\' => match chars.next()?.1 {
                'b' => value.push('\u{8}'),
                'f' => value.push('\u{c}'),
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                first @ '0'..='7' => {
                    let mut octal = first.to_digit(8)?;
                    for _ in 0..2 {
                        let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else { break };
                        chars.next();
                        octal = octal * 8 + digit;
                    }
                    value.push(char::from(u8::try_from(octal & 0xff).ok()?));
                }
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// A rule of a `pg_hba.conf`, without its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The text.
    pub(crate) text: String,
}

/// Reads the rules of a `pg_hba.conf`.
pub(crate) fn rules(text: &str) -> Vec<Rule> {
    let lines =
        (1..).zip(text.lines()).map(|(line, text)| Rule { line, text: without_comment(text).trim().to_owned() });
    lines.filter(|rule| !rule.text.is_empty()).collect()
}

/// A `#` begins a comment, but within double quotes.
fn without_comment(text: &str) -> &str {
    let mut within = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => within = !within,
            '#' if !within => return &text[..at],
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::postgres::conf_file;

    fn read(text: &str) -> Vec<(String, String)> {
        settings(text).into_iter().map(|s| s.map(|s| (s.name, s.value)).unwrap()).collect()
    }

    #[test]
    fn postgresqls_own_file_is_read() {
        let text = "# comment\n\n  \t# another\nmax_connections = 100\t# (change requires restart)\r\nShared_Buffers 128MB\n\
                    log_line_prefix='%m [%p] ''q''# '\ncheckpoint_completion_target = 0.9\nwork_mem=+4MB\n\
                    datestyle = 'iso, mdy'\ntimezone = Etc/UTC\npg_stat_statements.max = 5000\nx = 'a\\tb\\101\\\\'\n\
                    seed = -1.5e-3\nbits = 0x1F\nlast = off";
        let want = [
            ("max_connections", "100"),
            ("shared_buffers", "128MB"),
            ("log_line_prefix", "%m [%p] 'q'# "),
            ("checkpoint_completion_target", "0.9"),
            ("work_mem", "+4MB"),
            ("datestyle", "iso, mdy"),
            ("timezone", "Etc/UTC"),
            ("pg_stat_statements.max", "5000"),
            ("x", "a\tbA\\"),
            ("seed", "-1.5e-3"),
            ("bits", "0x1F"),
            ("last", "off"),
        ];
        assert_eq!(read(text), want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for line in [
            "= 1",
            "a.b.c = 1",
            "9a = 1",
            "work_mem",
            "work_mem =",
            "work_mem = # no",
            "a = 'open",
            "a = 'x' y",
            "a = 1 2",
            "a = %x",
            "a = 1.2.3",
            "a = 10.0.0.1",
            "a = 1MB2",
            "a = 'x\\",
            "a == 1",
            "a = x'y'",
        ] {
            let found = settings(line);
            assert!(matches!(found.as_slice(), [Err(Unreadable { line: 1, .. })]), "{line}: {found:?}");
        }
    }

    #[test]
    fn rules_lose_their_comments_and_nothing_else() {
        let text = "# TYPE DATABASE\nhost all all 10.0.0.0/8 scram-sha-256 # office\n\n hostssl \"a#b\" all all cert\n";
        let found: Vec<_> = rules(text).into_iter().map(|r| (r.line, r.text)).collect();
        assert_eq!(
            found,
            [(2, "host all all 10.0.0.0/8 scram-sha-256".to_owned()), (4, "hostssl \"a#b\" all all cert".to_owned())]
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).*") {
            let _ = (settings(&text), rules(&text));
        }

        #[test]
        fn what_pgdock_writes_is_read_back(value in "[^\\x00]*") {
            let mut text = String::new();
            conf_file::line(&mut text, "a.b", &value);
            // The two escapes of the renderer are those of the grammar.
            prop_assert_eq!(read(&text), vec![("a.b".to_owned(), value)]);
        }
    }
}
