//! Tests of configurations as plain values, and as text.

use std::time::Duration;

use accio_proto::{
    Client, ClientConfig, ClientError, Dialect, Family, MemorySink, Server, ServerConfig,
    ServerError, Stats,
};

#[test]
fn reads_a_configuration_with_defaults_for_missing_fields() {
    let text = r#"{
        "dialect": "confirm",
        "limits": { "idle-timeout": 2.5, "max-size": 1000 },
        "max-per-ip": 3,
        "allow": ["10.0.0.0/8", "::1"],
        "threading": "per-session"
    }"#;
    let config: ServerConfig = serde_json::from_str(text).unwrap();
    let mut due = ServerConfig::default();
    due.dialect = Dialect::Confirm.into();
    due.limits.idle_timeout = Duration::from_millis(2500);
    due.limits.max_size = Some(1000);
    due.max_per_ip = 3.try_into().ok();
    due.allow = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
    due.threading = Some(accio_proto::Threading::PerSession);
    assert_eq!(config, due);
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ServerConfig>(&written).unwrap(), due, "{written}");
    assert_eq!(serde_json::from_str::<ServerConfig>("{}").unwrap(), ServerConfig::default());
    let server = Server::builder(MemorySink::new()).config(config).bind("127.0.0.1:0").unwrap();
    let limits = *server.handle().limits();
    assert_eq!((limits.dialect, limits.transfer), (due.dialect, due.limits));
    assert_eq!(limits.max_per_ip, due.max_per_ip);
}

#[test]
fn counts_are_written_under_the_names_of_their_fields() {
    let server = Server::builder(MemorySink::new()).bind("127.0.0.1:0").unwrap();
    let stats = server.handle().stats();
    let written = serde_json::to_string(&stats).unwrap();
    let names =
        ["accepted", "in-service", "completed", "failed", "refused", "accept-errors", "bytes"];
    let expected = names.map(|name| format!("\"{name}\":0")).join(",");
    assert_eq!(written, format!("{{{expected}}}"));
    // Programs may read what an earlier version has written.
    let read: Stats = serde_json::from_str(r#"{"completed": 7}"#).unwrap();
    assert_eq!((read.completed, read.accepted), (7, 0));
}

#[test]
fn rejects_unknown_fields_and_invalid_values() {
    for (text, why) in [
        (r#"{"dialekt": "accio"}"#, "unknown field `dialekt`"),
        (r#"{"dialect": "Accio"}"#, "unknown dialect"),
        (r#"{"limits": {"idle-timeout": -1}}"#, "negative"),
        (r#"{"allow": ["10.0.0.0/33"]}"#, "10.0.0.0/33"),
    ] {
        let error = serde_json::from_str::<ServerConfig>(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn is_validated_once_before_listening() {
    let mut config = ServerConfig::default();
    config.limits.idle_timeout = Duration::ZERO;
    assert!(matches!(config.validate(), Err(ServerError::Timeout(Duration::ZERO))));
    let server = Server::builder(MemorySink::new()).config(config).bind("127.0.0.1:0");
    assert!(matches!(server, Err(ServerError::Timeout(_))));
    let mut config = ServerConfig::default();
    config.workers = 5000.try_into().ok();
    assert!(matches!(config.validate(), Err(ServerError::Workers(_))));
}

#[test]
fn reads_the_configuration_of_a_client() {
    let text = r#"{
        "dialect": "confirm",
        "stall-timeout": 2.5,
        "transfer-timeout": 60,
        "family": "ipv4",
        "source-address": "127.0.0.1:0",
        "rate-limit": 1000000
    }"#;
    let config: ClientConfig = serde_json::from_str(text).unwrap();
    let mut due = ClientConfig::default();
    due.dialect = Dialect::Confirm;
    due.stall_timeout = Duration::from_millis(2500);
    due.transfer_timeout = Some(Duration::from_secs(60));
    due.family = Family::Ipv4;
    due.source_address = "127.0.0.1:0".parse().ok();
    due.rate_limit = 1_000_000.try_into().ok();
    assert_eq!(config, due);
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ClientConfig>(&written).unwrap(), due, "{written}");
    assert_eq!(serde_json::from_str::<ClientConfig>("{}").unwrap(), ClientConfig::default());
    let error = serde_json::from_str::<ClientConfig>(r#"{"family": "ipv5"}"#).unwrap_err();
    assert!(error.to_string().contains("ipv5"), "{error}");
}

/// The settings reach the connection: the server sees the dialect and the address.
#[test]
fn a_client_uses_its_configuration() {
    let files = MemorySink::new();
    let server = Server::builder(files.clone()).dialect(Dialect::Confirm);
    let (done, outcomes) = std::sync::mpsc::channel();
    let server = server.on_outcome(move |outcome| done.send(outcome.connection.peer).unwrap());
    let server = server.bind("127.0.0.1:0").unwrap();
    let (port, handle) = (server.local_addr().port(), server.handle());
    let serving = std::thread::spawn(move || server.run());
    let mut config = ClientConfig::default();
    config.dialect = Dialect::Confirm;
    config.source_address = "127.0.0.77:0".parse().ok();
    let client = Client::builder().config(config).build().unwrap();
    assert!(client.send("127.0.0.1", port, &b"content"[..]).unwrap().confirmed);
    let peer = outcomes.recv().unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.77");
    handle.stop();
    serving.join().unwrap().unwrap();
}

#[test]
fn the_configuration_of_a_client_is_validated_once() {
    let mut config = ClientConfig::default();
    config.transfer_timeout = Some(Duration::ZERO);
    let due = Err(("transfer_timeout", Duration::ZERO));
    let limit = |result: Result<(), ClientError>| -> Result<(), _> {
        match result {
            Err(ClientError::Limit { name, value }) => Err((name, value)),
            result => panic!("{result:?}"),
        }
    };
    assert_eq!(limit(config.validate()), due);
    assert_eq!(limit(Client::builder().config(config).build().map(|_| ())), due);
}
