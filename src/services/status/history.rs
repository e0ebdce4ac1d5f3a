//! Errors of questions about the past.

use tonic::{Code as GrpcCode, Status};

use super::refused;

/// As many requests fold history as may at once.
pub fn history_busy() -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "HISTORY_BUSY",
        "as many requests read history as may at once; try again shortly",
    )
}

/// As much history was read as one request may.
pub fn history_work_limit() -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "HISTORY_WORK_LIMIT",
        "as much history was read as one request may, and is kept at hand; ask again: it goes on there",
    )
}
