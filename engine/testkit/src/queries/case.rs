//! One case: a query, and records for its tables. In: a seed. Out: SQL and records; tame cases have values on which DataFusion agrees with us,
//! wild ones have NaN, infinities, −0.0 and integers at the ends of their types, and only the interpreter judges them.

use std::collections::{BTreeMap, BTreeSet};

use freshet_core::{Format, Plan, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::generate::{Shape, records};
use crate::memory::RawRecord;
use crate::queries::generator::Generator;
use crate::queries::tree::Node;

/// The tables of every case: rows that stay, rows that change, rows that replace each other by key.
const SOURCES: &str = "
SET clock = 'event';
CREATE SOURCE plain (id BIGINT, k VARCHAR, g INT, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts{lateness}) WITH (connector = 'memory') FORMAT PLAIN ENCODE JSON;
CREATE SOURCE changing (k VARCHAR, h INT, n BIGINT, y DOUBLE, flag BOOLEAN, at TIMESTAMP(3), WATERMARK FOR at{lateness}) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SOURCE keyed (k VARCHAR PRIMARY KEY NOT ENFORCED, r INT, z DOUBLE, w TIMESTAMP(3), WATERMARK FOR w) WITH (connector = 'memory') FORMAT UPSERT ENCODE JSON;
";

/// Rules of windows that may be emitted when they close.
const WINDOWS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];

/// What can happen in the input of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meets {
    Null,
    Duplicate,
    Retraction,
    Late,
    EmptyEpoch,
}

impl Meets {
    pub const ALL: [Meets; 5] = [Meets::Null, Meets::Duplicate, Meets::Retraction, Meets::Late, Meets::EmptyEpoch];
}

#[derive(Debug, Clone)]
pub struct Case {
    pub seed: u64,
    pub wild: bool,
    pub query: Node,
    /// Rows of the tables may be too late, so that state is freed.
    pub late: bool,
    /// When the view tells: at once, or what stands here.
    pub emit: &'static str,
    /// By source; filled by [`Case::fill`], because it takes the compiled plan to know the tables.
    pub records: BTreeMap<String, Vec<RawRecord>>,
}

impl Case {
    pub fn new(seed: u64) -> Case {
        let wild = seed % 3 == 2;
        let query = Generator::new(seed, wild).query();
        let windowed = WINDOWS.iter().any(|window| query.rules().contains(window));
        let emit = match seed % 10 {
            3 | 7 if windowed => " EMIT ON WINDOW CLOSE",
            9 => " EMIT EVERY INTERVAL '5 seconds'",
            _ => "",
        };
        Case { seed, wild, query, late: seed % 5 == 4, emit, records: BTreeMap::new() }
    }

    /// The script of the case: tables, the view `v` and a sink of its changes.
    pub fn script(&self) -> String {
        let sources = SOURCES.replace("{lateness}", if self.late { ", LATENESS INTERVAL '4 seconds'" } else { "" });
        format!("{sources}{};\nCREATE SINK out FROM v WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON", self.view())
    }

    /// The statement that creates its view.
    pub fn view(&self) -> String {
        format!("CREATE MATERIALIZED VIEW v AS {}{}", self.query.sql(), self.emit)
    }

    /// The rules that made it.
    pub fn rules(&self) -> BTreeSet<&'static str> {
        let mut rules = self.query.rules();
        rules.extend(self.late.then_some("lateness"));
        rules.extend((!self.emit.is_empty()).then_some(if self.emit.contains("CLOSE") { "emit_on_close" } else { "emit_every" }));
        rules
    }

    /// Makes the records of the plan's sources.
    pub fn fill(&mut self, plan: &Plan) {
        let mut random = StdRng::seed_from_u64(self.seed);
        for (index, def) in plan.sources.iter().enumerate() {
            let changes = def.format != Format::Plain;
            let shape = Shape {
                rows: random.random_range(0..=26),
                keys: random.random_range(1..=4),
                partitions: random.random_range(1..=2),
                late_ms: 10_000,
                duplicates: 0.15,
                retractions: if changes { 0.25 } else { 0.0 },
                stray_retractions: if def.format == Format::Debezium { 0.02 } else { 0.0 },
                nulls: 0.12,
                special_floats: if self.wild { 0.15 } else { 0.0 },
                large_integers: if self.wild { 0.15 } else { 0.0 },
                broken: 0.03,
                ..Shape::default()
            };
            let mut made = records(self.seed * 31 + index as u64, def, &shape);
            if def.format == Format::Debezium {
                made = with_empty_epochs(made, def.event_time, &mut random);
            }
            made.iter_mut().for_each(|record| record.values.iter_mut().for_each(|value| dress(value, self.wild)));
            self.records.insert(def.name.clone(), made);
        }
    }

    /// The sources that the query reads.
    fn read(&self) -> impl Iterator<Item = (&String, &Vec<RawRecord>)> {
        let sql = self.query.sql();
        self.records.iter().filter(move |(name, _)| sql.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == name.as_str()))
    }

    /// What its input has in it. `times` are the event times by source.
    pub fn meets(&self, times: &BTreeMap<String, usize>) -> BTreeSet<Meets> {
        let mut found = BTreeSet::new();
        for (name, records) in self.read() {
            let mut seen: BTreeSet<&Vec<Value>> = BTreeSet::new();
            let mut clocks: BTreeMap<u32, Value> = BTreeMap::new();
            let mut epochs: BTreeMap<(u32, Value), BTreeMap<&Vec<Value>, i64>> = BTreeMap::new();
            for record in records {
                if record.values.iter().any(Value::is_null) {
                    found.insert(Meets::Null);
                }
                if record.diff < 0 {
                    found.insert(Meets::Retraction);
                } else if !seen.insert(&record.values) {
                    found.insert(Meets::Duplicate);
                }
                let time = record.values[times[name]].clone();
                let clock = clocks.entry(record.partition).or_insert_with(|| time.clone());
                if time < *clock && !time.is_null() {
                    found.insert(Meets::Late);
                }
                *clock = clock.clone().max(time);
                let diff = if record.broken.is_some() { 0 } else { record.diff };
                *epochs.entry((record.partition, clock.clone())).or_default().entry(&record.values).or_default() += diff;
            }
            if epochs.values().any(|rows| rows.values().all(|diff| *diff == 0)) {
                found.insert(Meets::EmptyEpoch);
            }
        }
        found
    }

    /// The records of the tables that are read, for people.
    pub fn input(&self) -> String {
        let mut text = String::new();
        for (name, records) in self.read() {
            for record in records {
                let broken = if record.broken.is_some() { " broken" } else { "" };
                text += &format!(
                    "  {name} {}{} ({}){broken}\n",
                    if record.diff > 0 { '+' } else { '-' },
                    record.partition,
                    crate::compare::show(&record.values)
                );
            }
        }
        text
    }
}

/// Now and then a row that comes at a time of its own and goes at once: its epoch changes nothing.
fn with_empty_epochs(records: Vec<RawRecord>, time: Option<usize>, random: &mut StdRng) -> Vec<RawRecord> {
    let Some(time) = time else { return records };
    let mut clocks: BTreeMap<u32, i128> = BTreeMap::new();
    let mut offsets: BTreeMap<u32, u64> = BTreeMap::new();
    let mut all = Vec::new();
    for record in records {
        let partition = record.partition;
        if let Value::Int(at) = record.values[time] {
            let clock = clocks.entry(partition).or_insert(at);
            *clock = (*clock).max(at);
        }
        let twin = clocks.get(&partition).filter(|_| random.random_bool(0.12)).map(|clock| {
            let mut twin = RawRecord { diff: 1, broken: None, ..record.clone() };
            twin.values[time] = Value::Int(clock + 1);
            twin
        });
        all.push(record);
        if let Some(twin) = twin {
            all.push(twin.clone());
            all.push(RawRecord { diff: -1, ..twin });
        }
    }
    for record in &mut all {
        let offset = offsets.entry(record.partition).or_default();
        record.offset = *offset;
        *offset += 1;
    }
    all
}

/// Texts of all kinds; in tame cases floats whose sums are exact in any order.
fn dress(value: &mut Value, wild: bool) {
    match value {
        Value::Text(text) if text == "k0" => *text = String::new(),
        Value::Text(text) if text == "k3" => *text = "kü'日".into(),
        Value::Float(number) if !wild => *number = (*number * 8.0).round() / 8.0 % 1000.0 + 0.0,
        _ => {}
    }
}
