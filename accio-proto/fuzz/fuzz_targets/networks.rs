#![no_main]

use accio_proto::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, [u8; 16])| match input.0.parse::<Network>() {
    Ok(network) => {
        assert_eq!(network.to_string().parse(), Ok(network));
        network.contains(std::net::IpAddr::from(input.1));
    }
    Err(error) => assert!(!error.to_string().contains('\n'), "one line, whatever the value"),
});
