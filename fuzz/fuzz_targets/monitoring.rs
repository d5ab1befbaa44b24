//! libFuzzer's way into `matriarch_fuzz::monitoring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::monitoring::target(data)));
