//! Frames in words, a line each.

use std::fmt;

use super::format::{Call, Callback, Frame, Outcome, Returned, wit};
use crate::types::{FiveTuple, FlowId, Instant};

/// A frame without what would fill more than a line.
pub(super) fn in_words(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Header(header) => format!("a record by {}", header.writer),
        Frame::Instance(_) => "a new instance".to_owned(),
        Frame::Started(Ok(())) => "the instance starts".to_owned(),
        Frame::Started(Err(why)) => format!("the instance does not start: {why}"),
        Frame::Call(call) => format!("the call {call}"),
        Frame::Callback(callback) => callback.to_string(),
        Frame::Outcome(outcome) => outcome.to_string(),
        Frame::End => "the end".to_owned(),
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::L3Rx { packets, bytes, .. } => {
                write!(f, "{name}({} packets, {bytes:?})", packets.len())
            }
            Self::L4Tx { flow, data, .. } => write!(f, "{name}({}, {data:?})", FlowId(*flow)),
            Self::L4TxBatch {
                portions, bytes, ..
            } => write!(f, "{name}({} portions, {bytes:?})", portions.len()),
            Self::L4TxFrom {
                flow, local, data, ..
            } => {
                let local = std::net::SocketAddr::from(*local);
                write!(f, "{name}({}, from {local}, {data:?})", FlowId(*flow))
            }
            Self::FlowVerdict { flow, verdict, .. } => {
                write!(f, "{name}({}, {})", FlowId(*flow), Answer(verdict))
            }
            Self::FlowResume { flow, .. }
            | Self::FlowFinish { flow, .. }
            | Self::FlowAbort { flow, .. }
            | Self::FlowInfo { flow } => write!(f, "{name}({})", FlowId(*flow)),
            Self::FlowOpen { tuple, options, .. } => {
                write!(f, "{name}({}{})", Tuple(tuple), Options(options))
            }
            Self::L4Poll { .. } | Self::Flows | Self::Counters => write!(f, "{name}()"),
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::L3Tx { packets, taken } => {
                let lengths: Vec<u32> = packets.iter().map(|sent| sent.packet.length).collect();
                match lengths[..] {
                    [length] => write!(f, "{name}({length} bytes)")?,
                    _ if lengths.len() <= 8 => write!(f, "{name}({lengths:?} bytes)")?,
                    _ => write!(f, "{name}({} packets)", lengths.len())?,
                }
                write!(f, " -> {taken} taken")
            }
            Self::L4Rx {
                flow,
                length,
                digest,
                taken,
            } => write!(
                f,
                "{name}({}, {length} bytes, digest {digest:?}) -> {taken} taken",
                FlowId(*flow)
            ),
            Self::FlowNew {
                flow,
                tuple,
                verdict,
            } => write!(
                f,
                "{name}({}, {}) -> {}",
                FlowId(*flow),
                Tuple(tuple),
                Answer(verdict)
            ),
            Self::FlowEvent { flow, event } => {
                write!(f, "{name}({}, {})", FlowId(*flow), variant(event))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(returned) => write!(f, "returned {returned}"),
            Self::Trapped(what) => write!(f, "trapped: {what}"),
            Self::Panicked => write!(f, "a callback panicked"),
        }
    }
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(deadline) | Self::L3Rx(Ok(deadline)) | Self::Flow(Ok(deadline)) => {
                write!(f, "{}", Deadline(*deadline))
            }
            Self::Sent(Ok(sent)) => {
                write!(f, "{} taken, {}", sent.taken, Deadline(sent.deadline))
            }
            Self::Opened(Ok((flow, deadline))) => {
                write!(f, "{}, {}", FlowId(*flow), Deadline(*deadline))
            }
            Self::BatchSent(Ok(sent)) => {
                write!(f, "{}, {}", Taken(&sent.taken), Deadline(sent.deadline))
            }
            Self::L3Rx(Err(error)) | Self::BatchSent(Err(error)) => write!(f, "{}", error.name()),
            Self::Sent(Err(error)) | Self::Flow(Err(error)) | Self::Info(Err(error)) => {
                write!(f, "{}", error.name())
            }
            Self::Opened(Err(error)) => write!(f, "{}", error.name()),
            Self::Info(Ok(flow)) => write!(f, "{flow:?}"),
            Self::Flows(flows) if flows.len() > 8 => write!(f, "{} flows", flows.len()),
            Self::Flows(flows) => {
                let flows = flows.iter().copied().map(FlowId);
                f.debug_list().entries(flows).finish()
            }
            Self::Counters(counters) => write!(f, "{counters:?}"),
        }
    }
}

/// The names of variants without those of their types.
fn variant(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let mut parts: Vec<&str> = text.split("::").collect();
    let last = parts.pop().unwrap_or_default();
    let before = parts
        .iter()
        .map(|part| part.trim_end_matches(char::is_alphanumeric));
    before.chain([last]).collect()
}

struct Taken<'a>(&'a [Result<u32, wit::FlowError>]);

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bytes, refused] = self
            .0
            .iter()
            .fold([0, 0], |[bytes, refused], one| match one {
                Ok(taken) => [bytes + u64::from(*taken), refused],
                Err(_) => [bytes, refused + 1],
            });
        write!(f, "{bytes} taken of {} portions", self.0.len())?;
        match refused {
            0 => Ok(()),
            refused => write!(f, ", {refused} refused"),
        }
    }
}

struct Deadline(wit::Deadline);

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "no deadline"),
            Some(at) => write!(f, "deadline {} s", Instant(at)),
        }
    }
}

struct Tuple<'a>(&'a wit::FiveTuple);

impl fmt::Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FiveTuple {
            protocol,
            local,
            peer,
        } = (*self.0).into();
        write!(f, "{protocol} peer {peer} local {local}")
    }
}

struct Answer<'a>(&'a wit::Verdict);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            wit::Verdict::Accept(options) => write!(f, "accept{}", Options(options)),
            wit::Verdict::Refuse(how) => write!(f, "refuse ({})", variant(how)),
            wit::Verdict::Drop => write!(f, "drop"),
            wit::Verdict::Wait => write!(f, "wait"),
        }
    }
}

struct Options<'a>(&'a wit::FlowOptions);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wit::FlowOptions {
            nagle,
            keep_alive,
            idle_timeout,
            user_timeout,
        } = self.0;
        if nagle == &Some(true) {
            write!(f, " nagle")?;
        }
        if let Some(time) = keep_alive {
            write!(f, " keep-alive {time} ns")?;
        }
        if let Some(time) = idle_timeout {
            write!(f, " idle-timeout {time} ns")?;
        }
        if let Some(time) = user_timeout {
            write!(f, " user-timeout {time} ns")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Callback, variant, wit};

    #[test]
    fn variants_read_well() {
        let idle = wit::CloseReason::TimedOut(wit::Timer::Idle);
        let event = wit::Event::Closed(idle);
        assert_eq!(variant(&event), "Closed(TimedOut(Idle))");
        assert_eq!(variant(&wit::Refusal::Reset), "Reset");
        let callback = Callback::FlowEvent { flow: 7, event };
        assert_eq!(
            callback.to_string(),
            "flow_event(0.7, Closed(TimedOut(Idle)))"
        );
    }
}
