use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::*;
use crate::net::testing::in_own_process;

fn store() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = LocalStore::open(&dir.path().join("store")).expect("a store");
    (dir, store)
}

fn key(path: &[&str]) -> Key {
    path.iter().fold(Key::kind("networks"), |key, name| key.below(name).expect("a name"))
}

fn put(store: &LocalStore, key: &Key, value: &Value) {
    store.put(&store.lock(key).expect("its lock"), key, value).expect("written");
}

fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            found.push(path.strip_prefix(dir).expect("below").display().to_string());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_put_is_there_until_it_is_removed() {
    let (_dir, store) = store();
    let (web, end) = (key(&["web"]), key(&["web", "c1"]));
    assert_eq!(store.get(&web).expect("nothing"), None);
    assert_eq!(store.list(&key(&[])).expect("nothing"), []);
    put(&store, &end, &json!({"ip": "10.0.0.2"}));
    put(&store, &web, &json!([1, null, "ä"]));
    put(&store, &web, &json!({"subnet": "10.0.0.0/24"}));
    assert_eq!(store.get(&web).expect("a value"), Some(json!({"subnet": "10.0.0.0/24"})));
    assert_eq!(store.list(&key(&[])).expect("both"), [web.clone(), end.clone()]);
    assert_eq!(store.list(&web).expect("what is below"), std::slice::from_ref(&end));
    let guard = store.lock(&web).expect("its lock");
    assert!(store.remove(&guard, &end).expect("removed"));
    assert!(!store.remove(&guard, &end).expect("gone already"));
    assert!(store.remove(&guard, &web).expect("removed"));
    drop(guard);
    assert_eq!(tree(&store.root), ["networks"]);
}

#[test]
fn n7_no_two_names_share_a_file() {
    let (_dir, store) = store();
    let long = "n".repeat(127);
    let names = ["a", "a.json", "a.d", "a.lock", "a.tmp", "a.json.tmp", long.as_str()];
    let keys: Vec<Key> =
        names.iter().flat_map(|name| [key(&[name]), key(&[name, "x"]), key(&[name, "x.d", "y"])]).collect();
    for key in &keys {
        put(&store, key, &json!(key.to_string()));
    }
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(store.list(&key(&[])).expect("all"), sorted);
    for key in &keys {
        assert_eq!(store.get(key).expect("a value"), Some(json!(key.to_string())));
    }
}

#[test]
fn n8_only_our_files_are_read() {
    let (_dir, store) = store();
    put(&store, &key(&["web"]), &json!(1));
    let dir = store.root.join("networks");
    for (name, text) in
        [("notes.txt", "x"), ("web.json~", "x"), (".hidden.json", "x"), ("half.tmp", "{"), ("ü.json", "x")]
    {
        fs::write(dir.join(name), text).expect("a stray file");
    }
    fs::create_dir(dir.join("folder")).expect("a stray directory");
    fs::create_dir(dir.join("folder.json")).expect("a stray directory");
    symlink("web.json", dir.join("link.json")).expect("a stray link");
    assert_eq!(store.list(&key(&[])).expect("one"), [key(&["web"])]);
    for (name, because) in [("folder", "it is not a file"), ("link", "it is a symbolic link")] {
        let error = store.get(&key(&[name])).expect_err(name);
        assert_eq!((error.kind(), error.to_string().ends_with(because)), (Kind::State, true), "{error}");
    }
    nix::unistd::mkfifo(&dir.join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).expect("a stray pipe");
    store.get(&key(&["pipe"])).expect_err("not a file, and no wait for a writer");
}

#[test]
fn n8_directories_can_be_entered_and_by_their_owner_alone() {
    let (_dir, store) = store();
    put(&store, &key(&["web", "c1"]), &json!(1));
    let _guard = store.lock(&key(&["web"])).expect("a lock");
    for path in tree(&store.root) {
        let meta = fs::metadata(store.root.join(&path)).expect("metadata");
        assert_eq!(meta.mode() & 0o777, if meta.is_dir() { 0o700 } else { 0o600 }, "{path}");
    }
    assert_eq!(fs::metadata(&store.root).expect("the root").mode() & 0o777, 0o700);
}

#[test]
fn a_directory_that_isnt_ours_alone_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("a mode");
    mode(0o777);
    let error = LocalStore::open(dir.path()).expect_err("others can write to it");
    assert_eq!(error.kind(), Kind::State);
    assert!(error.to_string().contains("others can write to it (mode 0777)"), "{error}");
    mode(0o700);
    let nobody = Some(nix::unistd::Uid::from_raw(65534));
    nix::unistd::chown(dir.path(), nobody, None).expect("these tests need root");
    let error = LocalStore::open(dir.path()).expect_err("another user's");
    assert!(error.to_string().contains("it belongs to user 65534, and you are user 0"), "{error}");
}

#[test]
fn i4_a_damaged_file_is_named_with_its_byte_and_left_alone() {
    let (_dir, store) = store();
    let web = key(&["web"]);
    put(&store, &web, &json!({"a": 1}));
    let path = store.root.join("networks/web.json");
    let good = fs::read(&path).expect("the file");
    for (damage, byte) in
        [("", 0), ("{\"value\": 1", 11), ("{\"value\":\n 1}}", 13), ("\u{0}\u{0}", 0), ("not json", 1)]
    {
        fs::write(&path, damage).expect("damage it");
        let error = store.get(&web).expect_err(damage);
        assert_eq!((error.kind(), error.hint_text()), (Kind::State, Some(files::DAMAGED)));
        let begins = format!("read `{}`: byte {byte}: ", path.display());
        assert!(error.to_string().starts_with(&begins), "{error} does not begin with {begins}");
        assert_eq!(fs::read_to_string(&path).expect("the file"), damage);
    }
    fs::write(&path, [b'"', 0xff, b'"']).expect("damage it");
    store.get(&web).expect_err("not UTF-8");
    // Each cut and each flipped bit of a file that was whole.
    for at in 0..good.len() {
        fs::write(&path, &good[..at]).expect("damage it");
        store.get(&web).expect_err("cut");
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, bad).expect("damage it");
            store.get(&web).expect_err("a flipped bit");
        }
    }
    fs::write(&path, &good).expect("mend it");
    assert_eq!(store.get(&web).expect("whole again"), Some(json!({"a": 1})));
    nix::unistd::chown(&path, Some(nix::unistd::Uid::from_raw(65534)), None).expect("these tests need root");
    let error = store.get(&web).expect_err("another user's file");
    assert!(error.to_string().ends_with("it belongs to user 65534, and you are user 0"), "{error}");
}

#[test]
fn i6_what_a_killed_writer_left_is_swept_by_the_next() {
    let (_dir, store) = store();
    let web = key(&["web"]);
    put(&store, &web, &json!(1));
    let temp = store.root.join("networks/web.tmp");
    fs::write(&temp, "{\"half\":").expect("a leftover");
    assert_eq!(store.get(&web).expect("the old value"), Some(json!(1)));
    drop(store.lock(&web).expect("its lock"));
    assert!(!temp.exists());
    assert_eq!(tree(&store.root), ["networks", "networks/web.json", "networks/web.lock"]);
}

#[test]
fn a_lock_that_is_held_is_waited_for_and_then_busy() {
    let (_dir, store) = store();
    let (web, patient) = (key(&["web"]), store.clone());
    let hasty = store.with_patience(Duration::from_millis(20));
    let guard = hasty.lock(&web).expect("a lock");
    hasty.lock(&key(&["db"])).expect("another lock");
    hasty.lock(&Key::kind("networks")).expect("the lock of the kind");
    let error = hasty.lock(&web).expect_err("it is held");
    assert_eq!(error.kind(), Kind::Busy);
    let says = format!("lock `networks/web`: this process ({}) itself has held it for 20ms", std::process::id());
    assert_eq!(error.to_string(), says);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| patient.lock(&web).map(drop));
        drop(guard);
        waiter.join().expect("no panic").expect("the lock, once it was let go");
    });
    // The one who gave up waiting got the lock too, in his thread, and has let it go.
    patient.lock(&web).expect("a lock");
}

/// Who waits behind others gives up only where one of them does not let go.
#[test]
fn a_lock_that_goes_from_one_to_the_next_is_waited_for() {
    let (_dir, store) = store();
    let web = key(&["web"]);
    let store = store.with_patience(Duration::from_secs(1));
    drop(store.lock(&web).expect("a lock, and the directory of its file"));
    let path = store.path(&web, LOCK);
    // Another hundred tests that run meanwhile may make each of them late by half its time.
    let mut others: Vec<std::process::Child> = (0..4)
        .map(|_| std::process::Command::new("flock").arg(&path).args(["sleep", "0.4"]).spawn().expect("flock starts"))
        .collect();
    while holder_pid(&path).is_none() {
        std::thread::yield_now();
    }
    store.lock(&web).expect("the lock");
    others.iter_mut().for_each(|other| assert!(other.wait().expect("it ends").success()));
}

/// The kernel's list of locks does not tell one thread of a process from the next, nor a process in another pid namespace at all. The file
/// tells that the lock went on.
#[test]
fn a_lock_that_unseen_holders_get_in_turn_is_waited_for() {
    let (_dir, store) = store();
    let store = store.with_patience(Duration::from_secs(1));
    let web = key(&["web"]);
    let hold = || {
        let guard = store.lock(&web).expect("the lock");
        std::thread::sleep(Duration::from_millis(400));
        drop(guard);
    };
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| (0..5).for_each(|_| drop(scope.spawn(hold))));
    assert!(begun.elapsed() > Duration::from_secs(2), "the last one waited for longer than it would for one");
}

#[test]
fn one_holder_at_a_time() {
    let (_dir, store) = store();
    let web = key(&["web"]);
    // The value comes and goes, and with it the file of the lock.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let guard = store.lock(&web).expect("a lock");
                    let count = store.get(&web).expect("a value").and_then(|value| value.as_u64()).unwrap_or(0);
                    store.put(&guard, &web, &json!(count + 1)).expect("written");
                    let total = store.get(&key(&["all", "count"])).expect("a value").and_then(|value| value.as_u64());
                    store.put(&guard, &key(&["all", "count"]), &json!(total.unwrap_or(0) + 1)).expect("written");
                    if count % 3 == 0 {
                        store.remove(&guard, &web).expect("removed");
                    }
                }
            });
        }
    });
    assert_eq!(store.get(&key(&["all", "count"])).expect("a value"), Some(json!(200)));
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    const NAME: &str = "state::store::local::tests::the_lock_of_a_killed_process_is_free";
    let root = |parent: u32| std::env::temp_dir().join(format!("toposcript-killed-holder-{parent}"));
    let status = crate::net::testing::status_of_own_process(NAME, || {
        let store = LocalStore::open(&root(std::os::unix::process::parent_id())).expect("a store");
        let _guard = store.lock(&key(&["web"])).expect("a lock");
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        unreachable!("the process was killed");
    });
    let Some(status) = status else { return };
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    let root = root(std::process::id());
    let store = LocalStore::open(&root).expect("a store").with_patience(Duration::from_millis(1));
    store.lock(&key(&["web"])).expect("a lock");
    fs::remove_dir_all(&root).expect("no more of it");
}

/// Mounts a file system of 64 KiB for this process alone.
fn small_disk(at: &Path) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("these tests need root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700")).expect("a small disk");
}

#[test]
fn i6_a_full_disk_is_said_and_the_old_value_stays() {
    in_own_process("state::store::local::tests::i6_a_full_disk_is_said_and_the_old_value_stays", || {
        let dir = tempfile::tempdir().expect("a directory");
        small_disk(dir.path());
        let store = LocalStore::open(dir.path()).expect("a store");
        let web = key(&["web"]);
        put(&store, &web, &json!("old"));
        fs::write(dir.path().join("other"), vec![b'x'; 40 << 10]).expect("most of the disk");
        let guard = store.lock(&web).expect("a lock");
        let error = store.put(&guard, &web, &json!("x".repeat(60 << 10))).expect_err("no room");
        assert_eq!(error.kind(), Kind::State);
        assert!(error.to_string().ends_with("web.json`: No space left on device"), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("make room")));
        assert_eq!(store.get(&web).expect("the old value"), Some(json!("old")));
        assert!(!dir.path().join("networks/web.tmp").exists());
        store.put(&guard, &web, &json!("new")).expect("what fits");
        assert_eq!(store.get(&web).expect("the new value"), Some(json!("new")));
        // No room at all: what is no longer than the old value needs none.
        drop(fs::write(dir.path().join("rest"), vec![b'x'; 60 << 10]));
        for value in ["two", "2"] {
            store.put(&guard, &web, &json!(value)).expect("no longer than before");
            assert_eq!(store.get(&web).expect("the new value"), Some(json!(value)));
        }
        store.put(&guard, &web, &json!("longer than before")).expect_err("no room");
        assert_eq!(store.get(&web).expect("the old value"), Some(json!("2")));
    });
}

#[test]
fn a_read_only_store_is_said_and_can_be_read() {
    in_own_process("state::store::local::tests::a_read_only_store_is_said_and_can_be_read", || {
        let dir = tempfile::tempdir().expect("a directory");
        small_disk(dir.path());
        let store = LocalStore::open(dir.path()).expect("a store");
        let web = key(&["web"]);
        put(&store, &web, &json!("old"));
        let guard = Guard::new(web.clone(), ());
        let none = None::<&str>;
        mount(none, dir.path(), none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)
            .expect("read-only");
        let errors = [
            store.put(&guard, &web, &json!("new")).expect_err("read-only"),
            store.remove(&guard, &web).expect_err("read-only"),
        ];
        // What needs a lock to take something out of the kernel goes on, whether the lock's file is there or not.
        drop((store.lock(&web).expect("its lock"), store.lock(&key(&["db"])).expect("a lock that can't be made")));
        for error in errors {
            assert!(error.to_string().ends_with("`: Read-only file system"), "{error}");
        }
        assert_eq!(store.get(&web).expect("the old value"), Some(json!("old")));
        LocalStore::open(dir.path()).expect("it can be opened");
    });
}
