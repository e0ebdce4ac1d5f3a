//! What is said of tails and exports.

use std::collections::HashMap;

use projections::recorded::Revision;
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{DOMAIN, invalid};

/// A tail was cut off because nothing of it was taken. Names the revision to go on behind;
/// none where none was told.
pub fn tail_too_slow(told: Option<Revision>) -> Status {
    let told = told.map(|it| it.to_string());
    let metadata: HashMap<String, String> =
        told.map(|it| ("after_revision".to_owned(), it)).into_iter().collect();
    let details = ErrorDetails::with_error_info("TAIL_TOO_SLOW", DOMAIN, metadata);
    Status::with_error_details(
        GrpcCode::Aborted,
        "nothing of the tail was taken for too long; begin again behind the last revision that was told",
        details,
    )
}

/// A revision is asked for that the stream does not have yet.
pub fn beyond_end(field: &str, end: Revision) -> Status {
    invalid(field, format_args!("is beyond the end of the stream, which is revision {end}"))
}
