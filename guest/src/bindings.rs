//! What wit-bindgen generates from the contract.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use super::Component;

wit_bindgen::generate!({
    path: "../wit",
    world: "l3l4:engine/l3l4",
});

export!(Component with_types_in self);
