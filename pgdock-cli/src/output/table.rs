//! [`Table`]: the look of tables, that of `psql`.

use comfy_table::{ContentArrangement, ContentLineStyle, LineStyle, TableStyle};

const LOOK: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('|'))
    .header_separator(LineStyle::none().fill('-').junction('+'))
    .content_lines(ContentLineStyle::none().junction('|'));

/// Rows below a header.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(LOOK).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
        Self(table)
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// How wide the terminal is, in columns, where stdout is one.
pub(crate) fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_like_psql() {
        let mut table = Table::new(["Name", "Role"]);
        table.row(["n1".into(), "primary".into()]);
        table.row(["n2".into(), String::new()]);
        insta::assert_snapshot!(table.to_string(), @r"
         Name | Role
        ------+---------
         n1   | primary
         n2   |
        ");
    }
}
