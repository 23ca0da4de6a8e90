//! Builds the guest for wasm and wraps it into the component that the host embeds.
//!
//! The same source gives the same component, byte for byte, wherever it is built:
//! no path of the machine and no setting of the outer build gets into it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context, Result, ensure};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";
const ADD_TARGET: &str = "rustup target add wasm32-unknown-unknown";

/// Cargo's variables that say where packages come from. All others of `CARGO_*`
/// describe the outer build.
const KEPT: [&str; 5] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
];

/// Variables of the outer build that change what a compiler is called with.
const CLEARED: [&str; 7] = [
    "CLIPPY_ARGS",
    "MAKEFLAGS",
    "MFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

/// An error that cargo is told of fails the build with one line. What a script
/// wrote is shown, all of it, only when the script itself fails.
fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
    }
}

fn build() -> Result<()> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .parent()
        .context("the host stands below the workspace")?
        .to_owned();
    for input in ["guest", "wit", "Cargo.lock", "Cargo.toml"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let rustlib = rustlib_with_target()?;
    let module = build_guest(&workspace, &guest_target_dir(&out), &rustlib)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&fs::read(&module).with_context(|| module.display().to_string())?)?
        .encode()
        .context("cannot wrap the guest into a component")?;
    fs::write(out.join("l3l4.component.wasm"), component)?;
    Ok(())
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("{name} is not set: run by cargo only"))
}

/// One directory for all profiles and feature sets of the host, beside theirs:
/// the guest is the same for each. (`OUT_DIR` is `target/PROFILE/build/NAME/out`.)
fn guest_target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("guest")
}

/// The `rustlib` directory of the compiler, with the wasm target in it.
fn rustlib_with_target() -> Result<PathBuf> {
    let print = ["--print", "target-libdir", "--target", TARGET];
    let library = PathBuf::from(rustc(&print)?.trim());
    if !library.exists() {
        println!("cargo::warning=the target {TARGET} is missing: running `{ADD_TARGET}`");
        let mut words = ADD_TARGET.split(' ').map(OsStr::new);
        let added = Command::new(words.next().unwrap_or_default())
            .args(words)
            .output();
        ensure!(
            added.is_ok_and(|output| output.status.success()) && library.exists(),
            "the Rust target {TARGET} is missing and could not be added; add it with: {ADD_TARGET}"
        );
    }
    let rustlib = library.ancestors().nth(2);
    Ok(rustlib.context("rustc named no directory")?.to_owned())
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new(variable("RUSTC")?)
        .args(arguments)
        .output()
        .context("cannot run rustc")?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds the guest's core module and returns its path.
fn build_guest(workspace: &Path, target_dir: &Path, rustlib: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--package", "l3l4-guest"])
        .args(["--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo =
            text.starts_with("CARGO_") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if of_cargo || CLEARED.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(workspace, rustlib)?);
    if !cargo.status().context("cannot run cargo")?.success() {
        // So that what the compiler wrote is shown.
        process::exit(1);
    }
    Ok(target_dir.join(TARGET).join("guest/l3l4_guest.wasm"))
}

/// Vector instructions, where they stand side by side in the source: what LLVM makes
/// of whole loops for simd128 shuffles the checksum's words, and the component takes
/// 1.4 times as long (the packet bench's row `tcp 65535 in 1`).
const CODE_FLAGS: &str = "-Ctarget-feature=+simd128\x1f-Cno-vectorize-loops";

/// The compiler's flags, separated as cargo wants them. Of two prefixes that
/// match a path, rustc takes the later one.
fn rust_flags(workspace: &Path, rustlib: &Path) -> Result<OsString> {
    let mut flags = OsString::from(CODE_FLAGS);
    let mut remap = |from: &Path, to: &str| {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(workspace, "/l3l4");
    // Below lies one directory a registry, its name a hash of the index's address.
    let sources = cargo_home()?.join("registry/src");
    for registry in fs::read_dir(&sources).into_iter().flatten() {
        remap(&registry?.path(), "/crates");
    }
    // What the standard library's own paths read when its source is not installed.
    let version = rustc(&["-vV"])?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "));
    let source = format!("/rustc/{}", commit.unwrap_or("unknown"));
    remap(&rustlib.join("src/rust"), &source);
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::home_dir().context("there is no home directory")?;
    Ok(home.join(".cargo"))
}
