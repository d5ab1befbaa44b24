//! libFuzzer's way into `matriarch_fuzz::step`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matriarch_fuzz::step::target(data));
