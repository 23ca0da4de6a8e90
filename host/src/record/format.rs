//! The format of a record, version 4, for whoever wants to read one with another
//! program.
//!
//! # The file
//!
//! Eight bytes, `L3L4REC` and the version (the byte 4), then frames to the end:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the payload, little-endian, at most [`MAX_PAYLOAD`] |
//! | 4 | CRC-32 of the 4 bytes before, little-endian |
//! | length | the payload: one [`Frame`] |
//! | 4 | CRC-32 of the payload, little-endian |
//!
//! The CRC-32 is that of IEEE 802.3 (zlib, gzip, PNG). The length has one of its
//! own so that a wrong length is not taken for a file that was cut short.
//!
//! A payload is written in the [postcard wire format][postcard]: a variant is its
//! number (varint, in the order of the definition), fields follow each other in
//! theirs without names, integers above 8 bits are varints of 7 bits a byte, an
//! option is 0, or 1 and the value, a list is its length and its items. The types
//! of [`wit`] are those of `wit/types.wit`, field by field and variant by variant.
//!
//! # The order of frames
//!
//! 1. One [`Frame::Header`].
//! 2. [`Frame::Instance`] and [`Frame::Started`], at the start and each time an
//!    instance is replaced after a trap.
//! 3. For each call of an export [`Frame::Call`], which is written before the
//!    engine is entered; a [`Frame::Callback`] for each callback, when it has its
//!    answer; and one [`Frame::Outcome`].
//! 4. [`Frame::End`], unless the program was killed.
//!
//! A callback that panicked left no answer and has no frame; the call that it was
//! made in has [`Outcome::Panicked`], written when the next call begins.
//!
//! # Units
//!
//! Instants and durations are nanoseconds, of the clock that the calls were given;
//! lengths are bytes. A digest is the XXH3 of 64 bits, with seed 0, of the bytes
//! that it stands for, little-endian.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_64;

use crate::batch::Batch;

/// The contract's own types, as they cross the border.
pub mod wit {
    pub use crate::bindings::l3l4::engine::types::*;
}

/// What a record begins with, before the byte of its version.
pub const MAGIC: [u8; 7] = *b"L3L4REC";
/// The version that this library writes and reads.
pub const VERSION: u8 = 4;
/// Most bytes of one payload: the longest batch ([`Batch::MAX_BYTES`]) with its
/// packets' descriptions, of which each takes at most 9 bytes here and counts 8
/// there, and room for the rest of the call.
pub const MAX_PAYLOAD: usize = Batch::MAX_BYTES + Batch::MAX_BYTES / 8 + 4096;

/// Bytes before a payload.
pub(super) const BEFORE: usize = 8;
/// Bytes after a payload.
pub(super) const AFTER: usize = 4;

/// One thing that happened at the border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame<'a> {
    /// What stays the same for all instances.
    Header(Header),
    /// An instance is made, with this configuration and seed.
    Instance(Box<wit::Configuration>),
    /// It started, or why it did not.
    Started(Result<(), String>),
    /// An export is called.
    Call(#[serde(borrow)] Call<'a>),
    /// The engine called back, and was answered.
    Callback(Callback),
    /// How the call ended.
    Outcome(Outcome),
    /// The engine was dropped: the record is whole.
    End,
}

/// What stays the same for all instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The SHA-256 of the component in binary form.
    pub component: [u8; 32],
    /// The component's length in bytes.
    pub component_bytes: u64,
    /// Name and version of the library that wrote the record.
    pub writer: String,
    /// Most bytes of memory that an instance gets.
    pub guest_memory_limit: u64,
    /// Most nanoseconds that a call may take.
    pub call_time_limit: Option<u64>,
}

/// A call of an export, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "wit/engine.wit explains each")]
pub enum Call<'a> {
    L3Rx {
        now: u64,
        packets: Cow<'a, [wit::Packet]>,
        #[serde(borrow)]
        bytes: Bytes<'a>,
    },
    L4Tx {
        now: u64,
        flow: u64,
        data: Bytes<'a>,
    },
    L4TxFrom {
        now: u64,
        flow: u64,
        local: wit::IpSocketAddress,
        data: Bytes<'a>,
    },
    L4Poll {
        now: u64,
    },
    FlowVerdict {
        now: u64,
        flow: u64,
        verdict: wit::Verdict,
    },
    FlowResume {
        now: u64,
        flow: u64,
    },
    FlowFinish {
        now: u64,
        flow: u64,
    },
    FlowAbort {
        now: u64,
        flow: u64,
    },
    FlowOpen {
        now: u64,
        tuple: wit::FiveTuple,
        options: wit::FlowOptions,
    },
    FlowInfo {
        flow: u64,
    },
    Flows,
    Counters,
    L4TxBatch {
        now: u64,
        portions: Cow<'a, [wit::Portion]>,
        bytes: Bytes<'a>,
    },
}

/// A callback with its answer. Bytes stand here as their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "wit/callbacks.wit explains each")]
pub enum Callback {
    L3Tx {
        packets: Vec<Emitted>,
        taken: u32,
    },
    L4Rx {
        flow: u64,
        length: u32,
        digest: Digest,
        taken: u32,
    },
    FlowNew {
        flow: u64,
        tuple: wit::FiveTuple,
        verdict: wit::Verdict,
    },
    FlowEvent {
        flow: u64,
        event: wit::Event,
    },
}

/// One packet of an `l3-tx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// Its description.
    pub packet: wit::Packet,
    /// Of its bytes.
    pub digest: Digest,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It returned.
    Returned(Returned),
    /// The guest trapped, and this is what the runtime said.
    Trapped(String),
    /// A callback panicked.
    Panicked,
}

/// What an export returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Returned {
    /// `l3-rx`.
    L3Rx(Result<wit::Deadline, wit::BatchError>),
    /// `l4-tx` and `l4-tx-from`.
    Sent(Result<wit::Sent, wit::FlowError>),
    /// `l4-poll`.
    Deadline(wit::Deadline),
    /// `flow-verdict`, `flow-resume`, `flow-finish` and `flow-abort`.
    Flow(Result<wit::Deadline, wit::FlowError>),
    /// `flow-open`.
    Opened(Result<(wit::FlowId, wit::Deadline), wit::OpenError>),
    /// `flow-info`.
    Info(Result<wit::FlowSnapshot, wit::FlowError>),
    /// `flows`.
    Flows(Vec<wit::FlowId>),
    /// `counters`.
    Counters(Box<wit::CounterSnapshot>),
    /// `l4-tx-batch`.
    BatchSent(Result<wit::BatchSent, wit::BatchError>),
}

/// Bytes that are borrowed from where they lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes<'a>(pub &'a [u8]);

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(Self)
    }
}

/// The XXH3 of 64 bits of some bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(bytes))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Eight bytes: a varint would take ten of most digests.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_le_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 8]>::deserialize(deserializer).map(|bytes| Self(u64::from_le_bytes(bytes)))
    }
}

impl Call<'_> {
    /// The instant that the call was given, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        match self {
            Self::L3Rx { now, .. }
            | Self::L4Tx { now, .. }
            | Self::L4TxBatch { now, .. }
            | Self::L4TxFrom { now, .. }
            | Self::L4Poll { now }
            | Self::FlowVerdict { now, .. }
            | Self::FlowResume { now, .. }
            | Self::FlowFinish { now, .. }
            | Self::FlowAbort { now, .. }
            | Self::FlowOpen { now, .. } => Some(*now),
            Self::FlowInfo { .. } | Self::Flows | Self::Counters => None,
        }
    }

    /// The export's name, as the library writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::L3Rx { .. } => "l3_rx",
            Self::L4Tx { .. } => "l4_tx",
            Self::L4TxBatch { .. } => "l4_tx_batch",
            Self::L4TxFrom { .. } => "l4_tx_from",
            Self::L4Poll { .. } => "l4_poll",
            Self::FlowVerdict { .. } => "flow_verdict",
            Self::FlowResume { .. } => "flow_resume",
            Self::FlowFinish { .. } => "flow_finish",
            Self::FlowAbort { .. } => "flow_abort",
            Self::FlowOpen { .. } => "flow_open",
            Self::FlowInfo { .. } => "flow_info",
            Self::Flows => "flows",
            Self::Counters => "counters",
        }
    }
}

impl Callback {
    /// The import's name, as the library writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::L3Tx { .. } => "l3_tx",
            Self::L4Rx { .. } => "l4_rx",
            Self::FlowNew { .. } => "flow_new",
            Self::FlowEvent { .. } => "flow_event",
        }
    }
}

/// Appends a frame. On an error the buffer is as it was.
pub(super) fn append(buffer: &mut Vec<u8>, frame: &Frame<'_>) -> io::Result<()> {
    let start = buffer.len();
    let written = append_payload(buffer, frame);
    if written.is_err() {
        buffer.truncate(start);
    }
    written
}

fn append_payload(buffer: &mut Vec<u8>, frame: &Frame<'_>) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend([0; BEFORE]);
    postcard::to_io(frame, &mut *buffer).map_err(io::Error::other)?;
    let payload = &buffer[start + BEFORE..];
    if payload.len() > MAX_PAYLOAD {
        return Err(io::Error::other(format!(
            "a frame of {} bytes is longer than the {MAX_PAYLOAD} that a record takes",
            payload.len()
        )));
    }
    let length = u32::try_from(payload.len())
        .map_err(io::Error::other)?
        .to_le_bytes();
    let checksum = crc32fast::hash(payload).to_le_bytes();
    buffer.extend(checksum);
    let before = &mut buffer[start..start + BEFORE];
    before[..4].copy_from_slice(&length);
    before[4..].copy_from_slice(&crc32fast::hash(&length).to_le_bytes());
    Ok(())
}

/// Reads a payload, all of it.
pub(super) fn decode(payload: &[u8]) -> postcard::Result<Frame<'_>> {
    match postcard::take_from_bytes(payload)? {
        (frame, []) => Ok(frame),
        (_, _) => Err(postcard::Error::DeserializeBadEncoding),
    }
}
