//! Logical plan → checked, optimised logical plan, by our own list of rules.
//!
//! Dropped from DataFusion's list, because they hide or break what an incremental plan needs: common_sub_expression_eliminate (moves
//! now() out of predicates), single_distinct_aggregation_to_group_by (two stateful operators for one), eliminate_join (makes semi
//! joins of inner joins), push_down_limit, unions_to_filter, and the two rules that move struct fields for the sake of files.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::Result;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::registry::{FunctionRegistry, MemoryFunctionRegistry};
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};

use crate::context::Functions;
use crate::existence::Existence;

const DROPPED: [&str; 7] = [
    "common_sub_expression_eliminate",
    "single_distinct_aggregation_to_group_by",
    "eliminate_join",
    "push_down_limit",
    "unions_to_filter",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
];

/// Its place in the order is taken by [`Existence`].
const REPLACED: &str = "decorrelate_predicate_subquery";

/// Type coercion. Errors: wrong argument types, without a place.
pub(crate) fn analyse(plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
    Analyzer::new().execute_and_check(plan, options, |_, _| {})
}

/// The rewritten plan. A fresh configuration each time makes generated aliases, and so the plan's text, deterministic.
pub(crate) fn optimise(plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
    Optimizer::with_rules(rules()).optimize(plan, &Configuration::new(options), |_, _| {})
}

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let replaced = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        if rule.name() == REPLACED { Arc::new(Existence) } else { rule }
    };
    Optimizer::new().rules.into_iter().filter(|rule| !DROPPED.contains(&rule.name())).map(replaced).collect()
}

/// DataFusion's own configuration has no function registry, and a rule for DISTINCT ON unwraps it.
struct Configuration {
    inner: OptimizerContext,
    registry: MemoryFunctionRegistry,
}

impl Configuration {
    fn new(options: &ConfigOptions) -> Configuration {
        let mut registry = MemoryFunctionRegistry::new();
        for function in Functions::get().aggregate.values() {
            registry.register_udaf(function.clone()).expect("an empty registry takes every function");
        }
        let inner = OptimizerContext::new_with_config_options(Arc::new(options.clone())).without_query_execution_start_time();
        Configuration { inner, registry }
    }
}

impl OptimizerConfig for Configuration {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        None
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        self.inner.alias_generator()
    }

    fn options(&self) -> Arc<ConfigOptions> {
        self.inner.options()
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dropped_rule_exists() {
        let all = Optimizer::new().rules;
        for name in DROPPED.into_iter().chain([REPLACED]) {
            assert!(all.iter().any(|rule| rule.name() == name), "{name}");
        }
        assert_eq!(rules().len() + DROPPED.len(), all.len());
    }
}
