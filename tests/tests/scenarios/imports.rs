//! The component touches nothing: its imports are the callbacks, and no more.

use l3l4_host::EMBEDDED;

/// Imports of the outermost component, read out of the binary: section 10 holds
/// imports, each beginning with its name (Component Model, Binary.md).
fn imports(component: &[u8]) -> Vec<String> {
    assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0", "a component");
    let mut names = Vec::new();
    let mut rest = &component[8..];
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = leb128(after);
        let (section, next) = after.split_at(length);
        if id == 10 {
            let (count, mut section) = leb128(section);
            assert_eq!(count, 1, "wit-component writes one import a section");
            assert!(matches!(section[0], 0 | 1), "a plain name");
            section = &section[1..];
            let (length, name) = leb128(section);
            names.push(String::from_utf8(name[..length].to_vec()).expect("UTF-8"));
        }
        rest = next;
    }
    names
}

fn leb128(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .expect("an end");
    let value = bytes[..=end]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, &bytes[end + 1..])
}

#[test]
fn the_component_imports_nothing_but_the_callbacks_and_their_types() {
    let mut imports = imports(EMBEDDED);
    imports.sort();
    assert_eq!(
        imports,
        ["l3l4:engine/callbacks@0.1.0", "l3l4:engine/types@0.1.0"]
    );
}

#[test]
fn the_component_names_no_wasi() {
    assert!(!EMBEDDED.windows(5).any(|window| window == b"wasi:"));
}
