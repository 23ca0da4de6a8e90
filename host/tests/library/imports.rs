//! What the embedded component can reach: read out of its binary.

use l3l4_host::EMBEDDED;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

const TYPES: &str = "l3l4:engine/types@0.1.0";
const CALLBACKS: &str = "l3l4:engine/callbacks@0.1.0";
const FUNCTIONS: [&str; 4] = ["l3-tx", "l4-rx", "flow-new", "flow-event"];

/// The names of the component's own imports, and module and name of those of the
/// core modules in it.
fn imports() -> (Vec<&'static str>, Vec<(&'static str, &'static str)>) {
    let mut component = Vec::new();
    let mut core = Vec::new();
    let mut nested = Vec::new();
    for payload in Parser::new(0).parse_all(EMBEDDED) {
        match payload.unwrap() {
            Payload::Version { encoding, .. } => nested.push(encoding),
            Payload::End(_) => drop(nested.pop()),
            Payload::ComponentImportSection(section) if nested == [Encoding::Component] => {
                for import in section {
                    let import = import.unwrap();
                    assert!(matches!(import.ty, ComponentTypeRef::Instance(_)));
                    component.push(import.name.name);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.unwrap();
                    core.push((import.module, import.name));
                }
            }
            _ => {}
        }
    }
    (component, core)
}

#[test]
fn the_component_imports_the_types_and_the_callbacks() {
    assert_eq!(imports().0, [TYPES, CALLBACKS]);
}

#[test]
fn the_engine_inside_imports_the_four_callbacks() {
    let mut functions: Vec<_> = imports()
        .1
        .into_iter()
        // The modules that wit-component adds are joined by tables with empty names.
        .filter(|(module, _)| !module.is_empty())
        .collect();
    functions.sort_unstable();
    let mut expected = FUNCTIONS.map(|function| (CALLBACKS, function));
    expected.sort_unstable();
    assert_eq!(functions, expected);
}
