//! Settings of the host, which several labs may hold at once.
//!
//! ```text
//! <root>/settings-HOST   the settings of a host that labs hold, each with its value from before the first of them
//! ```
//!
//! A host is a network namespace: one state directory may serve several. A lab enters with the value that it wants, which then stands;
//! when a lab leaves, the value of the last one that is left stands, and after all of them the value from before the first. A value
//! that others have set meanwhile stays. All of that is done under one lock.
//!
//! The file says first what is about to be written to the kernel, so that the next one who comes ends what was cut short. It is removed
//! with its last holder. Where the state directory can't be written to, it is `/run/toposcript-STATE-HOST` until that can be done again.

mod away;
mod held;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::guard::{self, Apart};
use super::inbound;
use super::kernel::Kernel;
use crate::net::{self, Netns, ProcessId};
use crate::state::{Error, NetnsRef, Result, StateDir, Status, boot_id, files, name};
use held::{Along, Held, Holder, Pending, Setting, canonical, is_along, is_temp, leads, read_file, same, write_file};

/// A setting of the host that a lab wants to have a value.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'a> {
    /// The setting, as sysctl(8) or a path names it.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// What tells this hold from the lab's others.
    pub no: u32,
    /// For forwarding: whether the host's own devices are to be kept apart.
    pub apart: bool,
}

/// Forwarding of IPv4 and of IPv6 for all devices.
pub(super) const FORWARDING: [&str; 2] = ["net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding"];

/// Reads a setting; nothing where it went with its device, or is a secret that nobody has set (EIO).
fn read(netns: &Netns, key: &str) -> net::Result<Option<String>> {
    match net::netns::sysctl::read(netns, key) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() || error.is_denied() || error.errno() == libc::EIO => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a setting, or how the rules are that labs hold as if they were one.
fn now(netns: &Netns, state: &StateDir, key: &str) -> net::Result<Option<String>> {
    if key == inbound::KEY { inbound::read(netns, state).map(|now| Some(now.into())) } else { read(netns, key) }
}

/// The settings that are set along with another one, as they are.
struct Followers {
    /// Whether each is as it is to be.
    stand: bool,
}

impl Held {
    fn followers(&self, key: &str, netns: &Netns) -> net::Result<Followers> {
        let along = self.settings.get(key).map(|setting| setting.along.as_slice()).unwrap_or_default();
        for along in along.iter().filter(|along| along.put.is_none()) {
            let wanted = self.wanted(&along.key);
            let is_so = |now: String| wanted.is_none_or(|wanted| same(&now, &wanted));
            if !read(netns, &along.key)?.is_none_or(is_so) {
                return Ok(Followers { stand: false });
            }
        }
        Ok(Followers { stand: true })
    }
}

/// The settings of one host, with the lock on them.
struct Book<'a> {
    state: &'a StateDir,
    netns: Netns,
    path: PathBuf,
    /// Where it is written while `path` can't be: on a full disk, or one that is read-only.
    spare: Option<PathBuf>,
    _lock: File,
}

impl StateDir {
    /// How the names of the files begin that say which settings labs hold; those of a sandbox have its holder in them.
    fn settings_prefix(&self, holder: Option<ProcessId>) -> String {
        holder.map_or_else(|| "settings-".to_string(), |holder| format!("settings-{}-{}-", holder.pid, holder.start))
    }

    /// Lists the files with such a prefix.
    fn settings_files(&self, prefix: &str) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.root())? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Removes what a sandbox that has ended left here: its store, and the settings that its labs held.
    pub(super) fn drop_sandbox(&self, holder: ProcessId) -> Result<()> {
        self.drop_settings_of(holder)?;
        self.drop_store_of(holder)
    }

    /// Removes what is noted of the settings in a sandbox, which has ended.
    fn drop_settings_of(&self, holder: ProcessId) -> Result<()> {
        let failed = |source: std::io::Error| Error::file("forget the settings of a sandbox", &source);
        for path in self.settings_files(&self.settings_prefix(Some(holder))).map_err(failed)? {
            files::remove(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes over what is noted of the settings in a sandbox from another state directory, with the labs' new names.
    pub(crate) fn adopt_settings(
        &self,
        from: &StateDir,
        holder: ProcessId,
        names: &BTreeMap<String, String>,
    ) -> Result<()> {
        let failed = |source: std::io::Error| Error::file("take over the settings of a sandbox", &source);
        for path in from.settings_files(&self.settings_prefix(Some(holder))).map_err(failed)? {
            let Some(file) = path.file_name().filter(|_| !is_temp(&path)) else { continue };
            let mut held = read_file(&path).map_err(|source| Error::kernel("take over settings", &source))?;
            for holder in held.settings.values_mut().flat_map(|setting| &mut setting.holders) {
                holder.lab = names.get(&holder.lab).unwrap_or(&holder.lab).clone();
            }
            write_file(&self.root().join(file), &held).map_err(failed)?;
            std::fs::remove_file(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives back what labs held that are no more, and removes what is noted of hosts that are no more.
    pub(crate) fn sweep_settings(&self) -> Result<()> {
        let failed = |source: net::Error| Error::kernel("look at the settings that labs hold", &source);
        let host = Netns::current().map_err(failed)?;
        let book = Book::open(self, &host).map_err(failed)?;
        let held = book.load().map_err(failed)?;
        let dead = |holder: &&Holder| !self.has_holder(holder);
        let all: Vec<(String, Holder)> = held
            .settings
            .iter()
            .flat_map(|(key, setting)| setting.holders.iter().filter(dead).map(|holder| (key.clone(), holder.clone())))
            .collect();
        for (key, holder) in all {
            book.leave(&key, &holder).map_err(failed)?;
        }
        // Where the file was lost, nobody else would remove the rules.
        let held = book.load().map_err(failed)?;
        if held.apart().iter().all(Apart::is_empty) {
            guard::remove(&host, self).map_err(failed)?;
        }
        if !held.settings.contains_key(inbound::KEY) && inbound::read(&host, self).map_err(failed)? != inbound::GONE {
            inbound::write(&host, self, inbound::GONE).map_err(failed)?;
        }
        // Those of a sandbox go with it. What is being written is written under the lock.
        let tidy = |source: std::io::Error| Error::file(format!("tidy `{}`", self.root().display()), &source);
        for path in self.settings_files("settings-").map_err(tidy)? {
            if is_temp(&path) {
                files::remove(&path).map_err(tidy)?;
                continue;
            }
            if path == book.path || path.file_name().is_some_and(|name| name.to_string_lossy().matches('-').count() > 1)
            {
                continue;
            }
            let held = read_file(&path).map_err(failed)?;
            let mut holders = held.settings.values().flat_map(|setting| &setting.holders);
            if !holders.any(|holder| self.has_holder(holder)) {
                files::remove(&path).map_err(tidy)?;
            }
        }
        Ok(())
    }

    /// Tells whether the lab of a holder is up or at work: not where it was killed, has gone, or is of another boot.
    fn has_holder(&self, holder: &Holder) -> bool {
        let dir = self.lab_dir(&holder.lab);
        match dir.record() {
            Ok(record) => {
                let is_it = record.creator == holder.creator && record.created == holder.created;
                let at_work = record.status == Status::Up || dir.is_locked(self);
                is_it && at_work && boot_id().is_ok_and(|now| now == record.boot_id)
            }
            // One that can't be read is still there.
            Err(_) => dir.journal().exists(),
        }
    }
}

impl Book<'_> {
    fn open<'a>(state: &'a StateDir, netns: &Netns) -> net::Result<Book<'a>> {
        let labs = state.root().join("labs");
        let doing = || format!("lock the settings of the host, by `{}`", labs.display());
        let lock = File::open(&labs).map_err(|error| net::Error::io(doing(), error))?;
        lock.lock().map_err(|error| net::Error::io(doing(), error))?;
        let host = host_word(netns)?;
        let path = state.root().join(settings_file(state, &host));
        // What a sandbox holds goes with it.
        let spare = match state.inside() {
            Some(_) => None,
            None => Some(spare_of(state, &host).map_err(|error| net::Error::io(doing(), error))?),
        };
        Ok(Book { state, netns: netns.clone(), path, spare, _lock: lock })
    }

    /// Reads what is held, after ending what was cut short.
    fn load(&self) -> net::Result<Held> {
        let now = boot_id()
            .map_err(|error| net::Error::because("tell this boot from others", libc::EIO, &error.to_string()))?;
        let mut held = self.read()?;
        if held.boot_id != now {
            held = Held { boot_id: now, ..Held::default() };
        }
        if self.spare.as_ref().is_some_and(|spare| spare.exists()) {
            // To its own place again, if that can be.
            self.save(&held)?;
        }
        if held.pending.is_some() {
            self.carry_out(&mut held)?;
        }
        Ok(held)
    }

    /// Reads what is noted.
    fn read(&self) -> net::Result<Held> {
        read_file(self.spare.as_ref().filter(|spare| spare.exists()).unwrap_or(&self.path))
    }

    fn save(&self, held: &Held) -> net::Result<()> {
        let doing = || format!("write `{}`", self.path.display());
        let saved = match held.settings.is_empty() && held.pending.is_none() {
            true => files::point().and_then(|()| match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            }),
            false => write_file(&self.path, held),
        };
        let saved = match (saved, &self.spare) {
            (Ok(()), Some(spare)) => files::remove(spare).map(|_| ()),
            (Err(error), Some(spare)) if error.raw_os_error().is_some_and(has_no_room) => {
                write_file(spare, held).map_err(|_| error)
            }
            (saved, _) => saved,
        };
        saved.map_err(|error| net::Error::io(doing(), error))
    }

    /// Makes what was `held` into `new`, with these writes to the kernel.
    fn turn_into(&self, held: &Held, mut new: Held, writes: Vec<(String, String)>, leaving: bool) -> net::Result<()> {
        let apart = new.apart();
        let is_lost = || Ok(!apart.iter().all(Apart::is_empty) && !guard::is_there(&self.netns, self.state)?);
        // Who only enters for the rules of published ports does not look after the others.
        let is_inbound = !writes.is_empty() && writes.iter().all(|(key, _)| key == inbound::KEY);
        let guard = held.apart() != apart || !is_inbound && is_lost()?;
        if writes.is_empty() && !guard {
            return if *held == new { Ok(()) } else { tolerant(self.save(&new), leaving) };
        }
        new.pending = Some(Pending { writes, guard });
        tolerant(self.save(&new), leaving)?;
        match self.carry_out(&mut new) {
            Err(error) if !leaving => {
                // What the kernel does not take is not tried again; the holder is there, and leaves.
                new.pending = None;
                self.save(&new)?;
                Err(error)
            }
            done => tolerant(done, leaving),
        }
    }

    /// Does what is pending: devices are kept apart before the host forwards, and until it no longer does.
    fn carry_out(&self, held: &mut Held) -> net::Result<()> {
        let Pending { writes, guard } = held.pending.clone().unwrap_or_default();
        let apart = held.apart();
        let keeps = apart.iter().any(|apart| !apart.is_empty());
        if guard && keeps {
            guard::put(&self.netns, self.state, &apart)?;
        }
        for (key, value) in &writes {
            match self.now(key)? {
                Some(now) if same(&now, value) => {}
                Some(_) if key == inbound::KEY => inbound::write(&self.netns, self.state, value)?,
                Some(_) => net::netns::sysctl::write(&self.netns, key, value)?,
                None => {}
            }
        }
        if guard && !keeps {
            guard::remove(&self.netns, self.state)?;
        }
        held.pending = None;
        self.save(held)
    }

    fn now(&self, key: &str) -> net::Result<Option<String>> {
        now(&self.netns, self.state, key)
    }

    /// Enters a holder, and gives the setting its value.
    fn enter(&self, key: &str, mut holder: Holder, own: &[String]) -> net::Result<()> {
        let held = self.load()?;
        let mut new = held.clone();
        let now = match key {
            // What is there without a holder is left of one that is no more.
            inbound::KEY => inbound::GONE.to_string(),
            _ => net::netns::sysctl::read(&self.netns, key)?,
        };
        let before = held.before(key).unwrap_or(now);
        holder.order = held.last_order() + 1;
        let setting = new.settings.entry(key.to_string()).or_insert_with(|| Setting { before, ..Setting::default() });
        if let Some(at) = setting.position(&holder) {
            // A repair.
            holder.order = setting.holders.remove(at).order;
        }
        let mut writes = Vec::new();
        if setting.along.is_empty() {
            setting.along = self.along(&held, key, &holder.value)?;
            setting.own = own.to_vec();
            let puts = setting.along.iter().filter_map(|along| Some((along.key.clone(), along.put.clone()?)));
            writes.extend(puts.filter(|(key, _)| key.ends_with("/accept_ra")));
        }
        setting.holders.push(holder);
        // Also of devices that somebody had set otherwise; the kernel does it for all where the value is a new one.
        let followers = setting.along.iter().filter(|along| along.put.is_none()).map(|along| along.key.clone());
        let keys: Vec<String> = std::iter::once(key.to_string()).chain(followers).collect();
        writes.extend(keys.into_iter().filter_map(|key| new.wanted(&key).map(|value| (key, value))));
        let writes = self.needed(writes)?;
        self.turn_into(&held, new, writes, false)
    }

    /// Leaves out what is so already.
    fn needed(&self, writes: Vec<(String, String)>) -> net::Result<Vec<(String, String)>> {
        let mut needed = Vec::new();
        for (key, value) in writes {
            if self.now(&key)?.is_some_and(|now| !same(&now, &value)) {
                needed.push((key, value));
            }
        }
        Ok(needed)
    }

    /// Finds what changes along with a setting that gets a value.
    fn along(&self, held: &Held, key: &str, value: &str) -> net::Result<Vec<Along>> {
        let Some((family, setting)) = leads(key) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut accepting = Vec::new();
        for dev in net::netns::sysctl::list(&self.netns, &format!("net/{family}/conf"))? {
            let key = format!("net/{family}/conf/{dev}/{setting}");
            if dev == "all" {
                continue;
            }
            let Some(now) = read(&self.netns, &key)? else { continue };
            let ra = format!("net/{family}/conf/{dev}/accept_ra");
            if key_leads_to_router(&family, &setting, value)
                && now == "0"
                && read(&self.netns, &ra)?.as_deref() == Some("1")
            {
                accepting.push(Along { key: ra, before: "1".into(), put: Some("2".into()) });
            }
            let before = held.settings.get(&key).map_or(now, |own| own.before.clone());
            found.push(Along { key, before, put: None });
        }
        if key == FORWARDING[0] {
            // The kernel turns it off in a router, and on in a host (inet_forward_change).
            let redirects = "net/ipv4/conf/all/accept_redirects".to_string();
            if let Some(before) = read(&self.netns, &redirects)? {
                let put = if value == "0" { "1" } else { "0" };
                found.push(Along { key: redirects, before, put: Some(put.into()) });
            }
        }
        found.extend(accepting);
        Ok(found)
    }

    /// Takes a holder out, and gives the setting the value that it is to have without it.
    fn leave(&self, key: &str, who: &Holder) -> net::Result<()> {
        let held = self.load()?;
        let mut new = held.clone();
        let Some(setting) = new.settings.get_mut(key) else { return Ok(()) };
        let Some(at) = setting.position(who) else { return Ok(()) };
        setting.holders.remove(at);
        // Whose lab was killed does not count; nobody else would give its value up before `gc`.
        while let Some(top) = setting.top().cloned().filter(|top| top.lab != who.lab && !self.state.has_holder(top)) {
            setting.holders.retain(|holder| *holder != top);
        }
        let last = setting.holders.is_empty();
        let (was, will) = (held.wanted(key), new.wanted(key));
        let now = self.now(key)?;
        let mut writes = Vec::new();
        // What others changed in the rules does not make them theirs.
        let is_ours = |now: &str, was: &str| same(now, was) || key == inbound::KEY;
        if let (Some(was), Some(will), Some(now)) = (&was, &will, &now)
            && is_ours(now, was)
            && !same(now, will)
        {
            writes.push((key.to_string(), will.clone()));
            writes.extend(self.follow(&held, &new, key, will)?);
        } else if last && was.as_ref().zip(now.as_ref()).is_some_and(|(was, now)| same(was, now)) {
            writes.extend(self.give_devices_back(&held, &new, key)?);
        }
        if last {
            writes.extend(self.give_back(&held, key)?);
            new.settings.remove(key);
        }
        self.turn_into(&held, new, writes, true)
    }

    /// Finds what the devices' own settings are to be once the one for all of them gets the value `will`, which the kernel then
    /// gives to each.
    fn follow(&self, held: &Held, new: &Held, key: &str, will: &str) -> net::Result<Vec<(String, String)>> {
        let Some((family, setting)) = leads(key) else { return Ok(Vec::new()) };
        let mut writes = Vec::new();
        for dev in net::netns::sysctl::list(&self.netns, &format!("net/{family}/conf"))? {
            let key = format!("net/{family}/conf/{dev}/{setting}");
            let Some(now) = read(&self.netns, &key)?.filter(|_| dev != "all") else { continue };
            let is_ours = held.wanted(&key).is_some_and(|was| same(&was, &now));
            let known = new.settings.contains_key(&key) || is_along(held, &key);
            match new.wanted(&key) {
                // One that came since, and that nobody has set.
                Some(_) if is_ours && !known => {}
                Some(wanted) if is_ours && !same(&wanted, will) => writes.push((key, wanted)),
                Some(_) if is_ours => {}
                // Somebody else has set it.
                _ if !same(&now, will) => writes.push((key, now)),
                _ => {}
            }
        }
        Ok(writes)
    }

    /// Finds which devices' own settings go back with the last holder of the one for all of them, where that stays.
    fn give_devices_back(&self, held: &Held, new: &Held, key: &str) -> net::Result<Vec<(String, String)>> {
        let mut writes = Vec::new();
        for along in
            held.settings.get(key).iter().flat_map(|setting| &setting.along).filter(|along| along.put.is_none())
        {
            let Some(now) = read(&self.netns, &along.key)? else { continue };
            let is_ours = held.wanted(&along.key).is_some_and(|was| same(&was, &now));
            writes.extend(new.wanted(&along.key).filter(|_| is_ours).map(|wanted| (along.key.clone(), wanted)));
        }
        self.needed(writes)
    }

    /// Finds what goes back with the last holder of a setting, beyond what follows it.
    fn give_back(&self, held: &Held, key: &str) -> net::Result<Vec<(String, String)>> {
        let Some(setting) = held.settings.get(key) else { return Ok(Vec::new()) };
        let mut writes = Vec::new();
        for along in &setting.along {
            let (Some(put), Some(now)) = (&along.put, read(&self.netns, &along.key)?) else { continue };
            // Set by others meanwhile, it stays; the kernel may change it along once more.
            let back = if same(&now, put) { &along.before } else { &now };
            writes.push((along.key.clone(), back.clone()));
        }
        Ok(writes)
    }
}

/// A router ignores router advertisements unless `accept_ra` is 2 (Documentation/networking/ip-sysctl.rst, accept_ra).
fn key_leads_to_router(family: &str, setting: &str, value: &str) -> bool {
    (family, setting) == ("ipv6", "forwarding") && value != "0"
}

/// What can't be noted for want of room is no hindrance to giving back: a holder whose lab has gone does not count.
fn tolerant(done: net::Result<()>, leaving: bool) -> net::Result<()> {
    match done {
        Err(error) if leaving && has_no_room(error.errno()) => Ok(()),
        done => done,
    }
}

/// Tells whether an error says that nothing can be written to the file system.
fn has_no_room(errno: i32) -> bool {
    matches!(errno, libc::ENOSPC | libc::EDQUOT | libc::EROFS)
}

/// Returns the file that stands for the one in the state directory: of its own for each directory, also for two of one path.
fn spare_of(state: &StateDir, host: &str) -> std::io::Result<PathBuf> {
    let root = std::fs::metadata(state.root())?;
    let place = format!("{} {} {}", state.root().display(), root.dev(), root.ino());
    Ok(PathBuf::from(format!("/run/toposcript-{}-{host}", name::short_hash(place.as_bytes()))))
}

/// Returns what tells a namespace from all others of this boot.
fn host_word(netns: &Netns) -> net::Result<String> {
    Ok(netns.cookie()?.map_or_else(|| netns.id().to_string(), |cookie| format!("{cookie:x}")))
}

/// Returns the name of the file for the settings of a host.
fn settings_file(state: &StateDir, host: &str) -> String {
    format!("{}{host}", state.settings_prefix(state.inside().map(|inside| inside.holder)))
}

impl Kernel {
    /// Returns where it is noted which labs hold settings of a namespace; a word for `forget_holds`.
    pub fn place_of_holds(&self, netns: &Netns) -> net::Result<String> {
        host_word(netns)
    }

    /// Forgets which labs held settings of a namespace that is gone.
    pub fn forget_holds(&self, place: &str) -> net::Result<()> {
        let Some(state) = self.state() else { return Ok(()) };
        let doing = || "forget the settings of a namespace that is gone".to_string();
        let failed = |error| net::Error::io(doing(), error);
        let spare = spare_of(state, place).map_err(failed)?;
        for path in [spare, state.root().join(settings_file(state, place))] {
            // What can't be removed is left to `gc`.
            tolerant(files::remove(&path).map(|_| ()).map_err(failed), true)?;
        }
        Ok(())
    }

    /// Enters this lab as a holder of a setting of the host `at`, and sets it.
    pub fn hold_setting(&mut self, at: &NetnsRef, hold: &Hold<'_>) -> net::Result<()> {
        let key = canonical(hold.key)?;
        let netns = self.netns(at)?;
        let mut own = Vec::new();
        if hold.apart && FORWARDING.contains(&key.as_str()) {
            let rtnl = self.rtnl(at)?;
            let links = net::link::list(&rtnl)?;
            own.extend(
                links.into_iter().filter(|link| link.alias.as_deref() == Some(self.mark())).map(|link| link.name),
            );
        }
        let Some((state, holder)) = self.holder(hold)? else {
            return if key == inbound::KEY { Ok(()) } else { net::netns::sysctl::write(&netns, hold.key, hold.value) };
        };
        Book::open(&state, &netns)?.enter(&key, holder, &own)
    }

    /// Takes this lab out of the holders of a setting of the host `at`.
    pub fn let_setting_go(&mut self, at: &NetnsRef, hold: &Hold<'_>) -> net::Result<()> {
        let key = canonical(hold.key)?;
        let netns = self.netns(at)?;
        let Some((state, holder)) = self.holder(hold)? else { return Ok(()) };
        Book::open(&state, &netns)?.leave(&key, &holder)
    }

    /// Tells whether a setting of the host `at` is as the last of its holders wants it, and this lab is one of them.
    pub fn has_setting(&mut self, at: &NetnsRef, hold: &Hold<'_>) -> net::Result<bool> {
        let key = canonical(hold.key)?;
        let netns = self.netns(at)?;
        let Some((state, holder)) = self.holder(hold)? else {
            return Ok(read(&netns, &key)?.is_none_or(|now| same(&now, hold.value)));
        };
        let Some(now) = self.once(at, &key, |_| now(&netns, &state, &key))?.as_ref().clone() else { return Ok(true) };
        let held = self.once(at, "", |_| Book::open(&state, &netns)?.read())?;
        let setting = held.settings.get(&key).filter(|setting| setting.position(&holder).is_some());
        let stands = setting.is_some_and(|setting| same(&now, setting.value()));
        if !stands || !self.once(at, &key, |_| held.followers(&key, &netns))?.stand {
            return Ok(false);
        }
        // The rules are for both families: the first setting of a lab that needs them looks after them.
        Ok(held.keeper(&holder) != Some(key.as_str()) || guard::is_in(self.nft_tables(at), &state)?)
    }

    /// Describes this lab as a holder; nothing where no lab is at work.
    fn holder(&mut self, hold: &Hold<'_>) -> net::Result<Option<(StateDir, Holder)>> {
        let Some(state) = self.state().cloned() else { return Ok(None) };
        let lab = self.lab_dir()?.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // A kept lab of another name, in a sandbox that has ended.
        let record = self.once(&NetnsRef::host(), &lab, |_| Ok(state.lab_dir(&lab).record().ok()))?;
        let Some(record) = record.as_ref() else { return Ok(None) };
        let holder = Holder {
            lab,
            creator: record.creator,
            created: record.created,
            no: hold.no,
            value: hold.value.to_string(),
            order: 0,
            apart: hold.apart,
        };
        Ok(Some((state, holder)))
    }
}
