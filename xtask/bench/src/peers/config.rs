//! Configurations and scripts of the third-party servers, each tuned for speed.

use std::io;
use std::path::{Path, PathBuf};

/// Configures nginx with WebDAV PUT. Temporary files are in the same directory as the stored ones,
/// so that nginx renames them instead of copying. `tls` has the settings of TLS, if it is used.
pub(super) fn nginx(
    scratch: &Path,
    store: &Path,
    port: u16,
    workers: usize,
    tls: Option<&str>,
) -> io::Result<PathBuf> {
    // If root starts nginx, its workers run as a user without write access by default.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (ssl, tls) = if let Some(tls) = tls { (" ssl", tls) } else { ("", "") };
    let (scratch_dir, store) = (scratch.display(), store.display());
    let text = format!(
        "daemon off; {user} worker_processes {workers}; pid {scratch_dir}/nginx.pid;\n\
         error_log stderr error; worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 16000; }}\n\
         http {{\n\
           access_log off; client_max_body_size 0; client_body_buffer_size 1m;\n\
           client_body_temp_path {store}/.temporary;\n\
           proxy_temp_path {scratch_dir}/1; fastcgi_temp_path {scratch_dir}/2;\n\
           uwsgi_temp_path {scratch_dir}/3; scgi_temp_path {scratch_dir}/4;\n\
           server {{\n\
             listen 127.0.0.1:{port}{ssl} backlog=4096; root {store}; dav_methods PUT;\n\
             {tls}\
           }}\n\
         }}\n"
    );
    write(scratch.join("nginx.conf"), &text)
}

pub(super) fn rsync(scratch: &Path, store: &Path) -> io::Result<PathBuf> {
    let owner = if rustix::process::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    let text = format!(
        "use chroot = no\npid file = {}\n[store]\npath = {}\nread only = no\n{owner}",
        scratch.join("rsync.pid").display(),
        store.display()
    );
    write(scratch.join("rsyncd.conf"), &text)
}

pub(super) fn vsftpd(scratch: &Path, store: &Path, port: u16) -> io::Result<PathBuf> {
    let empty = scratch.join("empty");
    std::fs::create_dir_all(&empty)?;
    let text = format!(
        "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n\
         run_as_launching_user=YES\nanonymous_enable=YES\nno_anon_password=YES\n\
         anon_root={}\nanon_upload_enable=YES\nwrite_enable=YES\nanon_umask=022\n\
         allow_writeable_chroot=YES\nseccomp_sandbox=NO\nxferlog_enable=NO\n\
         secure_chroot_dir={}\nuse_sendfile=YES\n",
        store.display(),
        empty.display()
    );
    write(scratch.join("vsftpd.conf"), &text)
}

/// Writes a script: `server.py PORT DIR READ-SIZE` or `client.py HOST PORT FILE READ-SIZE`.
pub(super) fn python(scratch: &Path, name: &str) -> io::Result<PathBuf> {
    let text = match name {
        "server.py" => include_str!("server.py"),
        _ => include_str!("client.py"),
    };
    write(scratch.join(name), text)
}

fn write(path: PathBuf, text: &str) -> io::Result<PathBuf> {
    std::fs::write(&path, text)?;
    Ok(path)
}
