//! Data for many flows on its way out.

use crate::batch::Batch;
use crate::bindings::l3l4::engine::types::Portion;
use crate::types::FlowId;

/// Data to send on many flows with one
/// [`Engine::l4_tx_batch`](crate::Engine::l4_tx_batch): the portions' bytes end to
/// end, and a small record for each. Reuse one: [`clear`](Self::clear) keeps its
/// memory.
#[derive(Clone, Debug, Default)]
pub struct DataBatch {
    bytes: Vec<u8>,
    portions: Vec<Portion>,
}

impl DataBatch {
    /// Most bytes that one `l4_tx_batch` takes, of data and of what is kept beside each
    /// portion (32 bytes). They cross the border at once, so that the guest holds a copy
    /// of them, and a batch has to fit into the [`guest
    /// memory`](crate::Builder::guest_memory_limit) beside the engine's own.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Bytes, counted so, from which on it is better to call than to gather more, as
    /// with [`Batch::PART_BYTES`].
    pub const GOOD_BYTES: usize = Batch::PART_BYTES;

    /// Data up to which gathering pays: a call costs about a microsecond, as much as the
    /// copy into the batch. What is longer goes with
    /// [`Engine::l4_tx`](crate::Engine::l4_tx).
    pub const SHORT_BYTES: usize = 8 << 10;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends data for a flow, behind what is here for it already. Of datagram flows
    /// each portion is one datagram.
    ///
    /// More than `u32::MAX` bytes are cut there: a batch of so many is refused.
    pub fn push(&mut self, flow: FlowId, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&data[..length as usize]);
        let flow = flow.0;
        self.portions.push(Portion { flow, length });
    }

    /// Removes all portions and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.portions.clear();
    }

    /// How many portions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.portions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.portions.is_empty()
    }

    /// The bytes of all portions, end to end.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The record of each portion, in order.
    pub(crate) fn portions(&self) -> &[Portion] {
        &self.portions
    }

    /// Whether it is better to call than to gather more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.footprint() >= Self::GOOD_BYTES
    }

    /// Bytes that the guest's copy takes: a record is 16, what was taken of it 8, and
    /// again 8 on its way out.
    pub(crate) fn footprint(&self) -> usize {
        self.bytes.len() + self.portions.len() * 32
    }
}
