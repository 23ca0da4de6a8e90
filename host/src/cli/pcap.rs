//! `--pcap FILE`, of every command that has a device.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use l3l4_host::capture::{Tap, Writer};
use l3l4_host::device::Device;

/// The capture of a command, which may want none.
pub(super) struct Pcap(Option<Writer<File>>);

impl Pcap {
    /// Begins the file, before anything else is done: what cannot be captured is not
    /// worth a run. Nothing is buffered, so that the file is whole however the
    /// program ends.
    pub(super) fn begin(path: Option<&Path>, interface: &str) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let writer = File::create(path)
            .and_then(|file| Writer::new(file, interface))
            .with_context(|| format!("cannot write the capture {}", path.display()))?;
        Ok(Self(Some(writer)))
    }

    /// The device, watched if a capture is wanted.
    pub(super) fn watch(self, device: impl Device + Send + 'static) -> Box<dyn Device + Send> {
        match self.0 {
            Some(writer) => Box::new(Tap::new(device, writer)),
            None => Box::new(device),
        }
    }

    /// As [`watch`](Self::watch), for a device whose descriptor is waited for.
    pub(super) fn watch_polled(self, device: impl Polled + 'static) -> Box<dyn Polled> {
        match self.0 {
            Some(writer) => Box::new(Tap::new(device, writer)),
            None => Box::new(device),
        }
    }
}

/// A device whose descriptor tells when it is ready.
pub(super) trait Polled: Device + AsFd + Send {}

impl<D: Device + AsFd + Send> Polled for D {}
