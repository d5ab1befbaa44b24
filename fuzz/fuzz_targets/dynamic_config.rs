//! libFuzzer's way into `matriarch_fuzz::dynamic_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::dynamic_config::target(data)));
