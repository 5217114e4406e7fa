//! A pool of anything: buffers that come back empty, and seats of a licence.
//! `cargo run -p pool-core --example object_pool`

use pool_core::{FnBackend, Pool};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Costly to allocate, cheap to reuse: how to make one, and what to do with it when it comes back.
    let buffers = FnBackend::values(|| Vec::<u8>::with_capacity(1 << 20)).reset_now(Vec::clear);
    let pool = Pool::builder(buffers).pool_size(2).build()?;
    for round in 1..=3 {
        let mut buffer = pool.get().await?;
        assert!(buffer.is_empty(), "what the last user wrote is gone");
        buffer.extend_from_slice(b"hello");
        let (used, place) = (buffer.len(), buffer.as_ptr());
        println!(
            "round {round}: {used} of {} bytes at {place:p}",
            buffer.capacity()
        );
    }
    println!("{}", pool.status());

    // Nobody works without a seat, there are two, and who comes first is served first.
    let seats = Pool::builder(FnBackend::values(|| ()))
        .pool_size(2)
        .max_overflow(0);
    let (seats, mut users) = (seats.build()?, JoinSet::new());
    for user in 1..=6 {
        let seats = seats.clone();
        users.spawn(async move {
            let seat = seats.get().await;
            println!("user {user} sits down: {}", seats.status());
            tokio::task::yield_now().await;
            seat.map(drop)
        });
    }
    while let Some(user) = users.join_next().await {
        user??;
    }
    Ok(())
}
