//! Where a replay's output goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use l3l4_host::capture::{Direction, Writer};
use l3l4_host::replay::Sink;
use l3l4_host::{FiveTuple, FlowId};

use super::expect::Expected;
use super::streams::Streams;
use crate::cli::args::ReplayArgs;

pub(super) struct Outputs {
    transcript: Option<Box<dyn Write>>,
    expected: Option<Expected>,
    packets: Option<Writer<BufWriter<File>>>,
    streams: Option<Streams>,
}

impl Outputs {
    pub(super) fn new(args: &ReplayArgs) -> anyhow::Result<Self> {
        let transcript = args.transcript.as_deref().map(transcript).transpose()?;
        let expected = args.expect.as_deref().map(Expected::open).transpose()?;
        let streams = args.streams.as_deref().map(Streams::new).transpose()?;
        let packets = match &args.write {
            Some(path) => {
                let file = create(path)?;
                let writer = Writer::new(BufWriter::new(file), "l3l4-replay");
                Some(writer.with_context(|| format!("cannot write {}", path.display()))?)
            }
            None => None,
        };
        Ok(Self {
            transcript,
            expected,
            packets,
            streams,
        })
    }

    /// All is written. Whether the transcript is as expected.
    pub(super) fn finish(self) -> anyhow::Result<bool> {
        if let Some(mut transcript) = self.transcript {
            transcript.flush().context("cannot write the transcript")?;
        }
        if let Some(mut packets) = self.packets {
            packets.flush().context("cannot write the packets")?;
        }
        match self.expected {
            Some(expected) => expected.finish(),
            None => Ok(true),
        }
    }
}

impl Sink for Outputs {
    fn wants_lines(&self) -> bool {
        self.transcript.is_some() || self.expected.is_some()
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        if let Some(transcript) = &mut self.transcript {
            writeln!(transcript, "{line}")?;
        }
        match &mut self.expected {
            Some(expected) => expected.line(line),
            None => Ok(()),
        }
    }

    fn packet(&mut self, at: u64, sent: bool, packet: &[u8]) -> io::Result<()> {
        let direction = match sent {
            true => Direction::Outbound,
            false => Direction::Inbound,
        };
        match &mut self.packets {
            Some(writer) => writer.packet(at, direction, packet),
            None => Ok(()),
        }
    }

    fn received(&mut self, flow: FlowId, tuple: &FiveTuple, data: &[u8]) -> io::Result<()> {
        match &mut self.streams {
            Some(streams) => streams.received(flow, tuple, data),
            None => Ok(()),
        }
    }

    fn ended(&mut self, flow: FlowId) -> io::Result<()> {
        if let Some(streams) = &mut self.streams {
            streams.ended(flow);
        }
        Ok(())
    }
}

fn transcript(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    Ok(match path == Path::new("-") {
        true => Box::new(io::stdout().lock()),
        false => Box::new(BufWriter::new(create(path)?)),
    })
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot make {}", path.display()))
}
