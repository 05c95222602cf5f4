//! Finds a submission's programs in its directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use accio_harness::quoting::quote;
use accio_harness::subject::{Program, Subject, Template};
use accio_harness::tools;
use anyhow::{Context, bail};

/// Interpreters by the extension of the script; the courses' language first.
const SCRIPTS: [(&str, &str); 4] =
    [("py", "python3"), ("pl", "perl"), ("rb", "ruby"), ("js", "node")];
/// Subdirectories to search.
const DIRECTORIES: [&str; 4] = ["", "build", "bin", "src"];

/// Finds the programs in `dir`: client.py, server.py, server-s.py, or compiled ones with these
/// names.
pub(crate) fn programs(dir: &Path) -> anyhow::Result<Subject> {
    let dir = std::path::absolute(dir)?;
    if !dir.is_dir() {
        bail!("submission {}: no such directory", dir.display());
    }
    let subject = Subject {
        server: find(&dir, Program::Server)?,
        server_s: find(&dir, Program::ServerS)?,
        client: find(&dir, Program::Client)?,
    };
    if Program::ALL.iter().all(|program| subject.template(*program).is_err()) {
        // Archives may lose the executable permission.
        let mut files = Program::ALL.iter().map(|program| dir.join(program.name()));
        let remedy = match files.any(|file| file.is_file()) {
            true => "; a file with such a name is not executable: chmod +x",
            false => "",
        };
        bail!(
            "submission {}: neither client, server nor server-s found, as .py, .pl, .rb, .js \
             or compiled{remedy}",
            dir.display()
        );
    }
    Ok(subject)
}

/// Returns whether one of the programs in `dir` is a script.
pub(crate) fn has_scripts(dir: &Path) -> bool {
    let mut names = Program::ALL.iter().map(|program| program.name());
    names.any(|name| {
        DIRECTORIES.iter().any(|directory| {
            let is_script = |end| dir.join(directory).join(format!("{name}.{end}")).is_file();
            SCRIPTS.iter().any(|(end, _)| is_script(end))
        })
    })
}

/// Parses a command template and makes the paths of existing files absolute, because programs run
/// in other directories.
pub(crate) fn template(text: &str) -> anyhow::Result<Template> {
    let absolute = |word: &str| -> Option<String> {
        let path = Path::new(word);
        (path.is_relative() && path.exists())
            .then(|| std::path::absolute(path).ok())
            .flatten()
            .map(|path| path.to_string_lossy().into_owned())
    };
    let template = Template::parse(text)?;
    Ok(template.map(|index, word| {
        // A command without a slash is searched in PATH.
        if index == 0 && !word.contains('/') { None } else { absolute(word) }
    }))
}

/// Returns an error for the first program that cannot be run, with a remedy. This is an error of
/// the command line, not a fault of the submission.
pub(crate) fn missing(programs: &Subject) -> Option<String> {
    let all = [&programs.client, &programs.server_s, &programs.server];
    let program = all.into_iter().flatten().map(Template::program).find(|word| !exists(word))?;
    Some(if program.contains('/') {
        format!("{program}: no such program: is it built, and is the path correct?")
    } else {
        format!("{program}: not in PATH: install it, or give its path")
    })
}

fn exists(program: &str) -> bool {
    if program.contains('/') {
        Path::new(program).is_file()
    } else {
        tools::find(program).is_some()
    }
}

fn find(dir: &Path, program: Program) -> anyhow::Result<Option<Template>> {
    let name = program.name();
    let placeholders = match program {
        Program::Server => "{port} {dir}",
        Program::ServerS => "{port}",
        Program::Client => "{host} {port} {file}",
    };
    for directory in DIRECTORIES {
        for (end, interpreter) in SCRIPTS {
            let path = dir.join(directory).join(format!("{name}.{end}"));
            if path.is_file() {
                let text = format!("{interpreter} {} {placeholders}", quoted(&path)?);
                return Ok(Some(Template::parse(&text)?));
            }
        }
        let path = dir.join(directory).join(name);
        let is_program = fs::metadata(&path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
        if is_program {
            return Ok(Some(Template::parse(&format!("{} {placeholders}", quoted(&path)?))?));
        }
    }
    Ok(None)
}

fn quoted(path: &Path) -> anyhow::Result<String> {
    Ok(quote(path.to_str().with_context(|| format!("{path:?}: a name that is not valid UTF-8"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_scripts_and_executables_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(programs(dir.path()).unwrap_err().to_string().contains("neither client"));
        fs::write(dir.path().join("client"), "no program").unwrap();
        assert!(programs(dir.path()).unwrap_err().to_string().ends_with("chmod +x"));
        fs::write(dir.path().join("server-s.py"), "").unwrap();
        fs::create_dir(dir.path().join("build")).unwrap();
        let server = dir.path().join("build/server");
        fs::write(&server, "").unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        let subject = programs(dir.path()).unwrap();
        assert!(subject.template(Program::Client).is_err());
        let command = subject.template(Program::Server).unwrap().bare();
        assert_eq!(command.get_program(), server.as_os_str());
        let command = subject.template(Program::ServerS).unwrap().bare();
        assert_eq!(command.get_program(), "python3");
        assert!(programs(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn names_a_program_that_cannot_be_run_and_the_remedy() {
        let with = |client: &str| Subject {
            client: Some(template(client).unwrap()),
            ..Subject::default()
        };
        assert_eq!(missing(&with("sh -c true")), None);
        assert_eq!(missing(&with("/bin/sh -c true")), None);
        assert!(missing(&with("no-such-interpreter x")).unwrap().contains("install it"));
        assert!(missing(&with("./no/such/client x")).unwrap().contains("is it built"));
    }
}
