//! Formats command lines for a shell.

use std::process::Command;

/// Quotes a word for a shell if necessary.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Quotes a word of unknown origin for a shell and for a terminal: what is not printable is
/// escaped, in the quotes that bash and zsh know.
pub fn quote_untrusted(word: &str) -> String {
    let escapes = |c: char| c != '\'' && c != '"' && c != '\\' && c.escape_debug().len() > 1;
    if !word.contains(escapes) {
        return quote(word);
    }
    let mut quoted = "$'".to_owned();
    for c in word.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if escapes(c) => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// Returns the command as one would type it in a shell.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_words_that_need_it() {
        for (word, quoted) in
            [("a/b-c.d", "a/b-c.d"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(quote(word), quoted);
        }
        assert_eq!(quote_untrusted("it's"), r"'it'\''s'");
        assert_eq!(quote_untrusted("a\u{1b}[2J\u{202e}'\\"), r"$'a\U0000001b[2J\U0000202e\'\\'");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $1"]);
        assert_eq!(command_line(&command), "sh -c 'echo $1'");
    }
}
