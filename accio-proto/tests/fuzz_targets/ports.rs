//! For any text, parsing does not panic, and a parsed port round-trips through its number.

use accio_proto::Port;

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input<'a> = &'a str;

pub(crate) fn run(text: Input<'_>) {
    match text.parse::<Port>() {
        Ok(port) => assert_eq!(port.number().to_string().parse::<Port>().unwrap(), port),
        Err(error) => assert!(!error.to_string().contains('\n'), "one line, whatever the value"),
    }
}
