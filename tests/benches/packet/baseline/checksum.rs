//! The Internet checksum (RFC 1071), fast enough inside wasm.

use std::net::IpAddr;

/// A partial one's complement sum, in little-endian byte order: the sum does not
/// care about the order (RFC 1071 2(B)) as long as all parts agree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// The sum over the pseudo-header of IPv4 (RFC 9293 3.1) or IPv6 (RFC 8200
    /// 8.1); both come to the same form.
    pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Self {
        let addresses = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Self::default().add(&src.octets()).add(&dst.octets())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Self::default().add(&src.octets()).add(&dst.octets())
            }
            // The parser and the flow table only make tuples of one family.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Self::default(),
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        addresses.add(&length.to_be_bytes()).add(&[0, protocol])
    }

    /// Adds bytes that start at an even offset of the checksummed data.
    ///
    /// Eight accumulators of 64 bits take 32 bytes a round, in a form that the
    /// compiler turns into vector instructions (simd128 in the component).
    pub(super) fn add(self, data: &[u8]) -> Self {
        let mut lanes = [0u64; 8];
        let (blocks, rest) = data.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_le_bytes(*word));
            }
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        let tail: u64 = pairs
            .iter()
            .map(|pair| u64::from(u16::from_le_bytes(*pair)))
            .sum();
        let last: u64 = odd.iter().map(|byte| u64::from(*byte)).sum();
        // 64 KiB of data stay below 2^46: nothing overflows.
        Self(fold_once(self.0 + lanes.iter().sum::<u64>() + tail + last))
    }

    /// The value for the checksum field, in network order. Over data that holds
    /// a correct checksum it is `[0, 0]`.
    pub(super) fn finish(self) -> [u8; 2] {
        let folded = fold_once(fold_once(fold_once(self.0)));
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
        let sum = folded as u16;
        (!sum).to_le_bytes()
    }

    /// Whether the data summed up holds a correct checksum.
    pub(super) fn is_correct(self) -> bool {
        self.finish() == [0, 0]
    }
}

/// Brings the carries back in: any 64 bits come to 49, 34 and 19, then 16 and 1.
fn fold_once(sum: u64) -> u64 {
    (sum >> 48) + ((sum >> 32) & 0xffff) + ((sum >> 16) & 0xffff) + (sum & 0xffff)
}
