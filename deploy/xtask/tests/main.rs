use xtask::{tidy, workspace_root};

#[test]
fn the_workspace_is_tidy() {
    let report = tidy::check(&workspace_root()).unwrap();
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
}
