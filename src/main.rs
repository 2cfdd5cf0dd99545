//! The `topo` binary.

fn main() -> std::process::ExitCode {
    toposcript::main()
}
