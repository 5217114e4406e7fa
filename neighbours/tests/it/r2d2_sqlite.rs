//! r2d2_sqlite's manager, on a real SQLite file, from tasks and from threads.

use std::thread;
use std::time::Duration;

use futures::future::try_join_all;
use pool_core::{BlockingPool, ConnectError, GetError, PrePing};
use rusqlite::params;
use tokio::task::{JoinSet, spawn_blocking};

use crate::sqlite_file::File;

const BRIEF: Duration = Duration::from_millis(100);

fn write(conn: &rusqlite::Connection, writer: u32, note: u32) {
    let insert = "INSERT INTO notes (writer, note) VALUES (?, ?)";
    let written = conn.execute(insert, params![writer, note]);
    assert_eq!(written.unwrap(), 1);
}

fn count(conn: &rusqlite::Connection) -> u32 {
    let count = conn.query_row("SELECT count(*) FROM notes", [], |row| row.get(0));
    count.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_write_to_one_file() {
    let file = File::new();
    let pool = file.settings().build().unwrap();
    let mut tasks = JoinSet::new();
    for writer in 0..32 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for note in 0..10 {
                let conn = pool.get_owned().await.unwrap();
                let write = move || write(&conn, writer, note);
                spawn_blocking(write).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(count(&pool.get().await.unwrap()), 320);
    assert!(file.most_live() <= 4, "{} at once", file.most_live());
    assert!(pool.close().await.is_clean());
    assert_eq!(file.live(), 0, "closing waits until SQLite has closed them");
}

#[test]
fn many_threads_write_to_one_file_without_a_runtime_of_their_own() {
    let file = File::new();
    let pool = BlockingPool::new(file.settings()).unwrap();
    thread::scope(|threads| {
        for writer in 0..16 {
            let pool = &pool;
            threads.spawn(move || {
                for note in 0..10 {
                    write(&pool.get().unwrap(), writer, note);
                }
            });
        }
    });
    assert_eq!(count(&pool.get().unwrap()), 160);
    assert!(file.most_live() <= 4, "{} at once", file.most_live());
    assert!(pool.close().is_clean());
    assert_eq!(file.live(), 0);
}

#[tokio::test]
async fn a_connection_on_which_nothing_works_any_more_is_replaced_before_anybody_meets_it() {
    let file = File::new();
    let settings = file.settings().pre_ping(PrePing::Always);
    let pool = settings.build().unwrap();
    let all = try_join_all((0..4).map(|_| pool.get())).await.unwrap();
    drop(all);
    assert_eq!(file.opened(), 4);
    file.break_all();
    for note in 0..8 {
        write(&pool.get().await.unwrap(), 1, note);
    }
    assert_eq!(count(&pool.get().await.unwrap()), 8);
    assert!(pool.close().await.is_clean());
    file.connections(0).await;
}

#[tokio::test]
async fn a_ping_that_outlives_its_time_closes_its_connection_when_it_ends_and_gives_it_to_nobody() {
    let file = File::new();
    let settings = file.settings().pre_ping(PrePing::Always);
    let pool = settings.ping_timeout(BRIEF).build().unwrap();
    drop(pool.get().await.unwrap());
    let held = file.hold(1);
    let conn = pool.get().await.unwrap();
    held.has_arrived();
    assert_eq!(
        (file.opened(), file.live(), pool.status().open),
        (2, 2, 1),
        "a second one serves the caller, while the first is away with its ping"
    );
    drop(held); // The ping succeeds, too late.
    file.connections(1).await;
    write(&conn, 1, 1);
    drop(conn);
    drop(pool.get().await.unwrap());
    assert_eq!(file.opened(), 2);
    assert!(pool.close().await.is_clean());
}

#[tokio::test]
async fn an_opening_that_outlives_its_time_is_closed_when_it_ends() {
    let file = File::new();
    let pool = file.settings().connect_timeout(BRIEF).build().unwrap();
    let held = file.hold(1);
    let error = pool.get().await.unwrap_err();
    let timed_out = GetError::Connect(ConnectError::<rusqlite::Error>::TimedOut(BRIEF));
    assert_eq!(error.to_string(), timed_out.to_string());
    held.has_arrived();
    assert_eq!((file.live(), pool.status().in_use), (1, 0));
    drop(held);
    file.connections(pool.status().open).await;
    write(&pool.get().await.unwrap(), 1, 1);
    assert!(pool.close().await.is_clean());
    file.connections(0).await;
}

#[test]
fn a_guard_that_outlives_its_blocking_pool_closes_its_connection_when_it_is_dropped() {
    let file = File::new();
    let pool = BlockingPool::new(file.settings()).unwrap();
    let conn = pool.get_owned().unwrap();
    drop(pool);
    write(&conn, 1, 1);
    drop(conn);
    let patient = tokio::runtime::Builder::new_current_thread().build();
    patient.unwrap().block_on(file.connections(0));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_the_managers_own_error() {
    let manager = r2d2_sqlite::SqliteConnectionManager::file("/no/such/folder/test.sqlite");
    let pool = pool_core::Pool::builder(pool_core::compat::R2d2(manager))
        .build()
        .unwrap();
    let error = pool.get().await.unwrap_err();
    let cause: &rusqlite::Error = error.backend_error().expect("SQLite's error");
    assert_eq!(
        cause.sqlite_error_code(),
        Some(rusqlite::ErrorCode::CannotOpen)
    );
}
