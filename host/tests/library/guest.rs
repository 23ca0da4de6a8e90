//! Guests that keep the contract's types and not its spirit: the embedded
//! component with another core module in it.

use l3l4_host::{Component, EMBEDDED};
use wasm_encoder::{
    CodeSection, Encode, ExportKind, ExportSection, Function, FunctionSection, InstructionSink,
    MemorySection, MemoryType, Module, RawSection,
};
use wasmparser::{CompositeInnerType, ExternalKind, FuncType, Parser, Payload, TypeRef};

/// A component whose exports answer with zeros: success, no flow, no deadline. The
/// export `odd` first does what `body` says, which is given the function index of
/// the import `l3-tx`.
pub(crate) fn with_export(odd: &str, body: impl Fn(&mut InstructionSink<'_>, u32)) -> Component {
    let mut component = EMBEDDED[..8].to_vec();
    let mut depth = 0;
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
            && let engine = Core::parse(&content)
            && engine
                .exports
                .iter()
                .any(|(name, _)| name.ends_with("#l4-poll"))
        {
            content = engine.replaced(odd, &body);
        }
        component.push(id);
        content.encode(&mut component);
    }
    Component::from_bytes(component)
}

/// What a core module shows to the outside.
#[derive(Default)]
struct Core {
    type_section: Vec<u8>,
    import_section: Vec<u8>,
    types: Vec<FuncType>,
    /// The name of each imported function, in order.
    imports: Vec<String>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    exports: Vec<(String, u32)>,
}

impl Core {
    fn parse(module: &[u8]) -> Self {
        let mut core = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload.unwrap() {
                Payload::TypeSection(section) => {
                    core.type_section = module[section.range()].to_vec();
                    for group in section {
                        for ty in group.unwrap().into_types() {
                            let CompositeInnerType::Func(ty) = ty.composite_type.inner else {
                                panic!("{ty}");
                            };
                            core.types.push(ty);
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    core.import_section = module[section.range()].to_vec();
                    for import in section.into_imports() {
                        let import = import.unwrap();
                        if let TypeRef::Func(ty) = import.ty {
                            core.imports.push(import.name.to_owned());
                            core.functions.push(ty);
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    core.functions
                        .extend(section.into_iter().map(Result::unwrap));
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.unwrap();
                        if export.kind == ExternalKind::Func {
                            core.exports.push((export.name.to_owned(), export.index));
                        }
                    }
                }
                _ => {}
            }
        }
        core
    }

    /// A module that looks the same and does nothing but `body`.
    fn replaced(&self, odd: &str, body: &impl Fn(&mut InstructionSink<'_>, u32)) -> Vec<u8> {
        let l3_tx = self.imports.iter().position(|name| name == "l3-tx");
        let l3_tx = u32::try_from(l3_tx.unwrap()).unwrap();
        let imported = u32::try_from(self.imports.len()).unwrap();
        let mut functions = FunctionSection::new();
        let mut exports = ExportSection::new();
        let mut code = CodeSection::new();
        for (name, index) in &self.exports {
            exports.export(name, ExportKind::Func, imported + functions.len());
            let ty = self.functions[*index as usize];
            functions.function(ty);
            let mut definition = Function::new([]);
            let mut instructions = definition.instructions();
            if name.ends_with(&format!("#{odd}")) {
                body(&mut instructions, l3_tx);
            }
            // Results are pointers: to zeros, or to room for a list's bytes.
            let pointer = if name == "cabi_realloc" { 4096 } else { 0 };
            for _ in self.types[ty as usize].results() {
                instructions.i32_const(pointer);
            }
            instructions.end();
            code.function(&definition);
        }
        exports.export("memory", ExportKind::Memory, 0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 2,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut module = Module::new();
        module
            .section(&RawSection {
                id: 1,
                data: &self.type_section,
            })
            .section(&RawSection {
                id: 2,
                data: &self.import_section,
            })
            .section(&functions)
            .section(&memories)
            .section(&exports)
            .section(&code);
        module.finish()
    }
}
