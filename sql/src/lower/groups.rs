//! GROUPING SETS, ROLLUP and CUBE. In: the grouping expression of an aggregate. Out: its keys, and which of them each set has.

use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet as SetExpr};

use crate::expr::bare;
use crate::refusal::{Refusal, Result};

/// More sets than this are refused: CUBE doubles them with every key, and each is an aggregate of its own.
const SETS_MAX: usize = 256;

/// The sets of one GROUP BY.
#[derive(Debug)]
pub(super) struct GroupingSets {
    /// In the order of the output.
    pub keys: Vec<Expr>,
    pub sets: Vec<GroupingSet>,
}

#[derive(Debug)]
pub(super) struct GroupingSet {
    /// Ascending indexes of keys.
    pub keys: Vec<usize>,
    /// What DataFusion's `__grouping_id` says: a bit for each key that is left out, the last key lowest; above them how often the set has
    /// stood there before.
    pub id: u64,
}

/// None if the aggregate groups by plain keys. Errors: too many sets.
pub(super) fn grouping_sets(aggregate: &Aggregate) -> Result<Option<GroupingSets>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else { return Ok(None) };
    let keys: Vec<&Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let index = |expr: &Expr| keys.iter().position(|key| *key == expr).ok_or_else(|| Refusal::new("a grouping set names no key of its own"));
    let too_many = || {
        Refusal::new(format!("this GROUP BY has more than {SETS_MAX} grouping sets"))
            .help("name the ones that are needed: GROUPING SETS ((a, b), (a), ())")
    };
    let listed: Vec<Vec<usize>> = match sets {
        SetExpr::Rollup(exprs) => {
            let all = exprs.iter().map(index).collect::<Result<Vec<_>>>()?;
            (0..=all.len()).rev().map(|count| all[..count].to_vec()).collect()
        }
        SetExpr::Cube(exprs) => {
            let all = exprs.iter().map(index).collect::<Result<Vec<_>>>()?;
            let count = 1usize.checked_shl(all.len() as u32).filter(|count| *count <= SETS_MAX).ok_or_else(too_many)?;
            let chosen = |left_out: usize| (0..all.len()).filter(|key| left_out >> (all.len() - 1 - key) & 1 == 0).map(|key| all[key]).collect();
            (0..count).map(chosen).collect()
        }
        SetExpr::GroupingSets(sets) => sets.iter().map(|set| set.iter().map(index).collect()).collect::<Result<_>>()?,
    };
    if listed.len() > SETS_MAX || keys.len() > 56 {
        return Err(too_many());
    }
    let mut found: Vec<GroupingSet> = Vec::with_capacity(listed.len());
    for mut set in listed {
        set.sort_unstable();
        set.dedup();
        let before = found.iter().filter(|known| known.keys == set).count() as u64;
        let left_out = (0..keys.len()).filter(|key| !set.contains(key)).fold(0u64, |bits, key| bits | 1 << (keys.len() - 1 - key));
        found.push(GroupingSet { keys: set, id: before << keys.len() | left_out });
    }
    let keys = keys.into_iter().map(|key| bare(key.clone())).collect::<Result<_>>()?;
    Ok(Some(GroupingSets { keys, sets: found }))
}
