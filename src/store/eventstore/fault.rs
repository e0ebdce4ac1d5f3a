//! What can come of one call to the engine, as far as we must tell it apart.

use eventstore::Error;
use projections::recorded::Revision;

/// Longest text of the engine's that is passed on.
const TEXT_CHARS_MAX: usize = 300;

/// Why a call to the engine gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The stream ends elsewhere: nothing was written.
    #[error("the stream ends at another revision")]
    WrongRevision(Option<Revision>),
    /// There is no such stream.
    #[error("there is no such stream")]
    NoStream,
    /// The stream was deleted for good.
    #[error("the stream was deleted")]
    Deleted,
    /// The user may not do that.
    #[error("the event store refuses access")]
    Denied,
    /// The engine understood, and will not do it: nothing was written.
    #[error("the event store refuses: {0}")]
    Refused(String),
    /// The engine was not reached: nothing was sent.
    #[error("the event store cannot be reached: {0}")]
    NotSent(String),
    /// Sent, perhaps; whether it was carried out is not known.
    #[error("the event store gave no answer: {0}")]
    NoAnswer(String),
    /// It answered what cannot be.
    #[error("the event store answered what cannot be: {0}")]
    Nonsense(&'static str),
}

impl Fault {
    /// Whether another connection may do better.
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::NoAnswer(_) | Self::Nonsense(_))
    }

    /// What the client says of a call.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::WrongExpectedVersion { current, .. } => Self::WrongRevision(match current {
                eventstore::CurrentRevision::Current(revision) => Some(Revision(*revision)),
                eventstore::CurrentRevision::NoStream => None,
            }),
            Error::ResourceNotFound => Self::NoStream,
            Error::ResourceDeleted => Self::Deleted,
            Error::AccessDenied => Self::Denied,
            Error::UnsupportedFeature => Self::Refused("it does not know the call".to_owned()),
            // Only what the engine checks before it writes is certain; a call that was
            // cancelled or aborted on the way may have been carried out.
            Error::Grpc { code, message } if is_refusal(&format!("{code:?}")) => {
                Self::Refused(shortened(message))
            }
            // Both come before anything is sent.
            Error::ConnectionClosed => Self::NotSent("the connection is closed".to_owned()),
            Error::GrpcConnectionError(error) => Self::NotSent(shortened(&error.to_string())),
            Error::NotLeaderException(_) => Self::NotSent("it is not the leader".to_owned()),
            Error::Grpc { message, .. } => Self::NoAnswer(shortened(message)),
            Error::ServerError(what) => Self::NoAnswer(shortened(what)),
            Error::DeadlineExceeded => Self::NoAnswer("in time".to_owned()),
            Error::ResourceAlreadyExists
            | Error::InternalParsingError(_)
            | Error::InternalClientError
            | Error::InitializationError(_)
            | Error::IllegalStateError(_) => Self::NoAnswer(shortened(&error.to_string())),
        }
    }
}

/// The codes by name: their type belongs to a library of the client's own.
fn is_refusal(code: &str) -> bool {
    matches!(code, "InvalidArgument" | "FailedPrecondition" | "OutOfRange")
}

fn shortened(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it })
        .take(TEXT_CHARS_MAX)
        .collect();
    if line.is_empty() { "no reason given".to_owned() } else { line }
}
