//! libFuzzer's way into `matriarch_fuzz::api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::api::target(data)));
