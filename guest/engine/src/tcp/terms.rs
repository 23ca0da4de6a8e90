//! What the host laid down for one flow, in 16 bytes.

use core::time::Duration;

use crate::config::Config;
use crate::types::{FlowOptions, Span};

/// The options with the configuration's defaults filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) nagle: bool,
    /// In milliseconds, 0 for none.
    keep_alive: u32,
    idle_timeout: u32,
    user_timeout: u32,
}

impl Terms {
    pub(crate) fn new(options: &FlowOptions, config: &Config) -> Self {
        Self {
            nagle: options.nagle,
            keep_alive: options.keep_alive.map_or(0, milliseconds),
            idle_timeout: milliseconds(options.idle_timeout.unwrap_or(config.tcp_idle_timeout)),
            user_timeout: milliseconds(options.user_timeout.unwrap_or(config.user_timeout)),
        }
    }

    pub(crate) fn keep_alive(&self) -> Option<Span> {
        (self.keep_alive > 0).then(|| Span::milliseconds(self.keep_alive))
    }

    pub(crate) fn idle_timeout(&self) -> Span {
        Span::milliseconds(self.idle_timeout)
    }

    pub(crate) fn user_timeout(&self) -> Span {
        Span::milliseconds(self.user_timeout)
    }
}

/// Rounded up. The bounds of every timeout, 7 days, fit.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
