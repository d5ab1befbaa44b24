//! libFuzzer's way into `matriarch_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::config::target(data)));
