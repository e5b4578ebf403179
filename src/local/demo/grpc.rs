//! Just enough gRPC for one method: length-prefixed messages, and two protobuf messages by hand.
//!
//! ```proto
//! service Inventory { rpc Stock(StockRequest) returns (StockReply); }   // package shop
//! message StockRequest { string sku = 1; }
//! message StockReply { string sku = 1; uint32 count = 2; }
//! ```
//! Specs: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), Protocol Buffers encoding.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(super) const STOCK: &str = "/shop.Inventory/Stock";
pub(super) const CONTENT_TYPE: &str = "application/grpc";

/// The status codes that the shop uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    InvalidArgument = 3,
    Unimplemented = 12,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the message is cut off or has more than it says")]
    Length,
    #[error("the message is compressed, which was not agreed on")]
    Compressed,
    #[error("the message is no protobuf of this kind")]
    Malformed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StockRequest {
    pub(super) sku: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StockReply {
    pub(super) sku: String,
    pub(super) count: u32,
}

/// One message with its five-byte prefix.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The only message of a unary call's body.
pub(super) fn unframe(mut body: Bytes) -> Result<Bytes, Error> {
    if body.len() < PREFIX {
        return Err(Error::Length);
    }
    let (compressed, length) = (body.get_u8() != 0, body.get_u32());
    if compressed {
        return Err(Error::Compressed);
    }
    if usize::try_from(length) != Ok(body.len()) { Err(Error::Length) } else { Ok(body) }
}

impl StockRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, 1, &self.sku);
        out
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Error> {
        let mut request = Self::default();
        fields(message, |field, value| {
            if let (1, Value::Bytes(bytes)) = (field, value) {
                request.sku = text(bytes)?;
            }
            Ok(())
        })?;
        Ok(request)
    }
}

impl StockReply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, 1, &self.sku);
        put_varint(&mut out, 2 << 3);
        put_varint(&mut out, self.count.into());
        out
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Error> {
        let mut reply = Self::default();
        fields(message, |field, value| {
            match (field, value) {
                (1, Value::Bytes(bytes)) => reply.sku = text(bytes)?,
                (2, Value::Varint(count)) => reply.count = u32::try_from(count).map_err(|_| Error::Malformed)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(reply)
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Walks a message's fields; those of other wire types are no part of these messages.
fn fields<'a>(mut rest: &'a [u8], mut see: impl FnMut(u64, Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| Error::Malformed)?;
                let (bytes, after) = rest.split_at_checked(length).ok_or(Error::Malformed)?;
                rest = after;
                Value::Bytes(bytes)
            }
            _ => return Err(Error::Malformed),
        };
        see(key >> 3, value)?;
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(Error::Malformed)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::Malformed)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, field: u64, text: &str) {
    put_varint(out, field << 3 | 2);
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Error::Malformed)
}

/// One byte "compressed", four bytes length.
const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_decode_as_they_were_encoded(sku in ".{0,200}", count: u32) {
            let request = StockRequest { sku: sku.clone() };
            let framed = frame(&request.encode());
            prop_assert_eq!(StockRequest::decode(&unframe(framed).unwrap()), Ok(request));
            let reply = StockReply { sku, count };
            prop_assert_eq!(StockReply::decode(&reply.encode()), Ok(reply));
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = unframe(bytes.clone().into());
            let _ = StockReply::decode(&bytes);
        }
    }

    #[test]
    fn the_encoding_is_that_of_protobuf() {
        let reply = StockReply { sku: "tea".into(), count: 300 };
        assert_eq!(reply.encode(), [0x0a, 3, b't', b'e', b'a', 0x10, 0xac, 0x02]);
        assert_eq!(&frame(&[1, 2])[..], [0, 0, 0, 0, 2, 1, 2]);
    }
}
