//! libFuzzer's way into `matriarch_fuzz::store_values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::store_values::target(data)));
