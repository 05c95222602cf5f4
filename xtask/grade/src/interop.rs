//! Runs every client with every server, including our own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::reference;
use super::report::matrix::{self, Pair};
use super::settings::{Settings, Submission};
use super::trial::Trial;
use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, Job, Load};
use accio_harness::peer::Dialect;
use accio_harness::seeds::seed_for;
use accio_harness::subject::{Program, Subject};
use accio_harness::verdict::{Stop, Verdict};

/// The name of the reference programs in the matrix.
const REFERENCE: &str = "reference";

/// Runs every client with every server and returns the matrix in Markdown.
pub(crate) fn run(submissions: &[Submission], settings: &Settings) -> anyhow::Result<String> {
    let with = |program: Program| -> Vec<Option<&Submission>> {
        let has = |one: &&Submission| one.programs.template(program).is_ok();
        submissions.iter().filter(has).map(Some).chain([None]).collect()
    };
    let (clients, servers) = (with(Program::Client), with(Program::Server));
    let mut places = Vec::new();
    let mut jobs = Vec::new();
    for (client, client_of) in clients.iter().enumerate() {
        for (server, server_of) in servers.iter().enumerate() {
            // The reference supports every dialect; two submissions need the same one.
            let fit = match (client_of, server_of) {
                (Some(client), Some(server)) => client.dialect == server.dialect,
                (client, server) => client.is_some() || server.is_some(),
            };
            if !fit {
                continue;
            }
            places.push((client, server));
            jobs.push(job(*client_of, *server_of, settings, jobs.len())?);
        }
    }
    let mut pairs = Vec::new();
    jobs::run(&jobs, Concurrency::Shared, |ended| {
        let (client, server) = places[ended.index];
        let fault = ended.verdict.err().map(|stop| match stop {
            Stop::Fault(fault) => format!("expected {}, got {}", fault.expected, fault.actual),
            Stop::Skip(why) => why,
            Stop::Trouble(why) => format!("error in the grader: {why}"),
        });
        let context = &jobs[ended.index].context;
        context.leave_sandbox();
        let dir = context.dir();
        let fault = fault.map(|text| text.replace(&format!("{}/", dir.display()), ""));
        pairs.push(Pair { client, server, fault });
        // An error does not matter: the run's directory is removed in the end.
        let _ = fs::remove_dir_all(dir);
        Ok(())
    })?;
    pairs.sort_by_key(|pair| (pair.client, pair.server));
    let name = |one: &Option<&Submission>| match one {
        Some(one) => format!("{} ({})", one.name, one.dialect.name()),
        None => REFERENCE.to_owned(),
    };
    Ok(matrix::text(
        &clients.iter().map(name).collect::<Vec<_>>(),
        &servers.iter().map(name).collect::<Vec<_>>(),
        &pairs,
    ))
}

fn job(
    client: Option<&Submission>,
    server: Option<&Submission>,
    settings: &Settings,
    number: usize,
) -> io::Result<Job> {
    let programs = Subject {
        client: client.and_then(|one| one.programs.client.clone()),
        server: server.and_then(|one| one.programs.server.clone()),
        server_s: None,
    };
    let dialect = server.or(client).map_or(Dialect::Confirm, |one| one.dialect);
    let dir: PathBuf = settings.dir.join(format!("pair-{number}"));
    fs::create_dir_all(&dir)?;
    let seed = seed_for("interop", settings.seed);
    let context = Context::new(Arc::new(programs), dir, seed).guarded(settings.limits);
    let (by_reference, to_reference) = (client.is_none(), server.is_none());
    let (network, workdir) = (settings.network, settings.workdir.clone());
    let (support, keep) = (Arc::clone(&settings.support), settings.keep);
    let files = settings.files(client.into_iter().chain(server));
    let work = move |context: &Context| -> Verdict {
        context.enter_sandbox(&support, &files, keep)?;
        let (notes, started) = (Mutex::default(), Mutex::default());
        let startup_failures = Arc::default();
        let trial = Trial {
            context,
            dialect,
            program: Program::Server,
            workdir: workdir.as_deref(),
            network,
            notes: &notes,
            started: &started,
            startup_failures: &startup_failures,
            may_announce: true,
        };
        let contents = [context.content(1, 500), context.content(2, 1 << 20)];
        if to_reference {
            return contents
                .iter()
                .try_for_each(|content| trial.send_to_reference("127.0.0.1", content));
        }
        let server = trial.server()?;
        let relay = trial.relay_to(&server)?;
        for (index, content) in contents.iter().enumerate() {
            match by_reference {
                true => reference::send(&server, server.address, content).map(drop)?,
                false => trial.send_by_client(&server, &relay, content)?,
            }
            server.expect_file(index + 1, content)?;
        }
        Ok(())
    };
    Ok(Job {
        name: format!("pair {number}"),
        load: Load::Works,
        limit: Load::Works.limit(),
        context: Arc::new(context),
        work: Arc::new(work),
    })
}
