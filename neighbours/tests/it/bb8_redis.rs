//! bb8-redis's manager, against a small server that speaks Redis's protocol.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use bb8_redis::redis::{AsyncCommands, RedisError, cmd};
use futures::future::{join_all, try_join_all};
use neighbours::resp::Server;
use pool_core::compat::Bb8;
use pool_core::{Builder, ConnectError, GetError, Pool, PrePing};
use tokio::task::JoinSet;

type RedisPool = Pool<Bb8<RedisConnectionManager>>;
type Settings = Builder<Bb8<RedisConnectionManager>>;

fn pool_with(server: &Server, settings: impl FnOnce(Settings) -> Settings) -> RedisPool {
    let manager = RedisConnectionManager::new(server.url()).expect("a good address");
    let builder = Pool::builder(Bb8(manager)).pool_size(4).max_overflow(0);
    settings(builder)
        .build()
        .expect("the test's settings are good")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_connections() {
    let server = Server::start().await.unwrap();
    let pool = pool_with(&server, |settings| settings);
    let mut tasks = JoinSet::new();
    for task in 0..64_u64 {
        let pool = pool.clone();
        tasks.spawn(async move {
            for round in 0..20 {
                let mut conn = pool.get().await.unwrap();
                let key = format!("task {task}");
                let (): () = conn.set(&key, task * round).await.unwrap();
                let value: u64 = conn.get(&key).await.unwrap();
                assert_eq!(value, task * round);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(
        server.most_connected() <= 4,
        "{} connections",
        server.most_connected()
    );
    let status = pool.status();
    assert_eq!((status.in_use, status.idle), (0, status.open), "{status}");
    assert!(pool.close().await.is_clean());
    server.connections(0).await;
}

#[tokio::test]
async fn connections_that_the_server_has_cut_are_replaced_before_anybody_meets_them() {
    let server = Server::start().await.unwrap();
    let pool = pool_with(&server, |settings| settings.pre_ping(PrePing::Always));
    let all = try_join_all((0..4).map(|_| pool.get())).await.unwrap();
    assert_eq!((all.len(), server.connected()), (4, 4));
    drop(all);
    server.hang_up().await;
    let answers = (0..8).map(|number: u64| {
        let pool = &pool;
        async move {
            let mut conn = pool.get().await.unwrap();
            let echoed: Result<u64, RedisError> =
                cmd("ECHO").arg(number).query_async(&mut *conn).await;
            echoed.unwrap()
        }
    });
    assert_eq!(
        join_all(answers).await,
        (0..8).collect::<Vec<_>>(),
        "a caller met a dead connection"
    );
}

#[tokio::test]
async fn a_server_that_falls_silent_is_a_timeout_and_not_a_hang() {
    let server = Server::start().await.unwrap();
    let limit = Duration::from_millis(100);
    let pool = pool_with(&server, |settings| {
        let limits = settings.ping_timeout(limit).connect_timeout(limit);
        limits.pre_ping(PrePing::Always).down_after(0)
    });
    drop(pool.get().await.unwrap());
    server.fall_silent(true);
    // The ping of the idle one gets no answer, and neither does its successor's greeting.
    let error = pool.get().await.unwrap_err();
    let timed_out = matches!(error, GetError::Connect(ConnectError::TimedOut(at)) if at == limit);
    assert!(timed_out, "{error:?}");
    server.fall_silent(false);
    let conn = loop {
        match pool.get().await {
            Ok(conn) => break conn,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    drop(conn);
    assert!(pool.close().await.is_clean());
    server.connections(0).await;
}

#[tokio::test]
async fn an_error_of_the_manager_reaches_the_caller_as_its_own_type() {
    let server = Server::start().await.unwrap();
    let url = server.url();
    drop(server);
    let pool = Pool::builder(Bb8(RedisConnectionManager::new(url).unwrap()))
        .build()
        .unwrap();
    let error = pool.get().await.unwrap_err();
    let cause: &Arc<RedisError> = error.backend_error().expect("the manager's error");
    assert!(cause.is_connection_refusal(), "{cause:?}");
}
