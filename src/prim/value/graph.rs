//! Graphs: the shortest paths between numbered nodes, as the blocks of numbers that routes are made of.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::collections::VecDeque;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

use super::options::{options, shown_value};
use super::units::Metric;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, raise};
use crate::state::{Error, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "graph",
    about: "Shortest paths through a topology.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[HopsOptions::SET],
};

options! {
    /// Which of several shortest paths.
    pub struct HopsOptions of "next_hops" {
        /// Whether all links that begin a shortest path are told; only the first one of the list unless given.
        all: bool,
        /// The number that the first node has in the blocks; 0 unless given.
        base: Metric,
    }
}

/// Labs have fewer nodes and links by far; what is larger is a mistake, and would take the machine's memory.
const NODES_MAX: usize = 100_000;
const LINKS_MAX: usize = 1_000_000;

/// A graph whose shortest paths can be asked for. A handle, since a script's limits on sizes walk through all that it holds.
#[derive(Debug, Clone)]
pub struct Paths(Rc<Graph>);

#[derive(Debug)]
struct Graph {
    /// The links of each node, in the order of the list: the link's number, and the node at its other end.
    links: Vec<Vec<(usize, usize)>>,
    longest: usize,
    apart: Option<(usize, usize)>,
}

/// A block of destinations that are reached alike: 2^`bits` nodes, of which `first` is the first and a multiple of that.
#[derive(Debug, PartialEq, Eq)]
struct DestinationBlock {
    first: usize,
    bits: u32,
    links: Vec<usize>,
}

const FAR: usize = usize::MAX;

impl Graph {
    fn new(nodes: usize, ends: &[(usize, usize)]) -> Graph {
        let mut links = vec![Vec::new(); nodes];
        for (number, (a, b)) in ends.iter().copied().enumerate() {
            links[a].push((number, b));
            links[b].push((number, a));
        }
        let mut graph = Graph { links, longest: 0, apart: None };
        for from in 0..nodes {
            let distances = graph.distances(from);
            if let Some(to) = distances.iter().position(|distance| *distance == FAR) {
                graph.apart = Some((from, to));
                break;
            }
            graph.longest = graph.longest.max(distances.into_iter().max().unwrap_or(0));
        }
        graph
    }

    /// Returns how many links each node is from one.
    fn distances(&self, from: usize) -> Vec<usize> {
        let mut distances = vec![FAR; self.links.len()];
        let mut queue = VecDeque::from([from]);
        distances[from] = 0;
        while let Some(node) = queue.pop_front() {
            for (_, next) in &self.links[node] {
                if distances[*next] == FAR {
                    distances[*next] = distances[node] + 1;
                    queue.push_back(*next);
                }
            }
        }
        distances
    }

    /// Returns by which links a shortest path from a node to each other one begins, in the order of the list.
    ///
    /// Each hop comes nearer by one, so paths that are put together from several nodes' answers have no loops.
    fn first_links(&self, from: usize, all: bool) -> Vec<Vec<usize>> {
        let mut distances = vec![FAR; self.links.len()];
        let mut first: Vec<Vec<usize>> = vec![Vec::new(); self.links.len()];
        let mut queue = VecDeque::from([from]);
        distances[from] = 0;
        while let Some(node) = queue.pop_front() {
            if node != from {
                // All nodes that are nearer had their say by now.
                first[node].sort_unstable();
                first[node].dedup();
                first[node].truncate(if all { usize::MAX } else { 1 });
            }
            for (link, next) in &self.links[node] {
                if distances[*next] == FAR {
                    distances[*next] = distances[node] + 1;
                    queue.push_back(*next);
                }
                if distances[*next] == distances[node] + 1 {
                    let by = if node == from { vec![*link] } else { first[node].clone() };
                    first[*next].extend(by);
                }
            }
        }
        first
    }

    fn blocks(&self, from: usize, all: bool, base: usize) -> Vec<DestinationBlock> {
        let first = self.first_links(from, all);
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < first.len() {
            let links = &first[at];
            if at == from || links.is_empty() {
                at += 1;
                continue;
            }
            let same = first[at..].iter().take_while(|other| *other == links).count();
            let end = at + same;
            while at < end {
                // The largest block that begins here is as even as its number, and ends before the run does.
                let bits = (at + base).trailing_zeros().min((end - at).ilog2());
                blocks.push(DestinationBlock { first: at + base, bits, links: links.clone() });
                at += 1 << bits;
            }
        }
        blocks
    }
}

fn index(doing: &str, value: &Dynamic, nodes: usize) -> Result<usize> {
    let number = value.as_int().ok().and_then(|number| usize::try_from(number).ok()).filter(|number| *number < nodes);
    number.ok_or_else(|| {
        let because = format!("expected the number of a node, from 0 to {}, got {}", nodes - 1, shown_value(value));
        Error::invalid(doing).because(because)
    })
}

fn graph(nodes: i64, links: Array) -> Result<Graph> {
    let doing = "look for shortest paths";
    let Some(nodes) = usize::try_from(nodes).ok().filter(|nodes| (1..=NODES_MAX).contains(nodes)) else {
        return Err(Error::invalid(doing).because(format!("the number of nodes must be from 1 to {NODES_MAX}")));
    };
    if links.len() > LINKS_MAX {
        return Err(Error::invalid(doing).because(format!("there are more than {LINKS_MAX} links")));
    }
    let mut ends = Vec::with_capacity(links.len());
    for link in links {
        let shown = shown_value(&link);
        let Some([a, b]) = link.try_cast::<Array>().and_then(|pair| <[Dynamic; 2]>::try_from(pair).ok()) else {
            return Err(Error::invalid(doing).because(format!("expected a link, a list of two numbers, got {shown}")));
        };
        ends.push((index(doing, &a, nodes)?, index(doing, &b, nodes)?));
    }
    Ok(Graph::new(nodes, &ends))
}

fn block_map(block: DestinationBlock) -> Dynamic {
    let links: Array = block.links.into_iter().map(|link| Dynamic::from(link as i64)).collect();
    let mut map = Map::new();
    map.insert("first".into(), Dynamic::from(block.first as i64));
    map.insert("bits".into(), Dynamic::from(i64::from(block.bits)));
    map.insert("links".into(), Dynamic::from(links));
    Dynamic::from(map)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    pub type Paths = super::Paths;

    /// Looks at a graph of nodes that are numbered from 0, and of links, each a list of two numbers: its shortest paths can
    /// then be asked for. Every link counts one.
    ///
    /// Like what a routing daemon knows of its area (RFC 2328, section 16.1), with every cost 1; `ip` has no equivalent.
    ///
    /// Fails with `invalid` where a link names a node that there is not.
    ///
    /// ```rhai
    /// let ring = shortest_paths(5, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]);
    /// assert(ring.longest == 2 && ring.apart.is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn shortest_paths(ctx: NativeCallContext, nodes: i64, links: Array) -> RhaiResultOf<Paths> {
        raise(&ctx, graph(nodes, links).map(|graph| Paths(Rc::new(graph))))
    }

    /// Returns by which link the shortest path from a node to each other one begins, as maps with `first`, `bits` and `links`:
    /// the 2^`bits` nodes from number `first` on are reached by these `links`, which are numbers in the list of links. A block
    /// begins at a multiple of its size, so that it is one route where the nodes' subnets follow one another.
    ///
    /// Of several shortest paths it is the one by the link that stands first in the list.
    ///
    /// Like `ip route`, of a router that has learnt them.
    ///
    /// Fails with `invalid` where there is no such node. What can't be reached is in no block.
    ///
    /// ```rhai
    /// let line = shortest_paths(4, [[0, 1], [1, 2], [2, 3]]);
    /// assert(line.next_hops(1) == [
    ///     #{ first: 0, bits: 0, links: [0] },
    ///     #{ first: 2, bits: 1, links: [1] },
    /// ]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn next_hops(ctx: NativeCallContext, paths: Paths, node: i64) -> RhaiResultOf<Array> {
        next_hops_with(ctx, paths, node, Map::new())
    }

    /// Returns by which links shortest paths from a node begin.
    #[rhai_fn(name = "next_hops", return_raw)]
    pub fn next_hops_with(ctx: NativeCallContext, paths: Paths, node: i64, options: Map) -> RhaiResultOf<Array> {
        let found = HopsOptions::parse(options).and_then(|options| {
            let node = index("look for next hops", &Dynamic::from(node), paths.0.links.len())?;
            Ok(paths.0.blocks(node, options.all.unwrap_or(false), options.base.map_or(0, |base| base.0 as usize)))
        });
        raise(&ctx, found).map(|blocks| blocks.into_iter().map(block_map).collect())
    }

    /// Returns how many links the longest of the shortest paths has.
    #[rhai_fn(get = "longest", pure)]
    pub fn longest(paths: &mut Paths) -> i64 {
        paths.0.longest as i64
    }

    /// Returns two nodes between which there is no path, as a list; an empty one where all are joined.
    #[rhai_fn(get = "apart", pure)]
    pub fn apart(paths: &mut Paths) -> Array {
        paths.0.apart.map_or_else(Array::new, |(a, b)| vec![Dynamic::from(a as i64), Dynamic::from(b as i64)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(nodes: usize) -> Graph {
        let ends: Vec<_> = (0..nodes).map(|node| (node, (node + 1) % nodes)).collect();
        Graph::new(nodes, &ends)
    }

    /// Follows the blocks of each node, as packets do.
    fn hops(graph: &Graph, ends: &[(usize, usize)], from: usize, to: usize, all: bool) -> usize {
        let (mut at, mut hops) = (from, 0);
        while at != to {
            let blocks = graph.blocks(at, all, 1);
            let mut found =
                blocks.iter().filter(|block| (block.first..block.first + (1 << block.bits)).contains(&(to + 1)));
            let link = *found.next().expect("a block for it").links.last().expect("a link");
            assert!(found.next().is_none(), "two blocks hold {to}");
            at = if ends[link].0 == at { ends[link].1 } else { ends[link].0 };
            hops += 1;
            assert!(hops <= graph.links.len(), "a loop");
        }
        hops
    }

    /// Over many graphs, what the blocks say leads to every node by as few hops as there can be, whichever link is taken.
    #[test]
    fn blocks_lead_everywhere_by_shortest_paths() {
        let mut seed = 7_u64;
        let mut chance = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for nodes in 2..30 {
            let mut ends: Vec<(usize, usize)> = (1..nodes).map(|node| (node, chance(node))).collect();
            ends.extend((0..chance(2 * nodes)).map(|_| (chance(nodes), chance(nodes))));
            let graph = Graph::new(nodes, &ends);
            assert_eq!(graph.apart, None);
            let mut longest = 0;
            for from in 0..nodes {
                let distances = graph.distances(from);
                for (to, distance) in distances.into_iter().enumerate() {
                    assert_eq!(hops(&graph, &ends, from, to, false), distance);
                    assert_eq!(hops(&graph, &ends, from, to, true), distance);
                    longest = longest.max(distance);
                }
            }
            assert_eq!(graph.longest, longest);
        }
    }

    #[test]
    fn a_long_run_of_nodes_is_few_blocks() {
        let blocks = ring(1000).blocks(0, false, 0);
        assert!(blocks.len() < 40, "{} blocks", blocks.len());
        assert_eq!(blocks.iter().map(|block| 1 << block.bits).sum::<usize>(), 999);
        assert!(blocks.iter().all(|block| block.first % (1 << block.bits) == 0));
    }

    #[test]
    fn equal_paths_are_told_where_asked_for() {
        let square = ring(4);
        let to_2 = |all| square.blocks(0, all, 0).into_iter().find(|block| block.first == 2).expect("a block").links;
        assert_eq!(to_2(false), [0]);
        assert_eq!(to_2(true), [0, 3]);
    }

    #[test]
    fn what_has_no_path_is_in_no_block() {
        let graph = Graph::new(3, &[(0, 1)]);
        assert_eq!(graph.apart, Some((0, 2)));
        assert_eq!(graph.blocks(0, false, 0), [DestinationBlock { first: 1, bits: 0, links: vec![0] }]);
    }
}
