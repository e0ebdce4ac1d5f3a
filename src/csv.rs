//! Tables of comma-separated values: RFC 4180, in UTF-8, lines ending in CR LF, every cell
//! quoted.
//!
//! A spreadsheet takes a cell that begins like a formula for one, and names are chosen by
//! strangers. So what begins like one has an apostrophe put in front, which spreadsheets read as
//! "this is text": at the beginning of a cell, and where a program that parts cells at
//! semicolons, tabs or line ends, whatever the quotes say, would see one begin.

/// A row that is being written.
pub(crate) struct Row<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Row<'a> {
    /// A row behind what is there.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: true }
    }

    /// The next cell.
    pub(crate) fn cell(&mut self, text: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        if text.starts_with(PARTS) {
            self.out.push(b'\'');
        }
        for piece in text.split_inclusive(PARTS) {
            if begins_like_a_formula(piece) {
                self.out.push(b'\'');
            }
            for (place, part) in piece.split('"').enumerate() {
                if place > 0 {
                    self.out.extend_from_slice(b"\"\"");
                }
                self.out.extend_from_slice(part.as_bytes());
            }
        }
        self.out.push(b'"');
    }

    /// The end of the row.
    pub(crate) fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// What may part cells, but for the comma, which quotes take care of everywhere.
const PARTS: [char; 4] = [';', '\t', '\r', '\n'];

/// Whether a spreadsheet may take a cell for a formula, also once it has dropped quotes and
/// white space in front: `=`, `+`, `-`, `@` and their full-width forms.
fn begins_like_a_formula(text: &str) -> bool {
    let bare = text.trim_start_matches(|c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\u{feff}')
    });
    bare.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut out = Vec::new();
        let mut row = Row::begin(&mut out);
        row.cell(text);
        row.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_value_is_a_formula_and_every_value_reads_back() {
        assert_eq!(cell(""), "\"\"\r\n");
        assert_eq!(cell("a \"b\",\r\nc"), "\"a \"\"b\"\",\r\nc\"\r\n");
        for formula in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "\nx",
            ";x",
            "＝1",
            "＋1",
            "－1",
            "＠x",
            " =1",
            "\"=1",
            "'=1",
            " \u{a0}\"'=1",
            "\u{feff}=1",
            "\0=1",
        ] {
            assert!(cell(formula).starts_with("\"'"), "{formula:?}");
        }
        for (text, expected) in [
            ("a;=1", "a;'=1"),
            ("a; \"=1", "a;' \"\"=1"),
            ("a\t+1", "a\t'+1"),
            ("a\r\n-1", "a\r\n'-1"),
            ("a\n\"@x\"", "a\n'\"\"@x\"\""),
        ] {
            assert_eq!(cell(text), format!("\"{expected}\"\r\n"));
        }
        for text in ["a=1", "1-1", "key_1", "'quoted'", "→ x", "\u{200b}", "a; b", "a, -b", "a\nb"]
        {
            assert_eq!(cell(text), format!("\"{text}\"\r\n"));
        }
    }

    #[test]
    fn cells_stand_beside_each_other() {
        let mut out = Vec::new();
        let mut row = Row::begin(&mut out);
        row.cell("a");
        row.cell("");
        row.cell("b");
        row.end();
        assert_eq!(out, b"\"a\",\"\",\"b\"\r\n");
    }
}
