//! `cargo testbed`.
use std::time::Instant;
#[tokio::main]
async fn main() {
    let t = Instant::now();
    let c = testbed::cluster().replicas(2).start().await.unwrap();
    println!("start {:?} {}", t.elapsed(), c.primary().url());
    println!(
        "{:?}",
        c.replica(1)
            .sql("select version(), count(*)::text from pg_stat_replication")
            .await
    );
    let t = Instant::now();
    c.stop().await.unwrap();
    println!("stop {:?}", t.elapsed());
}
