//! The memory that an agent shares with its deadman: a small file, mapped by both.
//!
//! This is the one module with `unsafe` in it: to map a file there is no other way. All that is mapped are
//! atomics, so that no torn value is ever read, whoever writes.

#![allow(unsafe_code, reason = "mapping a file")]

use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::clock::Moment;
use crate::fnv::fnv1a;
use crate::{Error, Result};

/// The format of what follows the first fields. `magic`, `format`, `deadline` and `pid` keep their places
/// in every format, so that an agent can take over from the deadman of another version.
pub(super) const FORMAT: u64 = 2;
const MAGIC: u64 = u64::from_le_bytes(*b"pgdeadmn");
const SIZE: usize = 4096;

/// [`Layout::deadline`]: nothing is armed.
pub(super) const DISARMED: u64 = 0;
/// [`Layout::deadline`]: the deadline has passed, and the deadman kills.
pub(super) const FIRING: u64 = u64::MAX;
/// [`Layout::deadline`]: the deadman has ended; whoever wants to arm must start another.
pub(super) const ENDED: u64 = u64::MAX - 1;

/// What both sides see. Moments are nanoseconds of `CLOCK_BOOTTIME`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Layout {
    /// [`MAGIC`] once the file is filled in.
    magic: AtomicU64,
    /// [`FORMAT`].
    pub(super) format: AtomicU64,
    /// The deadline, or one of [`DISARMED`], [`FIRING`], [`ENDED`]. Both sides change it by
    /// compare-and-swap only, so that a renewal and the end of the time never both win.
    pub(super) deadline: AtomicU64,
    /// The deadman's process.
    pub(super) pid: AtomicU64,
    /// When the deadman last looked.
    pub(super) heartbeat: AtomicU64,
    /// How often an agent has armed it.
    pub(super) generation: AtomicU64,
    /// The agent's process.
    pub(super) agent: AtomicU64,
    /// Not zero: the deadman shall end once no PostgreSQL is left.
    pub(super) end: AtomicU64,
    /// The generation that it last fired for.
    pub(super) fired_generation: AtomicU64,
    /// When it had killed the last process then; zero if it never fired.
    pub(super) fired_at: AtomicU64,
    /// The boot that all these moments belong to.
    boot: AtomicU64,
    /// Which address the deadman takes off this machine, as [`address_key`] has it.
    pub(super) address: AtomicU64,
}

/// The mapped file.
#[derive(Debug)]
pub(super) struct Shared {
    file: File,
    path: PathBuf,
    layout: NonNull<Layout>,
}

// SAFETY: the mapping lives as long as the value, and holds nothing but atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Opens the file, makes it where there is none, and maps it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |what: &str, e: std::io::Error| {
            Error::internal(format!("cannot {what} the deadman's memory. path={}", path.display())).because(e)
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed())
            .open(path)
            .map_err(|e| failed("open", e))?;
        let meta = file.metadata().map_err(|e| failed("look at", e))?;
        if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(Error::internal(format!(
                "the deadman's memory belongs to somebody else. path={}, uid={}, mode={:o}",
                path.display(),
                meta.uid(),
                meta.mode() & 0o7777
            ))
            .hint("remove the file"));
        }
        if meta.len() < SIZE as u64 {
            file.set_len(SIZE as u64).map_err(|e| failed("size", e))?;
        }
        // SAFETY: a fresh shared mapping of a file of at least SIZE bytes; nobody ever makes it shorter.
        let address =
            unsafe { mmap(std::ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0) }
                .map_err(|e| failed("map", e.into()))?;
        let layout =
            NonNull::new(address.cast::<Layout>()).ok_or_else(|| Error::internal("mmap answered with nothing"))?;
        Ok(Self { file, path: path.to_owned(), layout })
    }

    /// What both sides see.
    pub(super) fn layout(&self) -> &Layout {
        // SAFETY: mapped for as long as `self` lives, aligned to a page, valid for any bits.
        unsafe { self.layout.as_ref() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock that a living deadman holds. `false` if somebody else has it.
    pub(super) fn try_lock(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    pub(super) fn unlock(&self) {
        let _ = flock(&self.file, FlockOperation::NonBlockingUnlock);
    }

    /// Whether the deadman that holds the lock, if one does, speaks this format.
    pub(super) fn understood(&self) -> bool {
        self.layout().magic.load(SeqCst) == MAGIC && self.layout().format.load(SeqCst) == FORMAT
    }

    /// Fills in what is missing. Only for the holder of the lock. A deadline that somebody armed since the
    /// machine started stays, so that one whose deadman and agent both died is still enforced.
    pub(super) fn initialise(&self) {
        let layout = self.layout();
        let boot = boot_id();
        if layout.magic.load(SeqCst) != MAGIC
            || (layout.format.load(SeqCst) == FORMAT && layout.boot.load(SeqCst) != boot)
        {
            layout.deadline.store(DISARMED, SeqCst);
        }
        if !self.understood() || layout.boot.load(SeqCst) != boot {
            for word in [
                &layout.pid,
                &layout.heartbeat,
                &layout.generation,
                &layout.agent,
                &layout.end,
                &layout.fired_generation,
                &layout.fired_at,
                &layout.address,
            ] {
                word.store(0, SeqCst);
            }
        }
        layout.boot.store(boot, SeqCst);
        layout.format.store(FORMAT, SeqCst);
        layout.magic.store(MAGIC, SeqCst);
    }

    /// Removes the file, so that none is left behind for ever. Only for the holder of the lock: whoever gets
    /// the lock after it looks whether the file [is still there](Self::is_linked).
    pub(super) fn remove(&self) {
        if self.is_linked() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Whether the path still leads to this very file.
    pub(super) fn is_linked(&self) -> bool {
        match (self.file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(mine), Ok(there)) => (mine.dev(), mine.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this size, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.layout.as_ptr().cast(), SIZE) };
    }
}

/// A moment as both sides write it.
pub(super) fn nanos(moment: Moment) -> u64 {
    // Above zero and below the marks: neither end of the range is a moment.
    u64::try_from(moment.0.as_nanos()).unwrap_or(u64::MAX).clamp(1, ENDED - 1)
}

/// What [`nanos`] wrote.
pub(super) fn moment(nanos: u64) -> Moment {
    Moment(Duration::from_nanos(nanos))
}

/// One number for an address; zero for none.
pub(super) fn address_key(address: Option<IpAddr>) -> u64 {
    address.map_or(0, |ip| fnv1a(ip.to_string()).max(1))
}

/// Differs from one start of the machine to the next.
fn boot_id() -> u64 {
    fnv1a(std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}
