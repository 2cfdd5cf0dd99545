//! A service on a unix socket: each HTTP request gets one answer, by a function that may take its time.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::probe::http::HttpRequest;
use super::probe::http::read::{Fault, request};
use super::process::signal;
use super::{Error, Result};

/// How long a client may take to send its request, and to read the answer.
const CLIENT_WITHIN: Duration = Duration::from_secs(30);
/// How long no new client is taken where that has failed.
const BREATH: Duration = Duration::from_millis(20);
/// The first socket that systemd hands over (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// A socket that is listened at. One that this process made goes with it.
#[derive(Debug)]
pub struct Listening {
    listener: StdListener,
    made: Option<(PathBuf, (u64, u64))>,
}

/// An answer: the status, the kind of its body, and the body.
pub type ServiceAnswer = (u16, &'static str, Vec<u8>);

impl Listening {
    /// Makes a socket at a path, with the directory that it is in. One that nobody listens at any more gives way.
    ///
    /// EADDRINUSE where somebody listens there, EEXIST where something else has the path.
    pub fn at(path: &Path) -> Result<Listening> {
        let doing = || format!("listen at `{}`", path.display());
        let failed = |error| Error::io(doing(), error);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        if let Ok(meta) = fs::symlink_metadata(path) {
            use std::os::unix::fs::FileTypeExt;
            if !meta.file_type().is_socket() {
                return Err(Error::new(doing(), libc::EEXIST));
            }
            if StdStream::connect(path).is_ok() {
                return Err(Error::new(doing(), libc::EADDRINUSE));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = StdListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Listening { listener, made: Some((path.to_path_buf(), (meta.dev(), meta.ino()))) })
    }

    /// Takes the socket that systemd has opened for this process. To be called once.
    ///
    /// ENOTSOCK where it is none that is listened at.
    pub fn given() -> Result<Listening> {
        let doing = "take the socket of systemd";
        // SAFETY: nothing else in this process has the number, which systemd opened before the process began; an unused one is an error below.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(LISTEN_FDS_START) });
        if !socket.is_listener().map_err(|error| Error::io(doing, error))? {
            return Err(Error::new(doing, libc::ENOTSOCK));
        }
        socket.set_cloexec(true).map_err(|error| Error::io(doing, error))?;
        Ok(Listening { listener: OwnedFd::from(socket).into(), made: None })
    }

    /// Answers requests until a signal comes, or nobody has asked for as long as `idle`, and `may_end` says that it may end. Requests that
    /// are being answered then get their answers.
    pub fn serve(
        self,
        idle: Option<Duration>,
        may_end: impl Fn() -> bool,
        answer: impl Fn(&HttpRequest) -> ServiceAnswer + Send + Sync + 'static,
    ) -> Result<()> {
        let failed = |error| Error::io("serve at a socket", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        self.listener.set_nonblocking(true).map_err(failed)?;
        let clone = self.listener.try_clone().map_err(failed)?;
        let answer = Arc::new(answer);
        runtime.block_on(async {
            let listener = UnixListener::from_std(clone).map_err(failed)?;
            let mut clients = JoinSet::new();
            loop {
                while clients.try_join_next().is_some() {}
                let next = async { listener.accept().await.map_err(failed) };
                let next = signal::unless_caught("wait for a request", async {
                    match idle {
                        Some(idle) => timeout(idle, next).await.ok().transpose(),
                        None => next.await.map(Some),
                    }
                });
                match next.await {
                    Ok(Some((stream, _))) => {
                        clients.spawn(attend(stream, answer.clone()));
                    }
                    Ok(None) if clients.is_empty() && may_end() => break,
                    Ok(None) => {}
                    Err(_) if signal::caught().is_some() => break,
                    // Of a client that is gone again; or there are no descriptors left, until one is closed.
                    Err(_) => {
                        let _ = timeout(BREATH, std::future::pending::<()>()).await;
                    }
                }
            }
            // Nobody new is taken.
            drop(listener);
            while clients.join_next().await.is_some() {}
            Ok(())
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some((path, (dev, ino))) = &self.made else { return };
        // Another one may have taken its place.
        if fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (*dev, *ino)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads a request and sends its answer. A client that breaks off is no matter of ours.
async fn attend<F>(mut stream: UnixStream, answer: Arc<F>)
where
    F: Fn(&HttpRequest) -> ServiceAnswer + Send + Sync + 'static,
{
    let (status, kind, body) = match timeout(CLIENT_WITHIN, request(&mut stream)).await {
        Ok(Ok(request)) => {
            // It may wait for the kernel, and must not keep others waiting.
            let answered = tokio::task::spawn_blocking(move || answer(&request)).await;
            answered.unwrap_or_else(|_| (500, "text/plain", b"the answer could not be made\n".to_vec()))
        }
        Ok(Err(Fault::NotHttp(text))) => (400, "text/plain", format!("{text}\n").into_bytes()),
        Ok(Err(Fault::Socket(_))) | Err(_) => return,
    };
    let reason = super::probe::http_request::reason(status);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let send = async {
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.shutdown().await?;
        // Closed with something unread, the kernel would reset the connection, and the answer could be lost.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(CLIENT_WITHIN, send).await;
}
