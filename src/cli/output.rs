//! What is printed: tables for people, JSON for programs.
//!
//! Nothing a server says can steer a terminal: control characters, and those that turn
//! the direction of writing, are shown as escapes. No colour but on a terminal, and
//! none where `NO_COLOR` is set.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use zeroize::Zeroizing;

use super::failure::Failure;

/// Room for an answer with a secret: a text that grows leaves copies behind.
const JSON_ROOM_BYTES: usize = 64 * 1024;

/// Writes data to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes data to stdout, as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            Failure::unheard()
        } else {
            Failure::fault("cannot write to standard output").because(error)
        }
    })
}

/// Writes talk to stderr. Where nobody listens there is nobody to tell.
pub(super) fn talk(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// So many keys, and the verb that goes with them.
pub(super) fn counted(keys: usize) -> (String, &'static str) {
    if keys == 1 { ("1 key".to_owned(), "is") } else { (format!("{keys} keys"), "are") }
}

/// Writes one JSON object to stdout.
pub(super) fn print_json(message: &impl Serialize) -> Result<(), Failure> {
    let mut json = Zeroizing::new(Vec::with_capacity(JSON_ROOM_BYTES));
    serde_json::to_writer_pretty(&mut *json, message)
        .map_err(|error| Failure::fault("cannot write the answer as JSON").because(error))?;
    json.push(b'\n');
    let text = Zeroizing::new(String::from_utf8_lossy(&json).into_owned());
    if text.chars().any(steers_in_json) { print(&escaped(&text)) } else { print(&text) }
}

/// Writes one JSON object to stdout, on one line.
pub(super) fn print_json_line(message: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_string(message)
        .map_err(|error| Failure::fault("cannot write the answer as JSON").because(error))?;
    line.push('\n');
    if line.chars().any(steers_in_json) { print(&escaped(&line)) } else { print(&line) }
}

/// JSON leaves some characters as they are that a terminal may obey. They can only
/// stand inside strings, where an escape means the same.
fn escaped(json: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * json.len()));
    for character in json.chars() {
        if steers_in_json(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

fn steers_in_json(character: char) -> bool {
    character != '\n' && steers(character)
}

/// Whether a character does something to a terminal, or hides something in it.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{61c}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A text that cannot steer a terminal, on one line.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// One thing as names and values, one below the other.
#[derive(Default)]
pub(super) struct Fields {
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Fields {
    /// Adds a value; one that is empty is left out.
    pub(super) fn add(&mut self, name: &'static str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.rows.push((name, vec![safe(value)]));
        }
        self
    }

    /// Adds a value that may be absent.
    pub(super) fn add_some(&mut self, name: &'static str, value: Option<&String>) -> &mut Self {
        self.add(name, value.map_or("", String::as_str))
    }

    /// Adds values, one to a line; none are left out.
    pub(super) fn add_all(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = String>,
    ) -> &mut Self {
        let values: Vec<String> = values.into_iter().map(|value| safe(&value)).collect();
        if !values.is_empty() {
            self.rows.push((name, values));
        }
        self
    }

    /// The lines.
    pub(super) fn to_text(&self) -> String {
        let rows = self.rows.iter().map(|(name, values)| [(*name).to_owned(), values.join("\n")]);
        laid_out(Table::new(), rows)
    }
}

/// Several things, one to a line, under a header.
pub(super) fn table<const N: usize>(
    header: [&'static str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.set_header(header);
    laid_out(table, rows.into_iter().map(|row| row.map(|cell| safe(&cell))))
}

/// The same, wrapped to the width of the terminal, if stdout is one.
///
/// A cell is lines, one below the other.
pub(super) fn table_within_terminal<const N: usize>(
    header: [&'static str; N],
    rows: impl IntoIterator<Item = [Vec<String>; N]>,
) -> String {
    let mut table = Table::new();
    table.set_header(header);
    if let Some(columns) = terminal_columns() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    let cell = |lines: Vec<String>| lines.iter().map(|it| safe(it)).collect::<Vec<_>>().join("\n");
    laid_out(table, rows.into_iter().map(|row| row.map(cell)))
}

/// The width of the terminal that is stdout; none where it is another thing, or does not say.
fn terminal_columns() -> Option<u16> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(stdout).ok()?.ws_col;
    (columns > 0).then_some(columns)
}

fn laid_out<const N: usize>(
    mut table: Table,
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    table.load_style(comfy_table::presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// A colour that says how it went.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    /// Yes.
    Green,
    /// No.
    Red,
    /// Perhaps not.
    Yellow,
}

/// The text in colour, where stdout is a terminal and nobody minds.
pub(super) fn coloured(text: &str, colour: Colour) -> String {
    coloured_on(std::io::stdout().is_terminal(), text, colour)
}

fn coloured_on(terminal: bool, text: &str, colour: Colour) -> String {
    let minded = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    if minded || !terminal {
        return text.to_owned();
    }
    let number = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\u{1b}[1;{number}m{text}\u{1b}[0m")
}

/// Writes a warning to stderr, yellow on a terminal.
pub(super) fn warn(text: &str) {
    let terminal = std::io::stderr().is_terminal();
    let warning = coloured_on(terminal, "warning", Colour::Yellow);
    talk(&format!("{warning}: {}\n", safe(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_an_escape() {
        for (text, shown) in [
            ("plain – ünïcode 漢", "plain – ünïcode 漢"),
            ("\u{1b}]0;x\u{7}", "\\u{1b}]0;x\\u{7}"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("\u{202e}gpj\u{2066}\u{feff}", "\\u{202e}gpj\\u{2066}\\u{feff}"),
        ] {
            assert_eq!(safe(text), shown);
            let mut fields = Fields::default();
            assert_eq!(fields.add("name", text).to_text(), format!("name  {shown}\n"));
            assert_eq!(table(["NAME"], [[text.to_owned()]]), format!("NAME\n{shown}\n"));
        }
    }

    #[test]
    fn json_says_the_same_with_escapes() {
        let value = vec!["\u{9b}2J\u{202e}\u{e0041}\u{1b}ü".to_owned()];
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped(&json);
        assert!(!escaped.chars().any(steers_in_json), "{}", *escaped);
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), value);
    }

    #[test]
    fn values_stand_below_each_other_and_empty_ones_nowhere() {
        let mut fields = Fields::default();
        fields.add("id", "key_1").add("description", "").add_some("expires", None);
        fields.add_all("scopes", ["a:b".to_owned(), "c:d".to_owned()]).add_all("roles", []);
        assert_eq!(fields.to_text(), "id      key_1\nscopes  a:b\n        c:d\n");
    }
}
