//! libFuzzer's way into `matriarch_fuzz::plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::plan::target(data)));
