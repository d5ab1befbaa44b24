//! libFuzzer's way into `matriarch_fuzz::mirror`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matriarch_fuzz::mirror::target(data));
