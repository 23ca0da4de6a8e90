//! The built program `l3l4`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The program of the same sources and profile. Cargo builds it for its own
/// package's tests only, so it is asked to; what this test links is built already.
#[must_use]
pub fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/PROFILE/deps/NAME-HASH
        let this = std::env::current_exe().unwrap();
        let profile = this.ancestors().nth(2).expect("a profile's directory");
        let target = profile.parent().expect("a target directory");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "l3l4-host",
            "--bin",
            "l3l4",
            "--target-dir",
        ]);
        cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        let name = profile.file_name().expect("a profile").to_str().unwrap();
        cargo.args(["--profile", if name == "debug" { "dev" } else { name }]);
        assert!(cargo.status().expect("cargo runs").success(), "{cargo:?}");
        profile.join("l3l4")
    })
}
