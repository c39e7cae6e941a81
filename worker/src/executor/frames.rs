//! Exchanges messages on a byte stream: a length of four bytes, most significant first, and an encoded message.

use std::io::{self, Read, Write};

use prost::Message;
use sortinghat_proto::limits;
use tokio_util::codec::LengthDelimitedCodec;

/// A message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed, or a message is longer than allowed.
    #[error("failed to exchange a message with the other process: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not the expected message.
    #[error("the other process sent an unreadable message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// The same frames for asynchronous code.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(limits::MAX_MESSAGE_BYTES).new_codec()
}

/// Writes one message.
pub(super) fn write(stream: &mut impl Write, message: &impl Message) -> Result<(), FrameError> {
    let body = message.encode_to_vec();
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {} bytes", body.len()));
    if body.len() > limits::MAX_MESSAGE_BYTES {
        return Err(too_long().into());
    }
    let length = u32::try_from(body.len()).map_err(|_| too_long())?;
    stream.write_all(&[&length.to_be_bytes(), body.as_slice()].concat())?;
    Ok(())
}

/// Reads one message; `None` once the other side has closed the stream between two messages.
pub(super) fn read<M: Message + Default>(stream: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut length = [0; 4];
    match stream.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut length[1..])?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limits::MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")).into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(M::decode(body.as_slice())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use sortinghat_proto::executor::v1::Ready;
    use tokio_util::codec::Decoder as _;

    fn ready() -> Ready {
        Ready {
            version: "1.2.3".into(),
            device: "cpu".into(),
            device_reason: "asked for".into(),
            threads: 2,
            device_memory_bytes: 8 << 30,
            sandbox: "on".into(),
            is_fully_confined: true,
        }
    }

    #[test]
    fn both_kinds_of_code_read_the_same_frames() {
        let mut stream = Vec::new();
        write(&mut stream, &ready()).unwrap();
        let frame = codec().decode(&mut BytesMut::from(stream.as_slice())).unwrap().unwrap();
        assert_eq!(Ready::decode(frame).unwrap(), ready());
        let mut rest = stream.as_slice();
        assert_eq!(read::<Ready>(&mut rest).unwrap(), Some(ready()));
        assert_eq!(read::<Ready>(&mut rest).unwrap(), None, "the end between two messages is no error");
    }

    #[test]
    fn a_cut_message_and_an_absurd_length_are_errors() {
        let mut stream = Vec::new();
        write(&mut stream, &ready()).unwrap();
        for end in 1..stream.len() {
            assert!(read::<Ready>(&mut &stream[..end]).is_err(), "cut after {end} bytes");
        }
        assert!(read::<Ready>(&mut [0xff_u8; 8].as_slice()).is_err());
    }
}
