//! Chooses what depends on namespaces and other parts of Linux.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    cfg_aliases::cfg_aliases! {
        // The same condition as in accio-proto.
        linux_sys: { all(target_os = "linux", not(accio_portable)) },
    }
}
