//! What the two processes say to each other, over a pair of sockets that keeps the
//! borders of messages and carries descriptors.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::Plan;

/// The longest message; a `resolv.conf` is part of one.
const LONGEST: usize = 64 << 10;

/// In the order in which they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// To the launcher, with the program's standard input.
    Plan(Plan),
    /// From the launcher, with the device.
    Device { mtu: u16 },
    /// From the launcher, which ends.
    Failed(String),
    /// To the launcher: become the program.
    Go,
}

/// One end. It is closed when the launcher becomes the program.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Our end, and the other's.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(ours), theirs))
    }

    /// The end that this process was given.
    pub(super) fn from_end(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(super) fn send(&self, message: &Message, descriptor: Option<impl AsFd>) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if bytes.len() > LONGEST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let descriptors = descriptor.as_ref().map(AsFd::as_fd);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.as_slice().is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors.as_slice()));
        }
        // The other end may be gone: an error, and no SIGPIPE.
        let bytes = [IoSlice::new(&bytes)];
        retry(|| sendmsg(&self.0, &bytes, &mut ancillary, SendFlags::NOSIGNAL)).map(drop)
    }

    /// The next message, with the descriptor that came along.
    pub(super) fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| {
            let bytes = &mut [IoSliceMut::new(&mut bytes)];
            recvmsg(&self.0, bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        if received.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a descriptor was lost: too many are open"));
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let message = postcard::from_bytes(&bytes[..received.bytes]).map_err(io::Error::other)?;
        Ok((message, descriptor))
    }
}

/// Does it again when a signal came in between.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};

    use super::{Channel, Message};

    #[test]
    fn a_message_and_a_descriptor_arrive_and_then_the_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_end(theirs);
        let (mut read_end, mut write_end) = std::io::pipe().unwrap();
        ours.send(&Message::Device { mtu: 9000 }, Some(&write_end))
            .unwrap();
        ours.send(&Message::Go, None::<File>).unwrap();

        let (message, descriptor) = theirs.receive().unwrap();
        assert!(matches!(message, Message::Device { mtu: 9000 }));
        File::from(descriptor.unwrap()).write_all(b"far").unwrap();
        write_end.write_all(b" near").unwrap();
        let mut text = [0; 8];
        read_end.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"far near");

        assert!(matches!(theirs.receive().unwrap(), (Message::Go, None)));
        drop(ours);
        let end = theirs.receive().unwrap_err();
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
        assert!(theirs.send(&Message::Go, None::<File>).is_err());
    }
}
