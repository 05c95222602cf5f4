//! Command lines: every error is reported in one line that names the wrong argument.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::runner::{Scenario, works};
use accio_harness::context::{Context, ensure_failure, ensure_success, wait_until};
use accio_harness::peer::{Dialect, SOON, side_by_side};
use accio_harness::ports;
use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict, ensure, ensure_eq};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("arguments/ports", "all three programs name an invalid port", bad_ports),
    works("arguments/count", "missing and extra arguments are errors", counts),
    works("arguments/flags", "invalid flags and values are named", bad_flags),
    works("arguments/files", "a missing FILE and a FILE-DIR that is a file are named", bad_files),
    works(
        "arguments/permissions",
        "an unreadable FILE and an unwritable FILE-DIR are named",
        permissions,
    ),
    works("arguments/port-in-use", "a port in use is named", port_in_use),
    works("arguments/service-name", "a port may be a service name", service_name),
    works("arguments/help", "--help and --version print to stdout and exit with 0", help),
    works("arguments/quiet", "-q: nothing on stderr; -v: no ERROR, same stdout", quiet),
    works(
        "arguments/interfaces",
        "listens on all interfaces by default, on one with --bind",
        interfaces,
    ),
];

/// Time limit for reporting an error.
const LIMIT: Duration = Duration::from_secs(10);

/// Returns a fault unless the program rejects these arguments and names one of `names`.
fn expect_failure(
    context: &Context,
    program: Program,
    arguments: &[&OsStr],
    names: &[&str],
) -> Verdict {
    let mut process = context.run_bare(program, arguments)?;
    ensure_failure(&mut process, LIMIT, names)
}

/// Returns valid positional arguments, with `port` as the port.
fn with_port<'a>(program: Program, port: &'a str, path: &'a Path) -> Vec<&'a OsStr> {
    match program {
        Program::Server => vec![port.as_ref(), path.as_os_str()],
        Program::ServerS => vec![port.as_ref()],
        Program::Client => vec!["127.0.0.1".as_ref(), port.as_ref(), path.as_os_str()],
    }
}

fn bad_ports(context: &Context) -> Verdict {
    let file = context.file(b"content")?;
    let dir = context.fresh("dir");
    side_by_side(Program::ALL, |program| {
        let path = if program == Program::Client { &file } else { &dir };
        for port in ["0", "-1", "65536", "99999999999", "abc", "", "12x", "+", " ", "no-service"] {
            // An empty value can only be named by its quotes or its argument.
            let names = if port.trim().is_empty() { ["\"\"", "port", "PORT"] } else { [port; 3] };
            expect_failure(context, program, &with_port(program, port, path), &names)?;
        }
        Ok(())
    })?;
    ensure(!dir.exists(), "no FILE-DIR to be created for an invalid port", || {
        "it was created".into()
    })
}

fn counts(context: &Context) -> Verdict {
    let file = context.file(b"content")?;
    let dir = context.fresh("dir");
    side_by_side(Program::ALL, |program| {
        let path = if program == Program::Client { &file } else { &dir };
        let port = ports::free()?.to_string();
        let good = with_port(program, &port, path);
        for length in 0..good.len() {
            expect_failure(context, program, &good[..length], &[])?;
        }
        let extra = [&good[..], &["superfluous".as_ref()]].concat();
        if program != Program::Client {
            return expect_failure(context, program, &extra, &["superfluous"]);
        }
        // Further arguments of the client are further files, and each error has its own line.
        let mut client = context.run_bare(program, &extra)?;
        let exit = client.wait(LIMIT)?;
        let text = client.stderr().text();
        let lines: Vec<_> = text.lines().collect();
        let good = matches!(lines[..], [first, second]
            if first.starts_with("ERROR: ") && first.contains(&port)
                && second.starts_with("ERROR: ") && second.contains("superfluous"));
        ensure(
            good && !exit.status.success(),
            "two lines, ERROR: …, the second of which names the second file",
            || format!("{}, stderr {text:?}", exit.describe()),
        )
    })
}

fn bad_flags(context: &Context) -> Verdict {
    let file = context.file(b"content")?;
    let dir = context.fresh("dir");
    side_by_side(Program::ALL, |program| {
        let path = if program == Program::Client { &file } else { &dir };
        let port = ports::free()?.to_string();
        // In a release, server-s does not have the flag at all.
        let switch = if program == Program::ServerS { "--without" } else { "mmap" };
        let mut cases: Vec<(&[&str], &str)> = vec![
            (&["--handshake", "accoi"], "accoi"),
            (&["--timeout", "0"], "--timeout"),
            (&["--timeout", "-3"], "-3"),
            (&["--timeout", "ten"], "ten"),
            (&["--timeout", "nan"], "nan"),
            (&["--without", "mmap"], switch),
            (&["--no-such-flag"], "--no-such-flag"),
        ];
        if program == Program::Client {
            cases.push((&["--handshake", "auto"], "auto"));
        } else {
            cases.push((&["--bind", "not-an-address"], "not-an-address"));
            // An address reserved for documentation, so not one of this machine.
            cases.push((&["--bind", "203.0.113.7"], "203.0.113.7"));
        }
        if program == Program::Server {
            cases.push((&["--workers", "0"], "--workers"));
            cases.push((&["--workers", "many"], "many"));
            cases.push((&["--max-connections", "0"], "--max-connections"));
        }
        for (flags, name) in cases {
            let mut arguments = with_port(program, &port, path);
            arguments.extend(flags.iter().map(OsStr::new));
            expect_failure(context, program, &arguments, &[name])?;
        }
        Ok(())
    })
}

fn bad_files(context: &Context) -> Verdict {
    let file = context.file(b"a file")?;
    let missing = context.fresh("no\x1bsuch-file");
    let port = ports::free()?.to_string();
    let client = |path: &Path, name: &str| {
        expect_failure(context, Program::Client, &with_port(Program::Client, &port, path), &[name])
    };
    client(&missing, "such-file").during(|| "FILE missing")?;
    client(Path::new(""), "").during(|| "FILE is an empty name")?;
    let server = |path: &Path, name: &str| {
        expect_failure(context, Program::Server, &with_port(Program::Server, &port, path), &[name])
    };
    server(&file, "source").during(|| "FILE-DIR is a file")?;
    server(&file.join("below"), "source").during(|| "FILE-DIR below a file")?;
    server(Path::new(""), "").during(|| "FILE-DIR is an empty name")?;
    fs::remove_file(file)?;
    Ok(())
}

fn permissions(context: &Context) -> Verdict {
    if rustix::process::geteuid().is_root() {
        return Err(Stop::skip("root may read and write everything"));
    }
    let port = ports::free()?.to_string();
    let file = context.file(b"secret")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000))?;
    let arguments = with_port(Program::Client, &port, &file);
    expect_failure(context, Program::Client, &arguments, &["source"])?;
    let dir = context.fresh("locked");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500))?;
    for path in [dir.clone(), dir.join("below")] {
        let arguments = with_port(Program::Server, &port, &path);
        expect_failure(context, Program::Server, &arguments, &["locked"])?;
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn port_in_use(context: &Context) -> Verdict {
    let first = context.server(&[])?;
    let port = first.port.to_string();
    let dir = context.fresh("dir");
    for program in [Program::Server, Program::ServerS] {
        let arguments = with_port(program, &port, &dir);
        expect_failure(context, program, &arguments, &[&port])?;
    }
    // The first server still works.
    first.connect_greeted()?.complete(b"content")?;
    first.expect_file(1, b"content")?;
    first.stop()
}

fn service_name(context: &Context) -> Verdict {
    let services = fs::read_to_string("/etc/services")
        .map_err(|error| Stop::skip(format!("no /etc/services: {error}")))?;
    let free = services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, number) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        let port: u16 = number.parse().ok().filter(|port| *port > 1024)?;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|_| (name.to_owned(), port))
    });
    let (name, port) =
        free.ok_or_else(|| Stop::skip("no service in /etc/services has a free unprivileged port"))?;
    let dir = context.fresh("received");
    let arguments: [&OsStr; 2] = [name.as_ref(), dir.as_os_str()];
    let server = context.run_bare(Program::Server, &arguments)?;
    let listening = server.stderr().wait(SOON, |bytes, _| {
        String::from_utf8_lossy(bytes).contains(&format!(":{port}")).then_some(())
    });
    ensure_eq("listening", Some(()), listening).during(|| format!("{name}, port {port}"))?;
    let file = context.file(b"content")?;
    let arguments: [&OsStr; 3] = ["127.0.0.1".as_ref(), name.as_ref(), file.as_os_str()];
    let mut client = context.run_bare(Program::Client, &arguments)?;
    let exit = client.wait(SOON)?;
    ensure_success(&client, exit)
}

fn help(context: &Context) -> Verdict {
    for program in Program::ALL {
        for flag in ["--help", "-h", "--version"] {
            let mut process = context.run_bare(program, &[flag.as_ref()])?;
            let exit = process.wait(LIMIT)?;
            ensure_success(&process, exit)?;
            let (out, err) = (process.stdout().text(), process.stderr().text());
            let good = !out.trim().is_empty() && err.is_empty();
            ensure(good, format!("{flag} to print to stdout only"), || {
                format!("stdout {out:?}, stderr {err:?}")
            })?;
        }
    }
    Ok(())
}

fn quiet(context: &Context) -> Verdict {
    let port = ports::free()?;
    let text = port.to_string();
    let dir = context.fresh("received");
    let arguments: [&OsStr; 3] = [text.as_ref(), dir.as_os_str(), "-q".as_ref()];
    let server = context.run_bare(Program::Server, &arguments)?;
    // The server prints nothing, so probe with a connection, which becomes number 1.
    let open = wait_until(SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    ensure(open, format!("port {port} open"), || "it is not".into())?;
    let file = context.file(b"content")?;
    context.send(port, &file, &["-q"])?;
    let err = server.stderr().text();
    ensure(err.is_empty(), "nothing on stderr with -q", || format!("{err:?}"))?;

    let server_s = context.server_s(&["-v"])?;
    context.send(server_s.port, &file, &["-v"])?;
    server_s.stop_after(&["7"])?;
    // By default a server prints its address, but nothing for successful uploads.
    let server_s = context.server_s(&[])?;
    context.send(server_s.port, &file, &[])?;
    server_s.expect_line(0, "7")?;
    let err = server_s.process.stderr().text();
    ensure_eq("lines on stderr by default", 1, err.lines().count()).during(|| format!("{err:?}"))
}

fn interfaces(context: &Context) -> Verdict {
    // On Linux all of 127.0.0.0/8 is local, so 127.0.0.2 can stand in for a second interface.
    let other = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 2], port));
    if TcpListener::bind(other(0)).is_err() {
        return Err(Stop::skip("127.0.0.2 is not a local address"));
    }
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    for port in [server.port, server_s.port] {
        let mut peer = accio_harness::peer::Peer::connect(other(port))?;
        peer.greet_as_client(Dialect::Accio)?;
        peer.complete(b"content")?;
    }
    server.expect_file(1, b"content")?;
    server.stop()?;
    server_s.stop_after(&["7"])?;
    let bound = context.server(&["--bind", "127.0.0.1"])?;
    let open = TcpStream::connect(other(bound.port)).is_ok();
    ensure(!open, "one interface only with --bind", || "127.0.0.2 answers too".into())?;
    bound.connect_greeted()?.complete(b"content")?;
    bound.stop()
}
