//! `/`: how the cluster stands, for people.

use std::fmt::{Display, Write};

use super::state::NodeStatus;
use crate::report::Report;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}\
table{border-collapse:collapse}th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid #ddd}\
.leader{font-weight:600}.problem{color:#b00020}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}.problem{color:#ff8a80}}";

pub(super) fn render(status: &NodeStatus) -> String {
    let mut page = String::new();
    let me = &status.report;
    let title = Escaped(format!("{} · {}", me.cluster, me.node));
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <h1>{}</h1>",
        Escaped(&me.cluster)
    );
    match &status.record {
        Some(record) => {
            let set: Vec<_> = record.sync_set.iter().map(|member| member.node.as_str()).collect();
            let _ = write!(
                page,
                "<p>Term {}, leader {}, {} with {} of {{{}}}{}</p>",
                record.term,
                record.leader.as_ref().map_or(Escaped("nobody"), |leader| Escaped(leader.as_str())),
                record.durability,
                record.acks,
                Escaped(set.join(", ")),
                if record.paused { ", <b>paused</b>" } else { "" }
            );
        }
        None => page.push_str("<p>The witness document is not known here.</p>"),
    }
    page.push_str(
        "<table><thead><tr><th>Role<th>Name<th>State<th>Upstream<th>TL<th>LSN<th>Bundle<th>Problems</tr></thead><tbody>",
    );
    let mut nodes: Vec<&Report> = std::iter::once(me).chain(&status.peers).collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let leader = status.record.as_ref().and_then(|record| record.leader.as_ref());
    for node in nodes {
        let (class, mark) = if leader == Some(&node.node) { (" class=\"leader\"", "*") } else { ("", "") };
        let _ = write!(
            page,
            "<tr{class}><td>{}{mark}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td class=\"problem\">{}</tr>",
            node.role,
            Escaped(node.node.as_str()),
            node.state,
            Escaped(node.upstream.as_ref().map_or("", |upstream| upstream.as_str())),
            node.timeline,
            node.replayed,
            Escaped(node.bundle.as_deref().unwrap_or_default()),
            Escaped(node.problems.join("; "))
        );
    }
    page.push_str("</tbody></table>");
    let missing = status.record.iter().flat_map(|record| record.members.keys());
    for name in missing.filter(|name| **name != me.node && !status.peers.iter().any(|peer| peer.node == **name)) {
        let _ = write!(page, "<p class=\"problem\">{} is not heard.</p>", Escaped(name.as_str()));
    }
    let witness = if me.witness_reachable { "answers" } else { "does not answer" };
    let _ =
        write!(page, "<p>As {} sees it at {}. The witness {witness}.</p></body></html>", Escaped(&me.node), status.now);
    page
}

/// Text that cannot become markup.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
