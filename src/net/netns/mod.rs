//! Network namespaces, anonymous ones: made, opened and entered on threads beside the caller's (network_namespaces(7)).

pub(super) mod beside;
pub(super) mod dir;
pub(super) mod private_proc;
pub mod sysctl;
pub mod userns;
pub(super) mod visit;

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use netlink_packet_route::RouteNetlinkMessage;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::LinkUnspec;
use serde::{Deserialize, Serialize};

use super::netlink::rtnl::Request;
use super::netlink::{Netlink, Subsystem};
use super::{Error, Result, fault, link};
use visit::{is_wandering, visit};

/// `lo` is the first device of every namespace (LOOPBACK_IFINDEX in include/net/net_namespace.h).
const LO: u32 = 1;

/// The namespace of the calling thread. Of the thread, not of the process: on a thread that has moved, /proc/self is another namespace.
const HERE: &str = "/proc/thread-self/ns/net";

/// What the kernel knows a namespace by, as long as it lives: the file that stands for it (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetnsId {
    /// The device of the namespace file system.
    pub dev: u64,
    /// The inode; the number in `net:[4026531840]`.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.ino)
    }
}

impl NetnsId {
    /// Returns that of the calling thread, without opening it.
    fn here() -> Result<NetnsId> {
        let meta = std::fs::metadata(HERE).map_err(|error| Error::io(format!("look at `{HERE}`"), error))?;
        Ok(NetnsId { dev: meta.dev(), ino: meta.ino() })
    }

    /// Returns where a namespace of this number is mounted that this process can see, as those of /run/netns are
    /// (proc_pid_mountinfo(5): the root of such a mount reads `net:[4026531840]`).
    pub fn mounts(&self) -> Result<Vec<PathBuf>> {
        let path = "/proc/thread-self/mountinfo";
        let mounts = std::fs::read_to_string(path).map_err(|error| Error::io(format!("read `{path}`"), error))?;
        let root = self.to_string();
        let of_it = mounts.lines().map(|line| line.split(' ').skip(3)).filter_map(|mut words| {
            let (of, at) = (words.next()?, words.next()?);
            (of == root).then(|| PathBuf::from(at))
        });
        Ok(of_it.collect())
    }
}

const READ_COOKIE: &str = "read a netns cookie";

/// Reads the cookie of the namespace that a socket was born in, as `Netns::cookie` says it.
pub(super) fn cookie_of(socket: &impl AsRawFd) -> Result<Option<u64>> {
    let (mut cookie, mut size) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `size` bytes to `cookie`, which has as many.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    match (done, std::io::Error::last_os_error()) {
        (0, _) => Ok(Some(cookie)),
        (_, error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        (_, error) => Err(Error::io(READ_COOKIE, error)),
    }
}

/// An open network namespace, which lives at least as long as this does.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
    /// A socket that was born here with the namespace, for the first who wants one: no thread has to come in for it.
    socket: Arc<Mutex<Option<Netlink>>>,
    /// Its cookie, once that was read.
    cookie: Arc<OnceLock<Option<u64>>>,
}

impl Netns {
    /// Opens the namespace of the calling thread.
    pub fn current() -> Result<Netns> {
        Netns::open(Path::new(HERE))
    }

    /// Tells whether the calling thread is in it.
    pub(super) fn is_here(&self) -> Result<bool> {
        Ok(NetnsId::here()? == self.id)
    }

    /// Opens the namespace of a process. ENOENT if there is none of that number.
    pub fn of_pid(pid: u32) -> Result<Netns> {
        Netns::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Opens the namespace that the file `path` stands for. ENOENT if there is no such file; EINVAL if it stands for
    /// something else.
    pub fn open(path: &Path) -> Result<Netns> {
        let doing = || format!("open network namespace `{}`", path.display());
        let file = super::regular::open(path, File::options().read(true)).map_err(|error| Error::io(doing(), error))?;
        if !is_netns(&file) {
            let text = format!("`{}` is no network namespace", path.display());
            return Err(Error::new(doing(), libc::EINVAL).saying(text));
        }
        Netns::of_file(file).map_err(|error| Error::io(doing(), error))
    }

    /// Takes a file that is known to be a network namespace.
    pub(super) fn of_file(file: File) -> std::io::Result<Netns> {
        let meta = file.metadata()?;
        let id = NetnsId { dev: meta.dev(), ino: meta.ino() };
        Ok(Netns { fd: Arc::new(file.into()), id, socket: Arc::default(), cookie: Arc::default() })
    }

    /// Takes the rtnetlink socket that is left from making the namespace, if it is there.
    pub(super) fn take_socket(&self) -> Option<Netlink> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the number that tells it from every other namespace alive.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Returns the number that no other namespace has had or will have in this boot of the machine: an inode is given again
    /// once its namespace has ended, this is not (SO_NETNS_COOKIE, Linux 5.14). None on an older kernel.
    pub fn cookie(&self) -> Result<Option<u64>> {
        if let Some(cookie) = self.cookie.get() {
            return Ok(*cookie);
        }
        let socket = self.inside(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None))?;
        let cookie = cookie_of(&socket.map_err(|error| Error::io(READ_COOKIE, error))?)?;
        Ok(*self.cookie.get_or_init(|| cookie))
    }

    /// Returns the open file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `work` in this namespace: on the calling thread if that is in it, else on another one, which is waited for.
    ///
    /// Sockets made there stay in the namespace when the thread is gone. EPERM without CAP_SYS_ADMIN.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if !is_wandering() && self.is_here()? {
            return Ok(work());
        }
        visit("enter a network namespace", self, work)
    }

    /// Makes a namespace that nobody else has a name for; its `lo` is up and bears `mark` as its alias.
    ///
    /// Like `unshare --net` with `ip link set lo up alias MARK`. EPERM without CAP_SYS_ADMIN, ENOSPC beyond
    /// /proc/sys/user/max_net_namespaces, ERANGE for a mark of more than 255 bytes.
    pub fn create(mark: &str) -> Result<Netns> {
        fault::point(CREATE)?;
        on_own_thread(CREATE, || unshare_here(mark, true))?
    }
}

pub(super) const CREATE: &str = "create a network namespace";

const LO_UP: &str = "set link `lo` up";

/// Runs `work` on a thread of its own and waits for it.
pub(super) fn on_own_thread<T: Send>(doing: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work).map_err(|error| Error::io(doing, error))?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a new namespace and returns that; its `lo` is up if it shall be.
pub(super) fn unshare_here(mark: &str, up: bool) -> Result<Netns> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::new(CREATE, errno as i32))?;
    let netns = Netns::current()?;
    let doing = "set `lo` of a new network namespace up";
    let marked = LinkUnspec::new_with_index(LO).append_extra_attribute(link::alias_attribute(mark)).build();
    // The mark first: the kernel has nobody to tell of a new alias as long as the device is down.
    let mut requests = vec![Request::new(doing, RouteNetlinkMessage::NewLink(marked), 0).without_point()];
    requests.extend(up.then(lo_up_request));
    let socket = Netlink::here(Subsystem::Route)?;
    socket.send_all(&requests).map_err(|(_, error)| error)?;
    Ok(Netns { socket: Arc::new(Mutex::new(Some(socket))), ..netns })
}

/// Returns the request that sets `lo` up in a namespace that was made without; a part of its making.
pub fn lo_up_request() -> Request {
    Request::new(LO_UP, RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(LO).up().build()), 0).without_point()
}

/// Sets `lo` up in the namespace of the calling thread.
///
/// Like `ip link set lo up`.
pub(super) fn set_lo_up() -> Result<()> {
    fault::point(LO_UP)?;
    Netlink::here(Subsystem::Route)?.send(lo_up_request())
}

/// Returns the mark that a namespace was made with: the alias of its `lo`, which can be changed from inside.
pub fn mark_of(netns: &Netns) -> Result<Option<String>> {
    let doing = "read the mark of a network namespace";
    let read = || {
        setns(netns.fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| Error::new(doing, errno as i32))?;
        let answer = Netlink::here(Subsystem::Route)?.get(doing, RouteNetlinkMessage::GetLink(link::question(LO)))?;
        Ok(answer.and_then(link::read).and_then(|lo| lo.alias))
    };
    on_own_thread(doing, read)?
}

/// Tells whether an open file stands for a network namespace (ioctl_nsfs(2)).
pub(super) fn is_netns(file: &File) -> bool {
    /// `_IO(0xb7, 0x3)` of linux/nsfs.h.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this ioctl has no argument, and the descriptor is open for the whole call.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::net::testing::{block_on, in_own_process, judge, netns};
    use crate::net::{Beside, Change, Netlink, link};

    #[test]
    fn a_new_one_has_its_mark_and_lo_up() {
        block_on(async {
            let netns = Netns::create("topo:lab1").expect("a namespace");
            assert_ne!(netns.id(), Netns::current().expect("ours").id());
            let rtnl = Netlink::open(&netns).expect("a socket");
            assert_eq!(mark_of(&netns).expect("read").as_deref(), Some("topo:lab1"));
            link::change(&rtnl, LO, &Change { alias: Some(""), ..Change::default() }).expect("changed");
            assert_eq!(mark_of(&netns).expect("read"), None);
            let three = [netns.clone(), Netns::create("topo:lab2").expect("a namespace"), netns.clone()];
            let marks: Vec<_> = three.iter().map(|netns| mark_of(netns).expect("read")).collect();
            assert_eq!(marks, [None, Some("topo:lab2".to_string()), None]);
            let lo = &judge(&netns, "ip -j link show").await[0];
            assert_eq!((&lo["ifname"], lo["flags"][2].as_str()), (&"lo".into(), Some("LOWER_UP")));
        });
    }

    #[test]
    fn a_mark_that_is_too_long_is_refused() {
        assert!(Netns::create(&"m".repeat(255)).is_ok());
        let error = Netns::create(&"m".repeat(256)).expect_err("too long");
        assert_eq!(error.errno(), libc::ERANGE);
        assert_eq!(error.doing(), "set `lo` of a new network namespace up");
    }

    #[test]
    fn opened_twice_it_is_the_same() {
        let netns = netns();
        let path = format!("/proc/self/fd/{}", netns.fd().as_raw_fd());
        assert_eq!(Netns::open(Path::new(&path)).expect("opened").id(), netns.id());
        assert_eq!(netns.inside(Netns::current).expect("inside").expect("opened").id(), netns.id());
        assert_eq!(Netns::of_pid(std::process::id()).expect("ours").id(), Netns::current().expect("ours").id());
    }

    #[test]
    fn what_is_none_is_refused() {
        for (path, errno) in
            [("/proc/self/ns/mnt", libc::EINVAL), ("/dev/null", libc::EINVAL), ("/no/such", libc::ENOENT)]
        {
            let error = Netns::open(Path::new(path)).expect_err(path);
            assert_eq!((error.errno(), error.doing()), (errno, format!("open network namespace `{path}`").as_str()));
        }
        assert!(Netns::of_pid(u32::MAX).expect_err("no such process").is_gone());
    }

    #[test]
    fn the_caller_stays_where_it_is() {
        let before = Netns::current().expect("ours").id();
        let netns = netns();
        assert_eq!(netns.inside(|| 42).expect("ran"), 42);
        let panicked = std::panic::catch_unwind(|| netns.inside(|| panic!("in there")));
        assert!(panicked.is_err(), "a panic goes on in the caller");
        assert_eq!(Netns::current().expect("ours").id(), before);
    }

    fn fds_and_threads() -> (usize, usize) {
        let count = |path: &str| std::fs::read_dir(path).expect(path).count();
        (count("/proc/self/fd"), count("/proc/self/task"))
    }

    #[test]
    fn a_thousand_leave_no_descriptor_and_no_thread() {
        in_own_process("net::netns::tests::a_thousand_leave_no_descriptor_and_no_thread", || {
            // The visitor stays for the next one.
            netns().inside(|| ()).expect("entered");
            let before = fds_and_threads();
            for _ in 0..1000 {
                let netns = Netns::create("m").expect("a namespace");
                netns.inside(|| ()).expect("entered");
            }
            let mut beside = Beside::start("m");
            (0..50).for_each(|_| beside.order());
            drop((beside.next(), beside));
            // A thread that was joined may still be listed for a moment.
            let deadline = Instant::now() + Duration::from_secs(5);
            while fds_and_threads() != before && Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert_eq!(fds_and_threads(), before);
        });
    }
}
