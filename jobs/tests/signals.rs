use std::time::Duration;

use crate::running::Running;

#[test]
fn sigterm_and_sigint_end_it_cleanly_within_ten_seconds() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut running = Running::start(&[]);
        running.signal(signal);
        let (found, took) = running.end();
        assert_eq!(found, Some(code));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
