//! A pool of anything: here of buffers, which are costly to allocate and cheap to reuse.
//! `cargo run -p pool-core --example object_pool`

use std::convert::Infallible;

use pool_core::{Backend, Health, Pool, When};

/// The whole backend: how to make one, and what to do with it when it comes back.
struct Buffers;

impl Backend for Buffers {
    type Connection = Vec<u8>;
    type Error = Infallible;
    async fn connect(&self) -> Result<Vec<u8>, Infallible> {
        Ok(Vec::with_capacity(1 << 20))
    }
    fn check(&self, buffer: &mut Vec<u8>, _: When) -> Health {
        buffer.clear();
        Health::Good
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::builder(Buffers)
        .pool_size(2)
        .max_overflow(0)
        .build()?;
    for round in 1..=3 {
        let mut buffer = pool.get().await?;
        assert!(buffer.is_empty(), "what the last user wrote is gone");
        buffer.extend_from_slice(b"hello");
        println!(
            "round {round}: {} of {} bytes used at {:p}",
            buffer.len(),
            buffer.capacity(),
            buffer.as_ptr()
        );
    }
    println!("{}", pool.status());
    Ok(())
}
