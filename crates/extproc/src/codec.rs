//! The codec of the streams: protobuf, with small buffers.
//!
//! tonic gives each direction of a stream 8 KiB before the first byte has come. A picker holds one stream for each
//! request that runs anywhere behind its proxies, mostly waiting for the next token, so that would be most of its
//! memory. Buffers grow when a message is larger and are given back when it has gone.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a buffer has to begin with.
const INITIAL: usize = 512;
/// Above this many encoded bytes a stream sends before it encodes more.
const YIELD: usize = 64 * 1024;

/// Protobuf with small buffers.
#[derive(Debug, Clone)]
pub struct SmallBuffers<E, D>(PhantomData<fn() -> (E, D)>);

impl<E, D> Default for SmallBuffers<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for SmallBuffers<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Protobuf<E>;
    type Decoder = Protobuf<D>;

    fn encoder(&mut self) -> Self::Encoder {
        Protobuf(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Protobuf(PhantomData)
    }
}

/// Encodes and decodes messages of one type.
#[derive(Debug, Clone)]
pub struct Protobuf<T>(PhantomData<fn() -> T>);

impl<T: Message> Encoder for Protobuf<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // The length is asked for once, and the buffer grows once.
        buffer.reserve(item.encoded_len());
        item.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(INITIAL, YIELD)
    }
}

impl<T: Message + Default> Decoder for Protobuf<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("malformed message: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(INITIAL, YIELD)
    }
}
