use std::process::ExitCode;

/// One third less CPU than the system's allocator in the engine's benches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: a worker that panics would leave its siblings waiting for ever.
    freshet::abort_on_panic();
    freshet::main()
}
