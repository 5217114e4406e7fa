//! A world: tasks on one thread, and time that moves when none of them can run.
//!
//! Whoever was woken first runs first. When nobody can run, time jumps to the earliest timer; timers for the same
//! moment go off in the order in which they were set. So what happens depends on the program alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;

/// The number of the future that [`World::run`] was given.
const MAIN: usize = usize::MAX;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Inner>>> = const { RefCell::new(None) };
}

type SentTask = Pin<Box<dyn Future<Output = ()> + Send>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What may be reached from elsewhere: who was woken, and what was spawned by handle.
#[derive(Default)]
struct Inbox {
    woken: VecDeque<usize>,
    born: Vec<SentTask>,
}

/// The way to a world from code that knows no thread.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) number: u64,
    inbox: Arc<Mutex<Inbox>>,
}

impl Link {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inbox.lock().born.push(Box::pin(task));
    }
}

struct Call {
    task: usize,
    inbox: Arc<Mutex<Inbox>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.inbox.lock().woken.push_back(self.task);
    }
}

/// A task's place; its waker stays when the task is over.
struct Place {
    task: Option<Task>,
    waker: Waker,
}

#[derive(Default)]
struct Timers {
    /// By time and number.
    set: BTreeMap<(u64, u64), Waker>,
    numbers: u64,
}

struct Inner {
    link: Link,
    now: Cell<u64>,
    timers: RefCell<Timers>,
    places: RefCell<Slab<()>>,
    tasks: RefCell<Vec<Place>>,
}

/// A world of its own: one thread, and time that is a number.
///
/// Pools that are built in [`run`](Self::run) live by its time. They read the exact clock whatever their
/// `time_source` says, and spread their slots as on a machine with one processor.
pub struct World {
    inner: Rc<Inner>,
    seed: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &Duration::from_nanos(self.inner.now.get()))
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Makes a world the current one, until dropped.
struct Entered(Option<Rc<Inner>>);

impl Entered {
    fn new(inner: &Rc<Inner>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(Rc::clone(inner)))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.0.take());
    }
}

fn current() -> Option<Rc<Inner>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok()?
}

/// The way to the current world, if this thread is in one.
pub(crate) fn link() -> Option<Link> {
    current().map(|inner| inner.link.clone())
}

/// Whether this thread is in a world.
pub(crate) fn is_inside() -> bool {
    CURRENT
        .try_with(|current| current.borrow().is_some())
        .unwrap_or(false)
}

/// The current world's time in nanoseconds.
pub(crate) fn nanos() -> Option<u64> {
    let read = |current: &RefCell<Option<Rc<Inner>>>| {
        current.borrow().as_ref().map(|inner| inner.now.get())
    };
    CURRENT.try_with(read).ok()?
}

impl World {
    /// A world at time zero. What the pool itself draws (jitter, pauses between attempts) comes from the seed.
    pub fn new(seed: u64) -> Self {
        // Ordering: Relaxed; only distinct values matter.
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let link = Link {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            inbox: Arc::default(),
        };
        Self {
            inner: Rc::new(Inner {
                link,
                now: Cell::new(0),
                timers: RefCell::default(),
                places: RefCell::default(),
                tasks: RefCell::default(),
            }),
            seed,
        }
    }

    /// Runs a future to its end, and beside it whatever it spawns. What it spawned and has not ended by then is
    /// dropped, and time goes on from where it was at the next call.
    ///
    /// # Panics
    /// Where everybody waits for somebody and no timer is set.
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        let _entered = Entered::new(&self.inner);
        fastrand::seed(self.seed);
        crate::sync::go_home();
        let result = self.run_inside(main);
        self.inner.end_all();
        result
    }

    fn run_inside<F: Future>(&self, main: F) -> F::Output {
        let inner = &*self.inner;
        let mut main = pin!(main);
        let waker = inner.waker(MAIN);
        inner.link.inbox.lock().woken.push_back(MAIN);
        loop {
            while let Some(task) = inner.next() {
                if task != MAIN {
                    inner.poll(task);
                } else if let Poll::Ready(result) =
                    main.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return result;
                }
            }
            assert!(
                inner.move_on(),
                "everybody in this world waits for somebody, and no timer is set"
            );
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _entered = Entered::new(&self.inner);
        self.inner.end_all();
    }
}

impl Inner {
    fn waker(&self, task: usize) -> Waker {
        let inbox = Arc::clone(&self.link.inbox);
        Waker::from(Arc::new(Call { task, inbox }))
    }

    /// Who runs next.
    fn next(&self) -> Option<usize> {
        loop {
            let mut inbox = self.link.inbox.lock();
            if inbox.born.is_empty() {
                return inbox.woken.pop_front();
            }
            let born = std::mem::take(&mut inbox.born);
            drop(inbox);
            for task in born {
                self.add(task);
            }
        }
    }

    fn add(&self, task: Task) {
        let place = self.places.borrow_mut().insert(());
        let mut tasks = self.tasks.borrow_mut();
        if place == tasks.len() {
            let waker = self.waker(place);
            tasks.push(Place { task: None, waker });
        }
        tasks[place].task = Some(task);
        self.link.inbox.lock().woken.push_back(place);
    }

    /// Polls a task; nothing where it has ended, and another may have its place by now.
    fn poll(&self, place: usize) {
        let (task, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let place = &mut tasks[place];
            (place.task.take(), place.waker.clone())
        };
        let Some(mut task) = task else { return };
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.tasks.borrow_mut()[place].task = Some(task),
            Poll::Ready(()) => {
                drop(task);
                self.places.borrow_mut().remove(place);
            }
        }
    }

    /// Moves time on to the earliest timer; false where none is set.
    fn move_on(&self) -> bool {
        let due = self.timers.borrow_mut().set.pop_first();
        let Some(((at, _), waker)) = due else {
            return false;
        };
        self.now.set(self.now.get().max(at));
        waker.wake();
        true
    }

    /// Drops every task, and what they spawn meanwhile.
    fn end_all(&self) {
        loop {
            let born = std::mem::take(&mut self.link.inbox.lock().born);
            let mut all = self.tasks.borrow_mut();
            let left: Vec<Task> = all
                .iter_mut()
                .filter_map(|place| place.task.take())
                .collect();
            drop(all);
            if born.is_empty() && left.is_empty() {
                break;
            }
            drop((born, left));
        }
        self.places.borrow_mut().clear();
        self.link.inbox.lock().woken.clear();
    }
}

/// The current world's time since it began.
///
/// # Panics
/// Outside any world.
pub fn now() -> Duration {
    Duration::from_nanos(nanos().expect("`lab::now` is called in a world"))
}

/// Starts a task of the current world.
///
/// # Panics
/// Outside any world.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    let inner = current().expect("`lab::spawn` is called in a world");
    inner.add(Box::pin(task));
}

/// Ready once so much of the current world's time has passed.
///
/// # Panics
/// When polled outside any world, or called there.
pub fn sleep(span: Duration) -> Sleep {
    let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let now = nanos().expect("`lab::sleep` is called in a world");
    Sleep::until(now.saturating_add(span))
}

/// A timer: [`sleep`].
#[derive(Debug)]
#[must_use = "a timer does nothing until it is polled"]
pub struct Sleep {
    at: u64,
    number: Option<u64>,
}

impl Sleep {
    pub(crate) fn until(nanos: u64) -> Self {
        Self {
            at: nanos,
            number: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = current().expect("a timer is polled in its world");
        if inner.now.get() >= self.at {
            return Poll::Ready(());
        }
        let mut timers = inner.timers.borrow_mut();
        let number = *self.number.get_or_insert_with(|| {
            timers.numbers += 1;
            timers.numbers
        });
        timers.set.insert((self.at, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && let Some(inner) = current()
        {
            inner.timers.borrow_mut().set.remove(&(self.at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn timers_go_off_by_time_and_then_in_the_order_in_which_they_were_set() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let world = World::new(1);
        world.run(async {
            for (name, span) in [
                ('a', 3 * MS),
                ('b', MS),
                ('c', 3 * MS),
                ('d', Duration::ZERO),
            ] {
                let seen = Rc::clone(&seen);
                spawn(async move {
                    sleep(span).await;
                    seen.borrow_mut().push((name, now()));
                });
            }
            sleep(4 * MS).await;
        });
        let wanted = [
            ('d', Duration::ZERO),
            ('b', MS),
            ('a', 3 * MS),
            ('c', 3 * MS),
        ];
        assert_eq!(*seen.borrow(), wanted);
    }

    #[test]
    fn a_timer_that_is_dropped_holds_time_at_nothing() {
        let world = World::new(1);
        let end = world.run(async {
            let mut long = Box::pin(sleep(1000 * MS));
            futures::future::poll_fn(|cx| {
                assert!(long.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(long);
            sleep(MS).await;
            now()
        });
        assert_eq!(end, MS);
        assert!(world.inner.timers.borrow().set.is_empty());
    }

    #[test]
    fn what_is_left_at_the_end_is_dropped_in_its_world() {
        struct Says(Rc<Cell<bool>>);
        impl Drop for Says {
            fn drop(&mut self) {
                self.0.set(is_inside());
            }
        }
        let said = Rc::new(Cell::new(false));
        let says = Says(Rc::clone(&said));
        World::new(1).run(async {
            spawn(async move {
                let _says = says;
                std::future::pending::<()>().await;
            });
            sleep(MS).await;
        });
        assert!(said.get());
        assert!(!is_inside());
    }

    #[test]
    #[should_panic(expected = "waits for somebody")]
    fn a_world_in_which_nothing_can_happen_says_so() {
        World::new(1).run(std::future::pending::<()>());
    }
}
