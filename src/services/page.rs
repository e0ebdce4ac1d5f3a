//! Pages: how a list is cut, and the tokens that continue it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;

use super::status;
use crate::ledger::command::RequestStamper;

/// Rows of a page where the request names no number.
pub const PAGE_ROWS_DEFAULT: usize = 100;
/// Most rows of a page.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most rows looked at for one page; a rare filter gives a short page and a token.
pub const PAGE_WORK_MAX: usize = 20_000;

/// A page ends behind the row with which it has this many bytes. A row has 64 KiB at the
/// most: any client takes such a page, and a thousand of them fit into memory.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The number of rows that a request wants.
pub fn size(asked: u32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_ROWS_DEFAULT),
        Ok(rows) if rows <= PAGE_ROWS_MAX => Ok(rows),
        _ => Err(status::invalid("page_size", format_args!("must be at most {PAGE_ROWS_MAX}"))),
    }
}

/// What a page is of: the method, the organization and every filter. A token of
/// another list is refused.
pub struct List<'a> {
    stamper: &'a RequestStamper,
    of: Vec<u8>,
}

/// A token is none of the list that it was given for.
pub fn foreign_token() -> Status {
    status::invalid("page_token", "is not one of this list; begin again without it")
}

impl<'a> List<'a> {
    /// A list of this method with these parameters.
    #[must_use]
    pub fn new(stamper: &'a RequestStamper, method: &str, parameters: &[&str]) -> Self {
        let mut of = Vec::new();
        for part in std::iter::once(&method).chain(parameters) {
            of.extend((part.len() as u64).to_le_bytes());
            of.extend(part.as_bytes());
        }
        Self { stamper, of }
    }

    /// The token that continues behind this row.
    #[must_use]
    pub fn token(&self, last: [u8; 16]) -> String {
        let mut bytes = last.to_vec();
        bytes.extend(self.seal(&last));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The row behind which to continue; none for an empty token: from the start.
    pub fn continue_behind(&self, token: &str) -> Result<Option<[u8; 16]>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let wrong = foreign_token;
        if token.len() > 64 {
            return Err(wrong());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let (last, seal) = bytes.split_first_chunk::<16>().ok_or_else(wrong)?;
        use subtle::ConstantTimeEq as _;
        if bool::from(self.seal(last).ct_eq(seal)) { Ok(Some(*last)) } else { Err(wrong()) }
    }

    fn seal(&self, last: &[u8; 16]) -> [u8; 16] {
        self.stamper.page_seal(&self.of, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_its_own_list_only() {
        let stamper = RequestStamper::new([7; 32].into());
        let list = List::new(&stamper, "ListKeys", &["org_a", "active"]);
        let token = list.token([9; 16]);
        assert_eq!(list.continue_behind(&token).unwrap(), Some([9; 16]));
        assert_eq!(list.continue_behind("").unwrap(), None);
        for (method, parameters) in [
            ("ListKeys", ["org_b", "active"]),
            ("ListKeys", ["org_a", "revoked"]),
            ("ListKeys", ["org_aa", "ctive"]),
            ("ListRoles", ["org_a", "active"]),
        ] {
            assert!(
                List::new(&stamper, method, &parameters).continue_behind(&token).is_err(),
                "{parameters:?}"
            );
        }
        let other = RequestStamper::new([8; 32].into());
        assert!(
            List::new(&other, "ListKeys", &["org_a", "active"]).continue_behind(&token).is_err()
        );
        for forged in
            ["x", "AAAA", &token[1..], &format!("{token}A"), &"A".repeat(43), &"A".repeat(10_000)]
        {
            assert!(list.continue_behind(forged).is_err(), "{forged}");
        }
    }

    #[test]
    fn sizes_have_a_limit() {
        assert_eq!(size(0).unwrap(), PAGE_ROWS_DEFAULT);
        assert_eq!(size(1_000).unwrap(), PAGE_ROWS_MAX);
        assert!(size(1_001).is_err());
        assert!(size(u32::MAX).is_err());
    }
}
