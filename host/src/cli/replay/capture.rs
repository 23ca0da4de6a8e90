//! `l3l4 replay` of a capture.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use l3l4_host::capture::{Content, Reader};
use l3l4_host::replay::{Application, Checksums, Options, Replay};
use l3l4_host::{Builder, Component, Engine};

use super::outputs::Outputs;
use super::summary::Summary;
use crate::cli::args::{ChecksumsArg, ReplayArgs};
use crate::cli::print;
use crate::cli::progress::Progress;

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<bool> {
    let name = args.file.display();
    let (read, length) = open(&args.file)?;
    let mut reader = Reader::new(read).with_context(|| name.to_string())?;
    let options = Options {
        application: application(&args.app)?,
        peers: args.peers.clone(),
        checksums: match args.checksums {
            ChecksumsArg::Detect => Checksums::Detect,
            ChecksumsArg::Verify => Checksums::Verify,
            ChecksumsArg::Ignore => Checksums::Ignore,
        },
    };
    let mut replay = Replay::new(engine(args)?, options, Outputs::new(args)?)
        .context("cannot start the engine")?;

    let progress = Progress::new(length);
    progress.step(format!("replaying {name}"));
    let fault = feed(&mut reader, &mut replay, &progress)?;
    let linger = Duration::from_secs(args.linger.into());
    let (report, outputs) = replay.finish(linger).context("the replay ended early")?;
    progress.clear();

    let as_expected = outputs.finish()?;
    let ok = as_expected && fault.is_none() && report.traps == 0;
    let summary = Summary::new(&report, reader.counters(), ok, fault.as_deref());
    match args.json {
        true => print(serde_json::to_string(&summary)?),
        false => print(&summary),
    }
    if let Some(fault) = &fault {
        eprintln!("l3l4: {name}: {fault}; everything before it was replayed");
    }
    if report.traps > 0 {
        eprintln!("l3l4: the engine trapped {} times", report.traps);
    }
    Ok(ok)
}

/// Returns what ended the capture early.
fn feed(
    reader: &mut Reader<Box<dyn Read>>,
    replay: &mut Replay<Outputs>,
    progress: &Progress,
) -> anyhow::Result<Option<String>> {
    let mut seen = 0;
    loop {
        let captured = match reader.next() {
            Ok(Some(captured)) => captured,
            Ok(None) => return Ok(None),
            Err(fault) => return Ok(Some(fault.to_string())),
        };
        let (offset, at) = (captured.offset, captured.at);
        let fed = match captured.content {
            Content::Ip(packet) => replay.packet(at, packet, false),
            Content::Cut(packet) => replay.packet(at, packet, true),
            Content::Other(_) => Ok(()),
        };
        fed.context("the replay ended early")?;
        progress.add(usize::try_from(offset.saturating_sub(seen)).unwrap_or(usize::MAX));
        seen = offset;
    }
}

/// The file, or standard input, and how long it is.
fn open(path: &Path) -> anyhow::Result<(Box<dyn Read>, u64)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), 0));
    }
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    Ok((Box::new(file), length))
}

fn engine(args: &ReplayArgs) -> anyhow::Result<Builder> {
    let builder = Engine::builder()
        .mtu(args.mtu.into())
        .congestion_control(args.congestion_control.into())
        .seed(args.seed.0);
    Ok(match &args.component {
        Some(path) => builder.component(&Component::from_file(path)?),
        None => builder,
    })
}

fn application(name: &str) -> anyhow::Result<Application> {
    Ok(match name {
        "captured" => Application::Captured,
        "echo" => Application::Echo,
        "discard" => Application::Discard,
        other => {
            let path = other.strip_prefix("script:").with_context(|| {
                format!("--app {other}: not one of captured, echo, discard, script:FILE")
            })?;
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            Application::Script(text.parse().with_context(|| path.to_owned())?)
        }
    })
}
