//! What the features `serde`, `metrics` and `tracing` add.

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn statistics_and_status_survive_json() {
    let pool = crate::scripted::ScriptedBackend::new().pool(1, 0);
    drop(pool.get().await.unwrap());
    let both = (pool.stats(), pool.status());
    let json = serde_json::to_string(&both).unwrap();
    assert!(json.contains("\"checkouts\":1"), "{json}");
    let back: (pool_core::Stats, pool_core::Status) = serde_json::from_str(&json).unwrap();
    assert_eq!(back, both);
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use ::metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata,
        Recorder, SharedString, Unit,
    };
    use parking_lot::Mutex;
    use pool_core::GetOptions;

    use crate::scripted::ScriptedBackend;

    type Seen = Arc<Mutex<BTreeMap<String, Vec<f64>>>>;

    /// Writes down what is recorded.
    struct Notes(Seen);

    struct One(String, Seen);

    impl One {
        fn note(&self, value: f64) {
            let mut seen = self.1.lock();
            seen.entry(self.0.clone()).or_default().push(value);
        }
    }

    impl CounterFn for One {
        fn increment(&self, value: u64) {
            self.note(f64::from(u32::try_from(value).unwrap()));
        }
        fn absolute(&self, _: u64) {
            unreachable!("counters are raised");
        }
    }

    impl GaugeFn for One {
        fn increment(&self, _: f64) {
            unreachable!("gauges are set");
        }
        fn decrement(&self, _: f64) {
            unreachable!("gauges are set");
        }
        fn set(&self, value: f64) {
            self.note(value);
        }
    }

    impl HistogramFn for One {
        fn record(&self, value: f64) {
            self.note(value);
        }
    }

    impl Notes {
        fn one(&self, key: &Key) -> Arc<One> {
            let labels: Vec<_> = key.labels().map(::metrics::Label::value).collect();
            let name = format!("{} {}", key.name(), labels.join(" "));
            Arc::new(One(name, Arc::clone(&self.0)))
        }
    }

    impl Recorder for Notes {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.one(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.one(key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.one(key))
        }
    }

    #[test]
    fn numbers_reach_the_recorder_under_their_conventional_names() {
        let seen = Seen::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        ::metrics::with_local_recorder(&Notes(Arc::clone(&seen)), || {
            runtime.block_on(async {
                let pool = ScriptedBackend::new().pool_with(2, 1, |pool| pool.name("orders"));
                let held = [pool.get().await, pool.get().await, pool.get().await];
                let soon = GetOptions::new().timeout(Duration::from_millis(5));
                pool.get_with(soon).await.expect_err("all are in use");
                let [first, ..] = held;
                drop(first);
                pool.record_metrics();
            });
        });
        let seen = seen.lock();
        let last = |name: &str| seen[name].last().copied();
        let name = |metric: &str| format!("db.client.connection.{metric} orders");
        assert_eq!(last(&name("max")), Some(3.0));
        assert_eq!(last(&name("idle.max")), Some(2.0));
        assert_eq!(last(&name("idle.min")), Some(0.0));
        assert_eq!(last(&name("pending_requests")), Some(0.0));
        assert_eq!(last(&name("timeouts")), Some(1.0));
        assert_eq!(last(&format!("{} idle", name("count"))), Some(1.0));
        assert_eq!(last(&format!("{} used", name("count"))), Some(2.0));
        assert_eq!(seen[&name("create_time")].len(), 3);
        assert_eq!(seen[&name("wait_time")].len(), 4);
    }
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::fmt;
    use std::sync::Arc;

    use ::tracing::field::{Field, Visit};
    use ::tracing::span::{Attributes, Id, Record};
    use ::tracing::{Event, Level, Metadata, Subscriber};
    use parking_lot::Mutex;
    use pool_core::Failure;

    use crate::scripted::{Call, ScriptedBackend, Step};

    /// Writes down every span and event of the pool's.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Notes {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "pool_core"
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut notes = self.0.lock();
            notes.push(format!("span {}", span.metadata().name()));
            Id::from_u64(notes.len() as u64)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().push(text.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            let before = match field.name() {
                "message" => " ",
                "db.client.connection.pool.name" => " in ",
                _ => return,
            };
            self.0 = format!("{}{before}{value:?}", self.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_is_logged_at_its_level_with_the_pools_name() {
        let notes = Notes::default();
        let guard = ::tracing::subscriber::set_default(notes.clone());
        let backend = ScriptedBackend::new();
        backend.next(Call::Open, [Step::Err(Failure::Transient)]);
        let pool = backend.pool_with(1, 0, |pool| pool.name("orders"));
        pool.get().await.expect_err("the script says so");
        drop(pool.get().await.unwrap());
        pool.suspend();
        drop(guard);
        let seen = notes.0.lock();
        for expected in [
            "span pool.get".to_owned(),
            "span pool.connect".to_owned(),
            format!("{} connect failed in \"orders\"", Level::WARN),
            format!("{} recovered in \"orders\"", Level::INFO),
            format!("{} connected in \"orders\"", Level::DEBUG),
            format!("{} suspended in \"orders\"", Level::INFO),
        ] {
            let found = seen.iter().any(|note| words(note) == words(&expected));
            assert!(found, "{expected}: {seen:#?}");
        }
    }

    /// A note's words in any order: fields come before or after the message.
    fn words(note: &str) -> Vec<&str> {
        let mut words: Vec<_> = note.split(' ').collect();
        words.sort_unstable();
        words
    }
}
