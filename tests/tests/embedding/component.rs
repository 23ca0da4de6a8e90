//! The embedded engine with a fault built in: it traps at a packet of one length, and
//! is the engine otherwise.

use l3l4_host::EMBEDDED;
use wasm_encoder::{BlockType, CodeSection, Encode, Function, InstructionSink, MemArg};
use wasmparser::{ExternalKind, FunctionBody, Parser, Payload, TypeRef};

/// Its core module's `l3-rx` looks at the packets' lengths first.
pub(crate) fn that_traps_at_a_packet_of(length: u32) -> Vec<u8> {
    let mut component = EMBEDDED[..8].to_vec();
    let (mut depth, mut replaced) = (0, 0);
    for payload in Parser::new(0).parse_all(EMBEDDED) {
        let payload = payload.unwrap();
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ => {}
        }
        let Some((id, range)) = payload.as_section().filter(|_| depth == 1) else {
            continue;
        };
        let mut content = EMBEDDED[range].to_vec();
        if let Payload::ModuleSection { .. } = payload
            && let Some(l3_rx) = l3_rx(&content)
        {
            content = with_fault(&content, l3_rx, length);
            replaced += 1;
        }
        component.push(id);
        content.encode(&mut component);
    }
    assert_eq!(replaced, 1, "modules with an l3-rx");
    component
}

/// Which of the module's own functions it is.
fn l3_rx(module: &[u8]) -> Option<u32> {
    let (mut imported, mut exported) = (0, None);
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imported += u32::from(matches!(import.unwrap().ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(section) => {
                let mut exports = section.into_iter().map(Result::unwrap);
                let found =
                    exports.find(|it| it.kind == ExternalKind::Func && it.name.ends_with("#l3-rx"));
                exported = found.map(|it| it.index);
            }
            _ => {}
        }
    }
    Some(exported? - imported)
}

fn with_fault(module: &[u8], l3_rx: u32, length: u32) -> Vec<u8> {
    let mut faulty = module[..8].to_vec();
    let (mut code, mut left, mut at) = (CodeSection::new(), 0, 0);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.unwrap();
        match &payload {
            Payload::CodeSectionStart { count, .. } => left = *count,
            Payload::CodeSectionEntry(body) => {
                match at == l3_rx {
                    true => code.function(&checked(body, module, length)),
                    false => code.raw(&module[body.range()]),
                };
                at += 1;
                left -= 1;
                if left == 0 {
                    faulty.push(10);
                    code.encode(&mut faulty);
                }
            }
            _ => {
                if let Some((id, range)) = payload.as_section() {
                    faulty.push(id);
                    module[range].encode(&mut faulty);
                }
            }
        }
    }
    faulty
}

/// `l3-rx(now: i64, bytes: i32, length: i32, packets: i32, count: i32)`. A packet's
/// record is 8 bytes and begins with its length (`wit/types.wit`).
fn checked(body: &FunctionBody<'_>, module: &[u8], length: u32) -> Function {
    let mut locals: Vec<_> = Vec::new();
    let mut at = 5;
    for group in body.get_locals_reader().unwrap() {
        let (count, ty) = group.unwrap();
        locals.push((count, number(ty)));
        at += count;
    }
    locals.push((1, wasm_encoder::ValType::I32));
    let mut checked = Function::new(locals);
    look_for(&mut checked.instructions(), at, length);
    let instructions = body.get_operators_reader().unwrap();
    let start = instructions.original_position();
    checked.raw(module[start..body.range().end].iter().copied());
    checked
}

/// The types of what a compiled function keeps.
fn number(ty: wasmparser::ValType) -> wasm_encoder::ValType {
    use wasmparser::ValType as From;
    match ty {
        From::I32 => wasm_encoder::ValType::I32,
        From::I64 => wasm_encoder::ValType::I64,
        From::F32 => wasm_encoder::ValType::F32,
        From::F64 => wasm_encoder::ValType::F64,
        From::V128 => wasm_encoder::ValType::V128,
        From::Ref(_) => panic!("a local of {ty}"),
    }
}

/// Traps if one of the packets has this length. `at` is a local that begins as 0.
fn look_for(code: &mut InstructionSink<'_>, at: u32, length: u32) {
    let (packets, count) = (3, 4);
    let first = MemArg {
        offset: 0,
        align: 2,
        memory_index: 0,
    };
    code.block(BlockType::Empty).loop_(BlockType::Empty);
    code.local_get(at).local_get(count).i32_ge_u().br_if(1);
    code.local_get(packets)
        .local_get(at)
        .i32_const(8)
        .i32_mul()
        .i32_add();
    code.i32_load(first)
        .i32_const(length.cast_signed())
        .i32_eq();
    code.if_(BlockType::Empty).unreachable().end();
    code.local_get(at)
        .i32_const(1)
        .i32_add()
        .local_set(at)
        .br(0);
    code.end().end();
}
