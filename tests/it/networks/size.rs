//! What many networks cost, and one of many endpoints: what is read for a command, which no busy machine changes.

use super::{in_network_world, network};
use crate::world::World;

/// Runs a command of topo's; returns what it printed and how many bytes it and its children read (proc_pid_io(5)).
fn read_by(w: &World, words: &str) -> (String, u64) {
    let ran = w.run(&format!("'{}' {words} && grep rchar /proc/$$/io", w.program().display())).ok();
    let (printed, read) = ran.out().rsplit_once("rchar: ").expect("a line of the kernel's");
    (printed.to_string(), read.trim().parse().expect("a number of bytes"))
}

/// Endpoints by their records alone.
const SIMULATED: &str = include_str!("simulated.rhai");

/// What a container more costs doesn't grow with the others in its network: nothing of them is read. A disconnect read all leases.
#[test]
fn a_container_more_costs_as_much_in_a_large_network() {
    in_network_world("ip netns add c0; ip netns add c1", |w, _| {
        network(w, "create web --subnet 10.5.0.0/16").ok();
        network(w, "connect web c0").ok();
        let words = ["connect web c1 --publish 8080:80", "inspect web c1", "disconnect web c1"];
        let costs = || words.map(|words| read_by(w, &format!("network {words}")).1);
        // What is read once, such as the first words of a directory that is new.
        costs();
        let small = costs();
        let simulated = SIMULATED.replace("LEASED", "12000").replace("RECORDED", "300");
        w.topo(&["run", "--name", "simulated", "-e", &simulated]).ok();
        let large = costs();
        for (words, (small, large)) in words.iter().zip(small.into_iter().zip(large)) {
            assert!(large * 10 <= small * 13, "{words}: {small} bytes, then {large}");
        }
        w.topo(&["down", "simulated"]).ok();
        network(w, "rm --force web").ok();
    });
}

/// The state of a network was read from its whole journal each time: what a list costs grew with all that networks had ever done.
#[test]
fn a_list_reads_journals_once() {
    in_network_world("ip netns add c1", |w, before| {
        const NETWORKS: u64 = 6;
        let create: String = (0..NETWORKS)
            .map(|n| format!(r#"network::create("n{n}", #{{ subnet: "10.7.{n}.0/24", standalone: true }});"#))
            .collect();
        w.topo(&["run", "--rm", "-e", &format!("import \"network\" as network; {create}")]).ok();
        let journal = w.run(&format!("stat -c %s {}/labs/net.n1/journal", w.state().display())).ok();
        let journal: u64 = journal.out().trim().parse().expect("a number of bytes");
        for list in ["network ls", "ls --json"] {
            w.run(&format!("rm -f {}/labs/*/names", w.state().display())).ok();
            let (first, all) = read_by(w, list);
            let (second, less) = read_by(w, list);
            assert_eq!(first, second);
            assert!(
                less + NETWORKS * journal * 9 / 10 < all,
                "{list}: {all} bytes first, then {less}; a journal has {journal}"
            );
        }
        // What is kept is not what is told where a network has changed since, or others have changed it.
        network(w, "connect n1 c1").ok();
        w.run("ip link set br-n2 down; ip link del br-n3").ok();
        let (listed, _) = read_by(w, "network ls");
        let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).expect("a network").to_string();
        let told =
            |name: &str, words: &[&str]| words.iter().all(|word| line(name).split_whitespace().any(|is| is == *word));
        assert!(told("n0", &["up", "0"]) && told("n1", &["up", "1"]), "{listed}");
        assert!(told("n2", &["damaged"]) && told("n3", &["damaged"]), "{listed}");
        let (labs, _) = read_by(w, "ls");
        assert_eq!(labs.matches(" damaged ").count(), 2, "{labs}");
        for n in 0..NETWORKS {
            network(w, &format!("rm --force n{n}")).ok();
        }
        w.assert_clean(before);
    });
}
