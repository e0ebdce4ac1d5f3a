//! How messages are read from the wire: requests strictly, answers leniently.
//!
//! Protobuf decoders forgive much: an unknown field is dropped, of a field sent twice
//! the last one counts, an unknown enum value becomes a number nobody named. For a
//! ledger of authority each of these is a request that means something else than its
//! sender thought: a misspelt limit is no limit. So [`StrictCodec`] looks at the bytes
//! of a request before prost does ([`scan`]), against tables that `build.rs` makes from
//! the `.proto` files ([`table`]), and answers INVALID_ARGUMENT with the path of the
//! field that is wrong. Answers are read as prost reads them: a client must bear
//! a newer server.
//!
//! The scan allocates nothing and copies nothing while all is well.

pub mod scan;
pub mod table;
pub mod unary;
pub mod writer;

use std::marker::PhantomData;

use prost::bytes::Buf as _;
use prost::bytes::BufMut as _;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;
use tonic_types::{ErrorDetails, StatusExt as _};

use scan::Refusal;
use table::Message;

/// Answers of a stream are sent once there are so many bytes of them, or no more to come.
const ANSWERS_PIECE_BYTES: usize = 32 * 1024;
/// Room for a request that is being read: few are longer.
const REQUEST_ROOM_BYTES: usize = 1_024;

/// A message that a method takes or gives. Implemented by generated code.
pub trait WireMessage {
    /// The table to check it by, if any method takes it; none for answers.
    const REQUEST: Option<&'static Message>;
}

include!(concat!(env!("OUT_DIR"), "/wire_requests.rs"));

/// The codec of all our methods, on both sides: what is decoded is checked if it is a
/// request, by [`WireMessage::REQUEST`].
#[derive(Clone, Copy, Debug)]
pub struct StrictCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + WireMessage + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder { message: PhantomData }
    }
}

/// A message that is encoded already.
#[derive(Debug)]
pub struct Written(pub Vec<u8>);

/// The codec of methods whose answers are encoded where they are made; requests are read
/// as [`StrictCodec`] reads them.
#[derive(Clone, Copy, Debug)]
pub struct WrittenCodec<U> {
    answers: BufferSettings,
    message: PhantomData<U>,
}

impl<U> WrittenCodec<U> {
    /// A codec with so much room for what is about to be sent. It grows where that is
    /// too little.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self { answers: BufferSettings::new(bytes, ANSWERS_PIECE_BYTES), message: PhantomData }
    }
}

impl<U> Codec for WrittenCodec<U>
where
    U: prost::Message + WireMessage + Default + Send + 'static,
{
    type Encode = Written;
    type Decode = U;
    type Encoder = WrittenEncoder;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> WrittenEncoder {
        WrittenEncoder(self.answers)
    }

    fn decoder(&mut self) -> StrictDecoder<U> {
        StrictDecoder { message: PhantomData }
    }
}

/// The writing half of [`WrittenCodec`].
#[derive(Clone, Copy, Debug)]
pub struct WrittenEncoder(BufferSettings);

impl Encoder for WrittenEncoder {
    type Item = Written;
    type Error = Status;

    fn encode(&mut self, item: Written, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.0.len());
        buffer.put_slice(&item.0);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0
    }
}

/// The reading half of [`StrictCodec`].
#[derive(Clone, Copy, Debug)]
pub struct StrictDecoder<U> {
    message: PhantomData<U>,
}

impl<U: prost::Message + WireMessage + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REQUEST_ROOM_BYTES, ANSWERS_PIECE_BYTES)
    }

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic hands over one contiguous piece; should that change, one copy makes it so.
        if buffer.chunk().len() == buffer.remaining() {
            check::<U>(buffer.chunk())?;
            read(buffer).map(Some)
        } else {
            let whole = buffer.copy_to_bytes(buffer.remaining());
            check::<U>(&whole)?;
            read(whole).map(Some)
        }
    }
}

fn check<U: WireMessage>(bytes: &[u8]) -> Result<(), Status> {
    match U::REQUEST {
        Some(table) => scan::check(table, bytes).map_err(|refusal| refused(&refusal)),
        None => Ok(()),
    }
}

fn read<U: prost::Message + WireMessage + Default>(
    bytes: impl prost::bytes::Buf,
) -> Result<U, Status> {
    U::decode(bytes).map_err(|_| match U::REQUEST {
        Some(table) => Status::invalid_argument(format!(
            "`{}`: cannot be read; encode the message anew with a protobuf library",
            table.name
        )),
        None => Status::internal("the server's answer cannot be read"),
    })
}

fn refused(refusal: &Refusal) -> Status {
    let details = ErrorDetails::with_bad_request_violation(refusal.field(), refusal.description());
    Status::with_error_details(Code::InvalidArgument, refusal.to_string(), details)
}

#[cfg(test)]
mod tests;
