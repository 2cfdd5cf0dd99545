//! Labs of a passing state directory that are to stay: they move into the user's own.

use std::collections::BTreeMap;

use crate::state::{Error, LabDir, Record, Result, StateDir, Status, sandbox_store};

impl StateDir {
    /// Takes over all labs of another state directory on the same file system, with their sandbox's store, and notes them as
    /// up. Whoever built them has ended. Returns the name of the lab that is no other's part, which is `wish` or one like it;
    /// nothing where there is none.
    ///
    /// The parts keep their names, as far as those are free here.
    pub fn adopt(&self, from: &StateDir, wish: &str) -> Result<Option<String>> {
        let mut found: Vec<(LabDir, Record)> = Vec::new();
        for name in from.names()? {
            let dir = from.find(&name)?;
            let record = dir.record()?;
            found.push((dir, record));
        }
        let _all = self.lock_all()?;
        let main = found.iter().find(|(_, record)| record.parent.is_none()).map(|(_, record)| record.name.clone());
        let mut names = BTreeMap::new();
        for (_, record) in &found {
            let wish = if Some(&record.name) == main.as_ref() { wish } else { &record.name };
            names.insert(record.name.clone(), self.free_name(wish)?);
        }
        // In the directory of the whole, which takes it along.
        for (_, record) in &found {
            if let (Some(name), Some(whole)) = (names.get(&record.name), &record.parent) {
                from.note_part(name, whole)?;
            }
        }
        for (dir, record) in found {
            let name = names.get(&record.name).cloned().unwrap_or_else(|| record.name.clone());
            let parent = record.parent.as_ref().map(|parent| names.get(parent).unwrap_or(parent).clone());
            let holder = record.holder;
            dir.write_record(&Record { name: name.clone(), parent, status: Status::Up, ..record })?;
            move_to(dir.path(), self.lab_dir(&name).path())?;
            if let Some(holder) = holder {
                self.adopt_settings(from, holder, &names)?;
                let store = sandbox_store(from.root(), holder);
                if store.is_dir() {
                    move_to(&store, &sandbox_store(self.root(), holder))?;
                }
            }
        }
        Ok(main.and_then(|main| names.remove(&main)))
    }
}

fn move_to(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|source| Error::file(format!("move `{}`", from.display()), &source))
}
