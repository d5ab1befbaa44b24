//! libFuzzer's way into `matriarch_fuzz::guard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::guard::target(data)));
