//! What each flow received, as a file.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use l3l4_host::{FiveTuple, FlowId};

use super::outputs::named;

/// Most files that are open at once.
const MOST_OPEN: usize = 64;

pub(super) struct Streams {
    directory: PathBuf,
    /// The files of the flows that live.
    paths: HashMap<FlowId, PathBuf>,
    /// How often a name was used.
    used: HashMap<String, u32>,
    open: HashMap<FlowId, File>,
    /// The flows of `open`, oldest first.
    order: VecDeque<FlowId>,
}

impl Streams {
    pub(super) fn new(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            paths: HashMap::new(),
            used: HashMap::new(),
            open: HashMap::new(),
            order: VecDeque::new(),
        })
    }

    pub(super) fn received(
        &mut self,
        flow: FlowId,
        tuple: &FiveTuple,
        data: &[u8],
    ) -> io::Result<()> {
        let written = match self.open.get_mut(&flow) {
            Some(file) => file.write_all(data),
            None => self.reopen(flow, tuple)?.write_all(data),
        };
        written.map_err(|error| named("write", &self.directory, &error))
    }

    pub(super) fn ended(&mut self, flow: FlowId) {
        self.paths.remove(&flow);
        if self.open.remove(&flow).is_some() {
            self.order.retain(|open| *open != flow);
        }
    }

    /// Opens the flow's file, in the place of the one that is open for longest.
    fn reopen(&mut self, flow: FlowId, tuple: &FiveTuple) -> io::Result<&mut File> {
        let file = self.file(flow, tuple)?;
        if self.open.len() >= MOST_OPEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.order.push_back(flow);
        Ok(self.open.entry(flow).or_insert(file))
    }

    /// The flow's file: a new one, or to be continued.
    fn file(&mut self, flow: FlowId, tuple: &FiveTuple) -> io::Result<File> {
        if let Some(path) = self.paths.get(&flow) {
            let file = OpenOptions::new().append(true).open(path);
            return file.map_err(|error| named("write", path, &error));
        }
        let name = name(tuple);
        let used = self.used.entry(name.clone()).or_default();
        *used += 1;
        let path = match used {
            1 => self.directory.join(format!("{name}.peer")),
            again => self.directory.join(format!("{name}.{again}.peer")),
        };
        let file = File::create(&path).map_err(|error| named("make", &path, &error))?;
        self.paths.insert(flow, path);
        Ok(file)
    }
}

/// `tcp-198.51.100.2.40000-192.0.2.1.80`: the peer, and whom it spoke to. The
/// colons of IPv6 are no good in a file's name everywhere.
fn name(tuple: &FiveTuple) -> String {
    let (protocol, peer, local) = (tuple.protocol, tuple.peer, tuple.local);
    let name = format!(
        "{protocol}-{}.{}-{}.{}",
        peer.ip(),
        peer.port(),
        local.ip(),
        local.port()
    );
    name.replace(':', "_")
}
