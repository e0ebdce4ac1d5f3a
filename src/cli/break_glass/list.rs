//! `keyledger break-glass list`

use clap::{Args, ValueEnum};

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::output::talk;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::break_glass::Listed;
use super::service;
use crate::proto;

/// List grants, the last ones first: of one organization, or of all where an operator names
/// none.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger break-glass list --state ended
  keyledger break-glass list --org vtx")]
pub(in crate::cli) struct List {
    /// Only grants that have come so far
    #[arg(long, value_enum)]
    state: Option<State>,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Permit nothing until somebody approves them.
    AwaitingApproval,
    /// Permit what they say.
    Open,
    /// Permit nothing any more, and nobody looked at what was done.
    Ended,
    /// Permit nothing any more, and somebody looked at what was done.
    Reviewed,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut first = proto::ListBreakGlassGrantsRequest {
            organization_id: self.target.organization_id(),
            state: state(self.state).into(),
            ..Default::default()
        };
        self.client.run(async |session| {
            session.aim(&mut first.organization_id).await?;
            let page = async |page_size, page_token| {
                let message =
                    proto::ListBreakGlassGrantsRequest { page_size, page_token, ..first.clone() };
                let request = session.request(message)?;
                let call = async { service(session).list_break_glass_grants(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "grants");
            }
            let code = session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })?;
            if let (Some(hint), false) = (listed.awaiting_review(), session.json()) {
                talk(&hint);
            }
            Ok(code)
        })
    }
}

fn state(state: Option<State>) -> proto::BreakGlassGrantState {
    match state {
        None => proto::BreakGlassGrantState::Unspecified,
        Some(State::AwaitingApproval) => proto::BreakGlassGrantState::AwaitingApproval,
        Some(State::Open) => proto::BreakGlassGrantState::Open,
        Some(State::Ended) => proto::BreakGlassGrantState::Ended,
        Some(State::Reviewed) => proto::BreakGlassGrantState::Reviewed,
    }
}
