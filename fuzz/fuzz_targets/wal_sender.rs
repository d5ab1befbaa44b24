//! libFuzzer's way into `matriarch_fuzz::wal_sender`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(matriarch_fuzz::wal_sender::target(data)));
