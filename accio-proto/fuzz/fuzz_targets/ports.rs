#![no_main]

use accio_proto::Port;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<Port>() {
    Ok(port) => assert_eq!(port.number().to_string().parse::<Port>().unwrap(), port),
    Err(error) => assert!(!error.to_string().contains('\n'), "one line, whatever the value"),
});
