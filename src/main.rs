//! The `topo` binary.

fn main() -> std::process::ExitCode {
    toposcript::cmd::main()
}
