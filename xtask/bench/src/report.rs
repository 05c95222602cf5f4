//! The results of a run, as they are stored and compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::stats::{Better, Sample};

/// Version of the JSON format; incremented by incompatible changes.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) version: u32,
    pub(super) command: String,
    pub(super) machine: Machine,
    /// Programs that are not installed and so were not compared.
    pub(super) missing: Vec<String>,
    /// Workloads that could not be measured, with the reasons.
    #[serde(default)]
    pub(super) failures: Vec<String>,
    pub(super) workloads: Vec<Workload>,
    pub(super) goals: Vec<Goal>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

/// A performance goal and the figure measured for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Goal {
    pub(super) id: String,
    pub(super) what: String,
    pub(super) figure: Sample,
    pub(super) at_least: Option<f64>,
    pub(super) at_most: Option<f64>,
}

impl Goal {
    pub(super) fn is_reached(&self) -> bool {
        self.at_least.is_none_or(|limit| self.figure.median >= limit)
            && self.at_most.is_none_or(|limit| self.figure.median <= limit)
    }

    pub(super) fn limit(&self) -> String {
        match (self.at_least, self.at_most) {
            (Some(limit), _) => format!("≥ {limit}"),
            (None, Some(limit)) => format!("≤ {limit}"),
            (None, None) => String::new(),
        }
    }
}

/// The results of one peer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) peer: String,
    pub(super) figures: BTreeMap<Figure, Sample>,
    /// The most frequent system calls behind a number of calls.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) calls: BTreeMap<Figure, String>,
}

/// The measured quantities, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// Bytes per second, in GB/s.
    Throughput,
    /// Uploads per second.
    Rate,
    /// Duration of an upload.
    Wall,
    /// Time from the start of the program until it listens.
    Start,
    /// User and system CPU time of the server's processes, per GB, per upload or per second.
    ServerCpu,
    ClientCpu,
    ServerMemory,
    ClientMemory,
    /// Anonymous memory of the server, without the pages of its program file.
    PrivateMemory,
    /// System calls per upload.
    ServerCalls,
    ClientCalls,
    /// Duration of the slowest of concurrent uploads divided by that of the fastest.
    LastToFirst,
    /// Memory per held connection.
    PerConnection,
    /// Duration of an upload among held connections divided by that of one without.
    Slowdown,
    Size,
    Connections,
}

impl Figure {
    pub(super) fn title(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput",
            Figure::Rate => "uploads",
            Figure::Wall => "wall",
            Figure::ServerCpu => "server CPU",
            Figure::ClientCpu => "client CPU",
            Figure::ServerMemory => "server memory",
            Figure::ClientMemory => "client memory",
            Figure::PrivateMemory => "private memory",
            Figure::ServerCalls => "server calls",
            Figure::ClientCalls => "client calls",
            Figure::LastToFirst => "last/first",
            Figure::PerConnection => "per connection",
            Figure::Slowdown => "slowdown",
            Figure::Start => "start",
            Figure::Size => "size",
            Figure::Connections => "connections",
        }
    }
}

impl Report {
    pub(super) fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == name)
    }
}

impl Workload {
    pub(super) fn row(&self, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer)
    }

    pub(super) fn sample(&self, peer: &str, figure: Figure) -> Option<&Sample> {
        self.row(peer)?.figures.get(&figure)
    }
}

impl Row {
    pub(super) fn new(peer: impl Into<String>) -> Self {
        Row { peer: peer.into(), figures: BTreeMap::new(), calls: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, figure: Figure, unit: &str, values: Vec<f64>) {
        let better = match figure {
            Figure::Throughput | Figure::Rate | Figure::Connections => Better::Higher,
            _ => Better::Lower,
        };
        if !values.is_empty() {
            self.figures.insert(figure, Sample::new(unit, better, values));
        }
    }
}
