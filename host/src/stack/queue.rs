//! Data on its way between the application and the driver: a bounded queue of
//! bytes, or of datagrams that keep their boundaries.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::budget::FLOOR;
use crate::{DataBatch, FlowId};

/// What a datagram counts beside its bytes, so that empty ones are bounded too.
const DATAGRAM_OVERHEAD: usize = 64;

/// A queue that an idle flow keeps no memory for.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: VecDeque<u8>,
    /// Where each datagram ends; empty for a stream.
    datagrams: VecDeque<Datagram>,
}

/// One datagram of a [`Queue`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) length: usize,
    /// The address it is sent from, when that is not the flow's.
    pub(super) source: Option<SocketAddr>,
}

impl Queue {
    /// Bytes that count against the queue's bound.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.datagrams.len() * DATAGRAM_OVERHEAD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.datagrams.is_empty()
    }

    /// Appends what fits of a stream, and says how much that is.
    pub(super) fn push(&mut self, data: &[u8], room: usize) -> usize {
        let taken = data.len().min(room);
        self.bytes.extend(&data[..taken]);
        taken
    }

    /// Appends a datagram if it fits. An empty queue takes any.
    pub(super) fn push_datagram(
        &mut self,
        data: &[u8],
        source: Option<SocketAddr>,
        room: usize,
    ) -> bool {
        if data.len() + DATAGRAM_OVERHEAD > room && !self.is_empty() {
            return false;
        }
        self.bytes.extend(data);
        let length = data.len();
        self.datagrams.push_back(Datagram { length, source });
        true
    }

    /// The first bytes of a stream that lie in one piece.
    pub(super) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Pushes the pieces at the front that are short to a batch that is not full: of a
    /// stream its first piece, of datagrams those that leave from the flow's own
    /// address, up to an empty one, which would be given up behind one that was not
    /// taken. Says how many.
    pub(super) fn gather(&mut self, id: FlowId, batch: &mut DataBatch) -> usize {
        let before = batch.len();
        if self.datagrams.is_empty() {
            let piece = self.front();
            if (1..=DataBatch::SHORT_BYTES).contains(&piece.len()) {
                batch.push(id, piece);
            }
            return batch.len() - before;
        }
        let mut rest = &*self.bytes.make_contiguous();
        for datagram in &self.datagrams {
            let is_long = datagram.length > DataBatch::SHORT_BYTES;
            let would_be_lost = datagram.length == 0 && batch.len() > before;
            if is_long || would_be_lost || datagram.source.is_some() || batch.is_full() {
                break;
            }
            let (data, after) = rest.split_at(datagram.length);
            batch.push(id, data);
            rest = after;
        }
        batch.len() - before
    }

    /// Removes bytes from the front of a stream.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.bytes.drain(..bytes.min(self.bytes.len()));
        self.shrink();
    }

    /// The first datagram, if there is one.
    pub(super) fn front_datagram(&mut self) -> Option<(&[u8], Datagram)> {
        let datagram = *self.datagrams.front()?;
        if self.bytes.as_slices().0.len() < datagram.length {
            self.bytes.make_contiguous();
        }
        Some((&self.bytes.as_slices().0[..datagram.length], datagram))
    }

    /// Removes the first datagram.
    pub(super) fn advance_datagram(&mut self) {
        if let Some(datagram) = self.datagrams.pop_front() {
            self.advance(datagram.length);
        }
    }

    /// Puts what is left of an older queue before what is in this one.
    pub(super) fn put_back(&mut self, mut older: Self) {
        if older.is_empty() {
            return;
        }
        older.bytes.append(&mut self.bytes);
        older.datagrams.append(&mut self.datagrams);
        *self = older;
    }

    /// Forgets all, memory included.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps no more memory than four times what it holds, which its weight says.
    fn shrink(&mut self) {
        if self.is_empty() {
            self.clear();
        } else if self.bytes.capacity() > 4 * self.bytes.len().max(FLOOR) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_what_fits_and_keeps_its_order() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(b"abcdef", 4), 4);
        let mut newer = Queue::default();
        newer.push(b"ef", 9);
        queue.advance(1);
        newer.put_back(queue);
        let mut all = Vec::new();
        while !newer.is_empty() {
            let piece = newer.front().to_vec();
            newer.advance(piece.len());
            all.extend(piece);
        }
        assert_eq!(all, b"bcdef");
    }

    #[test]
    fn what_is_nearly_empty_keeps_little_memory() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(&[1; 200_000], 200_000), 200_000);
        queue.advance(199_990);
        assert!(queue.bytes.capacity() <= 4 * FLOOR);
        assert_eq!(queue.front(), [1; 10]);
    }

    #[test]
    fn short_pieces_are_gathered_from_the_front_and_stay() {
        let gathered = |queue: &mut Queue| {
            let mut batch = DataBatch::new();
            let count = queue.gather(FlowId(7), &mut batch);
            let portions = batch.portions().iter();
            let lengths: Vec<u32> = portions.map(|portion| portion.length).collect();
            assert_eq!(count, lengths.len());
            lengths
        };
        let mut stream = Queue::default();
        assert_eq!(gathered(&mut stream), [0u32; 0]);
        stream.push(&[1; DataBatch::SHORT_BYTES], usize::MAX);
        let short = u32::try_from(DataBatch::SHORT_BYTES).unwrap();
        assert_eq!(gathered(&mut stream), [short]);
        stream.push(b"!", usize::MAX);
        assert_eq!(gathered(&mut stream), [0u32; 0]);
        assert_eq!(stream.weight(), DataBatch::SHORT_BYTES + 1);

        let source = Some("[::1]:1".parse().unwrap());
        for (lengths, expected) in [
            (&[(0, None), (1, None), (2, None)][..], &[0, 1, 2][..]),
            (&[(1, None), (0, None), (2, None)], &[1]),
            (&[(1, None), (2, source), (3, None)], &[1]),
            (&[(1, source), (2, None)], &[]),
            (&[(3, None), (DataBatch::SHORT_BYTES + 1, None)], &[3]),
        ] {
            let mut datagrams = Queue::default();
            for (length, source) in lengths {
                datagrams.push_datagram(&vec![9; *length], *source, usize::MAX);
            }
            assert_eq!(gathered(&mut datagrams), expected);
        }

        let mut many = Queue::default();
        for _ in 0..200 {
            many.push_datagram(&[5; 1000], None, usize::MAX);
        }
        let most = DataBatch::GOOD_BYTES / (1000 + 32) + 1;
        assert_eq!(gathered(&mut many).len(), most);
    }

    #[test]
    fn datagrams_keep_their_boundaries_and_empty_ones_have_weight() {
        let mut queue = Queue::default();
        assert!(
            queue.push_datagram(&[1; 1000], None, 10),
            "the first always"
        );
        assert!(!queue.push_datagram(b"two", None, 66));
        assert!(queue.push_datagram(b"", None, 64));
        assert_eq!(queue.weight(), 1000 + 2 * DATAGRAM_OVERHEAD);
        assert_eq!(queue.front_datagram().unwrap().0, [1; 1000]);
        queue.advance_datagram();
        assert_eq!(queue.front_datagram().unwrap().0, b"");
        queue.advance_datagram();
        assert!(queue.is_empty() && queue.front_datagram().is_none());
    }
}
