use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::clients::python;
use crate::running::{all, freshet, tests_folder, text};

const DAY: u64 = 86_400_000;
/// 2013-01-01.
const START: u64 = 15_706 * DAY;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One pipeline over forty days of rides, in a folder of its own.
struct Loop {
    folder: tempfile::TempDir,
}

impl Loop {
    fn new() -> Loop {
        let folder = tempfile::tempdir().unwrap();
        let (mut asks, mut rides, mut outcomes) = (String::new(), String::new(), String::new());
        for number in 0..480u64 {
            let (at, hour) = (START + number * DAY / 12 + 1, number * 5 % 12 * 2);
            let city = ["Bern", "Genf"][number as usize % 2];
            asks.push_str(&format!("{{\"id\": \"r{number}\", \"city\": \"{city}\", \"hour\": {hour}, \"at\": {at}}}\n"));
            rides.push_str(&format!("{{\"city\": \"{city}\", \"fare\": {}, \"at\": {}}}\n", number % 17, at + 60_000));
            // At first late hours are late, from the sixteenth day on early ones. Every ninth is not as its hour says, and of every eleventh
            // nobody knows.
            let as_said = (hour > 11) == (number < 15 * 12);
            let late = if number % 11 == 0 { "null".to_string() } else { (as_said != (number % 9 == 0)).to_string() };
            outcomes.push_str(&format!("{{\"id\": \"r{number}\", \"late\": {late}, \"known_at\": {}}}\n", at + 3_600_000));
        }
        for (name, rows) in [("asks", asks), ("rides", rides), ("outcomes", outcomes)] {
            fs::write(folder.path().join(format!("{name}.jsonl")), rows).unwrap();
        }
        Loop { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn variables(&self, mode: &str) -> Vec<String> {
        let (folder, python) = (self.folder.path().display(), python());
        let pairs = [format!("data={folder}"), format!("out={folder}"), format!("python={}", python.display()), format!("mode={mode}")];
        pairs.into_iter().flat_map(|pair| ["--var".to_string(), pair]).collect()
    }

    fn command(&self, mode: &str, workers: &str) -> Command {
        self.command_of(&tests_folder().join("loop"), mode, workers)
    }

    fn command_of(&self, pipeline: &Path, mode: &str, workers: &str) -> Command {
        let mut command = freshet();
        fs::write(self.path("ask.sql"), "SELECT * FROM runs(retrain);\nSELECT * FROM versions(lateness);\n").unwrap();
        command.arg("run").arg(pipeline).arg(self.path("ask.sql")).args(self.variables(mode));
        command.args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", workers]).arg("--data-dir").arg(self.path("state"));
        command.env("FRESHET_PYTHON", python());
        command
    }

    fn run(&self, workers: &str) -> Output {
        let output = self.command("learn", workers).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        output
    }

    fn predictions(&self) -> String {
        fs::read_to_string(self.path("predictions.jsonl")).unwrap()
    }
}

/// What the SELECTs of the script say, without the addresses before them.
fn told(output: &Output) -> String {
    let stdout = text(&output.stdout);
    stdout[stdout.find("SELECT * FROM runs").unwrap_or_else(|| panic!("{stdout}"))..].to_string()
}

#[test]
fn the_whole_loop_trains_judges_promotes_and_scores() {
    let first = Loop::new();
    let output = first.run("1");
    let runs = told(&output);
    assert!(runs.contains("retrain-2013-01-11T00-00-00Z") && runs.contains("(3 rows)"), "{}", all(&output));
    assert!(text(&output.stderr).contains("run retrain-2013-01-11T00-00-00Z: first; auc 0."), "{}", all(&output));
    let predictions = first.predictions();
    assert_eq!(predictions.lines().count(), 480);
    let unscored = predictions.lines().filter(|line| line.contains("\"p_late\":null")).count();
    assert_eq!(unscored, 120, "ten days of twelve asks came before the first version: {predictions}");
    assert!(predictions.lines().last().unwrap().contains("\"version\":"), "{predictions}");

    let second = Loop::new();
    assert_eq!(told(&second.run("2")), runs, "C9");
    assert_eq!(second.predictions(), predictions, "C9");

    let list = freshet().args(["models", "list", "--data-dir"]).arg(first.path("state")).output().unwrap();
    assert!(text(&list.stdout).contains("lateness") && text(&list.stdout).contains("retrain-2013-01-11T00-00-00Z"), "{}", all(&list));
    let show = freshet().args(["models", "show", "lateness", "1", "--data-dir"]).arg(first.path("state")).output().unwrap();
    assert!(text(&show.stdout).contains("lateness version 1, promoted") && text(&show.stdout).contains("holdout.auc"), "{}", all(&show));
    let nothing = freshet().args(["models", "list", "--data-dir"]).arg(first.path("nowhere")).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2), "{}", all(&nothing));
}

#[test]
fn an_export_has_the_rows_of_a_run_and_knows_what_was_known() {
    let pipeline = Loop::new();
    pipeline.run("1");
    let export = |extra: &[&str], out: &Path| {
        let mut command = freshet();
        command.args(["training-set", "export", "late_train", "--pipeline"]).arg(tests_folder().join("loop")).args(pipeline.variables("learn"));
        command.args(extra).arg("--out").arg(out).output().unwrap()
    };
    let out = pipeline.path("rows.jsonl");
    let range = ["--from", "2013-01-03", "--until", "2013-01-11", "--as-of", "2013-01-11", "--format", "json"];
    let output = export(&range, &out);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let record = fs::read_to_string(pipeline.path("state/runs/retrain-2013-01-11T00-00-00Z/run.json")).unwrap();
    let number = |name: &str| -> usize {
        let rest = record.split(&format!("\"{name}\": ")).nth(1).unwrap_or_else(|| panic!("{record}"));
        rest.split([',', '\n']).next().unwrap().parse().unwrap()
    };
    let rows = fs::read_to_string(&out).unwrap();
    assert_eq!(rows.lines().count(), number("train_rows") + number("holdout_rows") + number("null_labels"));
    assert!(text(&output.stderr).contains(&format!("{} have no label", number("null_labels"))), "{}", all(&output));

    let all_rows = pipeline.path("all.parquet");
    assert_eq!(export(&[], &all_rows).status.code(), Some(0));
    assert!(fs::metadata(&all_rows).unwrap().len() > 1000);

    let wrong = export(&["--from", "soon"], &out);
    assert_eq!(wrong.status.code(), Some(2), "{}", all(&wrong));
    let unknown = freshet()
        .args(["training-set", "export", "late_trian", "--pipeline"])
        .arg(tests_folder().join("loop"))
        .args(pipeline.variables("learn"))
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("the pipeline declares late_train"), "{}", all(&unknown));
}

/// Six questions, of which the third and the last come late; rides of which one comes late.
const LATE_ASKS: &str = r#"SET clock = 'event';
CREATE SOURCE asks (id VARCHAR, city VARCHAR, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'file', path = '${data}/asks.jsonl') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE rides (city VARCHAR, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'file', path = '${data}/rides.jsonl') FORMAT PLAIN ENCODE JSON;
CREATE FEATURE VIEW load ENTITY (city) TIMESTAMP at WINDOWS ('1 day') AS SELECT city, count(*) AS rides FROM rides GROUP BY city;
CREATE FEATURE SERVICE features AS (load);
CREATE TRAINING SET at_column ID (id) TIME (at) LABEL (odd) AS SELECT a.id, a.at, f.rides_1d, a.id > 'c' AS odd
  FROM asks a LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF a.at AS f USING (city);
CREATE TRAINING SET at_arrival ID (id) TIME (at) LABEL (odd) AS SELECT a.id, a.at, f.rides_1d, a.id > 'c' AS odd
  FROM asks a LEFT JOIN FEATURES(features) FOR SYSTEM_TIME AS OF arrival(a) AS f USING (city);
"#;

#[test]
fn t5_an_export_counts_the_rows_that_ask_at_another_time_than_their_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("pipeline.sql", LATE_ASKS.to_string());
    let asks = [("a", 1_000), ("b", 3_000), ("c", 2_000), ("d", 4_000), ("e", 4_000), ("f", 3_500)];
    write("asks.jsonl", asks.map(|(id, at)| format!("{{\"id\": \"{id}\", \"city\": \"Bern\", \"at\": {at}}}\n")).concat());
    // The last but one comes with epoch 2,500.
    write("rides.jsonl", [500, 2_500, 1_500, 3_600].map(|at| format!("{{\"city\": \"Bern\", \"at\": {at}}}\n")).concat());
    let export = |set: &str, extra: &[&str]| {
        let out = folder.path().join("rows.csv");
        let mut command = freshet();
        command.args(["training-set", "export", set, "--pipeline"]).arg(folder.path().join("pipeline.sql"));
        command.args(["--format", "csv", "--var"]).arg(format!("data={}", folder.path().display())).args(extra).arg("--out").arg(&out);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        let rows = fs::read_to_string(&out).unwrap();
        let counts: Vec<String> = rows.lines().skip(1).map(|row| row.split(',').nth(2).unwrap().to_string()).collect();
        (text(&output.stderr).to_string(), counts)
    };
    for workers in ["1", "2"] {
        let (told, rides) = export("at_column", &["--workers", workers]);
        assert!(told.contains("2 of 6 rows ask at a time (at) that is not their arrival (T5): "), "{told}");
        // By time: at 2,000 the ride of 1,500 had not come; at 3,500 the one of 3,600 had not happened.
        assert_eq!(rides, ["1", "1", "3", "3", "4", "4"]);
        let (told, rides) = export("at_arrival", &["--workers", workers]);
        assert!(!told.contains("T5"), "{told}");
        assert_eq!(rides, ["1", "3", "3", "4", "4", "4"]);
    }
    let (told, _) = export("at_column", &["--from", "2500"]);
    assert!(told.contains("1 of 4 rows ask at a time (at) that is not their arrival"), "{told}");
}

#[test]
fn t5_a_run_records_how_many_rows_asked_at_another_time_than_their_arrival() {
    let pipeline = Loop::new();
    let folder = pipeline.path("pipeline");
    fs::create_dir(&folder).unwrap();
    let given = fs::read_to_string(tests_folder().join("loop/pipeline.sql")).unwrap();
    assert!(given.contains("AS OF arrival(a)"));
    fs::write(folder.join("pipeline.sql"), given.replace("AS OF arrival(a)", "AS OF a.at")).unwrap();
    fs::copy(tests_folder().join("loop/train.py"), folder.join("train.py")).unwrap();
    // Three questions come after their successors: one before the range of the first run, two within.
    let asks = fs::read_to_string(pipeline.path("asks.jsonl")).unwrap();
    let mut asks: Vec<&str> = asks.lines().collect();
    [10, 60, 70].into_iter().for_each(|number| asks.swap(number, number + 1));
    fs::write(pipeline.path("asks.jsonl"), asks.join("\n") + "\n").unwrap();
    let output = pipeline.command_of(&folder, "learn", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let told = text(&output.stderr);
    assert!(told.contains("warning: ") && told.contains("AS OF a.at is what was served only for rows whose epoch equals at"), "{told}");
    let first = told.lines().find(|line| line.starts_with("run retrain-2013-01-11T00-00-00Z")).unwrap_or_else(|| panic!("{told}"));
    assert!(first.contains("; 2 of 96 rows ask at a time (at) that is not their arrival (T5)"), "{first}");
    let record = fs::read_to_string(pipeline.path("state/runs/retrain-2013-01-11T00-00-00Z/run.json")).unwrap();
    let record: String = record.split_whitespace().collect();
    assert!(record.contains(r#""asked_at":[{"column":"at","rows":96,"apart":2}]"#), "{record}");
}

/// What the file says once it says something (it exists before it is written); the process must live.
fn wait_for(path: &Path, child: &mut Child) -> String {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(text) = fs::read_to_string(path).ok().filter(|text| !text.is_empty()) {
            return text;
        }
        assert!(child.try_wait().unwrap().is_none(), "the pipeline has ended");
        assert!(Instant::now() < deadline, "waited too long for {}", path.display());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether a process is there and no zombie, also after this long.
fn lives(pid: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let is_there = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"));
    while is_there() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    is_there()
}

#[test]
fn c9_a_pipeline_killed_while_it_trains_goes_on_to_the_same_end() {
    let whole = Loop::new();
    let expected = told(&whole.run("1"));
    let cut_off = Loop::new();
    let run = cut_off.path("state/runs/retrain-2013-01-21T00-00-00Z");
    for signal in ["-KILL", "-TERM"] {
        let mut child = cut_off.command("wait", "2").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let trainer = wait_for(&run.join("waiting"), &mut child);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        let lives = lives(trainer.trim(), if signal == "-TERM" { Duration::from_secs(30) } else { Duration::ZERO });
        if signal == "-TERM" {
            assert_eq!(status.code(), Some(143));
            assert!(!lives, "a trainer does not outlive a pipeline that was asked to end");
        } else if lives {
            // Nobody was left to end it; it may still end by itself before the signal comes.
            Command::new("kill").args(["-KILL", trainer.trim()]).stderr(Stdio::null()).status().unwrap();
        }
        fs::remove_file(run.join("waiting")).unwrap();
    }
    fs::write(run.join("go"), "").unwrap();
    fs::create_dir_all(cut_off.path("state/runs/retrain-2013-01-31T00-00-00Z")).unwrap();
    fs::write(cut_off.path("state/runs/retrain-2013-01-31T00-00-00Z/go"), "").unwrap();
    let output = cut_off.command("wait", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    assert_eq!(told(&output), expected);
    assert_eq!(cut_off.predictions(), whole.predictions());
}

#[test]
fn a_second_signal_ends_the_trainer_with_the_pipeline() {
    let pipeline = Loop::new();
    let mut child = pipeline.command("stubborn", "1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waiting = pipeline.path("state/runs/retrain-2013-01-21T00-00-00Z/waiting");
    let trainer = wait_for(&waiting, &mut child);
    let signal = |name: &str| assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    signal("-TERM");
    // The first signal has been taken, and the trainer's two seconds of grace have not ended.
    std::thread::park_timeout(Duration::from_millis(500));
    signal("-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!lives(trainer.trim(), Duration::from_secs(30)));
    let record = fs::read_to_string(waiting.with_file_name("run.json")).unwrap();
    assert!(record.contains("\"result\": null"), "a trainer that was killed with its pipeline has not failed: {record}");
}
