//! Texts of system errors in messages.

use std::io;

/// Returns the text of the error in lower case and without its number: `connection refused`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.rfind(" (os error ") {
        Some(end) => &text[..end],
        None => &text,
    };
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(text);
    let mut letters = text.chars();
    match letters.next() {
        // Words in capital letters, such as abbreviations, stay unchanged.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn formats_errors_without_the_number() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = TcpStream::connect(closed).unwrap_err();
        assert_eq!(reason(&refused), "connection refused");
        assert_eq!(reason(&io::Error::other("RPC went wrong")), "RPC went wrong");
        assert_eq!(reason(&io::Error::other("")), "");
    }
}
