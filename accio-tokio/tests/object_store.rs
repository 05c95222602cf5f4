//! Tests of the sink for object stores.

#![cfg(feature = "object-store")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use accio_proto::{ERROR_MARKER, ServerConfig};
use accio_tokio::{Client, ObjectStoreSink, serve_async};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

async fn stored(store: &InMemory, id: u64) -> Option<Vec<u8>> {
    let found = store.get(&Path::from(format!("uploads/{id}.file"))).await.ok()?;
    Some(found.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn stores_content_in_one_put_or_in_parts() {
    let store = Arc::new(InMemory::new());
    let sink = ObjectStoreSink::new(store.clone() as Arc<dyn ObjectStore>, "uploads");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = serve_async(listener, sink, ServerConfig::default()).unwrap();
    let port = server.local_addr().port();
    for (id, length) in (1..).zip([0, 1, (8 << 20) - 1, 8 << 20, (20 << 20) + 7]) {
        let content: Vec<u8> = (0..length).map(|index: usize| (index % 253) as u8).collect();
        let client = Client::default();
        let sent = client.send("127.0.0.1", port, &content[..]);
        assert!(tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap().confirmed);
        assert!(stored(&store, id).await.unwrap() == content, "{length} bytes");
    }
}

#[tokio::test]
async fn a_failed_upload_leaves_the_marker() {
    let store = Arc::new(InMemory::new());
    let sink = ObjectStoreSink::new(store.clone() as Arc<dyn ObjectStore>, "uploads");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = serve_async(listener, sink, ServerConfig::default()).unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.read_exact(&mut [0; 7]).await.unwrap();
    stream.write_all(&vec![7; 9 << 20]).await.unwrap();
    let handle = server.handle();
    let received = async {
        while !handle.connections().any(|upload| upload.bytes == 9 << 20) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, received).await.unwrap();
    tokio::time::timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert_eq!(stored(&store, 1).await.unwrap(), ERROR_MARKER);
}
