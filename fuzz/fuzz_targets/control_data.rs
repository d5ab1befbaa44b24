//! libFuzzer's way into `matriarch_fuzz::control_data`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::control_data::target(data)));
