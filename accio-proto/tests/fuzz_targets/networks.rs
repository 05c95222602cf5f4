//! For any text and address, parsing does not panic, and a parsed network round-trips through its
//! text.

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
