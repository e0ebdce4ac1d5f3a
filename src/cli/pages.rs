//! Lists that come in pages.

use clap::Args;

use super::failure::Failure;
use super::output::talk;

/// Rows of a page where all are wanted: as many as a server gives.
const ALL_PAGE_ROWS: u32 = 1_000;
/// Most pages that `--all` follows.
const PAGES_MAX: usize = 10_000;

/// Which part of a list is wanted.
#[derive(Args)]
pub(super) struct Pages {
    /// Fetch every page, not the first alone
    #[arg(long, conflicts_with = "page_token")]
    all: bool,

    /// The most rows of a page, up to 1000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    page_size: Option<u32>,

    /// Where to continue: what the page before gave as the next
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
}

/// A page that can be joined to the one before it.
pub(super) trait Page {
    /// What continues behind this page; empty on the last.
    fn next_page_token(&self) -> &str;
    /// Rows on it.
    fn rows(&self) -> usize;
    /// Puts a later page behind this one.
    fn join(&mut self, later: Self);
}

impl Pages {
    /// Fetches what is wanted, by the size and the token of each page.
    pub(super) async fn fetch<P: Page>(
        &self,
        page: impl AsyncFn(u32, String) -> Result<P, Failure>,
    ) -> Result<P, Failure> {
        let size = self.page_size.unwrap_or(if self.all { ALL_PAGE_ROWS } else { 0 });
        let mut whole = page(size, self.page_token.clone().unwrap_or_default()).await?;
        let mut pages = 1;
        while self.all && !whole.next_page_token().is_empty() {
            if pages == PAGES_MAX {
                return Err(Failure::fault(format!("the list has more than {PAGES_MAX} pages"))
                    .hint("fetch it page by page with `--page-token`"));
            }
            let later = page(size, whole.next_page_token().to_owned()).await?;
            whole.join(later);
            pages += 1;
        }
        Ok(whole)
    }
}

/// Says on stderr what the rows do not: that there are none, or more.
pub(super) fn talk_about(page: &impl Page, nouns: &str) {
    talk_about_with(page, nouns, "");
}

/// The same, where going on takes more than the token: this in front of it.
pub(super) fn talk_about_with(page: &impl Page, nouns: &str, with: &str) {
    match (page.rows(), page.next_page_token()) {
        (0, "") => talk(&format!("no {nouns}\n")),
        (_, "") => {}
        (_, token) => talk(&format!(
            "more {nouns} follow: `{with}--page-token {}` continues, `--all` shows them all\n",
            super::output::safe(token)
        )),
    }
}
