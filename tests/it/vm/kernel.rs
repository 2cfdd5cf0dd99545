//! The machine's kernel: the one that Debian builds for clouds, which has as modules what networks are made of.
//!
//! It is taken from its package, which is downloaded and unpacked into the build directory once and not installed: no root is
//! needed, and nothing of this machine changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use toposcript::for_tests::link_modules;

/// The package that stands for the newest kernel of its release, and depends on it.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Where the modules are that the machine has, with all that they need. It loads them as any machine does: when the kernel asks for one.
const FOLDERS: &[&str] = &[
    "kernel/net/802",
    "kernel/net/8021q",
    "kernel/net/bridge",
    "kernel/net/core",
    "kernel/net/ipv4",
    "kernel/net/ipv6",
    "kernel/net/mpls",
    "kernel/net/netfilter",
    "kernel/net/packet",
    "kernel/net/sched",
    "kernel/net/sctp",
    "kernel/net/xfrm",
    "kernel/drivers/net/bonding",
    "kernel/drivers/net/ipvlan",
    "kernel/drivers/net/vxlan",
    "kernel/drivers/net/wireguard",
];

/// More of them, by name; those of the kinds of links that topo makes come on top.
const MODULES: &[&str] = &["bareudp", "crc32c_intel", "geneve", "macvtap", "nlmon", "tap"];

/// A kernel with its modules, as a package unpacks: `boot/vmlinuz-*`, `lib/modules/*`.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// Takes the kernel in `TOPO_VM_KERNEL` (an unpacked package of any distribution), or Debian's; the error says why there is none.
    pub(super) fn find(target: &Path) -> Result<Kernel, String> {
        if let Some(given) = std::env::var_os("TOPO_VM_KERNEL") {
            return Kernel::in_directory(Path::new(&given));
        }
        let cached = target.join("vm/kernel");
        if !cached.exists() {
            fetch(&cached)?;
        }
        Kernel::in_directory(&cached)
    }

    fn in_directory(dir: &Path) -> Result<Kernel, String> {
        let only = |folder: &str, prefix: &str| {
            let entries =
                fs::read_dir(dir.join(folder)).map_err(|err| format!("list {folder} of {}: {err}", dir.display()))?;
            let mut named = entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path());
            named.next().ok_or_else(|| format!("{} has no {folder}/{prefix}*", dir.display()))
        };
        Ok(Kernel { image: only("boot", "vmlinuz")?, modules: only("lib/modules", "")? })
    }

    /// Returns the modules, each with those to load before it.
    pub(super) fn modules(&self) -> Result<Vec<Module>, String> {
        let listed = fs::read_to_string(self.modules.join("modules.order"))
            .map_err(|err| format!("read modules.order of {}: {err}", self.modules.display()))?;
        let files: BTreeMap<String, &str> = listed.lines().map(|line| (name_of(line), line)).collect();
        let links = link_modules();
        let wanted = |line: &&str| {
            let (folder, name) = (Path::new(line).parent().unwrap_or(Path::new("")), name_of(line));
            FOLDERS.iter().any(|wanted| folder.starts_with(wanted))
                || MODULES.iter().chain(&links).any(|module| *module == name)
        };
        let mut found = BTreeMap::new();
        for line in listed.lines().filter(wanted) {
            self.add(&name_of(line), &files, &mut found)?;
        }
        Ok(found.into_values().collect())
    }

    /// Adds a module and those that it says it needs. One that isn't a file is built in.
    fn add(
        &self,
        name: &str,
        files: &BTreeMap<String, &str>,
        found: &mut BTreeMap<String, Module>,
    ) -> Result<(), String> {
        let Some(path) = files.get(name).filter(|_| !found.contains_key(name)) else { return Ok(()) };
        let path = self.modules.join(path);
        let content = fs::read(&path).map_err(|err| format!("read {}: {err}", path.display()))?;
        let (mut needs, mut aliases) = (Vec::new(), vec![name.to_owned()]);
        // The strings of its section `.modinfo`.
        for text in content.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()) {
            match text.split_once('=') {
                Some(("depends", names)) => needs.extend(names.split(',').filter(|name| !name.is_empty()).map(name_of)),
                Some(("softdep", names)) => needs
                    .extend(names.strip_prefix("pre: ").into_iter().flat_map(|names| names.split(' ').map(name_of))),
                // The others are of hardware.
                Some(("alias", alias)) if !alias.contains(['*', ':', '/']) => aliases.push(alias.to_owned()),
                _ => {}
            }
        }
        let mut before = Vec::new();
        for needed in needs {
            self.add(&needed, files, found)?;
            if let Some(module) = found.get(&needed) {
                before.extend(module.before.iter().cloned().chain([needed]));
            }
        }
        found.insert(name.to_owned(), Module { name: name.to_owned(), content, aliases, before });
        Ok(())
    }
}

/// A module's file.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
    /// The names by which the kernel asks for it.
    pub(super) aliases: Vec<String>,
    /// What is to be loaded before it, in this order.
    pub(super) before: Vec<String>,
}

/// Returns a module's name, which has no `-`, of its file or of another's word for it.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// Downloads the package and unpacks it.
fn fetch(to: &Path) -> Result<(), String> {
    let dir = to.parent().expect("a directory below target");
    fs::create_dir_all(dir).map_err(|err| format!("make {}: {err}", dir.display()))?;
    let scratch = TempDir::new_in(dir).map_err(|err| format!("make a directory in {}: {err}", dir.display()))?;
    let path = |name: &str| scratch.path().join(name);
    // Lists of our own where the machine has none, as images of containers don't.
    let (lists, cache) = (path("lists"), path("cache"));
    fs::create_dir_all(lists.join("partial")).map_err(|err| format!("make {}: {err}", lists.display()))?;
    fs::create_dir_all(cache.join("archives/partial")).map_err(|err| format!("make {}: {err}", cache.display()))?;
    let own = [format!("-oDir::State::Lists={}", lists.display()), format!("-oDir::Cache={}", cache.display())];
    let (name, options) = match newest(&[]) {
        Ok(name) => (name, &own[..0]),
        Err(_) => {
            run(Command::new("apt-get").args(&own).args(["-qq", "update"]))?;
            (newest(&own)?, &own[..])
        }
    };
    run(Command::new("apt-get").current_dir(scratch.path()).args(options).args(["-qq", "download", &name]))?;
    let entries = fs::read_dir(scratch.path()).map_err(|err| format!("list {}: {err}", scratch.path().display()))?;
    let package = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .ok_or_else(|| format!("`apt-get download {name}` left no package"))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(path("kernel")))?;
    // All of it or nothing, also if two do this at once.
    match fs::rename(path("kernel"), to) {
        Err(err) if !to.exists() => Err(format!("put the kernel at {}: {err}", to.display())),
        _ => Ok(()),
    }
}

/// Returns the name of the package that [`PACKAGE`] stands for today.
fn newest(options: &[String]) -> Result<String, String> {
    let said = run(Command::new("apt-cache").args(options).args(["depends", PACKAGE]))?;
    let depends = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    depends.map(str::to_owned).ok_or_else(|| format!("apt knows no {PACKAGE}: it is a package of Debian's"))
}

fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let ran = command.output().map_err(|err| format!("start {shown}: {err}"))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(format!("{shown}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
    }
}
