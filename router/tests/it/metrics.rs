//! What the feature `metrics` records, and that the alerts and the dashboard ask for nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use pool_router::{Consistency, Reads};

use crate::support::{builder, note, notes};

const ALERTS: &str = include_str!("../../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../../docs/dashboard.json");
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

/// The names that begin like ours in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| {
            word.starts_with("pool_router_") || word.starts_with("db_client_connection_")
        })
        .collect()
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

/// Does what makes each metric appear, and gives what Prometheus would fetch.
fn recorded() -> String {
    let recorder = recorder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let cluster = testbed::cluster()
                .replicas(1)
                .start()
                .await
                .expect("a cluster");
            let db = builder(&cluster)
                .pool_size(1)
                .max_overflow(0)
                .pool_timeout(Duration::from_millis(20))
                .connect()
                .await
                .expect("a database");
            crate::support::create_notes(&db).await;
            let _ = note(&db, "one").await;
            db.reads(Reads::PrimaryOnly);
            let mut held = db.read();
            notes(&mut held, "one").await;
            let error = db.write().execute("SELECT 1", &[]).await;
            error.expect_err("the only connection is held");
            held.rollback().await.expect("ended");
            db.record_metrics();
            db.shutdown().await;
        });
    });
    recorder.handle().render()
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_recorded_and_leave_nothing_out() {
    let text = recorded();
    let recorded = names(&text);
    for (page, text) in [("alerts.yml", ALERTS), ("dashboard.json", DASHBOARD)] {
        // Two labels are called like metrics.
        let labels = [
            "db_client_connection_pool_name",
            "db_client_connection_state",
        ];
        let asked = names(text)
            .into_iter()
            .filter(|name| !labels.contains(name));
        for name in asked {
            assert!(recorded.contains(name), "{page} asks for {name}:\n{text}");
        }
    }
    let shown = names(DASHBOARD);
    for name in recorded
        .iter()
        .filter(|name| name.starts_with("pool_router_"))
    {
        assert!(shown.contains(name), "the dashboard leaves out {name}");
    }
    let node = |metric: &str, value: &str| {
        let wanted = format!("pool_router_node_{metric}{{node=\"primary\"}} {value}");
        assert!(text.contains(&wanted), "no {wanted} in:\n{text}");
    };
    node("up", "1");
    node("primary", "1");
    node("lag_known", "1");
    node("writes", "2");
    assert!(text.contains("reason=\"PrimaryOnly\""), "{text}");
    assert!(
        text.contains("db_client_connection_pool_name=\"replica 1\""),
        "{text}"
    );
    assert!(
        text.contains("pool_router_events{kind=\"Reads\"} 1"),
        "{text}"
    );
}

#[test]
fn an_unknown_lag_is_recorded_as_no_number() {
    let recorder = recorder();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let db = pool_router::Database::builder()
                .primary("postgresql://app@127.0.0.1:1/app")
                .replica("postgresql://app@127.0.0.1:2/app")
                .connect_lazy()
                .expect("lazily");
            db.record_metrics();
            let explained = db.explain(Consistency::Eventual).to_string();
            assert!(explained.contains("not seen"), "{explained}");
        });
    });
    let text = recorder.handle().render();
    for wanted in [
        "pool_router_node_lag{node=\"replica 1\"} NaN",
        "pool_router_node_lag_known{node=\"replica 1\"} 0",
        "pool_router_writable 0",
    ] {
        assert!(text.contains(wanted), "no {wanted} in:\n{text}");
    }
}

#[test]
fn each_alert_names_a_row_of_the_runbook_and_the_dashboard_is_json() {
    let panels: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    assert!(
        panels["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 10)
    );
    let alerts: serde_yaml_ng::Value = serde_yaml_ng::from_str(ALERTS).expect("YAML");
    let rules = alerts["groups"][0]["rules"].as_sequence().expect("rules");
    assert!(rules.len() >= 10);
    for rule in rules {
        let text = |value: &serde_yaml_ng::Value| value.as_str().map(str::to_owned);
        let name = text(&rule["alert"]).expect("a name");
        assert!(text(&rule["expr"]).is_some(), "{name} has no expression");
        let row = text(&rule["annotations"]["runbook"]).expect("a row");
        let found = RUNBOOK
            .lines()
            .any(|line| line.starts_with(&format!("| {row} |")));
        assert!(found, "{name}: no row {row}");
    }
}
