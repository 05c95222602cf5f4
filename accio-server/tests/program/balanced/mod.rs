//! Behind real balancers that end connections, with the configurations that come with the server.
//! Where one is not installed, its tests are skipped and say so.

mod cluster;
mod envoy;
mod haproxy;
mod shared;
