//! What an application does with each flow, as a text.
//!
//! A script is a list of blocks. A block begins at the left margin with the flows
//! that it is for (`tcp`, `udp` or `any`, and perhaps a local port); the first
//! block that fits a flow is its own. What it does follows, indented, a step a
//! line:
//!
//! ```text
//! # A server of one line, and one that is not there.
//! tcp 80
//!     after 16                      # until 16 bytes have come in all
//!     send "HTTP/1.1 204 No Content\r\n\r\n"
//!     wait 200ms
//!     finish                        # or: abort
//! tcp 81
//!     refuse reset                  # or another refusal of the contract, or: drop
//! any
//!     after end                     # until the peer has sent all
//!     send "bye"
//! ```
//!
//! `send 5000` sends so many bytes of a pattern, `echo` sends back all that comes
//! from there on. A UDP flow sends a datagram a step. When the steps are done, and
//! for flows without a block, the application takes all, and finishes when the
//! peer has.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{FiveTuple, Protocol, Refusal};

/// A script, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    protocol: Option<Protocol>,
    port: Option<u16>,
    steps: Arc<[Step]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Until so many bytes have come.
    After(u64),
    /// Until the peer has sent all.
    AfterEnd,
    Wait(Duration),
    Send(Vec<u8>),
    Echo,
    Finish,
    Abort,
    /// First only: the verdict.
    Refuse(Refusal),
    /// First only: the verdict.
    Drop,
}

/// What is wrong with a script, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What was expected.
    pub message: String,
}

impl Script {
    pub(crate) fn steps(&self, tuple: &FiveTuple) -> Arc<[Step]> {
        let fits = |block: &&Block| {
            block.protocol.is_none_or(|wanted| wanted == tuple.protocol)
                && block.port.is_none_or(|port| port == tuple.local.port())
        };
        let block = self.blocks.iter().find(fits);
        block.map_or_else(Arc::default, |block| Arc::clone(&block.steps))
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut blocks: Vec<(Block, Vec<Step>)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = Words::new(line, index + 1);
            let Some(first) = words.word() else { continue };
            if line.starts_with([' ', '\t']) {
                let Some((_, steps)) = blocks.last_mut() else {
                    return Err(words.error("a step before any block: begin with tcp, udp or any"));
                };
                let step = words.step(first)?;
                if matches!(step, Step::Refuse(_) | Step::Drop) && !steps.is_empty() {
                    return Err(words.error("refuse and drop come first: the flow was accepted"));
                }
                steps.push(step);
            } else {
                blocks.push((words.block(first)?, Vec::new()));
            }
            words.end()?;
        }
        let blocks = blocks.into_iter().map(|(block, steps)| Block {
            steps: steps.into(),
            ..block
        });
        Ok(Self {
            blocks: blocks.collect(),
        })
    }
}

/// The words of one line.
struct Words<'a> {
    text: &'a str,
    line: usize,
    /// Where the word read last begins, and where the next is looked for.
    start: usize,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(text: &'a str, line: usize) -> Self {
        Self {
            text,
            line,
            start: 0,
            at: 0,
        }
    }

    /// The next word: up to white space, or a text in quotes with them.
    fn word(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let skipped = rest.len() - rest.trim_start().len();
        self.start = self.at + skipped;
        let rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            return None;
        }
        let length = match rest.strip_prefix('"') {
            Some(inner) => closing_quote(inner).map_or(rest.len(), |at| at + 2),
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        self.at = self.start + length;
        Some(&rest[..length])
    }

    fn block(&mut self, first: &str) -> Result<Block, ScriptError> {
        let protocol = match first {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "any" => None,
            _ => return Err(self.error("a block begins with tcp, udp or any")),
        };
        let port = match self.word() {
            Some(word) => Some(word.parse().map_err(|_| self.error("not a port"))?),
            None => None,
        };
        Ok(Block {
            protocol,
            port,
            steps: Arc::new([]),
        })
    }

    fn step(&mut self, first: &str) -> Result<Step, ScriptError> {
        Ok(match first {
            "after" => match self.argument("a number of bytes, or end")? {
                "end" => Step::AfterEnd,
                word => Step::After(self.number(word)?),
            },
            "wait" => {
                let word = self.argument("a time such as 200ms or 2s")?;
                Step::Wait(self.time(word)?)
            }
            "send" => match self.argument("a text in quotes, or a number of bytes")? {
                word if word.starts_with('"') => Step::Send(self.unquote(word)?),
                word => Step::Send(self.pattern(word)?),
            },
            "refuse" => {
                let word = self.argument("reset or an unreachable")?;
                Step::Refuse(self.refusal(word)?)
            }
            "echo" => Step::Echo,
            "finish" => Step::Finish,
            "abort" => Step::Abort,
            "drop" => Step::Drop,
            _ => {
                let steps = "after, send, wait, echo, finish, abort, refuse or drop";
                return Err(self.error(&format!("no such step: {steps}")));
            }
        })
    }

    fn argument(&mut self, what: &str) -> Result<&'a str, ScriptError> {
        self.word()
            .ok_or_else(|| self.error(&format!("{what} is missing")))
    }

    fn number<N: FromStr>(&self, word: &str) -> Result<N, ScriptError> {
        word.parse().map_err(|_| self.error("not a number"))
    }

    fn time(&self, word: &str) -> Result<Duration, ScriptError> {
        let digits = word.trim_end_matches(char::is_alphabetic);
        let number: u32 = self.number(digits)?;
        match &word[digits.len()..] {
            "us" => Ok(Duration::from_micros(number.into())),
            "ms" => Ok(Duration::from_millis(number.into())),
            "s" => Ok(Duration::from_secs(number.into())),
            _ => Err(self.error("a time ends in us, ms or s")),
        }
    }

    /// Bytes that differ from their neighbours 256 further on.
    fn pattern(&self, word: &str) -> Result<Vec<u8>, ScriptError> {
        const MOST: usize = 64 << 20;
        let length: usize = self.number(word)?;
        if length > MOST {
            return Err(self.error("more than 67108864 bytes (64 MiB)"));
        }
        Ok((0..length)
            .map(|at| ((at ^ (at >> 8) ^ (at >> 16)) & 0xff).to_le_bytes()[0])
            .collect())
    }

    fn refusal(&self, word: &str) -> Result<Refusal, ScriptError> {
        Ok(match word {
            "reset" => Refusal::Reset,
            "network-unreachable" => Refusal::NetworkUnreachable,
            "host-unreachable" => Refusal::HostUnreachable,
            "port-unreachable" => Refusal::PortUnreachable,
            "prohibited" => Refusal::Prohibited,
            _ => {
                return Err(self.error(
                    "no such refusal: reset, network-unreachable, host-unreachable, \
                     port-unreachable or prohibited",
                ));
            }
        })
    }

    fn unquote(&mut self, word: &str) -> Result<Vec<u8>, ScriptError> {
        let inner = word
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let Some(inner) = inner.filter(|_| word.len() > 1) else {
            return Err(self.error("the closing quote is missing"));
        };
        let mut bytes = Vec::new();
        let mut rest = inner.char_indices();
        let begin = self.start + 1;
        while let Some((at, letter)) = rest.next() {
            if letter != '\\' {
                bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            self.start = begin + at;
            bytes.push(match rest.next().map(|(_, letter)| letter) {
                Some('n') => b'\n',
                Some('r') => b'\r',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('"') => b'"',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).map(|(_, digit)| digit).collect();
                    u8::from_str_radix(&digits, 16)
                        .map_err(|_| self.error("\\x takes two hexadecimal digits"))?
                }
                _ => return Err(self.error("no such escape: \\n \\r \\t \\0 \\\\ \\\" \\x41")),
            });
        }
        Ok(bytes)
    }

    fn end(&mut self) -> Result<(), ScriptError> {
        match self.word() {
            Some(_) => Err(self.error("nothing more was expected here")),
            None => Ok(()),
        }
    }

    /// At the word read last.
    fn error(&self, message: &str) -> ScriptError {
        ScriptError {
            line: self.line,
            column: self.text[..self.start].chars().count() + 1,
            message: message.to_owned(),
        }
    }
}

/// Where the quote is that ends a text, which an escaped one does not.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::{Script, Step};
    use crate::types::{FiveTuple, Protocol, Refusal};
    use std::time::Duration;

    fn steps(text: &str, protocol: Protocol, port: u16) -> Vec<Step> {
        let script: Script = text.parse().expect("a script");
        let tuple = FiveTuple {
            protocol,
            local: ([192, 0, 2, 1], port).into(),
            peer: ([198, 51, 100, 2], 40_000).into(),
        };
        script.steps(&tuple).to_vec()
    }

    #[test]
    fn the_first_block_that_fits_counts() {
        let text = "tcp 80\n  send \"a # \\x41\\\"\\n\" # said\n  wait 200ms\n  after 16\n  after end\n\
                    \n# nothing\ntcp 81\n\trefuse reset\nany\n  echo\n";
        let expected = [
            Step::Send(b"a # A\"\n".to_vec()),
            Step::Wait(Duration::from_millis(200)),
            Step::After(16),
            Step::AfterEnd,
        ];
        assert_eq!(steps(text, Protocol::Tcp, 80), expected);
        assert_eq!(
            steps(text, Protocol::Tcp, 81),
            [Step::Refuse(Refusal::Reset)]
        );
        assert_eq!(steps(text, Protocol::Udp, 80), [Step::Echo]);
        assert_eq!(steps("tcp 1\n  finish", Protocol::Tcp, 2), []);
    }

    #[test]
    fn an_error_names_its_place() {
        for (text, place) in [
            ("  finish", "line 1, column 3: a step before any block"),
            ("tcp x", "line 1, column 5: not a port"),
            ("tcp 1 2", "line 1, column 7: nothing more"),
            ("any\n  send \"ä\\q\"", "line 2, column 10: no such escape"),
            ("any\n  send \"a", "line 2, column 8: the closing quote"),
            ("any\n  wait 3h", "line 2, column 8: a time ends in"),
            (
                "any\n  wait",
                "line 2, column 7: a time such as 200ms or 2s is missing",
            ),
            (
                "any\n  echo\n  refuse reset",
                "line 3, column 10: refuse and drop come first",
            ),
            ("any\n  dance", "line 2, column 3: no such step"),
        ] {
            let error = text.parse::<Script>().expect_err(text).to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
