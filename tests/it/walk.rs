//! Whole stories, as users' documents tell them.

#[path = "walk/boundaries.rs"]
mod boundaries;
#[path = "walk/console.rs"]
mod console;
#[path = "walk/people.rs"]
mod people;
#[path = "walk/pipeline.rs"]
mod pipeline;
#[path = "walk/requests.rs"]
mod requests;
#[path = "walk/restarts.rs"]
mod restarts;
#[path = "walk/self_hosted.rs"]
mod self_hosted;

use keyledger::proto::GetKeyRequest;

use crate::support::crc32;

/// The checksum of a key's text, worked out here: CRC-32 in six digits of base 62.
fn checksum_is_right(secret: &str) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (body, sum) = secret.split_at(secret.len() - 6);
    let mut rest = crc32(body.as_bytes()) as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % 62];
        rest /= 62;
    }
    digits == sum.as_bytes()
}

fn get(organization_id: &str, key_id: &str) -> GetKeyRequest {
    GetKeyRequest { organization_id: organization_id.into(), key_id: key_id.into() }
}
