//! What a client asks of the [`server`](crate::server): the first bytes of a flow.

use crate::pattern::Pattern;

/// Bytes of an order on the wire.
pub(crate) const ORDER_BYTES: usize = 25;

/// Who sends how much, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Names the flow in the reports, and seeds its streams.
    pub(crate) number: u64,
    /// Bytes that the client sends after the order.
    pub(crate) up: u64,
    /// Bytes that the server sends.
    pub(crate) down: u64,
    /// The server begins only at the end of the client's stream.
    pub(crate) server_waits: bool,
}

impl Order {
    /// As it is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let numbers = [self.number, self.up, self.down];
        let mut bytes = numbers.map(u64::to_be_bytes).concat();
        bytes.push(u8::from(self.server_waits));
        bytes
    }

    /// From its bytes; the length is the caller's business.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let number =
            |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Self {
            number: number(0),
            up: number(8),
            down: number(16),
            server_waits: bytes[24] == 1,
        }
    }

    /// What the client sends after the order.
    pub(crate) fn up_pattern(&self) -> Pattern {
        Pattern::new(self.number << 1)
    }

    /// What the server sends.
    pub(crate) fn down_pattern(&self) -> Pattern {
        Pattern::new(self.number << 1 | 1)
    }
}
