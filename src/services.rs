//! What callers see: gRPC and HTTP translated to the ledger's commands and questions.

pub mod wire;
