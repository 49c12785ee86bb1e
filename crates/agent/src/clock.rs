//! Has this machine slept? Timers stand still meanwhile, and nothing on the way remembers its connections afterwards.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::observe::Observe;

/// How often the clocks are compared.
const PERIOD: Duration = Duration::from_secs(1);
/// By how much they may have moved apart in a period: more is a sleep, or somebody has set the clock.
const APART: Duration = Duration::from_secs(2);
/// How much late a period may end: more is a process or a machine that was stopped.
const LATE: Duration = Duration::from_secs(4);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Stands still while the machine sleeps.
    running: Instant,
    /// Does not, and may be set.
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { running: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether time has passed between this and a later moment that nobody here has lived through.
    fn has_jump_until(&self, later: &Self) -> bool {
        let running = later.running.saturating_duration_since(self.running);
        let apart = match later.wall.duration_since(self.wall) {
            Ok(wall) => wall.abs_diff(running),
            Err(back) => back.duration() + running,
        };
        running > PERIOD + LATE || apart > APART
    }
}

/// Ticks `awoken` whenever time has jumped. Ends only with its scope.
#[expect(clippy::infinite_loop, reason = "ends with its scope")]
pub(crate) async fn watch(awoken: watch::Sender<()>, observe: Observe) {
    let mut last = Moment::now();
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = Moment::now();
        if last.has_jump_until(&now) {
            tracing::info!("the machine has slept, or its clock was set; looking at every session");
            observe.clock_jumped();
            awoken.send_replace(());
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_a_set_clock_and_a_stopped_process_are_jumps_and_an_ordinary_second_is_none() {
        let start = Moment::now();
        let after = |running: u64, wall: i64| {
            let moved = Duration::from_millis(wall.unsigned_abs());
            let wall = if wall < 0 { start.wall - moved } else { start.wall + moved };
            start.has_jump_until(&Moment { running: start.running + Duration::from_millis(running), wall })
        };
        assert!(!after(1000, 1000));
        assert!(!after(1500, 1400), "a little late");
        assert!(!after(1000, 2500), "a clock that is slewed");
        assert!(after(1000, 60_000), "slept");
        assert!(after(1000, -60_000), "set back");
        assert!(after(30_000, 30_000), "stopped");
    }
}
