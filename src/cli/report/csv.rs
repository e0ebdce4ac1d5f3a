//! Comma-separated values that a spreadsheet shows as what they are.

/// One line: values in quotes where they need them, and none that a spreadsheet would take for a
/// formula.
pub(super) fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.into_iter().map(cell).collect();
    cells.join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n', '\'']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_a_formula_and_every_value_reads_back() {
        for (cells, expected) in [
            (vec!["a", "b c"], "a,b c\r\n"),
            (vec!["=1+1", "+1", "-1", "@x"], "\"'=1+1\",\"'+1\",\"'-1\",\"'@x\"\r\n"),
            (vec!["\t=1", "＝1"], "\"'\t=1\",\"'＝1\"\r\n"),
            (vec!["a,b", "say \"x\"", ""], "\"a,b\",\"say \"\"x\"\"\",\r\n"),
            (vec!["a\nb", "2026-Q4"], "\"a\nb\",2026-Q4\r\n"),
        ] {
            assert_eq!(line(cells), expected);
        }
    }
}
