#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postroom_fuzz::challenge(data));
