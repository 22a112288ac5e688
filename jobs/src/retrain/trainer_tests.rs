//! The trainer contract with shell scripts as trainers: exits, limits, process groups and the log.

use super::*;

struct Room {
    folder: tempfile::TempDir,
    stop: AtomicBool,
}

impl Room {
    fn new() -> Room {
        Room { folder: tempfile::tempdir().unwrap(), stop: AtomicBool::new(false) }
    }

    fn trainer(&self, command: &str) -> Trainer {
        Trainer {
            command: command.into(),
            folder: self.folder.path().to_path_buf(),
            timeout: Duration::from_secs(60),
            heartbeat: None,
            variables: vec![("FRESHET_MODEL", "m".into())],
        }
    }

    fn end(&self, trainer: &Trainer) -> (TrainerEnd, u32) {
        run_attempts(trainer, &self.folder.path().join("log"), &self.stop, |attempt| Ok(vec![("ATTEMPT", attempt.to_string().into())])).unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

fn failed(reason: &str) -> (TrainerEnd, u32) {
    (TrainerEnd::Failed(reason.into()), 1)
}

/// Whether the process of this number is there and no zombie, also after the moment that a kill takes.
fn lives(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while is_there(pid) && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    is_there(pid)
}

fn is_there(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[test]
fn exit_codes_become_ends_and_the_last_words_a_reason() {
    let room = Room::new();
    assert_eq!(room.end(&room.trainer("echo '{\"tree\": 1}'; pwd > here; echo $FRESHET_MODEL > model")), (TrainerEnd::Done, 1));
    assert_eq!(room.file("here").trim(), room.folder.path().canonicalize().unwrap().display().to_string());
    assert_eq!(room.end(&room.trainer("echo $PYTHONHASHSEED > hash")), (TrainerEnd::Done, 1));
    assert_eq!(room.file("hash").trim(), "0");
    assert_eq!((room.file("model").trim(), room.file("log").contains("{\"tree\": 1}")), ("m", true));
    assert_eq!(room.end(&room.trainer("echo one >&2; echo two >&2; exit 3")), failed("the trainer exited with 3: one | two"));
    assert_eq!(room.end(&room.trainer("kill -9 $$")), failed("the trainer was ended by signal 9"));
    let TrainerEnd::Failed(reason) = room.end(&room.trainer("no-such-command-here")).0 else { panic!("it cannot run") };
    assert!(reason.starts_with("the trainer's command was not found: ") && reason.contains("no-such-command-here"), "{reason}");
    std::fs::write(room.folder.path().join("plain"), "text").unwrap();
    let TrainerEnd::Failed(reason) = room.end(&room.trainer("./plain")).0 else { panic!("it cannot run") };
    assert!(reason.starts_with("the trainer's command is not executable"), "{reason}");
}

#[test]
fn exit_75_is_tried_again_a_few_times() {
    let room = Room::new();
    assert_eq!(room.end(&room.trainer("[ $ATTEMPT = 2 ] || exit 75")), (TrainerEnd::Done, 2));
    let (end, attempts) = room.end(&room.trainer("echo busy >&2; exit 75"));
    assert_eq!((end, attempts), (TrainerEnd::Failed("the trainer asked to be tried again 3 times: busy".into()), 3));
}

#[test]
fn a_hanging_trainer_is_killed_with_all_it_started() {
    let room = Room::new();
    // The grandchild ignores SIGTERM and holds the pipes.
    let command = "sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 1; done' & wait";
    let trainer = Trainer { timeout: Duration::from_millis(300), ..room.trainer(command) };
    let started = Instant::now();
    assert_eq!(room.end(&trainer), failed("the trainer was killed after its timeout of 300ms"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!room.file("grandchild").is_empty() && !lives(&room.file("grandchild")), "{}", room.file("grandchild"));
}

#[test]
fn a_silent_trainer_is_killed_and_a_talking_one_is_not() {
    let room = Room::new();
    let heartbeat = Some(Duration::from_millis(400));
    let talking = Trainer { heartbeat, ..room.trainer("for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo $i; done") };
    assert_eq!(room.end(&talking).0, TrainerEnd::Done);
    let silent = Trainer { heartbeat, ..room.trainer("echo begin; sleep 60") };
    assert_eq!(room.end(&silent), failed("the trainer was killed: it printed nothing for 400ms"));
}

#[test]
fn what_it_leaves_behind_ends_with_it() {
    let room = Room::new();
    assert_eq!(room.end(&room.trainer("sleep 60 & echo $! > left")), (TrainerEnd::Done, 1));
    assert!(!lives(&room.file("left")));
}

#[test]
fn a_stop_kills_it_at_once() {
    let room = Room::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while room.file("pid").is_empty() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            room.stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(room.end(&room.trainer("echo $$ > pid; sleep 60")), (TrainerEnd::Stopped, 1));
    });
    assert!(!lives(&room.file("pid")));
}

#[test]
fn a_trainer_that_talks_without_end_fills_no_disk() {
    let room = Room::new();
    let (end, _) = room.end(&room.trainer("head -c 9000000 /dev/zero | tr '\\0' 'x'"));
    assert_eq!(end, TrainerEnd::Done);
    assert!(room.file("log").len() < 5 << 20 && room.file("log").contains("the log is full"));
}

#[test]
fn the_end_of_the_process_kills_whole_groups() {
    let room = Room::new();
    let mut command = Command::new("sh");
    let mut child = command.arg("-c").arg("sleep 60 & echo $! > left; wait").current_dir(room.folder.path()).process_group(0).spawn().unwrap();
    while !room.file("left").ends_with('\n') {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let groups = Groups(Mutex::new(vec![Pid::from_child(&child)]));
    drop(groups.kill());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!lives(&room.file("left")));
}

#[test]
fn a_trainer_is_known_while_it_runs() {
    let room = Room::new();
    let group = || Pid::from_raw(room.file("pid").trim().parse().ok()?);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while group().is_none_or(|group| !RUNNING.lock().contains(&group)) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            let known = RUNNING.lock().contains(&group().unwrap());
            room.stop.store(true, Ordering::Relaxed);
            assert!(known);
        });
        room.end(&room.trainer("echo $$ > pid; sleep 60"));
    });
    assert!(!RUNNING.lock().contains(&group().unwrap()));
}
