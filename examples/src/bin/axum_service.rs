//! A file drop inside an axum service, with a route that lists the uploads in progress.
//!
//! cargo run --bin axum_service -- DIRECTORY

use std::error::Error;
use std::fmt::Write;

use accio_proto::{DirSink, ServerConfig, ServerHandle};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::TcpListener;

async fn status(State(server): State<ServerHandle>) -> String {
    let stats = server.stats();
    let mut text = format!("{} complete, {} failed\n", stats.completed, stats.failed);
    for upload in server.connections() {
        let peer = upload.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let _ = writeln!(text, "{} from {peer}: {} bytes", upload.id, upload.bytes);
    }
    text
}

fn routes(server: ServerHandle) -> Router {
    Router::new().route("/uploads", get(status)).with_state(server)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: axum_service DIRECTORY")?;
    let uploads = TcpListener::bind("0.0.0.0:5000").await?;
    let server = accio_tokio::serve(uploads, DirSink::create(directory)?, ServerConfig::default())?;
    let http = TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(http, routes(server.handle())).await?;
    // Uploads in progress may finish.
    server.drain().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use accio_proto::MemorySink;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn shows_uploads() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            accio_tokio::serve(listener, MemorySink::new(), ServerConfig::default()).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = http.local_addr().unwrap();
        let app = routes(server.handle());
        tokio::spawn(async move { axum::serve(http, app).await });
        let port = server.local_addr().port();
        accio_tokio::Client::default().send("127.0.0.1", port, &b"done"[..]).await.unwrap();
        let mut open = TcpStream::connect(server.local_addr()).await.unwrap();
        open.write_all(b"half").await.unwrap();
        while !server.handle().connections().any(|upload| upload.bytes == 4) {
            tokio::task::yield_now().await;
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /uploads HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\r\n\r\n1 complete, 0 failed\n2 from 127.0.0.1:"), "{answer}");
        assert!(answer.ends_with(": 4 bytes\n"), "{answer}");
    }
}
