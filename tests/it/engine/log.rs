//! What the stand-in keeps: records in one order, and in their streams.

use std::collections::{BTreeMap, HashMap, HashSet};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) id: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) custom_metadata: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) position: u64,
    /// Gone, as after a scavenge.
    pub(crate) gone: bool,
}

/// What a stream must end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Revision(u64),
    NoStream,
    Any,
}

/// One append as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) stream: String,
    pub(crate) expected: Expected,
    pub(crate) entries: Vec<Entry>,
}

/// The records.
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    streams: HashMap<String, Vec<usize>>,
    next_position: u64,
    /// Streams that were deleted for good.
    pub(crate) tombs: HashSet<String>,
    /// Most bytes of one append.
    pub(crate) append_bytes_max: usize,
}

impl Default for Log {
    fn default() -> Self {
        let mut log = Self {
            entries: Vec::new(),
            streams: HashMap::new(),
            next_position: 1_000,
            tombs: HashSet::new(),
            append_bytes_max: 1 << 20,
        };
        // What an engine writes by itself.
        log.note("$$$settings");
        log.note("$stats-127.0.0.1");
        log
    }
}

impl Log {
    /// Appends, all or none: the stream's last revision and its position, or where the
    /// stream really ends.
    pub(crate) fn append(&mut self, append: Append) -> Result<(u64, u64), Option<u64>> {
        let Append { stream, expected, entries } = append;
        let places = self.streams.get(&stream).cloned().unwrap_or_default();
        let current = (places.len() as u64).checked_sub(1);
        let first = match expected {
            Expected::Any => current.map_or(0, |it| it + 1),
            Expected::NoStream => 0,
            Expected::Revision(revision) => revision + 1,
        };
        if Some(first) != current.map_or(Some(0), |it| it.checked_add(1)) {
            // A repeat is known by its identifiers, and answered as the first was.
            let there: Vec<&Entry> = places
                .iter()
                .skip(usize::try_from(first).unwrap_or(usize::MAX))
                .take(entries.len())
                .map(|place| &self.entries[*place])
                .collect();
            let same = there.len() == entries.len()
                && there.iter().zip(&entries).all(|(there, new)| there.id == new.id);
            let last = there.last().map(|it| (it.revision, it.position));
            return last.filter(|_| same).ok_or(current);
        }
        let mut last = (0, 0);
        for (entry, revision) in entries.into_iter().zip(first..) {
            last = (revision, self.next_position);
            self.next_position += 100 + entry.data.len() as u64;
            self.streams.entry(stream.clone()).or_default().push(self.entries.len());
            self.entries.push(Entry {
                revision,
                position: last.1,
                stream: stream.clone(),
                ..entry
            });
        }
        if self.entries.len().is_multiple_of(50) {
            self.note("$stats-127.0.0.1");
        }
        Ok(last)
    }

    fn note(&mut self, stream: &str) {
        self.write(stream, "$statsCollected", b"{}");
    }

    /// Somebody else's event, behind whatever is there.
    pub(crate) fn write(&mut self, stream: &str, event_type: &str, data: &[u8]) {
        let entry = Entry {
            stream: String::new(),
            revision: 0,
            id: format!("00000000-0000-4000-8000-{:012}", self.entries.len()),
            metadata: [("type".to_owned(), event_type.to_owned())].into(),
            custom_metadata: Vec::new(),
            data: data.to_vec(),
            position: 0,
            gone: false,
        };
        let append =
            Append { stream: stream.to_owned(), expected: Expected::Any, entries: vec![entry] };
        self.append(append).unwrap();
    }

    /// Says what is to be hidden of a stream, as an administrator can.
    pub(crate) fn set_metadata(&mut self, stream: &str, metadata: &str) {
        self.write(&format!("$${stream}"), "$metadata", metadata.as_bytes());
    }

    /// Deletes a stream for good: it can be neither read nor written. In the order of all
    /// events it stays, with a last event that says so, until it is scavenged.
    pub(crate) fn tombstone(&mut self, stream: &str, scavenged: bool) {
        self.write(stream, "$streamDeleted", b"");
        self.entries.last_mut().unwrap().revision = i64::MAX as u64;
        self.tombs.insert(stream.to_owned());
        if scavenged {
            let deleted =
                |it: &&mut Entry| it.stream == stream && it.metadata["type"] != "$streamDeleted";
            self.entries.iter_mut().filter(deleted).for_each(|it| it.gone = true);
        }
    }

    /// A stream's records that are there; none where there never was one.
    pub(crate) fn stream(&self, name: &str, records_max: usize) -> Option<Vec<&Entry>> {
        let places = self.streams.get(name)?;
        let within: Vec<&usize> = places.iter().filter(|place| **place < records_max).collect();
        if within.is_empty() {
            return None;
        }
        let hidden = self.hidden(name, places.len());
        let entries = within.into_iter().map(|place| &self.entries[*place]);
        let there: Vec<&Entry> = entries.filter(|it| !it.gone && it.revision >= hidden).collect();
        // Of a stream that was deleted, but not for good, the engine says that it never was.
        (!there.is_empty() || hidden == 0).then_some(there)
    }

    /// The first revision that a stream's metadata does not hide.
    fn hidden(&self, stream: &str, events: usize) -> u64 {
        let Some(places) = self.streams.get(&format!("$${stream}")) else { return 0 };
        let last = &self.entries[*places.last().unwrap()];
        let metadata: serde_json::Value = serde_json::from_slice(&last.data).unwrap();
        let number = |name: &str| metadata.get(name).and_then(serde_json::Value::as_u64);
        let kept = number("$maxCount").map_or(0, |kept| (events as u64).saturating_sub(kept));
        number("$tb").unwrap_or(0).max(kept)
    }

    /// Changes one record behind everybody's back.
    pub(crate) fn damage(&mut self, stream: &str, revision: u64, harm: impl FnOnce(&mut Entry)) {
        let place = self.streams[stream][usize::try_from(revision).unwrap()];
        harm(&mut self.entries[place]);
    }

    /// The records of all streams that are not the engine's own, nor about nodes.
    pub(crate) fn ours(&self) -> Vec<&Entry> {
        let ours = |it: &&Entry| !it.stream.starts_with('$') && !it.stream.contains("node-");
        self.entries.iter().filter(ours).collect()
    }
}
