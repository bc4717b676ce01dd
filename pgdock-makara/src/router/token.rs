//! A place in the history of a cluster, small enough to travel with a message.

use std::fmt;
use std::str::FromStr;

/// Where a commit lies in the WAL: whoever has replayed up to there sees it.
///
/// It means something on its timeline alone. After a failover, positions of the old timeline prove nothing: what they
/// name may be lost, and something else may stand there.
///
/// Its text travels in headers, messages and rows:
///
/// ```
/// use pgdock_makara::CommitToken;
///
/// let token: CommitToken = "7301234567890123456:3:1A/2B3C4D5E".parse()?;
/// assert_eq!((token.timeline, token.lsn), (3, 0x1A_2B3C_4D5E));
/// assert_eq!(token.to_string(), "7301234567890123456:3:1A/2B3C4D5E");
/// # Ok::<(), pgdock_makara::TokenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitToken {
    /// The system identifier of the cluster.
    pub system: u64,
    /// The timeline of the position.
    pub timeline: u32,
    /// The position: the end of the commit, or later.
    pub lsn: u64,
}

/// A text is no [`CommitToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenError(());

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a commit token: expected system:timeline:lsn, such as 7301234567890123456:3:1A/2B3C4D5E")
    }
}

impl std::error::Error for TokenError {}

impl CommitToken {
    /// The later of two, by timeline and position. Of two clusters, `other`.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        let place = |token: &Self| (token.timeline, token.lsn);
        if self.system == other.system && place(&self) > place(&other) { self } else { other }
    }
}

impl fmt::Display for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:X}/{:X}", self.system, self.timeline, self.lsn >> 32, self.lsn & 0xFFFF_FFFF)
    }
}

impl FromStr for CommitToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parse = || {
            let (system, rest) = text.split_once(':')?;
            let (timeline, lsn) = rest.split_once(':')?;
            let (high, low) = lsn.split_once('/')?;
            // `from_str_radix` would take a sign.
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if ![system, timeline, high, low].into_iter().all(digits) {
                return None;
            }
            let half = |part: &str| u32::from_str_radix(part, 16).ok().map(u64::from);
            Some(Self {
                system: system.parse().ok()?,
                timeline: timeline.parse().ok()?,
                lsn: half(high)? << 32 | half(low)?,
            })
        };
        parse().ok_or(TokenError(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        for (system, timeline, lsn) in [(0, 0, 0), (u64::MAX, u32::MAX, u64::MAX), (7, 1, 0x1_0000_0000)] {
            let token = CommitToken { system, timeline, lsn };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in
            ["", "1", "1:1", "1:1:1", "1:1:1/", "1:1:1/G", "+1:1:1/1", "1:-1:1/1", "1:1:+1/1", "1:1:1/100000000"]
        {
            assert!(text.parse::<CommitToken>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_later_one_is_further_or_on_a_newer_timeline() {
        let token = |system, timeline, lsn| CommitToken { system, timeline, lsn };
        assert_eq!(token(1, 1, 5).later(token(1, 1, 4)), token(1, 1, 5));
        assert_eq!(token(1, 1, 5).later(token(1, 2, 4)), token(1, 2, 4));
        assert_eq!(token(1, 2, 5).later(token(2, 1, 4)), token(2, 1, 4));
    }
}
