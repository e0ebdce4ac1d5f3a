//! `keyledger activity --follow`

use std::process::ExitCode;

use tonic::Status;

use super::super::client::Session;
use super::super::failure::{Failure, Outcome};
use super::super::output::{print, print_json_line, talk};
use super::super::resuming::{Pauses, may_go_on};
use super::super::view::activity::Entry;
use super::service;
use crate::proto;

/// Shows entries as they come until Ctrl-C. Where the connection breaks it goes on by itself.
pub(super) async fn follow(
    session: &Session<'_>,
    mut request: proto::TailActivityRequest,
) -> Outcome {
    let mut pauses = Pauses::new();
    let mut begun = false;
    loop {
        let status = match follow_once(session, &mut request, &mut pauses, &mut begun).await? {
            Ended::Interrupted => return Ok(ExitCode::SUCCESS),
            Ended::Broken(status) => status,
        };
        // Whoever was never let in is told why, and at once.
        if !begun || !may_go_on(&status) {
            return Err(session.refused(&status));
        }
        if !pauses.wait(&status, request.after_revision).await {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// How one call ended.
enum Ended {
    Interrupted,
    Broken(Status),
}

/// Shows what one call tells, and notes in the request how far that is.
async fn follow_once(
    session: &Session<'_>,
    request: &mut proto::TailActivityRequest,
    pauses: &mut Pauses,
    begun: &mut bool,
) -> Result<Ended, Failure> {
    let message = session.stream_request(request.clone())?;
    let mut tail = tokio::select! {
        tail = async { service(session).tail_activity(message).await } => match tail {
            Ok(tail) => tail.into_inner(),
            Err(status) => return Ok(Ended::Broken(status)),
        },
        _ = tokio::signal::ctrl_c() => return Ok(Ended::Interrupted),
    };
    loop {
        let piece = tokio::select! {
            piece = tail.message() => piece,
            _ = tokio::signal::ctrl_c() => return Ok(Ended::Interrupted),
        };
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Ended::Broken(Status::unavailable("the server ended the call"))),
            Err(status) => return Ok(Ended::Broken(status)),
        };
        if !*begun && !session.json() {
            talk("following; Ctrl-C ends it\n");
        }
        *begun = true;
        pauses.reset();
        for entry in piece.entries {
            let entry = Entry::from(entry);
            if session.json() {
                print_json_line(&entry)?;
            } else {
                print(&entry.to_lines())?;
            }
        }
        // Not before it was printed: what is told is not told again.
        if let Some(told) = piece.revision {
            request.after_revision = Some(told.revision);
        }
    }
}
