//! A record, repeated exactly.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use l3l4_host::record::{
    Bytes, Call, Callback, Difference, Ending, Frame, Reader, Replay, ReplayError, Report,
};
use l3l4_host::replay::describe;
use l3l4_host::{Component, Instant};
use serde::Serialize;

use super::outputs::{named, transcript};
use crate::cli::args::ReplayArgs;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::cli::units::{bytes, grouped, hex};

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    let file = args.file.display();
    if args.file == Path::new("-") {
        return repeat(args, BufReader::new(std::io::stdin()), 0);
    }
    let open = File::open(&args.file).with_context(|| format!("cannot open {file}"))?;
    let size = open.metadata().map_or(0, |metadata| metadata.len());
    repeat(args, BufReader::new(open), size)
}

/// Repeats a record of so many bytes, from its first byte on.
fn repeat(args: &ReplayArgs, read: impl Read + Send + 'static, size: u64) -> anyhow::Result<bool> {
    let file = args.file.display();
    let reader = Reader::new(read).with_context(|| file.to_string())?;
    let component = match &args.component {
        Some(path) => Component::from_file(path)?,
        None => Component::embedded(),
    };
    let matched = reader.header().check(&component);
    if let (Err(error), false) = (matched, args.any_component) {
        return Err(which_component(args, error));
    }
    let mut replay = Replay::new(reader, &component);
    let mut transcript = None;
    if let Some(path) = &args.transcript {
        let writer = Transcript::create(path)?;
        replay = replay.observe(writer.observer());
        transcript = Some(writer);
    }

    let progress = Progress::new(size);
    progress.step(format!("replaying {file}"));
    let mut done = 0;
    for step in 0_u32.. {
        let more = replay.step()?;
        if !more || step % 1024 == 0 {
            let offset = replay.offset();
            progress.add(usize::try_from(offset - done).unwrap_or(usize::MAX));
            done = offset;
        }
        if !more {
            break;
        }
    }
    progress.clear();

    let report = replay.into_report();
    if let Some(transcript) = transcript {
        transcript.finish()?;
    }
    match args.json {
        true => print(serde_json::to_string_pretty(&Json::new(args, &report))?),
        false => print_report(args, &report),
    }
    Ok(report.is_identical())
}

fn which_component(args: &ReplayArgs, error: ReplayError) -> anyhow::Error {
    let hint = match args.component {
        Some(_) => "--any-component compares the two all the same",
        None => {
            "--component FILE names the one that the record was made with (l3l4 component of \
             that release writes it), --any-component compares with this one all the same"
        }
    };
    anyhow!("{}: {error}; {hint}", args.file.display())
}

fn print_report(args: &ReplayArgs, report: &Report) {
    let header = &report.header;
    print(format_args!(
        "record:    {}, by {}, {}",
        args.file.display(),
        header.writer,
        ending(report)
    ));
    print(format_args!("component: sha256 {}", hex(&header.component)));
    print(format_args!(
        "calls:     {} in {:.3?}{}",
        grouped(report.all_calls()),
        report.duration(),
        list(&report.calls)
    ));
    print(format_args!(
        "callbacks: {}{}",
        grouped(report.callbacks.values().sum()),
        list(&report.callbacks)
    ));
    print(format_args!(
        "packets:   {} in ({}), {} out ({})",
        grouped(report.packets_in),
        bytes(report.bytes_in),
        grouped(report.packets_out),
        bytes(report.bytes_out)
    ));
    print(format_args!(
        "instances: {}, {} of which trapped",
        grouped(report.instances),
        grouped(report.traps)
    ));
    if let Some(unfinished) = &report.unfinished {
        print(format_args!(
            "call {} was under way when the record ends: {}; here it went on with: {}",
            grouped(unfinished.call),
            unfinished.during,
            unfinished.replayed
        ));
    }
    match (&report.difference, &report.damage) {
        (Some(difference), _) => print_difference(difference),
        (None, Some(damage)) => print(format_args!(
            "{damage}; every output before that is identical"
        )),
        (None, None) => print("every output is identical"),
    }
}

fn print_difference(difference: &Difference) {
    print(format_args!(
        "NOT IDENTICAL: call {}{}, {}",
        grouped(difference.call),
        difference
            .now
            .map_or_else(String::new, |now| format!(" at {now} s")),
        difference.during
    ));
    print(format_args!("  recorded: {}", difference.recorded));
    print(format_args!("  replayed: {}", difference.replayed));
    if let Some(packet) = &difference.packet {
        print(format_args!("            {}", describe(packet)));
    }
}

fn ending(report: &Report) -> String {
    match report.ending {
        Some(Ending::Whole) => "whole".to_owned(),
        Some(Ending::Cut(offset)) => format!(
            "cut off after {} calls at offset {offset} (its program was killed)",
            grouped(report.all_calls())
        ),
        None => format!("replayed for {} calls", grouped(report.all_calls())),
    }
}

/// `: l3_rx 12, l4_tx 3`.
fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    let each = counts
        .iter()
        .map(|(name, count)| format!("{name} {}", grouped(*count)));
    match each.collect::<Vec<_>>() {
        each if each.is_empty() => String::new(),
        each => format!(": {}", each.join(", ")),
    }
}

/// The result for a program.
#[derive(Debug, Serialize)]
struct Json<'a> {
    file: String,
    ok: bool,
    writer: &'a str,
    component: String,
    /// The record was closed; else its program was killed.
    whole: bool,
    seconds: f64,
    calls: &'a BTreeMap<&'static str, u64>,
    callbacks: &'a BTreeMap<&'static str, u64>,
    instances: u64,
    traps: u64,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    unfinished: Option<JsonUnfinished<'a>>,
    difference: Option<JsonDifference<'a>>,
    damage: Option<String>,
}

#[derive(Debug, Serialize)]
struct JsonUnfinished<'a> {
    call: u64,
    during: &'a str,
    replayed: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonDifference<'a> {
    call: u64,
    instant_ns: Option<u64>,
    during: &'a str,
    recorded: &'a str,
    replayed: &'a str,
    packet: Option<String>,
}

impl<'a> Json<'a> {
    fn new(args: &ReplayArgs, report: &'a Report) -> Self {
        Self {
            file: args.file.display().to_string(),
            ok: report.is_identical(),
            writer: &report.header.writer,
            component: hex(&report.header.component),
            whole: report.ending == Some(Ending::Whole),
            seconds: report.duration().as_secs_f64(),
            calls: &report.calls,
            callbacks: &report.callbacks,
            instances: report.instances,
            traps: report.traps,
            packets_in: report.packets_in,
            bytes_in: report.bytes_in,
            packets_out: report.packets_out,
            bytes_out: report.bytes_out,
            unfinished: report.unfinished.as_ref().map(|it| JsonUnfinished {
                call: it.call,
                during: &it.during,
                replayed: &it.replayed,
            }),
            difference: report.difference.as_ref().map(|it| JsonDifference {
                call: it.call,
                instant_ns: it.now.map(|now| now.0),
                during: &it.during,
                recorded: &it.recorded,
                replayed: &it.replayed,
                packet: it.packet.as_deref().map(describe),
            }),
            damage: report.damage.as_ref().map(ToString::to_string),
        }
    }
}

/// Every call and callback as text.
struct Transcript {
    shared: Arc<Mutex<Written>>,
    path: PathBuf,
}

struct Written {
    to: Box<dyn Write + Send>,
    failure: Option<std::io::Error>,
}

impl Transcript {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let to = transcript(path)?;
        let written = Written { to, failure: None };
        Ok(Self {
            shared: Arc::new(Mutex::new(written)),
            path: path.to_owned(),
        })
    }

    fn observer(&self) -> impl FnMut(&Frame<'_>, &[u8]) + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move |frame, bytes| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = write_frame(&mut shared.to, frame, bytes) {
                shared.failure.get_or_insert(error);
            }
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = shared.to.flush();
        let written = shared.failure.take().map_or(flushed, Err);
        written.map_err(|error| named("write", &self.path, &error).into())
    }
}

fn write_frame(to: &mut impl Write, frame: &Frame<'_>, sent: &[u8]) -> std::io::Result<()> {
    match frame {
        Frame::Call(call) => {
            match call.now() {
                Some(now) => writeln!(to, "{} s {call}", Instant(now))?,
                None => writeln!(to, "{call}")?,
            }
            if let Call::L3Rx {
                packets,
                bytes: Bytes(received),
                ..
            } = call
            {
                let lengths = packets.iter().map(|packet| packet.length);
                write_packets(to, '>', lengths, received)?;
            }
            Ok(())
        }
        Frame::Callback(callback) => {
            writeln!(to, "  {callback}")?;
            if let Callback::L3Tx { packets, .. } = callback {
                let lengths = packets.iter().map(|emitted| emitted.packet.length);
                write_packets(to, '<', lengths, sent)?;
            }
            Ok(())
        }
        Frame::Outcome(outcome) => writeln!(to, "  {outcome}"),
        Frame::Instance(configuration) => writeln!(to, "a new instance: {configuration:?}"),
        Frame::Started(Err(why)) => writeln!(to, "it does not start: {why}"),
        Frame::Header(_) | Frame::Started(Ok(())) | Frame::End => Ok(()),
    }
}

/// Packets that lie end to end, a line each. `>` to the engine, `<` from it.
fn write_packets(
    to: &mut impl Write,
    direction: char,
    lengths: impl Iterator<Item = u32>,
    mut bytes: &[u8],
) -> std::io::Result<()> {
    for length in lengths {
        let length = bytes.len().min(length as usize);
        let (packet, rest) = bytes.split_at(length);
        bytes = rest;
        writeln!(to, "    {direction} {}", describe(packet))?;
    }
    Ok(())
}
