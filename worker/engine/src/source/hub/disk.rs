//! What a folder's disk still takes.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The part of `path` that exists.
fn existing(path: &Path) -> Option<&Path> {
    let named = |part: &Path| !part.as_os_str().is_empty();
    path.ancestors()
        .map(|part| if named(part) { part } else { Path::new(".") })
        .find(|part| part.exists())
}

/// Whether this user may write where `path` is or will be. Nothing is written.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    let folder = existing(path).ok_or(io::ErrorKind::NotFound)?;
    if !folder.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: `folder` is NUL-terminated.
    match unsafe { libc::access(folder.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that this user may still write where `path` is or will be. `None` if the system does not
/// report it.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let folder = CString::new(existing(path)?.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid statvfs, plain integers.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `folder` is NUL-terminated and `facts` outlives the call that fills it.
    let status = unsafe { libc::statvfs(folder.as_ptr(), &mut facts) };
    (status == 0).then(|| facts.f_bavail as u64 * facts.f_frsize as u64)
}
