//! The import table of the design. In: `cargo metadata` and Cargo.lock. Out: every edge that points up or drags a heavy crate into a light one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Report;

/// What one of our crates may use of ours, and what it must not see even through others.
struct Rule {
    package: &'static str,
    may_use: &'static [&'static str],
    never_sees: &'static [&'static str],
}

const EVERYTHING: &[&str] =
    &["freshet-core", "freshet-engine", "freshet-inference", "freshet-serving", "freshet-testkit", "freshet-sql", "freshet-connectors", "freshet"];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { package: "freshet-core", may_use: &[], never_sees: &["timely", "tokio", "datafusion"] },
    Rule { package: "freshet-engine", may_use: &["freshet-core"], never_sees: &["datafusion", "tokio", "tonic", "rdkafka", "ort"] },
    Rule { package: "freshet-inference", may_use: &["freshet-core"], never_sees: &["timely", "datafusion"] },
    Rule { package: "freshet-serving", may_use: &["freshet-core"], never_sees: &["timely", "datafusion"] },
    Rule { package: "freshet-testkit", may_use: &["freshet-core"], never_sees: &["timely", "datafusion"] },
    Rule { package: "freshet-sql", may_use: &["freshet-core"], never_sees: &["timely", "tonic"] },
    Rule { package: "freshet-connectors", may_use: &["freshet-core"], never_sees: &["timely", "datafusion"] },
    Rule { package: "freshet", may_use: &["freshet-core", "freshet-engine", "freshet-inference", "freshet-serving", "freshet-sql", "freshet-connectors"], never_sees: &[] },
    Rule { package: "freshet-pipelines", may_use: EVERYTHING, never_sees: &[] },
    Rule { package: "freshet-benches", may_use: EVERYTHING, never_sees: &[] },
    Rule { package: "xtask", may_use: EVERYTHING, never_sees: &[] },
];

/// The resolved packages of the workspace.
#[derive(Debug, Default)]
pub struct Graph {
    /// Names of our packages.
    members: BTreeSet<String>,
    /// Their folders, relative to the root.
    pub folders: Vec<String>,
    /// Package id → its name and the ids of what it uses in a normal build.
    packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default)]
struct Package {
    name: String,
    uses: Vec<String>,
    uses_in_tests: Vec<String>,
}

impl Graph {
    /// Asks cargo, for the host's platform only. Errors: cargo fails, or answers in a shape we do not know.
    pub fn read(root: &Path) -> Result<Graph> {
        let host = output(Command::new("rustc").arg("-vV"))?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
        let metadata = output(Command::new("cargo").current_dir(root).args(["metadata", "--format-version", "1", "--filter-platform", host]))?;
        Graph::parse(&serde_json::from_str(&metadata).context("reading the answer of cargo metadata")?)
    }

    fn parse(metadata: &Value) -> Result<Graph> {
        let mut graph = Graph::default();
        let root = text(metadata, "workspace_root")?;
        let member_ids: BTreeSet<&str> = list(metadata, "workspace_members")?.iter().filter_map(Value::as_str).collect();
        for package in list(metadata, "packages")? {
            let (id, name) = (text(package, "id")?, text(package, "name")?);
            if member_ids.contains(id) {
                let folder = text(package, "manifest_path")?.trim_start_matches(root).trim_start_matches('/').trim_end_matches("/Cargo.toml");
                graph.members.insert(name.to_string());
                graph.folders.push(folder.to_string());
            }
            graph.packages.insert(id.to_string(), Package { name: name.to_string(), ..Package::default() });
        }
        for node in list(&metadata["resolve"], "nodes")? {
            let package = graph.packages.get_mut(text(node, "id")?).context("a resolved package is not listed")?;
            for dependency in list(node, "deps")? {
                let id = text(dependency, "pkg")?.to_string();
                let kinds: Vec<Option<&str>> = list(dependency, "dep_kinds")?.iter().map(|kind| kind["kind"].as_str()).collect();
                if kinds.contains(&None) {
                    package.uses.push(id.clone());
                }
                if kinds.contains(&Some("dev")) {
                    package.uses_in_tests.push(id);
                }
            }
        }
        Ok(graph)
    }

    fn package(&self, name: &str) -> Option<(&String, &Package)> {
        self.packages.iter().find(|(_, package)| package.name == name)
    }

    /// The way from a package to the first crate of this family, by normal dependencies.
    fn way_to(&self, from: &str, family: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![from.to_string()]];
        let mut seen = BTreeSet::from([from.to_string()]);
        while let Some(way) = ways.pop() {
            let package = &self.packages[way.last().expect("a way has a start")];
            if in_family(&package.name, family) {
                return Some(way.iter().map(|id| self.packages[id].name.clone()).collect());
            }
            for next in package.uses.iter().filter(|id| seen.insert((*id).clone())) {
                ways.push(way.iter().cloned().chain([next.clone()]).collect());
            }
        }
        None
    }
}

/// `datafusion` and `datafusion-expr` are one family.
fn in_family(name: &str, family: &str) -> bool {
    name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
}

pub fn check(graph: &Graph, report: &mut Report) {
    for member in &graph.members {
        let (id, package) = graph.package(member).expect("members are packages");
        let Some(rule) = RULES.iter().find(|rule| rule.package == member) else {
            report.fail(member, "has no row in the import table; add one to ARCHITECTURE.md and to deploy/xtask/src/tidy/imports.rs");
            continue;
        };
        let ours = |ids: &[String]| -> Vec<String> {
            let names = ids.iter().map(|id| graph.packages[id].name.clone());
            names.filter(|name| graph.members.contains(name)).collect()
        };
        for used in ours(&package.uses).iter().filter(|used| !rule.may_use.contains(&used.as_str())) {
            report.fail(member, format!("imports {used}, which the import table does not allow"));
        }
        if member == "freshet-core" {
            for used in ours(&package.uses_in_tests) {
                report.fail(member, format!("imports {used} in its tests; core sees nothing above it"));
            }
        }
        for family in rule.never_sees {
            if let Some(way) = graph.way_to(id, family) {
                report.fail(member, format!("must never see {family}, but does: {}", way.join(" → ")));
            }
        }
    }
}

/// A RecordBatch of another arrow is another type, and the error appears far from its cause.
pub fn check_lock(lock: &str, report: &mut Report) {
    let copies = lock.lines().filter(|line| *line == "name = \"arrow-array\"").count();
    if copies != 1 {
        report
            .fail("Cargo.lock", format!("holds {copies} versions of arrow-array, exactly one is allowed; pin arrow to the version DataFusion uses"));
    }
}

fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(result.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&result.stderr).trim());
    Ok(String::from_utf8(result.stdout)?)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("cargo metadata has no text `{field}`"))
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo metadata has no list `{field}`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace of these packages; an edge is (from, to, kind).
    fn graph(members: &[&str], outside: &[&str], edges: &[(&str, &str, Option<&str>)]) -> Graph {
        let all: Vec<&str> = members.iter().chain(outside).copied().collect();
        let packages: Vec<Value> =
            all.iter().map(|name| json!({"id": name, "name": name, "manifest_path": format!("/w/{name}/Cargo.toml")})).collect();
        let deps = |from: &str| -> Vec<Value> {
            let edges = edges.iter().filter(|(start, _, _)| *start == from);
            edges.map(|(_, to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]})).collect()
        };
        let nodes: Vec<Value> = all.iter().map(|name| json!({"id": name, "deps": deps(name)})).collect();
        Graph::parse(&json!({"workspace_root": "/w", "workspace_members": members, "packages": packages, "resolve": {"nodes": nodes}})).unwrap()
    }

    fn failures(graph: &Graph) -> Vec<String> {
        let mut report = Report::default();
        check(graph, &mut report);
        report.failures
    }

    #[test]
    fn an_upward_import_fails() {
        let graph = graph(&["freshet-core", "freshet-engine"], &[], &[("freshet-core", "freshet-engine", None)]);
        assert_eq!(failures(&graph), ["freshet-core: imports freshet-engine, which the import table does not allow"]);
        assert_eq!(graph.folders, ["freshet-core", "freshet-engine"]);
    }

    #[test]
    fn a_heavy_crate_fails_through_another_and_shows_the_way() {
        let edges = [("freshet-engine", "light", None), ("light", "datafusion-expr", None)];
        let graph = graph(&["freshet-engine"], &["light", "datafusion-expr"], &edges);
        assert_eq!(failures(&graph), ["freshet-engine: must never see datafusion, but does: freshet-engine → light → datafusion-expr"]);
    }

    #[test]
    fn tests_are_free_except_in_core() {
        let members = ["freshet-core", "freshet-testkit", "freshet-sql"];
        let edges = [("freshet-sql", "freshet-testkit", Some("dev")), ("freshet-core", "freshet-testkit", Some("dev"))];
        assert_eq!(failures(&graph(&members, &[], &edges)), ["freshet-core: imports freshet-testkit in its tests; core sees nothing above it"]);
    }

    #[test]
    fn a_crate_without_a_row_fails() {
        assert_eq!(failures(&graph(&["freshet-extra"], &[], &[])).len(), 1);
    }

    #[test]
    fn two_arrows_in_the_lock_file_fail() {
        let mut report = Report::default();
        check_lock("name = \"arrow-array\"\nversion = \"59\"\nname = \"arrow-array\"\n", &mut report);
        check_lock("name = \"arrow-array\"\nname = \"arrow-array-extra\"\n", &mut report);
        assert_eq!(report.failures.len(), 1);
    }
}
