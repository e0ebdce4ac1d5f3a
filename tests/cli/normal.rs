//! Makes transcripts the same on each run: what is random or a time is replaced by
//! something as long, so that columns stay where they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const INSTANT: &str = "2026-01-01T00:00:00.000Z";

/// Remembers which identifiers were seen.
pub(crate) struct Normal {
    home: PathBuf,
    seen: BTreeMap<String, usize>,
}

impl Normal {
    /// For transcripts from this directory.
    pub(crate) fn new(home: &Path) -> Self {
        Self { home: home.to_owned(), seen: BTreeMap::new() }
    }

    /// The text with everything replaced that another run would have otherwise.
    pub(crate) fn text(&mut self, text: &str, address: Option<&str>) -> String {
        let mut text = text.replace(self.home.to_str().unwrap(), "HOME");
        if let Some(address) = address {
            text = text.replace(address, "127.0.0.1:PORT");
        }
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let word: &str = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            if word.is_empty() {
                out.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            out.push_str(&self.word(word));
            rest = &rest[word.len()..];
        }
        out.lines().map(|line| revision(&millis(line)) + "\n").collect()
    }

    fn word(&mut self, word: &str) -> String {
        if let Some((head, masked)) = word.split_once("_…")
            && masked.len() == 4
        {
            return format!("{head}_…SSSS");
        }
        if word.len() == INSTANT.len() && word.ends_with('Z') && word.contains('T') {
            return INSTANT.to_owned();
        }
        if let Some((before, id)) = word.split_once("org-org_") {
            return format!("{before}org-{}", self.word(&format!("org_{id}")));
        }
        // Tokens of people, and what they are signed with.
        if let Some(kind) = ["klit_", "klrt_", "klpr_"].iter().find(|it| word.starts_with(**it)) {
            return format!("{kind}S");
        }
        if word.starts_with("ey") && word.matches('.').count() == 2 {
            return "ACCESS-TOKEN".to_owned();
        }
        // How long something took, and digests.
        if word.len() == 8 && word.split(':').count() == 3 {
            return "00:00:00".to_owned();
        }
        if word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()) {
            return "d".repeat(64);
        }
        let base32 = |c: char| c.is_ascii_uppercase() || ('2'..='7').contains(&c);
        if word.len() == 32 && word.chars().all(base32) {
            return "S".repeat(32);
        }
        match word.rsplit_once('_') {
            Some((head, tail))
                if tail.len() == 26 && tail.chars().all(|c| c.is_ascii_alphanumeric()) =>
            {
                let next = self.seen.len() + 1;
                let number = self.seen.entry(word.to_owned()).or_insert(next);
                format!("{head}_{number:026}")
            }
            Some((head, tail)) if tail.len() == 42 => format!("{head}_{}", "S".repeat(42)),
            _ => word.to_owned(),
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-:.…".contains(character)
}

/// How far the clocks are apart is another number each time.
fn millis(line: &str) -> String {
    for name in [
        "clock ahead ",
        "clock was ahead ",
        "\"clock_ahead_ms\": ",
        "\"activity_index_behind\": ",
        "\"opened_revision\": ",
        "\"last_revision\": ",
    ] {
        if let Some(value) = line.trim_start().strip_prefix(name) {
            let digits = |c: char| c == '-' || c.is_ascii_digit();
            let number = value.trim().trim_end_matches(" ms").trim_end_matches(',');
            assert!(!number.is_empty() && number.chars().all(digits), "{line}");
            return line.replacen(number, "N", 1);
        }
    }
    line.to_owned()
}

/// Where a stream ends is another place each time: the ledger notes denials by itself.
fn revision(line: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((stream, number)) = line.rsplit_once('=')
        && stream.contains("org-")
        && digits(number)
    {
        return format!("{stream}=N");
    }
    if let Some((before, after)) = line.split_once("the stream ends at revision ")
        && let Some((number, after)) = after.split_once(';')
        && digits(number)
    {
        return format!("{before}the stream ends at revision N;{after}");
    }
    if let Some((before, after)) = line.split_once(" up to revision ")
        && let Some((number, after)) = after.split_once(',')
        && digits(number)
    {
        return format!("{before} up to revision N,{after}");
    }
    match line.rsplit_once("\"revision\": ") {
        Some((before, number)) if digits(number) => format!("{before}\"revision\": N"),
        _ => line.to_owned(),
    }
}
