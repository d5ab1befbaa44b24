//! libFuzzer's way into `matriarch_fuzz::recording`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::recording::target(data)));
