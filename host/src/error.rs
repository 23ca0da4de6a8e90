//! What can go wrong, and whose doing it is.

use std::io;
use std::path::PathBuf;

use crate::types::{
    BatchError, ConfigurationItem, ConfigureError, FlowError, OpenError, OutOfBounds,
};

/// Why a call failed.
///
/// [`ComponentFile`](Self::ComponentFile), [`Component`](Self::Component),
/// [`Configure`](Self::Configure) and [`BatchTooLong`](Self::BatchTooLong) are the
/// embedder's mistakes. [`Batch`](Self::Batch), [`Flow`](Self::Flow) and
/// [`Open`](Self::Open) are the engine's refusals: nothing changed. A
/// [`Trap`](Self::Trap) is a failure of the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The component's file cannot be read.
    #[error("cannot read the component {}", path.display())]
    ComponentFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The bytes are no component, or one that lacks an export of the contract or
    /// imports more than the callbacks.
    #[error("this is not a component of the world l3l4:engine/l3l4@0.1.0")]
    Component(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The operating system gave no random seed, or no thread for the time limit.
    #[error("the operating system refused")]
    System(#[source] io::Error),

    /// The configuration was refused: there is no engine.
    #[error("{}", configure_message(.0))]
    Configure(ConfigureError),

    /// The batch takes more bytes than [`Batch::MAX_BYTES`](crate::Batch::MAX_BYTES), or
    /// [`DataBatch::MAX_BYTES`](crate::DataBatch::MAX_BYTES): nothing of it was looked at.
    #[error("a batch of {0} bytes and records is too long")]
    BatchTooLong(usize),

    /// The engine refused the batch: nothing of it was looked at.
    #[error("the batch was refused: {}", .0.name())]
    Batch(BatchError),

    /// The engine refused a call about a flow.
    #[error("the flow's call was refused: {}", .0.name())]
    Flow(FlowError),

    /// The engine did not open the flow.
    #[error("the flow was not opened: {}", .0.name())]
    Open(OpenError),

    /// No instance can be made: the guest's memory limit is below what it needs
    /// to start, or it traps as it starts.
    #[error("the component does not start")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The guest trapped: a fault in it, its memory limit, or its time limit. The
    /// application was told that every live flow is closed
    /// ([`CloseReason::EngineLost`](crate::CloseReason::EngineLost)), and the next
    /// call goes to a new instance with the same configuration.
    #[error("the guest trapped, {flows_lost} flows are lost")]
    Trap {
        /// How many flows were alive.
        flows_lost: usize,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn configure_message(error: &ConfigureError) -> String {
    match error {
        ConfigureError::AlreadyConfigured => "the instance is configured already".to_owned(),
        ConfigureError::OutOfBounds(OutOfBounds {
            item,
            given,
            least,
            most,
        }) => {
            let (option, unit) = option(*item);
            format!("{option}: {given} {unit} is outside of {least} to {most} {unit}")
        }
    }
}

/// The builder's name of an item, and the unit of its values in [`OutOfBounds`].
fn option(item: ConfigurationItem) -> (&'static str, &'static str) {
    match item {
        ConfigurationItem::Mtu => ("mtu", "bytes"),
        ConfigurationItem::MaxFlows => ("max_flows", "flows"),
        ConfigurationItem::MaxHalfOpen => ("max_half_open", "flows"),
        ConfigurationItem::MemoryLimit => ("memory_limit", "bytes"),
        ConfigurationItem::TcpReceiveBuffer => ("tcp_receive_buffer", "bytes"),
        ConfigurationItem::TcpSendBuffer => ("tcp_send_buffer", "bytes"),
        ConfigurationItem::MinRto => ("min_rto", "ns"),
        ConfigurationItem::VerdictTimeout => ("verdict_timeout", "ns"),
        ConfigurationItem::HandshakeTimeout => ("handshake_timeout", "ns"),
        ConfigurationItem::TcpIdleTimeout => ("tcp_idle_timeout", "ns"),
        ConfigurationItem::UserTimeout => ("user_timeout", "ns"),
        ConfigurationItem::FinWaitTimeout => ("fin_wait_timeout", "ns"),
        ConfigurationItem::TimeWait => ("time_wait", "ns"),
        ConfigurationItem::UdpIdleTimeout => ("udp_idle_timeout", "ns"),
        ConfigurationItem::IcmpIdleTimeout => ("icmp_idle_timeout", "ns"),
        ConfigurationItem::MaxStrayReplies => ("max_stray_replies", "a second"),
        ConfigurationItem::ReassemblyMemory => ("reassembly_memory", "bytes"),
        ConfigurationItem::ReassemblyTimeout => ("reassembly_timeout", "ns"),
    }
}
