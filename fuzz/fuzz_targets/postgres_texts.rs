//! libFuzzer's way into `matriarch_fuzz::postgres_texts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::postgres_texts::target(data)));
