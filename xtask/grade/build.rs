//! Chooses how the sockets of other programs are observed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    cfg_aliases::cfg_aliases! {
        // The same condition as in accio-proto.
        linux_sys: { all(target_os = "linux", not(accio_portable)) },
    }
}
