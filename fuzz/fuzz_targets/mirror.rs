//! libFuzzer's way into `matriarch_fuzz::mirror`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::mirror::target(data)));
