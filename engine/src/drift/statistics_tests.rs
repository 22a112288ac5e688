//! The statistics against numbers that numpy computed from the same inputs. The inputs are made here, bit for bit, by splitmix64.

use freshet_core::{Histogram, Reference};
use serde::Deserialize;

use crate::drift::{ks, psi};

/// Two samples and what they yield.
#[derive(Deserialize)]
struct Pair {
    name: String,
    seed: u64,
    n_ref: usize,
    n_cur: usize,
    family: String,
    ref_loc_scale: (f64, f64),
    cur_loc_scale: (f64, f64),
    ref_sum: f64,
    cur_sum: f64,
    #[serde(rename = "psi_quantile10_eps1e-4")]
    psi: f64,
    psi_edges: Vec<f64>,
    psi_ref_share: Vec<f64>,
    psi_cur_share: Vec<f64>,
    #[serde(rename = "ks_binned_quantile10")]
    ks: f64,
}

struct SplitMix(u64);

impl SplitMix {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 0.5f64.powi(53)
    }

    /// Twelve uniforms are nearly normal, and need no function of the platform.
    fn normal(&mut self) -> f64 {
        (0..12).fold(0.0, |sum, _| sum + self.uniform()) - 6.0
    }

    fn sample(&mut self, family: &str, count: usize, (loc, scale): (f64, f64)) -> Vec<f64> {
        let value = |random: &mut SplitMix| match family {
            "normal" | "const" => random.normal() * scale + loc,
            "uniform" => random.uniform() * scale + loc,
            "ints" => (random.uniform() * scale).floor() + loc,
            other => unreachable!("no pair is of family {other}"),
        };
        (0..count).map(|_| value(self)).collect()
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs().max(1e-3)
}

fn assert_all_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(close(*found, *expected), "{what}: {found} is not {expected}");
    }
}

#[test]
fn edges_shares_psi_and_ks_equal_the_reference_vectors() {
    let pairs: Vec<Pair> = serde_json::from_str(include_str!("../../tests/vectors/two_sample.json")).unwrap();
    assert_eq!(pairs.len(), 10);
    for pair in pairs {
        let mut random = SplitMix(pair.seed);
        let reference = random.sample(&pair.family, pair.n_ref, pair.ref_loc_scale);
        let current = random.sample(&pair.family, pair.n_cur, pair.cur_loc_scale);
        for (values, sum) in [(&reference, pair.ref_sum), (&current, pair.cur_sum)] {
            let found: f64 = values.iter().sum();
            assert!((found - sum).abs() <= 1e-9 * sum.abs().max(1.0), "{}: the inputs are others", pair.name);
        }
        let reference = Histogram::of(reference.into_iter().map(Some));
        let mut counted = Histogram { counts: vec![0; reference.counts.len()], edges: reference.edges.clone(), nulls: 0 };
        for value in current {
            let bin = counted.bin(value);
            counted.counts[bin] += 1;
        }
        let shares = |histogram: &Histogram| histogram.counts.iter().map(|count| *count as f64 / histogram.total() as f64).collect::<Vec<_>>();
        assert_all_close(&format!("{}: edges", pair.name), &reference.edges, &pair.psi_edges);
        assert_all_close(&format!("{}: shares of the reference", pair.name), &shares(&reference), &pair.psi_ref_share);
        assert_all_close(&format!("{}: shares", pair.name), &shares(&counted), &pair.psi_cur_share);
        assert_all_close(&format!("{}: psi", pair.name), &[psi(&reference, &counted).unwrap()], &[pair.psi]);
        assert_all_close(&format!("{}: ks", pair.name), &[ks(&reference, &counted).unwrap()], &[pair.ks]);
    }
}

#[test]
fn a_reference_comes_back_from_json_with_every_bit() {
    let mut random = SplitMix(7);
    let columns = ["a", "b", "c"].map(|name| (name.to_string(), Histogram::of((0..500).map(|_| Some(random.normal().exp())))));
    let infinite = Histogram { edges: vec![f64::NEG_INFINITY, 0.1, f64::INFINITY], counts: vec![0, 1, 2, 3], nulls: u64::MAX };
    let reference = Reference { columns: columns.into_iter().chain([("d".to_string(), infinite)]).collect() };
    let back: Reference = serde_json::from_str(&serde_json::to_string(&reference).unwrap()).unwrap();
    let bits = |reference: &Reference| reference.columns.values().flat_map(|column| column.edges.clone()).map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!((bits(&back), back), (bits(&reference), reference));
}
