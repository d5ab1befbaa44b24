//! The lines on their way to the disk or the terminal. A thread of its own makes and writes them: whoever takes them may
//! hang, and the agent may not.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::format::Said;

/// Makes lines of what was said, and writes them. Only the thread of a [`Queue`] calls it, and waits for it.
pub(super) trait Writer: Send + 'static {
    /// What the settings of the log are made of.
    type Settings: Send + 'static;

    fn write(&mut self, said: &Said, at: Timestamp) -> io::Result<()>;

    /// Lines go elsewhere or look different from now on.
    fn change(&mut self, settings: Self::Settings);

    /// The process ends: what has not found its place yet is told all the same.
    fn end(&mut self);
}

/// Takes what was said from any thread, and never waits.
pub(super) struct Queue<W: Writer> {
    to_write: Mutex<Sender<Item<W::Settings>>>,
    count: Arc<Count>,
}

/// Of lines.
#[derive(Default)]
struct Count {
    waiting: AtomicUsize,
    /// Lost since that was last told in the log.
    untold: AtomicU64,
    lost: AtomicU64,
    limit: AtomicUsize,
}

impl Count {
    fn lost(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

enum Item<Settings> {
    Said(Said, Timestamp),
    Change(Settings),
    /// Everything before this is written.
    Mark(Sender<()>),
}

impl<W: Writer> Queue<W> {
    /// With its thread. At most `limit` lines wait, any number if it is 0; what comes beyond is lost.
    pub(super) fn start(writer: W, limit: usize) -> io::Result<Self> {
        let (to_write, items) = mpsc::channel();
        let count = Arc::new(Count { limit: AtomicUsize::new(limit), ..Count::default() });
        let counted = Arc::clone(&count);
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || run(&items, writer, &counted))?;
        Ok(Self { to_write: Mutex::new(to_write), count })
    }

    pub(super) fn push(&self, said: Said, at: Timestamp) {
        let limit = self.count.limit.load(Ordering::Relaxed);
        if limit > 0 && self.waiting() >= limit {
            self.count.lost();
            return;
        }
        self.count.waiting.fetch_add(1, Ordering::Relaxed);
        self.send(Item::Said(said, at));
    }

    fn send(&self, item: Item<W::Settings>) {
        // The thread ends only with this queue.
        self.to_write.lock().unwrap_or_else(PoisonError::into_inner).send(item).ok();
    }

    /// After the lines that wait.
    pub(super) fn change(&self, settings: W::Settings, limit: usize) {
        self.count.limit.store(limit, Ordering::Relaxed);
        self.send(Item::Change(settings));
    }

    /// How many lines wait.
    pub(super) fn waiting(&self) -> usize {
        self.count.waiting.load(Ordering::Relaxed)
    }

    /// How many lines were lost since there is a log.
    pub(super) fn lost(&self) -> u64 {
        self.count.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but not longer than that.
    pub(super) fn flush(&self, limit: Duration) {
        let (done, written) = mpsc::channel();
        self.send(Item::Mark(done));
        written.recv_timeout(limit).ok();
    }
}

fn run<W: Writer>(items: &Receiver<Item<W::Settings>>, mut writer: W, count: &Count) {
    for item in items {
        match item {
            Item::Said(said, at) => {
                tell_lost(&mut writer, at, count);
                if writer.write(&said, at).is_err() {
                    count.lost();
                }
                count.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            Item::Change(settings) => writer.change(settings),
            Item::Mark(done) => {
                writer.end();
                done.send(()).ok();
            }
        }
    }
}

/// Told is what is written: a notice that comes to nothing is given again.
fn tell_lost<W: Writer>(writer: &mut W, at: Timestamp, count: &Count) {
    let lost = count.untold.load(Ordering::Relaxed);
    if lost == 0 {
        return;
    }
    let what = format!("{lost} lines of this log were lost: nothing took them as fast as they came");
    if writer.write(&Said::warning(what), at).is_ok() {
        count.untold.fetch_sub(lost, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a line whenever it is told whether it can.
    struct Slow {
        can: Receiver<bool>,
        taken: Sender<String>,
    }

    impl Writer for Slow {
        type Settings = ();

        fn write(&mut self, said: &Said, _: Timestamp) -> io::Result<()> {
            match self.can.recv() {
                Ok(true) => self.taken.send(said.message().to_owned()).map_err(io::Error::other),
                Ok(false) | Err(_) => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn change(&mut self, (): ()) {}

        fn end(&mut self) {}
    }

    struct Log {
        queue: Queue<Slow>,
        can: Sender<bool>,
        lines: Receiver<String>,
    }

    fn log(limit: usize) -> Log {
        let ((can, asked), (taken, lines)) = (mpsc::channel(), mpsc::channel());
        Log { queue: Queue::start(Slow { can: asked, taken }, limit).expect("a thread"), can, lines }
    }

    impl Log {
        fn say(&self, lines: &[&str]) {
            for line in lines {
                self.queue.push(Said::warning((*line).to_owned()), Timestamp::UNIX_EPOCH);
            }
        }

        fn takes(&self, can: &[bool]) {
            for can in can {
                self.can.send(*can).expect("it lives");
            }
        }

        fn next(&self) -> String {
            self.lines.recv_timeout(Duration::from_secs(10)).expect("a line")
        }

        fn empties(&self) {
            while self.queue.waiting() > 0 {
                thread::yield_now();
            }
        }
    }

    fn lost(lines: u64) -> String {
        format!("{lines} lines of this log were lost: nothing took them as fast as they came")
    }

    #[test]
    fn nobody_waits_for_whoever_takes_the_lines_and_what_is_lost_is_told() {
        let log = log(2);
        log.say(&["a", "b", "c", "d"]);
        assert_eq!((log.queue.waiting(), log.queue.lost()), (2, 2));
        log.takes(&[true, true, true]);
        let told: Vec<String> = (0..3).map(|_| log.next()).collect();
        assert!(told.contains(&lost(2)) && told.contains(&"a".into()) && told.contains(&"b".into()), "{told:?}");
        log.empties();
        log.takes(&[true]);
        log.say(&["e"]);
        assert_eq!(log.next(), "e");
        log.queue.flush(Duration::from_secs(10));
        assert_eq!((log.queue.waiting(), log.queue.lost()), (0, 2));
    }

    /// The bug: a notice that could not be written either was one lost line, and what it told of was forgotten.
    #[test]
    fn what_is_lost_is_told_by_a_notice_that_is_written() {
        let log = log(0);
        log.takes(&[false, false, false, false, false, true, true]);
        // Its own line, then a notice and a line twice, and a notice and a line that are taken.
        log.say(&["a", "b", "c", "d"]);
        assert_eq!([log.next(), log.next()], [lost(3), "d".into()]);
        log.queue.flush(Duration::from_secs(10));
        assert_eq!(log.queue.lost(), 3);
    }

    #[test]
    fn a_log_that_hangs_delays_no_end() {
        let log = log(0);
        log.say(&["a line"; 500]);
        assert_eq!((log.queue.waiting(), log.queue.lost()), (500, 0), "without a limit nothing is lost");
        let begun = std::time::Instant::now();
        log.queue.flush(Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
