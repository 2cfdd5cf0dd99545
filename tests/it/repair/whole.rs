//! How a world looks, with the insides of its named namespaces, where a namespace that was made again counts as the same.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::unwind_networks::dump::unnumbered_thing;
use crate::world::{Snapshot, World};

/// How long the kernel may take to finish what a repair began.
const LATE: Duration = Duration::from_secs(10);

/// How often to look before that is believed: on a busy machine one look may take as long as the kernel may.
const LOOKS_MIN: usize = 5;

/// A world and what is in its named namespaces, but for the numbers of namespaces.
pub(crate) struct Whole {
    is_compared: fn(&str) -> bool,
    world: Snapshot,
    inside: Vec<String>,
}

/// Asks for all that a lab can have set in a namespace. The kernel's own routes and link-local addresses follow from the devices.
const INSIDE: &str = r#"
for ns in $(ip netns list | cut -d' ' -f1 | sort); do
    {
        ip -n $ns -d -o link show | sed 's/@[^:]*:/:/; s/link-net[a-z]* [^ ]*//g'
        ip -n $ns -o addr show scope global
        ip -n $ns route show table all | grep proto.*84 || :
        ip -n $ns -6 route show table all | grep proto.*84 || :
        ip -n $ns rule show
        ip -n $ns neigh show nud permanent | sort
        tc -n $ns qdisc show
        ip netns exec $ns nft -s list ruleset
        ip netns exec $ns sysctl net.ipv4.ip_default_ttl net.ipv4.conf.all.accept_redirects
    } | sed "s/^/$ns: /"
done"#;

impl Whole {
    pub(crate) fn of(w: &World) -> Whole {
        Whole::take(w, |_| true)
    }

    /// Leaves out what is noted of the labs: a container's way out is a lab that a repair may build anew.
    pub(crate) fn of_networks(w: &World) -> Whole {
        Whole::take(w, |name| !name.contains("/state/labs/"))
    }

    fn take(w: &World, is_compared: fn(&str) -> bool) -> Whole {
        let inside = w.run_as_root(INSIDE).ok().stdout;
        let thing = |name: &str, value: &Value| {
            let (name, mut value) = unnumbered_thing(name, value).filter(|(name, _)| is_compared(name))?;
            // A bridge numbers its ports in the order in which they join it (find_portno of net/bridge/br_if.c).
            if let Some(port) = value.pointer_mut("/linkinfo/info_slave_data").and_then(Value::as_object_mut) {
                port.retain(|key, _| !["designated_port", "id", "no"].contains(&key.as_str()));
            }
            Some((name, value))
        };
        Whole { is_compared, world: w.snapshot().mapped(thing), inside: inside.lines().map(str::to_owned).collect() }
    }

    /// Panics with what differs now.
    pub(crate) fn assert_is(&self, w: &World) {
        let start = Instant::now();
        for looks in 1.. {
            let difference = self.diff(&Whole::take(w, self.is_compared));
            if difference.is_empty() {
                return;
            }
            let is_late = start.elapsed() >= LATE && looks >= LOOKS_MIN;
            assert!(!is_late, "the world isn't as before (+ new, - gone, ~ changed):\n{difference}");
        }
    }

    fn diff(&self, after: &Whole) -> String {
        let mut text = self.world.diff(&after.world);
        let mut side = |sign: char, these: &[String], those: &[String]| {
            let more = these.iter().filter(|line| !those.contains(line));
            more.for_each(|line| text.push_str(&format!("  {sign} {line}\n")));
        };
        side('-', &self.inside, &after.inside);
        side('+', &after.inside, &self.inside);
        text
    }
}
