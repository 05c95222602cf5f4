//! Chooses the implementation of `src/sys`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    cfg_aliases::cfg_aliases! {
        // The system calls of Linux: `src/sys/linux`. Otherwise `src/sys/portable`, which
        // `--cfg accio_portable` selects on Linux too, to test it there.
        linux_sys: { all(target_os = "linux", not(accio_portable)) },
    }
}
