//! One packet in a line, for every command that prints packets.

pub(crate) use l3l4_host::replay::describe;
