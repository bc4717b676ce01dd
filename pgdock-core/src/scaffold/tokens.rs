//! Passwords and the agents' token.

use rand::TryRngCore as _;
use rand::rngs::OsRng;

use super::keep::Folder;
use crate::secrets::TOKENS;
use crate::{Error, Result};

/// Makes those that are missing.
pub(super) fn add(folder: &mut Folder<'_>) -> Result<()> {
    for name in TOKENS {
        folder.read_or_make(name, 0o600, || Ok(format!("{}\n", random()?)))?;
    }
    Ok(())
}

/// Makes the key that backups are encrypted with, where there is none.
pub(super) fn add_backup_key(folder: &mut Folder<'_>) -> Result<()> {
    folder.read_or_make("backup.key", 0o600, || Ok(format!("{}\n", random()?))).map(drop)
}

/// 256 bits of the operating system's randomness, as 64 hexadecimal digits: they need no quoting in a URL, a
/// header or a connection string.
pub(super) fn random() -> Result<String> {
    let mut bytes = [0_u8; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| Error::internal("the operating system gave no random bytes").because(e))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
