//! Servers behind real load balancers that terminate connections, with the configurations in
//! `dist/`. Where a balancer is not installed, its tests print that they are skipped.

mod cluster;
mod envoy;
mod haproxy;
mod shared;
