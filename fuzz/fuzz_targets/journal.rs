//! libFuzzer's way into `matriarch_fuzz::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::journal::target(data)));
