//! Names the build by its sources: a recording replays exactly only with the decisions that made it.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    collect(&Path::new(&root).join("src"), &mut files)?;
    // In whatever order the directory has them.
    files.sort();
    // FNV-1a, as in `src/digest.rs`.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in files.concat() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    println!("cargo::rustc-env=MATRIARCH_CORE_SOURCE={hash:016x}");
    Ok(())
}

/// The contents of every file but the tests.
fn collect(directory: &Path, files: &mut Vec<Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "tests") {
                collect(&path, files)?;
            }
        } else if path.file_name().is_none_or(|name| name != "testing.rs") {
            files.push(fs::read(&path)?);
        }
    }
    Ok(())
}
