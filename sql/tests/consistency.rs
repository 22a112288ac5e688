//! Money that is moved is neither made nor lost: the balances of all accounts add up to exactly 0 at every epoch, whatever stands between the
//! transfers and the total; and a view over two views never shows one as of another epoch than the other.

use std::collections::BTreeMap;

use freshet_core::{Epoch, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::compile;
use freshet_testkit::MemoryConnectors;
use freshet_testkit::memory::RawRecord;

use crate::given::script;

const ACCOUNTS: i64 = 6;

/// Both sides of a transfer come of one row, each by a way of its own; not every account has an owner.
const TRANSFERS: &str = "
SET clock = 'event';
CREATE SOURCE transfers (id BIGINT, payer BIGINT, payee BIGINT, amount BIGINT, at TIMESTAMP(3), WATERMARK FOR at)
  WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SOURCE owners (account BIGINT, name VARCHAR, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE MATERIALIZED VIEW debits AS SELECT payer AS account, sum(amount) AS total FROM transfers GROUP BY payer;
CREATE MATERIALIZED VIEW credits AS SELECT payee AS account, sum(amount) AS total FROM transfers GROUP BY payee;
CREATE MATERIALIZED VIEW balances AS SELECT coalesce(c.account, d.account) AS account, coalesce(c.total, 0) - coalesce(d.total, 0) AS balance
  FROM credits c FULL JOIN debits d ON c.account = d.account;
CREATE MATERIALIZED VIEW named AS SELECT b.account, o.name, b.balance FROM balances b LEFT JOIN owners o ON o.account = b.account;
CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS total, count(*) AS accounts FROM balances;
CREATE MATERIALIZED VIEW by_owner AS SELECT name, sum(balance) AS balance FROM (SELECT DISTINCT account, name, balance FROM named) AS once GROUP BY name;
CREATE MATERIALIZED VIEW total_of_owners AS SELECT sum(n.balance) AS total FROM named n
  WHERE NOT EXISTS (SELECT 1 FROM named m WHERE m.account = n.account AND m.name < n.name);
CREATE MATERIALIZED VIEW entries AS SELECT account, amount FROM (SELECT payee AS account, amount FROM transfers UNION ALL SELECT payer, 0 - amount FROM transfers) AS both_sides;
CREATE MATERIALIZED VIEW difference AS SELECT account, balance FROM balances EXCEPT ALL SELECT account, CAST(sum(amount) AS BIGINT) FROM entries GROUP BY account;
CREATE MATERIALIZED VIEW mixed AS SELECT a.n AS transfers, b.n AS entries FROM (SELECT count(*) AS n FROM transfers) a, (SELECT count(*) AS n FROM entries) b
  WHERE a.n * 2 <> b.n;
CREATE SINK out_total FROM total WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SINK out_total_of_owners FROM total_of_owners WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SINK out_difference FROM difference WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SINK out_mixed FROM mixed WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE SINK out_named FROM named WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as i64
    }
}

/// Transfers that come, late ones too, and some that are taken back; owners that change.
fn input(seed: u64, count: usize) -> MemoryConnectors {
    let mut random = Random(seed);
    let start = 1_735_689_600_000_i64;
    let record = |offset: usize, values: Vec<Value>, diff: i64| RawRecord { partition: 0, offset: offset as u64, values, diff, broken: None };
    let mut transfers: Vec<RawRecord> = Vec::new();
    for id in 0..count {
        let at = start + (id as i64) * 100 - random.below(2_000);
        let known = transfers.len();
        if known > 4 && random.below(4) == 0 {
            let taken = transfers[random.below(known as u64) as usize].clone();
            if taken.diff > 0 && !transfers.iter().any(|other| other.diff < 0 && other.values[0] == taken.values[0]) {
                transfers.push(record(known, taken.values, -1));
                continue;
            }
        }
        let row = [id as i64, random.below(ACCOUNTS as u64), random.below(ACCOUNTS as u64), 1 + random.below(1_000), at];
        transfers.push(record(known, row.map(|cell| Value::Int(cell.into())).to_vec(), 1));
    }
    let mut owners: Vec<RawRecord> = Vec::new();
    for change in 0..count / 3 {
        let row = vec![
            Value::Int(random.below(ACCOUNTS as u64 - 2).into()),
            Value::Text(["ann", "bob"][random.below(2) as usize].into()),
            Value::Int((start + change as i64 * 300).into()),
        ];
        match owners.iter().rev().find(|owner| owner.values[0] == row[0]).cloned() {
            Some(former) if former.diff > 0 => owners.push(record(owners.len(), former.values, -1)),
            _ => owners.push(record(owners.len(), row, 1)),
        }
    }
    MemoryConnectors::new(seed).with_source("transfers", transfers).with_source("owners", owners)
}

/// The rows of a sink after each epoch at which it changes.
fn contents(connectors: &MemoryConnectors, sink: &str) -> Vec<(Epoch, BTreeMap<Vec<Value>, i64>)> {
    let mut content: BTreeMap<Vec<Value>, i64> = BTreeMap::new();
    let mut all: Vec<(Epoch, BTreeMap<Vec<Value>, i64>)> = Vec::new();
    for change in connectors.sink(sink) {
        *content.entry(change.row).or_default() += change.diff;
        content.retain(|_, count| *count != 0);
        match all.last_mut() {
            Some((epoch, last)) if *epoch == change.epoch => last.clone_from(&content),
            _ => all.push((change.epoch, content.clone())),
        }
    }
    all
}

#[test]
fn c2_transfers_add_up_to_nothing_at_every_epoch_whatever_stands_between() {
    let program =
        compile(&[script("transfers.sql", TRANSFERS)], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap_or_else(|error| panic!("{error}"));
    for seed in 0..4 {
        let mut first: Option<Vec<(Epoch, BTreeMap<Vec<Value>, i64>)>> = None;
        for (workers, cut) in [(1, StepCut::Epochs(1)), (2, StepCut::Epochs(5)), (4, StepCut::Rows(7)), (2, StepCut::All)] {
            let connectors = input(seed, 160);
            let config = EngineConfig { workers, cut, ..EngineConfig::default() };
            let engine = Engine::start(program.plan.clone(), config, &connectors).unwrap();
            engine.wait().unwrap();
            engine.shutdown().unwrap();
            let what = format!("seed {seed}, {workers} workers, {cut:?}");
            let totals = contents(&connectors, "out_total");
            assert!(totals.len() > 1, "{what}: {totals:?}");
            for (epoch, content) in totals.iter().skip(1) {
                assert_eq!(content.len(), 1, "{what} at {epoch}: {content:?}");
                let total = &content.keys().next().unwrap()[0];
                assert!(matches!(total, Value::Int(0) | Value::Null), "{what} at {epoch}: the balances add up to {total}");
            }
            for (epoch, content) in contents(&connectors, "out_total_of_owners").iter().skip(1) {
                let total = &content.keys().next().unwrap()[0];
                assert!(matches!(total, Value::Int(0) | Value::Null), "{what} at {epoch}: the balances with owners add up to {total}");
            }
            for sink in ["out_difference", "out_mixed"] {
                assert_eq!(contents(&connectors, sink), Vec::new(), "{what}: {sink}");
            }
            let named = contents(&connectors, "out_named");
            assert!(named == *first.get_or_insert_with(|| named.clone()), "{what}: another history");
        }
    }
}
