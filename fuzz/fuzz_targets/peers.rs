//! libFuzzer's way into `matriarch_fuzz::peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::peers::target(data)));
