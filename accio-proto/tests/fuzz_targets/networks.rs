//! Any text and address: no panic, and what parses prints back to the same.

use accio_proto::Network;

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input<'a> = (&'a str, [u8; 16]);

pub(crate) fn run(input: Input<'_>) {
    match input.0.parse::<Network>() {
        Ok(network) => {
            assert_eq!(network.to_string().parse(), Ok(network));
            network.contains(std::net::IpAddr::from(input.1));
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "one line, whatever the value"),
    }
}
