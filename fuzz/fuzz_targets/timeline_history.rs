//! libFuzzer's way into `matriarch_fuzz::timeline_history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::timeline_history::target(data)));
