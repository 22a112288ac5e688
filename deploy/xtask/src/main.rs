use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy | golden [--update] | demo --data FOLDER [--exit]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => xtask::tidy::run(&xtask::workspace_root()),
        ["golden"] => xtask::golden::run(&xtask::workspace_root(), false),
        ["golden", "--update"] => xtask::golden::run(&xtask::workspace_root(), true),
        ["demo", rest @ ..] => xtask::demo::run(&xtask::workspace_root(), rest),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
