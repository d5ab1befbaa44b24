//! libFuzzer's way into `matriarch_fuzz::times`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::times::target(data)));
