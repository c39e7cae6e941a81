use std::fs;

use super::*;

fn at(data_dir: &str) -> Settings {
    Settings { data_dir: Some(data_dir.into()), ..Settings::default() }
}

fn refusal(settings: Settings) -> String {
    Config::resolve(settings).expect_err("must be refused").to_string()
}

#[test]
fn all_files_are_below_the_data_folder_by_default() {
    let config = Config::resolve(at("/data")).expect("valid");
    assert_eq!(config.store.to_string(), "embedded:/data/queue.redb");
    assert_eq!(config.object_store.to_string(), "file:///data/objects");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7878");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("coordinator.toml");
    fs::write(&file, "lease_ttl = '5s'\nlisten = '127.0.0.1:1'\n").expect("writable");
    let flags = Settings { listen: "127.0.0.1:2".parse().ok(), ..at("/data") };
    let config = Config::load(flags, Some(&file)).expect("valid");
    assert_eq!((config.listen.port(), config.lease_ttl.as_ms()), (2, 5_000));
}

#[test]
fn an_unknown_key_in_the_file_is_refused_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("coordinator.toml");
    fs::write(&file, "lease-ttl = '5s'\n").expect("writable");
    let error = Config::load(at("/data"), Some(&file)).expect_err("the key has a dash").to_string();
    assert!(error.contains("lease-ttl") && error.contains("lease_ttl"), "{error}");
}

#[test]
fn a_dumped_configuration_can_be_read_back_unchanged() {
    let settings = Settings {
        tls_cert: Some("/cert.pem".into()),
        tls_key: Some("/key.pem".into()),
        client_ca: Some("/ca.pem".into()),
        credentials: Some("/tokens.toml".into()),
        metrics_listen: "127.0.0.1:9000".parse().ok(),
        shard_items: "7".parse().ok(),
        retention: "6days".parse().ok(),
        object_grace: "7h".parse().ok(),
        collect_objects: Some(false),
        max_waiting_jobs_per_tenant: "8".parse().ok(),
        max_waiting_tasks: "9".parse().ok(),
        drain_delay: "11s".parse().ok(),
        max_unknown_connections_per_address: "10".parse().ok(),
        ..at("/data")
    };
    let config = Config::resolve(settings).expect("valid");
    let again: Settings = toml::from_str(&config.to_toml()).expect("it is a configuration file");
    assert_eq!(Config::resolve(again).expect("valid"), config);
}

#[test]
fn an_address_that_other_machines_can_reach_needs_both_tls_and_credentials() {
    let open = Settings { listen: "0.0.0.0:7878".parse().ok(), ..at("/data") };
    let with_tls = Settings { tls_cert: Some("c".into()), tls_key: Some("k".into()), ..open.clone() };
    let with_both = Settings { credentials: Some("t".into()), ..with_tls.clone() };
    assert!(refusal(open).contains("without TLS and credentials: set --tls-cert, --tls-key and --credentials"));
    assert!(refusal(with_tls).contains("without credentials"));
    Config::resolve(with_both).expect("TLS and credentials are set");
}

#[test]
fn metrics_on_an_address_that_other_machines_can_reach_need_both_as_well() {
    let settings = Settings { metrics_listen: "[::]:9000".parse().ok(), ..at("/data") };
    assert!(refusal(settings).contains("[::]:9000"));
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let settings = Settings { tls_cert: Some("c".into()), ..at("/data") };
    assert!(refusal(settings).contains("--tls-key is not set"));
}

#[test]
fn authorities_of_callers_without_tls_or_without_a_tokens_file_are_refused() {
    let lone = Settings { client_ca: Some("ca".into()), ..at("/data") };
    assert!(refusal(lone.clone()).contains("--tls-cert is not set"));
    let with_tls = Settings { tls_cert: Some("c".into()), tls_key: Some("k".into()), ..lone };
    assert!(refusal(with_tls).contains("--credentials is not set"));
}

#[test]
fn a_password_in_the_url_of_a_redis_is_refused_without_showing_it() {
    let error = "redis://:hunter2@queue:6379".parse::<StoreUrl>().expect_err("a secret").to_string();
    assert!(error.contains("--store-password-file") && error.contains("redis://***@queue:6379"), "{error}");
    for url in ["redis://queue?password=hunter2", "redsi://:hunter2@queue", "redis://a:hunter2@b@c:x", "hunter2@queue"]
    {
        let error = url.parse::<StoreUrl>().expect_err(url).to_string();
        assert!(error.contains("***") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn the_url_of_a_redis_has_a_host_and_no_options_that_would_be_ignored() {
    for url in ["redis://", "redis://host/queue", "redis://host?protocol=resp3", "redis:host", "rediss:///1"] {
        url.parse::<StoreUrl>().expect_err(url);
    }
    for url in ["redis://host:6379", "rediss://user@host/2"] {
        assert_eq!(url.parse::<StoreUrl>().expect("valid").to_string(), url);
    }
}

#[test]
fn a_setting_for_redis_is_refused_for_another_store_and_dumped_for_a_redis() {
    let settings = Settings { allow_data_loss: Some(true), ..at("/data") };
    assert!(refusal(settings.clone()).contains("--allow-data-loss is for a Redis store"));
    let settings = Settings { store: "redis://queue".parse().ok(), ..settings };
    assert!(refusal(settings.clone()).contains("coordinators share: set --object-store"));
    let settings = Settings { object_store: "s3://bucket".parse().ok(), ..settings };
    let config = Config::resolve(settings).expect("valid");
    assert!(config.to_toml().contains("allow_data_loss = true"));
    let again: Settings = toml::from_str(&config.to_toml()).expect("it is a configuration file");
    assert_eq!(Config::resolve(again).expect("valid"), config);
}

#[test]
fn a_lease_that_is_far_too_short_or_too_long_is_refused() {
    for ttl in ["0s", "99ms", "1day"] {
        assert!(refusal(Settings { lease_ttl: ttl.parse().ok(), ..at("/data") }).contains("100ms to 1h"), "{ttl}");
    }
}

#[test]
fn the_grace_of_objects_is_at_least_ten_leases_since_an_attempt_may_not_have_reported_its_output() {
    let settings = |lease: &str, grace: &str| Settings {
        lease_ttl: lease.parse().ok(),
        object_grace: grace.parse().ok(),
        ..at("/data")
    };
    let config = Config::resolve(settings("30s", "5m")).expect("10 leases");
    assert!(config.collect_objects);
    assert!(refusal(settings("30s", "4m 59s")).contains("use 5m or more"));
    assert!(refusal(settings("1h", "9h")).contains("use 10h or more"));
}
