//! Published ports: what it takes to add many, and what each costs a new connection, measured in turn in one run.
//!
//! Run with `cargo bench --bench nat` (1000 ports) or `cargo bench --bench nat -- 100`; fewer than 100 are measured once and
//! briefly, which shows no more than that it works. As root; needs util-linux, iproute2,
//! nftables and iptables. Each measurement has network, mount and pid namespaces of its own. The time of a program that does
//! all but add the ports is taken off, so what remains is the ports alone.
//!
//! ```text
//! out (192.0.2.2) --- (192.0.2.1) host (10.0.0.1) --- c1 (10.0.0.2:80)
//! ```

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How many rounds there are, and how many connections in each, for so many ports.
fn effort(ports: usize) -> (usize, u32) {
    if ports < 100 { (1, 50) } else { (5, 5000) }
}
/// The first of the published ports. The last of them leads to the server.
const FIRST: usize = 20_000;

/// The hosts of the drawing. The same for all.
const SITE: &str = "
mkdir -p /run/netns
for n in out c1; do ip netns add $n; ip -n $n link set lo up; done
ip link add wan0 type veth peer name eth0 netns out; ip link add lan0 type veth peer name eth0 netns c1
ip addr add 192.0.2.1/24 dev wan0; ip addr add 10.0.0.1/24 dev lan0; ip link set wan0 up; ip link set lan0 up
ip -n out addr add 192.0.2.2/24 dev eth0; ip -n c1 addr add 10.0.0.2/24 dev eth0
ip -n out link set eth0 up; ip -n c1 link set eth0 up; ip -n c1 route add default via 10.0.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
";

/// What each way of adding ports does before them, and then.
struct Way {
    name: &'static str,
    before: String,
    ports: String,
}

/// Returns the ways to publish `n` ports, as shell scripts; files for them are written to `dir`.
fn ways(n: usize, dir: &Path) -> Vec<Way> {
    let topo = env!("CARGO_BIN_EXE_topo");
    let run = |name: &str, statements: String| {
        let file = dir.join(name);
        std::fs::write(&file, statements).expect("a script");
        format!("{topo} run --name ports {}", file.display())
    };
    let list = format!("let list = []; for i in 0..{n} {{ list += #{{ port: {FIRST} + i, to: \"10.0.0.2:80\" }}; }}\n");
    let each = |then: &str| {
        format!("for i in 0..{n} {{ host.dnat(#{{ port: {FIRST} + i, to: \"10.0.0.2:80\" }}); {then} }}\n")
    };
    let ports: Vec<usize> = (FIRST..FIRST + n).collect();
    let table = "table inet ports {
        map tcp_ports { type inet_service : ipv4_addr . inet_service; }
        chain prerouting { type nat hook prerouting priority dstnat;
            fib daddr type local dnat ip addr . port to tcp dport map @tcp_ports; }\n}";
    let elements: Vec<String> = ports.iter().map(|port| format!("{port} : 10.0.0.2 . 80")).collect();
    let nft = |name: &str, text: String| {
        let file = dir.join(name);
        std::fs::write(&file, text).expect("a ruleset");
        format!("nft -f {}", file.display())
    };
    let one_by_one = |line: &dyn Fn(usize) -> String| {
        ports.iter().fold(String::new(), |mut all, port| {
            let _ = writeln!(all, "{}", line(*port));
            all
        })
    };
    let empty = nft("empty.nft", table.to_string());
    vec![
        Way {
            name: "topo, one call",
            before: run("list.rhai", format!("{list}host.dnat([]);")),
            ports: run("call.rhai", format!("{list}host.dnat(list);")),
        },
        Way {
            name: "topo, a call each",
            before: run("none.rhai", "host.dnat([]);".into()),
            ports: run("each.rhai", each("")),
        },
        Way {
            name: "topo, a call each, settled each",
            before: run("none.rhai", "host.dnat([]);".into()),
            ports: run("settled.rhai", each("settle();")),
        },
        Way {
            name: "nft -f",
            before: empty.clone(),
            ports: nft(
                "full.nft",
                format!("{table}\nadd element inet ports tcp_ports {{ {} }}\n", elements.join(", ")),
            ),
        },
        Way {
            name: "nft, one by one",
            before: empty.clone(),
            ports: format!(
                "{empty}\n{}",
                one_by_one(&|port| format!("nft add element inet ports tcp_ports '{{ {port} : 10.0.0.2 . 80 }}'"))
            ),
        },
        Way {
            name: "iptables, one by one",
            before: "iptables -t nat -L >/dev/null".into(),
            ports: one_by_one(&|port| {
                format!(
                    "iptables -t nat -A PREROUTING -p tcp --dport {port} -m addrtype --dst-type LOCAL -j DNAT --to 10.0.0.2:80"
                )
            }),
        },
    ]
}

/// Runs a shell script on a site of its own, and returns what it wrote.
fn on_site(body: &str) -> String {
    let body = format!(
        "set -e\nmount --make-rprivate /; mount -t tmpfs tmpfs /run; ip link set lo up\nexport TOPO_STATE=/run/topo\n{SITE}\n{body}"
    );
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare starts");
    child.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("the script is read");
    let ran = child.wait_with_output().expect("an end");
    assert!(ran.status.success(), "failed: {}", &body[body.len().saturating_sub(300)..]);
    String::from_utf8(ran.stdout).expect("text")
}

/// Returns how long a script takes beyond the time of getting there, by the clock of the shell's own machine.
fn time(script: &str) -> Duration {
    let text = on_site(&format!("date +%s%N\n{{ {script}\n}} >/dev/null\ndate +%s%N"));
    let mut times = text.split_whitespace().map(|word| word.parse::<u64>().expect("nanoseconds"));
    let (from, to) = (times.next().expect("a start"), times.next().expect("an end"));
    Duration::from_nanos(to - from)
}

/// Returns how long connections take from `out` to the port that was published last, one after the other.
fn connections(script: &str, port: usize, count: u32) -> Duration {
    let me = std::env::current_exe().expect("this program");
    let me = me.display();
    // The server says when it listens; its first line is read before the client begins.
    let text = on_site(&format!(
        "{{ {script}\n}} >/dev/null\nmkfifo /run/ready\nnsenter --net=/run/netns/c1 {me} serve >/run/ready & read -r line </run/ready\n\
         nsenter --net=/run/netns/out {me} connect 192.0.2.1:{port} {count}"
    ));
    Duration::from_nanos(text.trim().parse().expect("nanoseconds"))
}

/// Accepts connections and closes them, until it is ended.
fn serve() {
    let listener = TcpListener::bind("10.0.0.2:80").expect("a port");
    println!("listens");
    for stream in listener.incoming() {
        let mut byte = [0];
        // The client resets it: an error is its end.
        let _ = stream.map(|mut stream| stream.read(&mut byte));
    }
}

/// Connects again and again, and prints the nanoseconds that it took.
fn connect(to: SocketAddr, count: u32) {
    let began = Instant::now();
    for _ in 0..count {
        let stream = TcpStream::connect(to).expect("a connection");
        // By a reset: no port waits for its time.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    }
    println!("{}", began.elapsed().as_nanos());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("serve") => return serve(),
        Some("connect") => {
            return connect(words[1].parse().expect("an address"), words[2].parse().expect("a number"));
        }
        _ => {}
    }
    let n = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let (rounds, count) = effort(n);
    let dir = tempfile::tempdir().expect("a directory");
    let ways = ways(n, dir.path());
    let mut times: Vec<(Vec<Duration>, Vec<Duration>)> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for (way, (before, ports)) in ways.iter().zip(&mut times) {
            before.push(time(&way.before));
            ports.push(time(&way.ports));
        }
    }
    let times: Vec<Duration> =
        times.into_iter().map(|(before, ports)| median(ports).saturating_sub(median(before))).collect();
    let nft = times[3].as_secs_f64();
    for (way, time) in ways.iter().zip(&times) {
        println!("{n} ports, {}: {time:.1?}, ratio to `nft -f` {:.1}", way.name, time.as_secs_f64() / nft);
    }

    // The same for a new connection, with one port and with all; of the ways whose rules differ.
    let single_dir = tempfile::tempdir().expect("a directory");
    let single = self::ways(1, single_dir.path());
    for at in [0, 3, 5] {
        let (mut with_one, mut with_all) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            with_one.push(connections(&single[at].ports, FIRST, count));
            with_all.push(connections(&ways[at].ports, FIRST + n - 1, count));
        }
        let (with_one, with_all) = (median(with_one), median(with_all));
        let rate = f64::from(count) / with_one.as_secs_f64();
        let ratio = with_all.as_secs_f64() / with_one.as_secs_f64();
        println!("{}: {rate:.0} connections a second with 1 port, ratio of times with {n} {ratio:.2}", ways[at].name);
    }
}
