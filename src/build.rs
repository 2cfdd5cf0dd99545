//! Links the program to a fixed place where the linker is known to take the word for it. Rhai's functions and the program's own are
//! found by tables of some 30 000 addresses; a program that may lie anywhere has all of them to correct at each start, which was a
//! quarter of what an empty script takes (docs/performance.md).

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
