//! libFuzzer's way into `matriarch_fuzz::node_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::node_files::target(data)));
