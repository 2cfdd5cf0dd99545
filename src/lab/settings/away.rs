//! Settings of a host's device that goes to another namespace, comes back, or gets another name while labs hold settings of the host.
//!
//! The kernel makes the settings of a device anew wherever it comes, so that they are noted when it goes: as they are without any
//! holder, since the holders may be others when it comes back.

use super::held::{Along, Held, Setting, leader_of, leads, same};
use super::{Book, key_leads_to_router, read};
use crate::lab::kernel::Kernel;
use crate::net::{self, Netns};
use crate::state::{NetnsAt, NetnsRef};

impl Kernel {
    /// Returns settings of a device of `at`, which have the values given, as they are once no lab holds them.
    pub fn without_holders(
        &mut self,
        at: &NetnsRef,
        mut settings: Vec<(String, String)>,
    ) -> net::Result<Vec<(String, String)>> {
        let (Some(state), NetnsAt::Host) = (self.state().cloned(), &at.at) else { return Ok(settings) };
        let held = Book::open(&state, &self.netns(at)?)?.load()?;
        for (key, value) in &mut settings {
            if let Some(before) = held.unheld(key, value) {
                *value = before;
            }
        }
        Ok(settings)
    }

    /// Gives a device that is back in `at` its settings, but for those that a lab holds: they get the lab's value now, and their own
    /// one with its end.
    pub fn put_settings_back(&mut self, at: &NetnsRef, settings: &[(String, String)]) -> net::Result<()> {
        let netns = self.netns(at)?;
        let (Some(state), NetnsAt::Host) = (self.state().cloned(), &at.at) else { return restore(&netns, settings) };
        let book = Book::open(&state, &netns)?;
        let held = book.load()?;
        let mut new = held.clone();
        settings.iter().for_each(|(key, own)| new.come_back(key, own, settings));
        let value = |(key, own): &(String, String)| (key.clone(), new.put_along(key).unwrap_or_else(|| own.clone()));
        let writes = book.needed(settings.iter().map(value).collect())?;
        if new == held {
            return restore(&netns, &writes);
        }
        book.turn_into(&held, new, writes, true)
    }

    /// Notes that a device of the host `at` has another name: its settings have it too.
    pub fn rename_settings(&mut self, at: &NetnsRef, from: &str, to: &str) -> net::Result<()> {
        let (Some(state), NetnsAt::Host) = (self.state().cloned(), &at.at) else { return Ok(()) };
        let book = Book::open(&state, &self.netns(at)?)?;
        let held = book.load()?;
        let mut new = held.clone();
        let (from, to) = (format!("/conf/{from}/"), format!("/conf/{to}/"));
        let keys = new.settings.values_mut().flat_map(|setting| &mut setting.along).map(|along| &mut along.key);
        keys.for_each(|key| *key = key.replace(&from, &to));
        book.turn_into(&held, new, Vec::new(), true)
    }
}

/// Writes settings that are no longer what they were; one that went with its device is left out.
fn restore(netns: &Netns, settings: &[(String, String)]) -> net::Result<()> {
    for (key, value) in settings {
        if read(netns, key)?.is_some_and(|now| !same(&now, value)) {
            net::netns::sysctl::write(netns, key, value)?;
        }
    }
    Ok(())
}

impl Held {
    /// Returns what a setting that has the value `now` is once no lab holds it; nothing where it has that already, or where others
    /// have set it meanwhile.
    fn unheld(&self, key: &str, now: &str) -> Option<String> {
        if !same(now, &self.put_along(key)?) {
            return None;
        }
        let own = self.settings.get(key).filter(|setting| setting.is_held()).map(|setting| setting.before.clone());
        let along = self.along(key).map(|along| along.before.clone());
        own.or(along).or_else(|| self.before(key))
    }

    /// Returns the value that a setting has because of labs, if any holds it or one that it changes along with.
    fn put_along(&self, key: &str) -> Option<String> {
        let leads = |key: &String| self.settings.get(key).is_some_and(Setting::is_held);
        if leads(&key.to_string()) || leader_of(key).is_some_and(|leader| leads(&leader)) {
            return self.wanted(key);
        }
        self.along(key).and_then(|along| along.put.clone())
    }

    fn along(&self, key: &str) -> Option<&Along> {
        let held = self.settings.values().filter(|setting| setting.is_held());
        held.flat_map(|setting| &setting.along).find(|along| along.key == key)
    }

    /// Enters a setting of a device that came back, whose `own` value is from before all holders; `all` are those of the device.
    fn come_back(&mut self, key: &str, own: &str, all: &[(String, String)]) {
        if let Some(setting) = self.settings.get_mut(key).filter(|setting| setting.is_held()) {
            setting.before = own.to_string();
        }
        let Some(leader) = leader_of(key) else { return };
        let Some(setting) = self.settings.get_mut(&leader).filter(|setting| setting.is_held()) else { return };
        setting.set_along(Along { key: key.to_string(), before: own.to_string(), put: None });
        let value = setting.value().to_string();
        let Some((family, name)) = leads(&leader) else { return };
        let ra = key.replace("/forwarding", "/accept_ra");
        let accepts = all.iter().any(|(key, own)| *key == ra && own == "1");
        if key_leads_to_router(&family, &name, &value) && own == "0" && accepts {
            setting.set_along(Along { key: ra, before: "1".into(), put: Some("2".into()) });
        }
    }
}

impl Setting {
    fn is_held(&self) -> bool {
        !self.holders.is_empty()
    }

    /// Enters a setting that changes along with this one, in place of what was known of it.
    fn set_along(&mut self, new: Along) {
        self.along.retain(|along| along.key != new.key);
        self.along.push(new);
    }
}
