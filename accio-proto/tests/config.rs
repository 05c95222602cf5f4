//! Tests of configurations as plain values, and as text.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use accio_proto::{Dialect, MemorySink, Server, ServerConfig, ServerError};

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
