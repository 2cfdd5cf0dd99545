# What one types while working on topo. `.ci/run` is all of it, and installs what the tests need; CONTRIBUTING.md says when to run what.

export RUST_TEST_THREADS := env("RUST_TEST_THREADS", `echo $((2 * $(nproc)))`)

# Lists the recipes.
default:
    @just --list

# Checks formatting and lints: seconds.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- --deny warnings

# Runs the fast tier of the tests, or those with a name: `just test nat::firewalls`.
test *names:
    cargo test --locked -- {{names}}

# Runs both tiers of the tests.
full:
    FULL_TESTS=1 cargo test --locked -- --include-ignored

# Writes anew what is made from the code: the reference, and the outputs that pages and tests show.
docs:
    UPDATE_EXPECT=1 cargo test --locked --test it -- docs tutorial

# Runs one benchmark: `just bench scale 10`.
bench name *args:
    cargo bench --locked --bench {{name}} -- {{args}}
