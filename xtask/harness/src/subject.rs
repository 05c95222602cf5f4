//! The programs under test, each given by a command template.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peer::Dialect;
use super::verdict::{Stop, Verdict};

/// One of the three programs under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The server that stores files.
    Server,
    /// The server that counts bytes.
    ServerS,
    /// The client.
    Client,
}

/// The programs under test: all three or some of them.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The server that stores files.
    pub server: Option<Template>,
    /// The server that counts bytes.
    pub server_s: Option<Template>,
    /// The client.
    pub client: Option<Template>,
}

impl Program {
    /// All programs.
    pub const ALL: [Program; 3] = [Program::Server, Program::ServerS, Program::Client];

    /// Returns its name in check ids and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Program::Server => "server",
            Program::ServerS => "server-s",
            Program::Client => "client",
        }
    }
}

impl Subject {
    /// Returns our own programs in the directory `bin`.
    pub fn own(bin: &Path) -> Verdict<Subject> {
        let template = |text: &str| Template::parse(text).map(|template| template.inside(bin));
        Ok(Subject {
            server: Some(template("accio-server {port} {dir}")?),
            server_s: Some(template("server-s {port}")?),
            client: Some(template("accio-client {host} {port} {file}")?),
        })
    }

    /// Returns our own programs in the directory `bin`, with the option for one dialect.
    pub fn own_in(bin: &Path, dialect: Dialect) -> Verdict<Subject> {
        let mut subject = Subject::own(bin)?;
        let templates = [&mut subject.server, &mut subject.server_s, &mut subject.client];
        for template in templates.into_iter().flatten() {
            // Insert the flags before the placeholders, so that `bare` includes them.
            let flags = ["--handshake", dialect.name()].map(str::to_owned);
            template.words.splice(1..1, flags);
        }
        Ok(subject)
    }

    /// Returns the directories of the files that the commands name.
    pub fn directories(&self) -> Vec<PathBuf> {
        let templates = [&self.server, &self.server_s, &self.client].into_iter().flatten();
        let paths =
            templates.flat_map(|template| &template.words).filter(|word| word.contains('/'));
        paths
            .map(PathBuf::from)
            .filter(|path| path.exists())
            .filter_map(|path| if path.is_dir() { Some(path) } else { Some(path.parent()?.into()) })
            .collect()
    }

    /// Returns the template of `program`, or a skip if there is none.
    pub fn template(&self, program: Program) -> Verdict<&Template> {
        let template = match program {
            Program::Server => &self.server,
            Program::ServerS => &self.server_s,
            Program::Client => &self.client,
        };
        template.as_ref().ok_or_else(|| Stop::skip(format!("no {} was given", program.name())))
    }
}

/// A command line with placeholders for `{port}`, `{dir}`, `{host}` and `{file}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    words: Vec<String>,
    /// The flags of the program, if it does not have all of those that ours has.
    flags: Option<Vec<String>>,
}

impl Template {
    /// Splits `text` into words as a shell does with single and double quotes and the backslash.
    pub fn parse(text: &str) -> Verdict<Template> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None | Some('"'), '\\') => {
                    let escaped = characters
                        .next()
                        .ok_or_else(|| Stop::Trouble("a command ends with a backslash".into()))?;
                    word.get_or_insert_default().push(escaped);
                }
                (None, _) if c.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(c),
            }
        }
        if let Some(quote) = quote {
            return Err(Stop::Trouble(format!("{text:?} has no closing {quote}")));
        }
        words.extend(word);
        if words.is_empty() {
            return Err(Stop::Trouble("an empty command".into()));
        }
        Ok(Template { words, flags: None })
    }

    /// Returns its program.
    pub fn program(&self) -> &str {
        // A template has at least one word, see `parse`.
        self.words.first().map_or("", String::as_str)
    }

    /// Returns the command with every `{name}` replaced by its value.
    pub fn command(&self, values: &[(&str, &OsStr)]) -> Command {
        let mut words = self.words.iter().map(|word| {
            let mut filled = word.clone();
            for (name, value) in values {
                // We choose the paths, so they are valid UTF-8.
                filled = filled.replace(&format!("{{{name}}}"), &value.to_string_lossy());
            }
            filled
        });
        // A template has at least one word, see `parse`.
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    /// Returns the command up to its first placeholder; the caller adds other arguments.
    pub fn bare(&self) -> Command {
        let fixed = self.words.iter().take_while(|word| !is_placeholder(word)).cloned().collect();
        Template { words: fixed, flags: None }.command(&[])
    }

    /// Replaces each word for which `replace`, called with its index and text, returns another one.
    #[must_use]
    pub fn map(mut self, replace: impl Fn(usize, &str) -> Option<String>) -> Template {
        for (index, word) in self.words.iter_mut().enumerate() {
            if let Some(other) = replace(index, word) {
                *word = other;
            }
        }
        self
    }

    /// Declares that the program has no flags but these.
    #[must_use]
    pub fn only_flags(self, flags: &[String]) -> Template {
        Template { flags: Some(flags.to_vec()), ..self }
    }

    /// Returns a skip if the program lacks one of the flags in `arguments`.
    pub fn expect_flags(&self, arguments: &[&str]) -> Verdict {
        let Some(flags) = &self.flags else { return Ok(()) };
        let lacks =
            |word: &&&str| word.starts_with("--") && !flags.iter().any(|flag| flag == **word);
        match arguments.iter().find(lacks) {
            None => Ok(()),
            Some(flag) => Err(Stop::skip(format!("the program has no {flag}"))),
        }
    }

    /// Prefixes the program with `directory`.
    fn inside(mut self, directory: &Path) -> Template {
        if let Some(program) = self.words.first_mut() {
            *program = directory.join(&*program).to_string_lossy().into_owned();
        }
        self
    }
}

fn is_placeholder(word: &str) -> bool {
    ["{port}", "{dir}", "{host}", "{file}"].iter().any(|place| word.contains(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_scenarios_that_need_flags_the_program_lacks() {
        let template = Template::parse("server {port}").unwrap();
        template.expect_flags(&["--tls"]).unwrap();
        let limited = template.only_flags(&["--timeout".to_owned()]);
        limited.expect_flags(&["--timeout", "2"]).unwrap();
        let skip = limited.expect_flags(&["--timeout", "2", "--tls"]);
        assert!(matches!(skip, Err(Stop::Skip(why)) if why == "the program has no --tls"));
    }

    fn words(command: &Command) -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn splits_templates_like_a_shell_before_filling_them() {
        let template =
            Template::parse(r#"python3 'my server.py' "a\"b" c\ d {port} x={dir}"#).unwrap();
        let command = template.command(&[("port", "5".as_ref()), ("dir", "some where".as_ref())]);
        assert_eq!(
            words(&command),
            ["python3", "my server.py", "a\"b", "c d", "5", "x=some where"]
        );
        assert_eq!(words(&template.bare()), ["python3", "my server.py", "a\"b", "c d"]);
    }

    #[test]
    fn keeps_empty_words_and_rejects_unbalanced_quotes() {
        assert_eq!(words(&Template::parse("a '' b").unwrap().command(&[])), ["a", "", "b"]);
        assert!(Template::parse("  ").is_err());
        assert!(Template::parse("a 'b").unwrap_err().to_string().contains("no closing '"));
        assert!(Template::parse("a\\").is_err());
    }

    #[test]
    fn finds_our_own_programs_in_a_directory() {
        let subject = Subject::own(Path::new("/some bin")).unwrap();
        let command =
            subject.template(Program::ServerS).unwrap().command(&[("port", "7".as_ref())]);
        assert_eq!(words(&command), ["/some bin/server-s", "7"]);
    }
}
