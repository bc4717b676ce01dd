//! The picture of a run: for each node what was done to it, what it was, and what it acknowledged.
//!
//! ```text
//!  no write acknowledged    ▮ 0.8 s                 ▮ 1.2 s
//!  n1   faults              ▬ kill -9 agent
//!       role                ██████████▒▒▒░░░░░░░░░░░░░░░░░░
//!       acknowledged        ▃▄▃▄▃▄▃▄▃
//!  n2   …
//!       seconds             0        10        20
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::client::ROAMING;
use super::history::{Facts, Micros, Outcome, Seen, Span};
use super::lab::WITNESS;
use super::verdict::{Verdict, seconds};

/// Times without an acknowledgement that are worth showing are longer than this.
const GAP: Micros = 300_000;

/// Where time begins and ends, in pixels.
const LEFT: f64 = 118.0;
const RIGHT: f64 = 24.0;
/// How wide the picture is at least and at most, and how wide a second would be.
const WIDTH_MIN: f64 = 1180.0;
const WIDTH_MAX: f64 = 7000.0;
const SECOND: f64 = 14.0;

/// Heights of what belongs to a node.
const LABEL: f64 = 16.0;
const ROLE: f64 = 20.0;
const ACKS: f64 = 26.0;
const SPACE: f64 = 20.0;
/// How wide a bar of the acknowledgements is.
const BAR: f64 = 2.0;
/// How wide a letter is, about.
const LETTER: f64 = 5.9;

const INK: &str = "#22313f";
const FAINT: &str = "#8794a0";
const FAULT: &str = "#cf3f3a";
const ACK: &str = "#0f7b5f";

/// What a node can be seen to be, as the picture shows it.
const SEEN: [(Seen, &str, &str); 6] = [
    (Seen::Primary, "primary", "#1d9a78"),
    (Seen::Waiting, "takes writes, acknowledges none", "#f0b429"),
    (Seen::Standby, "standby", "#a9cbe8"),
    (Seen::Starting, "starting or stopping", "#cdbbe6"),
    (Seen::Stopped, "down", "#7d8791"),
    (Seen::Silent, "does not answer", "#e8e4da"),
];

/// The times in which no client that goes wherever the primary is was acknowledged anything.
#[must_use]
pub fn gaps(facts: &Facts) -> Vec<(Micros, Micros)> {
    let roaming = facts.writes.iter().filter(|w| w.client < ROAMING && matches!(w.outcome, Outcome::Acknowledged(_)));
    let mut acks: Vec<_> = roaming.map(|w| w.ended).collect();
    acks.sort_unstable();
    acks.windows(2).filter(|w| w[1] - w[0] > GAP).map(|w| (w[0], w[1])).collect()
}

/// Draws it, as SVG.
#[must_use]
pub fn draw(facts: &Facts, title: &str, verdict: &Verdict) -> String {
    let time = seconds(facts.end).max(1.0);
    let width = (LEFT + RIGHT + time * SECOND).clamp(WIDTH_MIN, WIDTH_MAX);
    let mut sheet = Sheet { body: String::new(), width, per_second: (width - LEFT - RIGHT) / time, y: 0.0 };
    sheet.head(title, verdict);
    let top = sheet.y;
    sheet.gaps(&gaps(facts));
    for (i, node) in (0u16..).zip(&facts.nodes) {
        sheet.node(facts, i, node);
    }
    sheet.witness(facts);
    let bottom = sheet.y;
    sheet.axis(time, top, bottom, &facts.settled);
    sheet.legend();
    sheet.finish()
}

struct Sheet {
    body: String,
    width: f64,
    per_second: f64,
    /// How far down it is drawn.
    y: f64,
}

impl Sheet {
    fn x(&self, at: Micros) -> f64 {
        LEFT + seconds(at) * self.per_second
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str, more: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" fill="{fill}"{more}/>"#,
            width.max(0.8)
        );
    }

    fn text(&mut self, (x, y): (f64, f64), text: &str, more: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}"{more}>{text}</text>"#);
    }

    fn head(&mut self, title: &str, verdict: &Verdict) {
        self.text((16.0, 28.0), title, r#" class="title""#);
        let Verdict { acknowledged, unknown, lost, reigns, .. } = verdict;
        let found = format!(
            "{acknowledged} writes acknowledged, {unknown} of unknown outcome, {lost} lost · {reigns} reigns · {}",
            match verdict.violations.first() {
                None => "nothing that must not be",
                Some(first) => first.lines().next().unwrap_or_default(),
            }
        );
        let colour = if verdict.passed() { ACK } else { FAULT };
        self.text((16.0, 47.0), &found, &format!(r#" fill="{colour}""#));
        self.y = 72.0;
    }

    /// When nobody could write, and for how long.
    fn gaps(&mut self, gaps: &[(Micros, Micros)]) {
        self.text((16.0, self.y + 11.0), "no write", r#" class="name""#);
        let (y, mut free) = (self.y, LEFT);
        for (from, to) in gaps {
            let (x, width) = (self.x(*from), seconds(to - from) * self.per_second);
            self.rect((x, y), (width, 12.0), FAULT, r#" opacity="0.8" rx="2""#);
            let label = format!("{:.1} s", seconds(to - from));
            let (at, length) = (x + width + 3.0, letters(&label));
            // Where they stand too close, the marks speak for themselves.
            if at >= free {
                self.text((at, y + 10.0), &label, &format!(r#" fill="{FAULT}""#));
                free = at + length;
            }
        }
        self.y += 12.0 + SPACE;
    }

    fn node(&mut self, facts: &Facts, index: u16, node: &str) {
        self.faults(&facts.spans, node, facts.end);
        let mut since: Option<(Micros, Seen)> = None;
        let own = facts.seen.iter().filter(|(_, n, _)| *n == index).map(|(at, _, seen)| (*at, Some(*seen)));
        for (at, seen) in own.chain([(facts.end, None)]) {
            if let Some((from, was)) = since {
                let colour = SEEN.iter().find(|(s, ..)| *s == was).map_or("none", |(_, _, colour)| colour);
                self.rect((self.x(from), self.y), (seconds(at - from) * self.per_second, ROLE), colour, "");
            }
            since = seen.map(|seen| (at, seen));
        }
        self.text((16.0, self.y + 15.0), node, r#" class="node""#);
        self.text((LEFT - 8.0, self.y + 14.0), "role", r#" class="name" text-anchor="end""#);
        self.y += ROLE + 3.0;
        self.acknowledged(facts, index);
        self.text((LEFT - 8.0, self.y + ACKS - 4.0), "writes", r#" class="name" text-anchor="end""#);
        self.y += ACKS;
        self.y += SPACE;
    }

    fn witness(&mut self, facts: &Facts) {
        if !facts.spans.iter().any(|span| span.host == WITNESS) {
            return;
        }
        let top = self.y;
        self.faults(&facts.spans, WITNESS, facts.end);
        self.text((16.0, top + 12.0), WITNESS, r#" class="node""#);
        self.y += SPACE - 6.0;
    }

    /// What was done to a host: a bar each, with its name behind it, in as many rows as are needed.
    fn faults(&mut self, spans: &[Span], host: &str, end: Micros) {
        let mut rows: Vec<f64> = Vec::new();
        for span in spans.iter().filter(|span| span.host == host) {
            let to = span.to.unwrap_or(end);
            let (x, width) = (self.x(span.from), (seconds(to - span.from) * self.per_second).max(2.0));
            let length = letters(&span.what) + 4.0;
            // Within the bar where there is room, behind it otherwise, before it at the right end.
            let within = length + 4.0 < width;
            let before = !within && x + width + length > self.width - 4.0;
            let (begin, until) = match (within, before) {
                (true, _) => (x, x + width),
                (_, true) => (x - length, x + width),
                _ => (x, x + width + length),
            };
            let row = rows.iter().position(|free| *free <= begin).unwrap_or(rows.len());
            if row == rows.len() {
                rows.push(0.0);
            }
            rows[row] = until + 6.0;
            #[expect(clippy::cast_precision_loss, reason = "a few rows")]
            let y = self.y + row as f64 * LABEL;
            self.rect((x, y), (width, LABEL - 3.0), FAULT, r#" opacity="0.85" rx="2""#);
            let (at, fill) = match (within, before) {
                (true, _) => (x + 4.0, "#ffffff"),
                (_, true) => (x - length, FAULT),
                _ => (x + width + 3.0, FAULT),
            };
            self.text((at, y + 10.0), &span.what, &format!(r#" fill="{fill}""#));
        }
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let height = rows.len().max(1) as f64 * LABEL;
        self.y += height + 2.0;
    }

    /// How much a node acknowledged: the highest bar is the most that any did.
    fn acknowledged(&mut self, facts: &Facts, index: u16) {
        let mut bars = vec![BTreeMap::<u64, u32>::new(); facts.nodes.len()];
        for write in facts.writes.iter().filter(|w| matches!(w.outcome, Outcome::Acknowledged(_))) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place on the sheet")]
            let bar = ((self.x(write.ended) - LEFT) / BAR) as u64;
            *bars[usize::from(write.node)].entry(bar).or_default() += 1;
        }
        let most = bars.iter().flat_map(BTreeMap::values).copied().max().unwrap_or(1);
        let y = self.y;
        self.rect((LEFT, y + ACKS), (self.width - LEFT - RIGHT, 0.8), "#d5dade", "");
        for (&bar, &count) in &bars[usize::from(index)] {
            let height = (f64::from(count) / f64::from(most) * ACKS).max(2.0);
            #[expect(clippy::cast_precision_loss, reason = "a place on the sheet")]
            let x = LEFT + bar as f64 * BAR;
            self.rect((x, y + ACKS - height), (BAR - 0.3, height), ACK, "");
        }
    }

    fn axis(&mut self, time: f64, top: f64, bottom: f64, settled: &[Micros]) {
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]
            .into_iter()
            .find(|step| step * self.per_second >= 64.0)
            .unwrap_or(600.0);
        let mut lines = String::new();
        let mut at = 0.0;
        while at <= time {
            let x = LEFT + at * self.per_second;
            let _ = writeln!(
                lines,
                r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="#e7ebee"/>"##,
                top - 4.0
            );
            let label =
                if at >= 60.0 { format!("{}:{:02}", at as u64 / 60, at as u64 % 60) } else { format!("{at} s") };
            self.text((x, bottom + 14.0), &label, r#" class="name" text-anchor="middle""#);
            at += step;
        }
        // Behind everything.
        self.body.insert_str(0, &lines);
        for at in settled {
            let x = self.x(*at);
            let _ = writeln!(self.body, r##"<path d="M{x:.1} {:.1} l-4 7 h8 z" fill="#1d9a78"/>"##, bottom - 6.0);
        }
        self.y = bottom + 26.0;
    }

    fn legend(&mut self) {
        let (y, mut x) = (self.y + 6.0, LEFT);
        for (_, text, colour) in SEEN {
            self.rect((x, y), (14.0, 11.0), colour, r#" rx="2""#);
            self.text((x + 18.0, y + 9.5), text, r#" class="name""#);
            x += letters(text) + 34.0;
        }
        self.rect((x, y), (14.0, 11.0), FAULT, r#" rx="2""#);
        self.text((x + 18.0, y + 9.5), "fault", r#" class="name""#);
        x += letters("fault") + 34.0;
        self.rect((x, y), (14.0, 11.0), ACK, "");
        self.text((x + 18.0, y + 9.5), "acknowledged", r#" class="name""#);
        x += letters("acknowledged") + 34.0;
        let _ = writeln!(self.body, r##"<path d="M{x:.1} {y:.1} l-5 9 h10 z" fill="#1d9a78"/>"##);
        self.text((x + 10.0, y + 9.5), "all well again", r#" class="name""#);
        self.y = y + 26.0;
    }

    fn finish(self) -> String {
        let (width, height) = (self.width, self.y);
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="10.5" fill="{INK}">
<style>.title{{font-size:16px;font-weight:bold}}.node{{font-size:13px;font-weight:bold}}.name{{fill:{FAINT}}}</style>
<rect width="100%" height="100%" fill="#ffffff"/>
{}</svg>
"##,
            self.body
        )
    }
}

/// How long a text is, about.
#[expect(clippy::cast_precision_loss, reason = "a text is short")]
fn letters(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

#[cfg(test)]
mod tests {
    use pgdock_core::{Lsn, TimelineId};

    use super::super::history::{Place, Write};
    use super::*;

    #[test]
    fn everything_that_happened_is_shown() {
        let ack = |node, at: Micros| Write {
            client: 0,
            node,
            number: 1,
            sent: at - 1000,
            ended: at,
            outcome: Outcome::Acknowledged(Place { timeline: TimelineId(1), lsn: Lsn(1), xid: 1 }),
        };
        let span = |host: &str, what: &str| Span { host: host.into(), what: what.into(), from: 2_000_000, to: None };
        let facts = Facts {
            nodes: vec!["n1".into(), "n2".into()],
            clients: vec!["client 1".into()],
            writes: vec![ack(0, 1_000_000), ack(0, 1_100_000), ack(1, 4_500_000)],
            seen: vec![(0, 0, Seen::Primary), (0, 1, Seen::Standby), (4_000_000, 1, Seen::Primary)],
            spans: vec![span("n1", "kill -9 <agent>"), span(WITNESS, "witness hangs")],
            settled: vec![5_000_000],
            end: 6_000_000,
        };
        assert_eq!(gaps(&facts), [(1_100_000, 4_500_000)]);
        let svg = draw(&facts, "a & b", &Verdict::default());
        for wanted in ["a &amp; b", "kill -9 &lt;agent&gt;", "witness hangs", "3.4 s", ">n2<", "all well again"] {
            assert!(svg.contains(wanted), "{wanted} is missing:\n{svg}");
        }
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        for (_, _, colour) in SEEN {
            assert!(svg.contains(colour));
        }
    }
}
