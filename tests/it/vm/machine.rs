//! The machine: booted once, it runs all cases, says what each one said, and switches itself off.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::initrd::{Initrd, find};
use super::kernel::Kernel;

/// How long the machine may say nothing. Far beyond what any case needs, so that only a hang ever meets it.
const SILENCE: Duration = Duration::from_secs(180);

const QEMU: &str = "qemu-system-x86_64";
const MEMORY_MIB: &str = "1024";

/// The tools of this host that the machine has too, beside busybox. Without the first ones there is no machine.
const TOOLS: &[&str] = &["ip", "bridge", "tc", "nft", "ping"];
const MORE_TOOLS: &[&str] = &["bash", "conntrack", "iperf3", "socat", "tcpdump", "curl", "ethtool", "sysctl"];

/// What is run in the machine: files in a directory of their own, of which `run` is the script.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) files: Vec<(String, Vec<u8>)>,
}

/// How a case ended.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) code: i32,
    pub(super) said: String,
}

/// What a machine did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) cases: BTreeMap<String, Heard>,
    /// What the kernel said, and what was said outside of cases.
    pub(super) console: String,
}

/// Boots a machine that runs the cases; the error says what this host lacks.
pub(super) fn run(topo: &Path, cases: &BTreeMap<String, Case>) -> Result<Ran, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!("this machine is of {}, and the kernel is one for x86_64", std::env::consts::ARCH));
    }
    let qemu = find(QEMU).ok_or_else(|| format!("no {QEMU}: on Debian, `apt-get install qemu-system-x86`"))?;
    let dir = topo.parent().and_then(Path::parent).expect("topo is in a profile's directory of the build directory");
    let kernel = Kernel::find(dir)?;
    let scratch =
        tempfile::Builder::new().prefix("topo-vm-").tempdir().map_err(|err| format!("make a directory: {err}"))?;
    let initrd = scratch.path().join("initrd");
    fs::write(&initrd, pack(&kernel, topo, scratch.path(), cases)?)
        .map_err(|err| format!("write the initrd: {err}"))?;
    let console = scratch.path().join("console");
    let mut machine = Machine::boot(&qemu, &kernel.image, &initrd, &console)?;
    let heard = machine.listen();
    drop(machine);
    let console = fs::read(&console).unwrap_or_default();
    Ok(Ran { cases: heard, console: String::from_utf8_lossy(&console).into_owned() })
}

/// Packs the machine's file system.
fn pack(kernel: &Kernel, topo: &Path, scratch: &Path, cases: &BTreeMap<String, Case>) -> Result<Vec<u8>, String> {
    let mut initrd = Initrd::new();
    initrd.file(Path::new("/init"), include_bytes!("init.sh"));
    let busybox = find("busybox").ok_or("no busybox: on Debian, `apt-get install busybox-static`")?;
    initrd.program(Path::new("/bin/busybox"), &busybox)?;
    // Not busybox's, which takes its own `ip` before any other.
    initrd.program(Path::new("/bin/sh"), Path::new("/bin/sh"))?;
    for (tool, must) in TOOLS.iter().map(|tool| (tool, true)).chain(MORE_TOOLS.iter().map(|tool| (tool, false))) {
        match find(tool) {
            Some(from) => initrd.program(&Path::new("/usr/bin").join(tool), &from)?,
            None if must => return Err(format!("no `{tool}`")),
            None => {}
        }
    }
    // Most of a debug build is for debuggers.
    let stripped = scratch.join("topo");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(topo).status();
    let stripped = if strip.is_ok_and(|status| status.success()) { stripped } else { topo.to_path_buf() };
    initrd.program(Path::new("/usr/bin/topo"), &stripped)?;
    initrd.file(Path::new("/sbin/modprobe"), include_bytes!("modprobe.sh"));
    let modules = Path::new("/modules");
    for module in kernel.modules()? {
        initrd.file(&modules.join(format!("{}.ko", module.name)), &module.content);
        let order: Vec<String> =
            module.before.iter().chain([&module.name]).map(|name| format!("/modules/{name}.ko")).collect();
        for alias in &module.aliases {
            initrd.file(&modules.join("alias").join(alias), format!("{}\n", order.join(" ")).as_bytes());
        }
    }
    for (name, case) in cases {
        for (file, content) in &case.files {
            initrd.file(&Path::new("/cases").join(name).join(file), content);
        }
    }
    Ok(initrd.finish())
}

/// A machine that runs. Dropped, it is switched off.
struct Machine {
    qemu: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn boot(qemu: &Path, image: &Path, initrd: &Path, console: &Path) -> Result<Machine, String> {
        let mut command = Command::new(qemu);
        // No network, no disk: all that the machine has is its memory and two serial lines.
        command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", MEMORY_MIB]);
        command.args(["-display", "none", "-nodefaults", "-no-reboot", "-monitor", "none"]);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(image).arg("-initrd").arg(initrd);
        // A busy machine is too slow for the kernel's check of its timer, which panics then.
        command.args([
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on norandmaps no_timer_check",
        ]);
        let errors = File::create(console.with_extension("qemu")).map_err(|err| format!("make a file: {err}"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = command.spawn().map_err(|err| format!("start {QEMU}: {err}"))?;
        let said = qemu.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut said = BufReader::new(said);
            let mut line = Vec::new();
            while said.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(Machine { qemu, lines })
    }

    /// Listens until the machine is off, or has been silent for too long.
    fn listen(&mut self) -> BTreeMap<String, Heard> {
        let begun = Instant::now();
        let (mut cases, mut now, mut said) = (BTreeMap::new(), None, String::new());
        loop {
            let line = match self.lines.recv_timeout(SILENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    said.push_str(&format!("(the machine said nothing for {SILENCE:?} and was switched off)\n"));
                    break;
                }
            };
            let words: Vec<&str> = line.split(' ').collect();
            match (words.as_slice(), &now) {
                (["##", "begin", name], None) => {
                    now = Some((*name).to_owned());
                    said.clear();
                }
                (["##", "end", name, code], Some(case)) if name == case => {
                    let code = code.parse().unwrap_or(-1);
                    cases.insert((*name).to_owned(), Heard { code, said: std::mem::take(&mut said) });
                    now = None;
                }
                (["##", what @ ("ready" | "done"), at], None) => {
                    // Shown only if a test fails, or with --nocapture.
                    println!("machine: {what} {at} s after its start, {:.1} s here", begun.elapsed().as_secs_f32());
                }
                _ => said.push_str(&format!("{line}\n")),
            }
        }
        // The one in which it stopped.
        if let Some(name) = now {
            cases.insert(name, Heard { code: -1, said: format!("{said}(here the machine stopped)\n") });
        }
        cases
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}
