//! PostgreSQL's lexical rules, without copying a byte.
//!
//! It follows `scan.l` with `standard_conforming_strings` on, the default since PostgreSQL 9.1. Where versions differ
//! (white space after a number, `\v`) it reads what the laxer one reads.

/// One lexical element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier, without its quotes if it has any.
    Word(Word<'a>),
    /// A string, bit string or dollar-quoted literal, or a parameter.
    Literal,
    /// A number; its text, since `EXPLAIN (ANALYZE 0)` needs it.
    Number(&'a [u8]),
    /// An operator, `:=` and `=>` among them.
    Operator(&'a [u8]),
    /// `::`
    Cast,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `;`
    Semicolon,
    /// `[`, `]` and a lone `:`
    Other,
    /// The end of the text.
    End,
    /// Something that PostgreSQL would refuse, or that this lexer cannot vouch for.
    Invalid,
}

/// A keyword or an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The bytes, as written.
    pub(super) text: &'a [u8],
    /// Between quotes: never a keyword, and case matters.
    pub(super) quoted: bool,
}

impl Word<'_> {
    /// Whether it is this keyword, given in lower case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// Whether it names this identifier, given in lower case.
    pub(super) fn names(&self, identifier: &str) -> bool {
        if self.quoted { self.text == identifier.as_bytes() } else { self.is(identifier) }
    }
}

/// What a comment asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) primary: bool,
    pub(super) replica: bool,
}

/// Walks over the text, one token at a time.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Hints of the comments that were passed so far.
    pub(super) hints: Hints,
}

const fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn continues_word(byte: u8) -> bool {
    WORD[byte as usize]
}

const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = begins_word(byte as u8) || (byte as u8).is_ascii_digit() || byte as u8 == b'$';
        byte += 1;
    }
    table
};

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0, hints: Hints::default() }
    }

    /// Where a part of the text begins, and how long it is.
    pub(super) fn span(&self, part: &'a [u8]) -> (usize, usize) {
        (part.as_ptr().addr() - self.text.as_ptr().addr(), part.len())
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn advance(&mut self, bytes: usize, token: Token<'a>) -> Token<'a> {
        self.at += bytes;
        token
    }

    /// The next token; after the end, or after an invalid one, the same again.
    pub(super) fn next(&mut self) -> Token<'a> {
        loop {
            let Some(&byte) = self.text.get(self.at) else { return Token::End };
            return match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                    self.at += 1;
                    continue;
                }
                b'-' if self.peek(1) == b'-' => {
                    self.line_comment();
                    continue;
                }
                b'/' if self.peek(1) == b'*' => {
                    if !self.block_comment() {
                        return Token::Invalid;
                    }
                    continue;
                }
                b'\'' => self.string(1, false),
                b'"' => self.quoted_word(1),
                b'$' => self.dollar(),
                b'(' => self.advance(1, Token::Open),
                b')' => self.advance(1, Token::Close),
                b',' => self.advance(1, Token::Comma),
                b';' => self.advance(1, Token::Semicolon),
                b'[' | b']' => self.advance(1, Token::Other),
                b'.' if !self.peek(1).is_ascii_digit() => self.advance(1, Token::Dot),
                b'.' | b'0'..=b'9' => self.number(),
                b':' if self.peek(1) == b':' => self.advance(2, Token::Cast),
                b':' if self.peek(1) == b'=' => self.advance(2, Token::Operator(b":=")),
                b':' => self.advance(1, Token::Other),
                _ if begins_word(byte) => self.word(),
                _ if is_operator(byte) => self.operator(),
                _ => Token::Invalid,
            };
        }
    }

    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        // A prefix belongs to the literal only when nothing stands between them.
        match (self.text[start], self.peek(1)) {
            (b'e' | b'E', b'\'') => return self.string(2, true),
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'') => return self.string(2, false),
            (b'u' | b'U', b'&') if self.peek(2) == b'\'' => return self.string(3, false),
            // Escapes stay as written, so that a name with escapes is no name that anyone knows.
            (b'u' | b'U', b'&') if self.peek(2) == b'"' => return self.quoted_word(3),
            _ => {}
        }
        let rest = &self.text[start..];
        let end = start + rest.iter().position(|byte| !continues_word(*byte)).unwrap_or(rest.len());
        self.at = end;
        Token::Word(Word { text: &self.text[start..end], quoted: false })
    }

    /// An identifier whose opening quote is the last of `prefix` bytes.
    fn quoted_word(&mut self, prefix: usize) -> Token<'a> {
        let start = self.at + prefix;
        let mut end = start;
        loop {
            match self.text.get(end) {
                Some(b'"') if self.text.get(end + 1) == Some(&b'"') => end += 2,
                // PostgreSQL refuses an empty one.
                Some(b'"') if end > start => break,
                None | Some(b'"' | 0) => return Token::Invalid,
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        Token::Word(Word { text: &self.text[start..end], quoted: true })
    }

    /// A literal whose opening quote is the last of `prefix` bytes.
    fn string(&mut self, prefix: usize, escapes: bool) -> Token<'a> {
        let mut at = self.at + prefix;
        loop {
            match self.text.get(at) {
                None | Some(0) => return Token::Invalid,
                Some(b'\'') if self.text.get(at + 1) == Some(&b'\'') => at += 2,
                Some(b'\'') => match self.continuation(at + 1) {
                    // The rest of an escape string keeps its escapes; of a plain one it is just another literal.
                    Some(next) if escapes => at = next,
                    _ => break,
                },
                Some(b'\\') if escapes => at += 2,
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        Token::Literal
    }

    /// Behind a closing quote: the first byte of a continuation, which a newline and nothing but white space and
    /// line comments may precede.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match self.text.get(at)? {
                b'\'' if newline => return Some(at + 1),
                b'-' if self.text.get(at + 1) == Some(&b'-') => {
                    while !matches!(self.text.get(at), None | Some(b'\n' | b'\r')) {
                        at += 1;
                    }
                }
                byte if is_space(*byte) => {
                    newline |= matches!(byte, b'\n' | b'\r');
                    at += 1;
                }
                _ => return None,
            }
        }
    }

    /// `$1`, or a literal between `$tag$`.
    fn dollar(&mut self) -> Token<'a> {
        let start = self.at;
        let mut end = start + 1;
        if self.peek(1).is_ascii_digit() {
            while self.text.get(end).is_some_and(u8::is_ascii_digit) {
                end += 1;
            }
            self.at = end;
            return Token::Literal;
        }
        while self.text.get(end).is_some_and(|byte| continues_word(*byte) && *byte != b'$') {
            end += 1;
        }
        if self.text.get(end) != Some(&b'$') {
            return Token::Invalid;
        }
        let tag = &self.text[start..=end];
        let mut at = end + 1;
        while let Some(found) = self.text[at..].iter().position(|byte| matches!(byte, b'$' | 0)) {
            at += found;
            if self.text[at] == 0 {
                return Token::Invalid;
            }
            if self.text[at..].starts_with(tag) {
                self.at = at + tag.len();
                return Token::Literal;
            }
            at += 1;
        }
        Token::Invalid
    }

    /// Digits, a point and digits. An exponent is left to the next word, where it does no harm.
    fn number(&mut self) -> Token<'a> {
        let start = self.at;
        let mut end = start;
        while self.text.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        // `1..2` is a range in PL/pgSQL: the points are not the number's.
        if self.text.get(end) == Some(&b'.') && self.text.get(end + 1) != Some(&b'.') {
            end += 1;
            while self.text.get(end).is_some_and(u8::is_ascii_digit) {
                end += 1;
            }
        }
        self.at = end;
        Token::Number(&self.text[start..end])
    }

    fn operator(&mut self) -> Token<'a> {
        let start = self.at;
        let mut end = start;
        while end < self.text.len() && is_operator(self.text[end]) {
            // A comment ends an operator.
            if end > start && matches!(self.text[end..], [b'-', b'-', ..] | [b'/', b'*', ..]) {
                break;
            }
            end += 1;
        }
        // An operator ends in + or - only when it has one of these; else the sign belongs to what follows.
        let special = |byte: &u8| matches!(byte, b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?');
        while end > start + 1 && matches!(self.text[end - 1], b'+' | b'-') && !self.text[start..end].iter().any(special)
        {
            end -= 1;
        }
        self.at = end;
        Token::Operator(&self.text[start..end])
    }

    fn line_comment(&mut self) {
        let start = self.at + 2;
        let rest = &self.text[start..];
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        self.at = start + length;
        self.hint(&rest[..length]);
    }

    /// Passes a comment and those within it; false when it does not end.
    fn block_comment(&mut self) -> bool {
        let start = self.at + 2;
        let (mut at, mut depth) = (start, 1_u32);
        while depth > 0 {
            match self.text[at..] {
                [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                [] | [0, ..] => return false,
                _ => at += 1,
            }
        }
        self.at = at;
        self.hint(&self.text[start..at - 2]);
        true
    }

    fn hint(&mut self, comment: &[u8]) {
        let Some((name, value)) = comment.iter().position(|byte| *byte == b':').map(|colon| comment.split_at(colon))
        else {
            return;
        };
        if name.trim_ascii().eq_ignore_ascii_case(b"pgdock") {
            let value = value[1..].trim_ascii();
            self.hints.primary |= value.eq_ignore_ascii_case(b"primary");
            self.hints.replica |= value.eq_ignore_ascii_case(b"replica");
        }
    }
}
