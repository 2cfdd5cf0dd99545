//! The files that a reader copies into a project of their own are true: they are YAML, and the commands in them do what they say.

use std::path::Path;

use crate::page::read;
use crate::stage::in_used_world;
use crate::world::World;

const FILES: [&str; 2] = ["examples/ci/github-actions.yml", "examples/ci/gitlab-ci.yml"];

/// Prints each line of the commands of a pipeline: what stands below `run`, `script` and `before_script`.
const COMMANDS: &str = r#"
import sys, yaml
def walk(node, of_commands):
    if isinstance(node, dict):
        for key, value in node.items():
            walk(value, key in ("run", "script", "before_script"))
    elif isinstance(node, list):
        for value in node:
            walk(value, of_commands)
    elif of_commands:
        print(str(node).strip())
walk(yaml.safe_load(open(sys.argv[1])), False)
"#;

fn commands(world: &World, file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    world.write("commands.py", COMMANDS);
    let ran = world.run(&format!("python3 commands.py {}", path.display())).ok();
    world.run("rm commands.py").ok();
    ran.out().lines().map(ToString::to_string).collect()
}

/// A project with one test, in which each `topo` command is typed as the file has it.
#[test]
fn the_commands_of_the_pipelines_work() {
    for file in FILES {
        in_used_world("", |world, _| {
            world.run("mkdir tests").ok();
            world.write(
                "tests/office.rhai",
                "/// A host reaches itself.\nfn test_office() { assert(netns(\"h1\").ping(\"127.0.0.1\")); }\n",
            );
            let commands = commands(world, file);
            let ours: Vec<&String> = commands.iter().filter(|line| line.starts_with("topo ")).collect();
            for word in ["topo doctor", "topo check ", "topo test "] {
                assert!(ours.iter().any(|line| line.starts_with(word)), "{file} has no `{word}`: {commands:?}");
            }
            let program = world.program().display();
            for line in ours {
                world.run(&format!("topo() {{ {program} \"$@\"; }}\n{line}")).ok();
            }
            world.run("grep -q '<testsuite' network-tests.xml && rm -r network-tests.xml tests").ok();
            assert!(read(file).contains("kernel.apparmor_restrict_unprivileged_userns=0"), "{file} on Ubuntu");
        });
    }
}
