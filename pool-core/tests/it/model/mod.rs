//! Stories of what happens to a pool, made up at random, held against a plain reference after every step: how
//! many are idle, in use, waiting and being opened, who was served in what order and with which connection, and
//! how each call ended.
//!
//! A story that goes wrong is shortened until every sentence of it matters. `PROPTEST_CASES` sets how many are
//! told. [`reference`] needs nothing but the standard library, and may be shared by path.

mod reference;
mod scene;

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use reference::{Opened, Order, Patience, Return, Settings};
use scene::Scene;

/// `pool_timeout`, in milliseconds.
const POOLS_PATIENCE: u64 = 1_500;
/// The longest story; in as many steps less than half a second passes by itself.
const LONGEST: usize = 40;

/// One thing that happens.
#[derive(Clone, Copy)]
enum Op {
    Get(Patience),
    GetPastABroken,
    TryGet { past_a_broken: bool },
    GiveBack(usize, Return),
    GiveBackAndLeave(usize, Return),
    Suspect(usize),
    Leave(usize),
    Opened(usize, Opened),
    Resize(usize, usize),
    Suspend,
    Resume,
    InvalidateAll,
    Pass(u64),
    Close,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(Patience::None) => {
                f.write_str("Somebody asks, and does not wait for others.")
            }
            Self::Get(Patience::For(millis)) => write!(f, "Somebody asks, and waits {millis} ms."),
            Self::Get(Patience::Forever) => f.write_str("Somebody asks, and waits for ever."),
            Self::GetPastABroken => {
                f.write_str("Somebody asks, and the first idle connection is found broken.")
            }
            Self::TryGet {
                past_a_broken: false,
            } => f.write_str("Somebody tries, without waiting."),
            Self::TryGet {
                past_a_broken: true,
            } => f.write_str("Somebody tries, and the first idle connection is found broken."),
            Self::GiveBack(nth, how) => write!(f, "{}.", Returned(*nth, *how)),
            Self::GiveBackAndLeave(nth, how) => write!(
                f,
                "{}; the first who waits leaves before it can take it.",
                Returned(*nth, *how)
            ),
            Self::Suspect(nth) => write!(
                f,
                "Holder {nth} (counting round) tells that all connections of this age are suspect."
            ),
            Self::Leave(nth) => write!(f, "Waiter {nth} (counting round) leaves."),
            Self::Opened(nth, how) => write!(
                f,
                "Opening {nth} (counting round) {}.",
                match how {
                    Opened::Yes => "succeeds",
                    Opened::Failed => "fails",
                    Opened::Panicked => "panics",
                    Opened::Never => "fails for good",
                }
            ),
            Self::Resize(size, overflow) => {
                write!(f, "The pool is resized to {size} + {overflow}.")
            }
            Self::Suspend => f.write_str("The pool is suspended."),
            Self::Resume => f.write_str("The pool is resumed."),
            Self::InvalidateAll => f.write_str("All connections are invalidated."),
            Self::Pass(seconds) => write!(f, "{seconds} s pass."),
            Self::Close => f.write_str("The pool is closed."),
        }
    }
}

struct Returned(usize, Return);

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(nth, how) = self;
        write!(
            f,
            "Holder {nth} (counting round) {}",
            match how {
                Return::Good => "gives back",
                Return::AfterReset => "gives back what is then reset",
                Return::ResetFails => "gives back what then can't be reset",
                Return::Broken => "gives back a broken connection",
                Return::Invalidated => "invalidates its connection",
                Return::Detached => "detaches its connection",
            }
        )
    }
}

/// What happens to one pool.
#[derive(Clone)]
struct Story {
    settings: Settings,
    steps: Vec<Op>,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            size,
            overflow,
            connecting,
            waiting,
            order,
        } = &self.settings;
        write!(
            f,
            "a {order:?} pool of {size} + {overflow} that opens {connecting} at a time and lets "
        )?;
        match waiting {
            None => f.write_str("everybody wait:")?,
            Some(most) => write!(f, "{most} wait beyond those it has room for:")?,
        }
        for step in &self.steps {
            write!(f, "\n  {step:?}")?;
        }
        Ok(())
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let order = prop_oneof![Just(Order::Packed), Just(Order::Lifo), Just(Order::Fifo)];
    let waiting = prop_oneof![2 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    (limits(), 1..4_usize, waiting, order).prop_map(
        |((size, overflow), connecting, waiting, order)| Settings {
            size,
            overflow,
            connecting,
            waiting,
            order,
        },
    )
}

/// At least one.
fn limits() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![4 => (1..4_usize, 0..3_usize), 1 => (Just(0), 1..3_usize)]
}

fn op() -> impl Strategy<Value = Op> {
    let nth = || 0..4_usize;
    let patience = prop_oneof![
        4 => Just(Patience::For(POOLS_PATIENCE)),
        1 => Just(Patience::None),
        1 => Just(Patience::For(500)),
        1 => Just(Patience::For(3_500)),
        1 => Just(Patience::Forever),
    ];
    let how = || {
        prop_oneof![
            5 => Just(Return::Good),
            1 => Just(Return::AfterReset),
            1 => Just(Return::ResetFails),
            1 => Just(Return::Broken),
            1 => Just(Return::Invalidated),
            1 => Just(Return::Detached),
        ]
    };
    // What needs a task of its own may meet the first while it still waits.
    let at_once = prop_oneof![
        3 => Just(Return::Good),
        1 => Just(Return::Broken),
        1 => Just(Return::Detached),
    ];
    let opened = prop_oneof![
        6 => Just(Opened::Yes),
        2 => Just(Opened::Failed),
        1 => Just(Opened::Panicked),
        1 => Just(Opened::Never),
    ];
    prop_oneof![
        10 => patience.prop_map(Op::Get),
        1 => Just(Op::GetPastABroken),
        2 => any::<bool>().prop_map(|past_a_broken| Op::TryGet { past_a_broken }),
        8 => (nth(), how()).prop_map(|(nth, how)| Op::GiveBack(nth, how)),
        2 => (nth(), at_once).prop_map(|(nth, how)| Op::GiveBackAndLeave(nth, how)),
        1 => nth().prop_map(Op::Suspect),
        2 => nth().prop_map(Op::Leave),
        9 => (nth(), opened).prop_map(|(nth, how)| Op::Opened(nth, how)),
        2 => prop_oneof![9 => limits(), 1 => Just((0, 0))]
            .prop_map(|(size, overflow)| Op::Resize(size, overflow)),
        1 => Just(Op::Suspend),
        2 => Just(Op::Resume),
        1 => Just(Op::InvalidateAll),
        2 => (1..4_u64).prop_map(Op::Pass),
        1 => prop_oneof![3 => Just(Op::Resume), 1 => Just(Op::Close)],
    ]
}

fn story() -> impl Strategy<Value = Story> {
    (settings(), vec(op(), 1..LONGEST)).prop_map(|(settings, steps)| Story { settings, steps })
}

fn tell(story: &Story) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let mut scene = Scene::new(&story.settings);
        for (nth, step) in story.steps.iter().enumerate() {
            let went = scene.step(*step).await;
            went.map_err(|why| TestCaseError::fail(format!("step {}: {why}", nth + 1)))?;
        }
        scene.end().await;
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_pool_stands_as_the_plain_model_says(story in story()) {
        tell(&story)?;
    }
}
