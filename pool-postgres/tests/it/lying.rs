//! Servers that lie: whatever is said at whatever point, nothing panics, nothing hangs beyond its limit, the
//! connection is closed, and the pool is whole.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use pool_postgres::{Engine, Error, ErrorKind, Outcome, SessionFactory};
use tokio::time::{Instant, timeout};

use crate::liar::{ENDLESS, Liar, Lie, Point, message, one_of_each, wide_row};
use crate::support::SOON;

/// How many liars talk at the same time: most of them keep somebody waiting.
const AT_A_TIME: usize = 48;

/// Each limit that a lie can run into.
const LIMIT: Duration = Duration::from_millis(400);

fn engine(liar: &Liar) -> Engine {
    Engine::builder(liar.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_timeout(SOON)
        .connect_timeout(LIMIT)
        .reset_timeout(LIMIT)
        .close_timeout(LIMIT)
        .ping_timeout(LIMIT)
        .close_deadline(LIMIT)
        .max_message(64 * 1024)
        .build()
        .expect("good settings")
}

/// All that a session does: statements, a batch, a copy, a commit.
async fn use_it(engine: &Engine) -> Result<(), Error> {
    let sessions = SessionFactory::new(engine.clone())
        .statement_timeout(LIMIT / 4)
        .max_rows(1000);
    let mut session = sessions.session();
    session.query("SELECT n FROM numbers", &[]).await?;
    session.batch("SELECT 1; SELECT 2").await?;
    let mut copy = session.copy_in("COPY numbers FROM STDIN").await?;
    copy.send("1\n").await?;
    copy.finish().await?;
    session.query("SELECT n FROM numbers", &[]).await?;
    let _ = session.commit().await?;
    Ok(())
}

/// Talks to a liar, and then asks for nothing but what any pool gives; tells how the talk ended.
async fn survives(liar: &Liar, what: &str) -> Result<(), Error> {
    let engine = engine(liar);
    let talk = timeout(SOON, use_it(&engine)).await;
    let told = talk.unwrap_or_else(|_| panic!("{what}: hangs"));
    // The lie is told, so the next connection is good; a bad one that is left is found out by its use.
    let deadline = Instant::now() + SOON;
    loop {
        let answer = timeout(SOON, use_it(&engine)).await;
        match answer.unwrap_or_else(|_| panic!("{what}: the pool hangs")) {
            Ok(()) => break,
            Err(error) => assert!(
                Instant::now() < deadline,
                "{what}: never well again: {error}"
            ),
        }
    }
    let status = engine.status();
    assert_eq!((status.in_use, status.waiting), (0, 0), "{what}");
    let closing = timeout(SOON, engine.close()).await;
    let report = closing.unwrap_or_else(|_| panic!("{what}: does not close"));
    assert!(report.still_held.is_empty(), "{what}: {report:?}");
    told
}

/// Tells each lie at each point, and hands each outcome to `judge`.
async fn told_everywhere(
    lies: impl Fn(Point) -> Vec<(String, Lie)>,
    judge: impl Fn(&str, Result<(), Error>),
) {
    let mut all = Vec::new();
    for point in Point::ALL {
        // The first simple query and the first request belong to the opening of a connection.
        for skip in [0, 1] {
            for (name, lie) in lies(point) {
                all.push((format!("{name} at {point:?} {skip}"), point, skip, lie));
            }
        }
    }
    let talks = all.into_iter().map(|(what, point, skip, lie)| async move {
        let liar = Liar::new(point, skip, lie).await;
        let told = survives(&liar, &what).await;
        (what, told)
    });
    let mut talks = stream::iter(talks).buffer_unordered(AT_A_TIME);
    while let Some((what, told)) = talks.next().await {
        judge(&what, told);
    }
}

/// What an error of a talk with a liar may be: never one that says that a lost connection is good.
fn is_sound(what: &str, told: Result<(), Error>) {
    let Err(error) = told else { return };
    if matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::Timeout) {
        assert!(!error.connection_is_good(), "{what}: {error}");
    }
    if error.kind() == ErrorKind::OutcomeUnknown {
        assert_eq!(error.outcome(), Outcome::Unknown, "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_server_of_this_kind_is_understood() {
    let liar = Liar::new(Point::Terminate, u64::MAX, Lie::End).await;
    survives(&liar, "the truth").await.expect("no lie was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_message_in_the_wrong_place_is_survived() {
    let lies = |_| {
        let messages = one_of_each().into_iter();
        messages
            .map(|(kind, body)| {
                let name = format!("{:?} {body:?}", char::from(kind));
                (name, Lie::Before(message(kind, &body)))
            })
            .collect()
    };
    told_everywhere(lies, is_sound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_is_survived() {
    let lies = |point: Point| {
        let mut random = fastrand::Rng::with_seed(point as u64);
        let mut lies = vec![
            ("silence".to_owned(), Lie::Silence),
            ("the end".to_owned(), Lie::End),
        ];
        for length in [1, 5, 100, 5000] {
            let garbage: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            lies.push((format!("garbage of {length}"), Lie::Instead(garbage)));
        }
        lies
    };
    told_everywhere(lies, is_sound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_no_message_has_ends_the_connection_at_once() {
    let lies = |_| {
        [0, 3, 64 * 1024 + 1, i32::MAX.cast_unsigned(), u32::MAX]
            .into_iter()
            .flat_map(|length: u32| [b'D', b'T', b'E', b'N', b'R'].map(|kind| (kind, length)))
            .map(|(kind, length)| {
                let header = [&[kind][..], &length.to_be_bytes()].concat();
                let name = format!("{:?} of {length} bytes", char::from(kind));
                (name, Lie::Instead(header))
            })
            .collect()
    };
    told_everywhere(lies, |what, told| {
        if let Err(error) = &told {
            assert_ne!(error.kind(), ErrorKind::Timeout, "{what}: {error}");
        }
        is_sound(what, told);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ends_is_given_up_and_little_of_it_taken_before_the_server_is_ready() {
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhm\0\0");
    let parameters: Vec<u8> = (0..2000)
        .flat_map(|n| message(b'S', format!("setting_{n}\0{n}\0").as_bytes()))
        .collect();
    let endless = [
        ("notices", notice),
        ("parameters", parameters),
        ("rows", wide_row()),
    ];
    for (name, bytes) in endless {
        for point in Point::ALL {
            let liar = Liar::new(point, 0, Lie::Endless(bytes.clone())).await;
            let told = survives(&liar, &format!("{name} at {point:?}")).await;
            is_sound(name, told);
            let early = matches!(point, Point::StartUp | Point::LoggedIn)
                || (name == "parameters" && point != Point::Terminate);
            // What it takes beyond the limit is what the network holds.
            if early {
                assert!(
                    liar.said() < 16 << 20,
                    "{name} at {point:?}: {} bytes",
                    liar.said()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_nobody_reads_are_not_taken() {
    let liar = Liar::new(Point::Execute, 0, Lie::Endless(wide_row())).await;
    let engine = engine(&liar);
    {
        let mut rows = engine
            .query_stream("SELECT n FROM numbers", &[])
            .await
            .expect("a stream");
        for _ in 0..100 {
            rows.next().await.expect("a row").expect("no error");
        }
        // Beside those, what the network and one read of the driver's hold.
        assert!(liar.said() < 16 << 20, "{} bytes", liar.said());
    }
    assert!(liar.said() < ENDLESS);
    use_it(&engine).await.expect("another connection");
}

/// Without its `BEGIN` a statement would stand alone, and nobody would know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_whose_begin_was_refused_is_not_passed_off_as_part_of_a_transaction() {
    let refused = [
        message(b'E', b"SERROR\0VERROR\0C0A000\0Mno transactions today\0\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    for cached in [false, true] {
        // One simple query belongs to the opening of a connection; BEGIN and ROLLBACK go before, to have the
        // statement prepared.
        let skip = if cached { 3 } else { 1 };
        let liar = Liar::new(Point::Query, skip, Lie::Instead(refused.clone())).await;
        let engine = engine(&liar);
        let sessions = SessionFactory::new(engine.clone());
        let sql = "SELECT n FROM numbers";
        if cached {
            sessions.session().query(sql, &[]).await.expect("prepared");
            engine.query(sql, &[]).await.expect("at rest");
        }
        let mut session = sessions.session();
        let error = session.query(sql, &[]).await.expect_err("not begun");
        let expected = if cached {
            (ErrorKind::OutcomeUnknown, Outcome::Unknown)
        } else {
            (ErrorKind::Statement, Outcome::NotApplied)
        };
        assert_eq!(
            (error.kind(), error.outcome()),
            expected,
            "cached: {cached}; {error}"
        );
        assert_eq!(error.sqlstate(), Some("0A000"), "cached: {cached}; {error}");
        assert!(!error.is_retryable());
    }
}
