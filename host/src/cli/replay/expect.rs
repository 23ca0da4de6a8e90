//! A transcript beside the one that was expected.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::outputs::named;

/// Lines shown before the first difference, and of either side after it.
const BEFORE: usize = 4;
const AFTER: usize = 8;

/// Compares as the lines come: the two need no memory, however long they are.
/// The first difference is the one to look at, since all that follows depends on
/// it.
pub(super) struct Expected {
    path: PathBuf,
    golden: io::Lines<BufReader<File>>,
    /// The line compared last, from 1.
    line: u64,
    /// The last lines that were the same.
    same: VecDeque<String>,
    difference: Option<Difference>,
}

struct Difference {
    line: u64,
    expected: Vec<String>,
    found: Vec<String>,
}

impl Expected {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            golden: BufReader::new(file).lines(),
            line: 0,
            same: VecDeque::new(),
            difference: None,
        })
    }

    pub(super) fn line(&mut self, found: &str) -> io::Result<()> {
        if let Some(difference) = &mut self.difference {
            if difference.found.len() < AFTER {
                difference.found.push(found.to_owned());
            }
            return Ok(());
        }
        self.line += 1;
        let expected = self.golden.next().transpose();
        let expected = expected.map_err(|error| named("read", &self.path, &error))?;
        if expected.as_deref() == Some(found) {
            if self.same.len() == BEFORE {
                self.same.pop_front();
            }
            self.same.push_back(found.to_owned());
            return Ok(());
        }
        self.difference = Some(Difference {
            line: self.line,
            expected: expected.into_iter().collect(),
            found: vec![found.to_owned()],
        });
        Ok(())
    }

    /// The transcript is complete. Prints the difference, if there is one.
    pub(super) fn finish(mut self) -> anyhow::Result<bool> {
        let name = self.path.display();
        let cannot_read = |error| named("read", &self.path, &error);
        let mut difference = match self.difference.take() {
            Some(difference) => difference,
            None => match self.golden.next().transpose().map_err(cannot_read)? {
                Some(line) => Difference {
                    line: self.line + 1,
                    expected: vec![line],
                    found: Vec::new(),
                },
                None => return Ok(true),
            },
        };
        for line in self.golden.by_ref().take(AFTER - 1) {
            difference.expected.push(line.map_err(cannot_read)?);
        }
        eprintln!("--- {name}");
        eprintln!("+++ this run");
        eprintln!("@@ line {} @@", difference.line);
        for line in &self.same {
            eprintln!(" {line}");
        }
        for line in &difference.expected {
            eprintln!("-{line}");
        }
        for line in &difference.found {
            eprintln!("+{line}");
        }
        Ok(false)
    }
}
