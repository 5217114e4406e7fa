//! What is done to servers and network, at random: one row of faults for each, side by side.
//!
//! A seed fixes the order of the faults and their lengths; how requests fall between them is never the same twice.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use pool_router::Database;
use testbed::Node;
use tokio::time::{Instant, sleep};

use super::world::{REPLICAS, World};

/// What can be done to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Replica(Trouble),
    Primary(Trouble),
    Roles(Change),
}

/// What can be done to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Killed,
    Restarted,
    Frozen,
    /// Of a replica.
    ReplayPaused,
    /// Of a replica.
    ReplayDelayed,
}

/// How a replica becomes the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The primary is stopped in order.
    Switchover,
    /// The primary is killed.
    Failover,
    /// The replicas miss the primary's last writes, then it is killed.
    WithLoss,
    /// The primary stands still, and goes on beside the new one.
    TwoPrimaries,
}

const CHANGES: [Change; 4] = [
    Change::Failover,
    Change::TwoPrimaries,
    Change::WithLoss,
    Change::Switchover,
];
const OTHERS: [Fault; 8] = [
    Fault::Replica(Trouble::Killed),
    Fault::Replica(Trouble::Restarted),
    Fault::Replica(Trouble::Frozen),
    Fault::Replica(Trouble::ReplayPaused),
    Fault::Replica(Trouble::ReplayDelayed),
    Fault::Primary(Trouble::Killed),
    Fault::Primary(Trouble::Restarted),
    Fault::Primary(Trouble::Frozen),
];

/// Goes through all faults in a random order, again and again, two others between two promotions.
struct Deck(Vec<Fault>);

impl Deck {
    fn draw(&mut self, rng: &mut Rng) -> Fault {
        if let Some(fault) = self.0.pop() {
            return fault;
        }
        let (mut changes, mut others) = (CHANGES, OTHERS);
        rng.shuffle(&mut changes);
        rng.shuffle(&mut others);
        for (change, pair) in changes.iter().zip(others.chunks(2)) {
            self.0.extend(pair);
            self.0.push(Fault::Roles(*change));
        }
        self.0.pop().unwrap_or(Fault::Roles(Change::Failover))
    }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// Troubles the servers until that moment; whatever was begun is ended.
pub(crate) async fn servers(
    world: &World,
    services: &[Database],
    mut rng: Rng,
    until: Instant,
) -> Result<()> {
    let mut deck = Deck(Vec::new());
    loop {
        sleep(millis(&mut rng, 100..800)).await;
        if Instant::now() >= until {
            return Ok(());
        }
        let replicas = world.replicas();
        match deck.draw(&mut rng) {
            Fault::Replica(what) => {
                let replica = world.node(replicas[rng.usize(..replicas.len())]);
                trouble(world, replica, "replica", what, &mut rng).await?;
            }
            Fault::Primary(what) => {
                trouble(world, world.primary(), "primary", what, &mut rng).await?;
            }
            Fault::Roles(what) => change(world, services, &mut rng, what).await?,
        }
    }
}

/// Troubles one server for a while.
async fn trouble(
    world: &World,
    node: &Node,
    role: &str,
    what: Trouble,
    rng: &mut Rng,
) -> Result<()> {
    let (story, name) = (&world.story, node.name());
    let what_it_is = match what {
        Trouble::Killed => "killed",
        Trouble::Restarted => "restarted",
        Trouble::Frozen => "frozen",
        Trouble::ReplayPaused => "replay paused",
        Trouble::ReplayDelayed => "replay delayed",
    };
    story.fault(format!("{role}: {what_it_is}"));
    story.tell(format!("{name}, a {role}: {what_it_is}"));
    match what {
        Trouble::Killed => {
            node.kill().await?;
            sleep(millis(rng, 0..800)).await;
            node.start().await?;
        }
        Trouble::Restarted => node.restart().await?,
        Trouble::Frozen => {
            node.freeze().await?;
            sleep(millis(rng, 100..1_500)).await;
            node.thaw().await?;
        }
        Trouble::ReplayPaused => {
            node.pause_replay().await?;
            sleep(millis(rng, 200..2_500)).await;
            node.resume_replay().await?;
        }
        Trouble::ReplayDelayed => {
            node.set_apply_delay(millis(rng, 20..700)).await?;
            sleep(millis(rng, 500..2_000)).await;
            node.set_apply_delay(Duration::ZERO).await?;
        }
    }
    story.tell(format!("{name} goes on"));
    Ok(())
}

/// Makes a replica the primary, and the old one a replica.
async fn change(world: &World, services: &[Database], rng: &mut Rng, what: Change) -> Result<()> {
    let (story, old) = (&world.story, world.primary());
    let what = match what {
        // With its standbys gone, nothing is acknowledged that could be lost.
        Change::WithLoss if world.synchronous => Change::Failover,
        what => what,
    };
    let kind = match what {
        Change::Switchover => "switchover",
        Change::Failover => "failover",
        Change::WithLoss => "failover that loses writes",
        Change::TwoPrimaries => "failover, two primaries",
    };
    story.fault(kind.to_owned());
    story.tell(format!("{kind}: away from {}", old.name()));
    match what {
        Change::Switchover => old.stop().await?,
        Change::Failover => old.kill().await?,
        Change::WithLoss => {
            for index in world.replicas() {
                world.node(index).kill().await?;
            }
            story.tell("  the replicas are killed");
            sleep(millis(rng, 50..400)).await;
            old.kill().await?;
        }
        Change::TwoPrimaries => {
            old.freeze().await?;
            sleep(millis(rng, 0..600)).await;
        }
    }
    story.tell(format!("  {} is away", old.name()));
    world.promote_the_furthest(kind).await?;
    if what == Change::TwoPrimaries {
        // Before that a service that has not heard of the new primary would trust the old one, as is documented.
        world.known_to(services).await?;
        old.thaw().await?;
        story.tell(format!("  {} goes on beside it", old.name()));
    }
    sleep(millis(rng, 50..700)).await;
    old.rejoin(world.primary()).await?;
    story.tell(format!("  {} is a replica now", old.name()));
    Ok(())
}

/// Troubles the network between the services and the servers until that moment.
pub(crate) async fn network(world: &World, mut rng: Rng, until: Instant) {
    loop {
        sleep(millis(&mut rng, 100..900)).await;
        if Instant::now() >= until {
            return;
        }
        let index = rng.usize(..=REPLICAS);
        let (proxy, name, story) = (
            &world.proxies[index],
            world.node(index).name(),
            &world.story,
        );
        match rng.u8(..5) {
            0 | 1 => {
                story.fault("network: connections cut".to_owned());
                story.tell(format!("the connections to {name} are cut"));
                proxy.cut();
            }
            2 => {
                story.fault("network: slow".to_owned());
                let delay = millis(&mut rng, 1..40);
                story.tell(format!("the network to {name} takes {delay:?}"));
                proxy.set_delay(delay);
                sleep(millis(&mut rng, 200..1_500)).await;
                proxy.set_delay(Duration::ZERO);
            }
            3 => {
                story.fault("network: silent".to_owned());
                story.tell(format!("nothing passes to {name}"));
                proxy.black_hole(true);
                sleep(millis(&mut rng, 100..1_500)).await;
                proxy.black_hole(false);
                story.tell(format!("the network to {name} is back"));
            }
            _ => {
                story.fault("network: connections refused".to_owned());
                story.tell(format!("{name} is cut off"));
                proxy.refuse(true);
                proxy.cut();
                sleep(millis(&mut rng, 50..1_000)).await;
                proxy.refuse(false);
                story.tell(format!("{name} is reached again"));
            }
        }
    }
}
