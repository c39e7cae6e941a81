//! Messages over a socket pair that keeps messages apart, each with a file descriptor beside it if it needs one. Both ends use these
//! functions; what comes in may be hostile.
#![allow(unsafe_code, reason = "descriptors that a message brings are taken over; the block states why it is sound")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
};
use prost::Message;

/// Requests of one executor that may be under way.
pub(crate) const MAX_REQUESTS: usize = 128;
/// Bytes of one message. The longest is the failure that lists where weights were looked for.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Descriptors that the kernel lets one message carry. There is room for all of them, so that none is left behind unseen.
const MAX_DESCRIPTORS: usize = 253;

/// The two ends of a channel.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message, and a descriptor with it.
pub(crate) fn send(socket: impl AsFd, message: &impl Message, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_bytes(socket, &message.encode_to_vec(), file)
}

/// Sends these bytes as one message, and a descriptor with it.
pub(crate) fn send_bytes(socket: impl AsFd, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {} bytes", bytes.len())));
    }
    let descriptors: Vec<RawFd> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let beside = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], beside, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message and the descriptor that came with it; `None` once the other end is closed.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for anything that is not one such message with at most one descriptor.
pub(crate) fn receive<M: Message + Default>(socket: impl AsFd) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut bytes = [0; MAX_MESSAGE_BYTES];
    let Some((length, file)) = receive_bytes(socket, &mut bytes)? else { return Ok(None) };
    let message = M::decode(&bytes[..length]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((message, file)))
}

/// As [`receive`], for bytes: how many there are.
pub(crate) fn receive_bytes(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
    let mut room = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = loop {
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut room), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut files = Vec::new();
    for beside in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = beside {
            // SAFETY: the kernel has just opened these descriptors for this process, and nothing else knows of them.
            files.extend(descriptors.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return invalid("a message is too long");
    }
    if files.len() > 1 {
        return invalid("a message brings more than one descriptor");
    }
    Ok((received.bytes > 0).then(|| (received.bytes, files.pop())))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use sortinghat_proto::executor::v1::ObjectRequest;

    use super::*;

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_message_crosses_with_its_descriptor_and_an_end_is_no_error() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let request = ObjectRequest { id: 7, request: None };
        send(&ours, &request, Some(file.as_fd())).unwrap();
        send(&ours, &request, None).unwrap();
        assert!(matches!(receive::<ObjectRequest>(&theirs).unwrap(), Some((got, Some(_))) if got == request));
        assert!(matches!(receive::<ObjectRequest>(&theirs).unwrap(), Some((got, None)) if got == request));
        drop(ours);
        assert!(receive::<ObjectRequest>(&theirs).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused_and_leaves_no_descriptor_behind() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let before = descriptors();
        let many = [file.as_raw_fd(); MAX_DESCRIPTORS];
        for (bytes, descriptors) in
            [(vec![1; MAX_MESSAGE_BYTES + 1], &many[..1]), (vec![0xff; 9], &many[..1]), (vec![8, 1], &many[..])]
        {
            let beside = [ControlMessage::ScmRights(descriptors)];
            sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&bytes)], &beside, MsgFlags::empty(), None).unwrap();
            let error = receive::<ObjectRequest>(&theirs).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert_eq!(descriptors(), before, "each descriptor that came is closed");
    }
}
