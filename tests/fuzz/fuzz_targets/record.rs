#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| l3l4_tests::fuzz::record(data));
