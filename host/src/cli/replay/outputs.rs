//! Where a replay's output goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use l3l4_host::capture::{Direction, Writer};
use l3l4_host::replay::Sink;
use l3l4_host::{FiveTuple, FlowId};

use super::expect::Expected;
use super::streams::Streams;
use crate::cli::args::ReplayArgs;

pub(super) struct Outputs {
    transcript: Option<(PathBuf, Box<dyn Write>)>,
    expected: Option<Expected>,
    packets: Option<(PathBuf, Writer<BufWriter<File>>)>,
    streams: Option<Streams>,
}

impl Outputs {
    pub(super) fn new(args: &ReplayArgs) -> anyhow::Result<Self> {
        let transcript = match &args.transcript {
            Some(path) => Some((path.clone(), transcript(path)? as Box<dyn Write>)),
            None => None,
        };
        let expected = args.expect.as_deref().map(Expected::open).transpose()?;
        let streams = args.streams.as_deref().map(Streams::new).transpose()?;
        let packets = match &args.write {
            Some(path) => {
                let file = create(path)?;
                let writer = Writer::new(BufWriter::new(file), "l3l4-replay");
                let writer = writer.map_err(|error| named("write", path, &error))?;
                Some((path.clone(), writer))
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
        if let Some((path, mut transcript)) = self.transcript {
            let flushed = transcript.flush();
            flushed.map_err(|error| named("write", &path, &error))?;
        }
        if let Some((path, mut packets)) = self.packets {
            let flushed = packets.flush();
            flushed.map_err(|error| named("write", &path, &error))?;
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
        if let Some((path, transcript)) = &mut self.transcript {
            let written = writeln!(transcript, "{line}");
            written.map_err(|error| named("write", path, &error))?;
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
            Some((path, writer)) => {
                let written = writer.packet(at, direction, packet);
                written.map_err(|error| named("write", path, &error))
            }
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

/// A transcript's file, or standard output.
pub(super) fn transcript(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    Ok(match path == Path::new("-") {
        true => Box::new(BufWriter::new(io::stdout())),
        false => Box::new(BufWriter::new(create(path)?)),
    })
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot make {}", path.display()))
}

/// The error with the file that it is about, and what cannot be done with it.
pub(super) fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    let text = format!("cannot {what} {}: {error}", path.display());
    io::Error::new(error.kind(), text)
}
