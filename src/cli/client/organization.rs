//! The organization that a verb is about, where it is named by what its keys begin with.

use super::super::failure::Failure;
use super::super::org::service;
use super::Session;
use crate::proto;

/// Organizations of a page.
const PAGE_ROWS: u32 = 1_000;

/// Whether a text may be a key prefix; identifiers have an underscore.
fn is_key_prefix(text: &str) -> bool {
    text != "operator" && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
}

impl Session<'_> {
    /// Puts the identifier in the place of a key prefix. An operator's key finds every
    /// organization so, another key its own.
    pub(in crate::cli) async fn aim(&self, organization_id: &mut String) -> Result<(), Failure> {
        if organization_id.is_empty() || !is_key_prefix(organization_id) {
            return Ok(());
        }
        let own = self.request(proto::GetOrganizationRequest::default())?;
        // It is an operator, or may see no organization at all: the list tells which.
        let own = self.answer(service(self).get_organization(own)).await;
        let own = own.ok().and_then(|it| it.organization);
        if let Some(own) = own.filter(|own| own.key_prefix == *organization_id) {
            *organization_id = own.id;
            return Ok(());
        }
        let mut page_token = String::new();
        loop {
            let request = proto::ListOrganizationsRequest { page_size: PAGE_ROWS, page_token };
            let request = self.request(request)?;
            let prefix = format!("organization with the key prefix `{organization_id}`");
            let page = self.answer(service(self).list_organizations(request)).await;
            let page = page.map_err(|failure| {
                failure.because(format!("`--org`: looked for the {prefix}")).hint(
                    "name the organization by its identifier, or none for your own; an \
                     operator's key finds all by their prefixes",
                )
            })?;
            let found = page.organizations.into_iter().find(|it| it.key_prefix == *organization_id);
            if let Some(found) = found {
                *organization_id = found.id;
                return Ok(());
            }
            if page.next_page_token.is_empty() {
                return Err(Failure::refusal(format!("`--org`: there is no {prefix}"))
                    .hint("`keyledger org list` shows them"));
            }
            page_token = page.next_page_token;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_no_prefix() {
        assert!(is_key_prefix("vtx") && is_key_prefix("a1"));
        for text in ["operator", "org_01M80MFK1S954BKDX0SF96KS30", "Acme", "a-b"] {
            assert!(!is_key_prefix(text), "{text}");
        }
    }
}
