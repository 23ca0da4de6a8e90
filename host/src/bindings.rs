//! What wasmtime generates from the contract. The imports are linked by hand in
//! `link.rs`, which lends lists instead of copying them.
#![allow(missing_docs, unused_qualifications, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "l3l4:engine/l3l4",
    additional_derives: [PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize],
});
