//! [`OsUser`]: the operating system's user that PostgreSQL runs as, which is never root.

use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::{Error, Result};

/// A user of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsUser {
    /// The login name, as `peer` authentication sees it.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's group.
    pub gid: u32,
    /// Whether commands must change to the user: we are root.
    switch: bool,
}

/// Where the operating system lists its users.
const PASSWD: &str = "/etc/passwd";

impl OsUser {
    /// The user that PostgreSQL is to run as: `wanted` where we are root, ourselves where we are not.
    ///
    /// # Errors
    /// `Invalid` when the user does not exist, is root, or is somebody whom we cannot become.
    pub fn resolve(wanted: &str) -> Result<Self> {
        let me = rustix::process::geteuid().as_raw();
        let users = read(Path::new(PASSWD))?;
        choose(wanted, me, &users)
    }

    /// The user that this process runs as.
    ///
    /// # Errors
    /// `Invalid` when the operating system does not list it: PostgreSQL could not name it either.
    pub fn current() -> Result<Self> {
        let me = rustix::process::geteuid().as_raw();
        by_uid(me, &read(Path::new(PASSWD))?)
    }

    /// Makes a command run as this user.
    pub(crate) fn apply(&self, command: &mut std::process::Command) {
        if self.switch {
            // Being root, the standard library drops the supplementary groups, too.
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives an open file to this user.
    pub(crate) fn take(&self, file: &std::fs::File) -> std::io::Result<()> {
        if self.switch {
            std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }

    /// Gives a path, itself rather than what it points at, to this user.
    pub(crate) fn take_path(&self, path: &Path) -> std::io::Result<()> {
        if self.switch {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Error::internal(format!("cannot read the list of users. path={}", path.display())).because(e))
}

/// The lines of a passwd file (`passwd(5)`), as users.
fn parse(users: &str) -> impl Iterator<Item = OsUser> + '_ {
    users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(OsUser { name: name.to_owned(), uid, gid, switch: false })
    })
}

fn by_uid(uid: u32, users: &str) -> Result<OsUser> {
    parse(users).find(|u| u.uid == uid).ok_or_else(|| {
        Error::invalid(format!("the present user has no name in {PASSWD}. uid={uid}"))
            .hint("add a line for it, as container images with arbitrary user numbers do at their start")
    })
}

fn choose(wanted: &str, me: u32, users: &str) -> Result<OsUser> {
    if me != 0 {
        // Whoever is not root cannot become somebody else; the configured name is meant for root.
        return by_uid(me, users);
    }
    let user = parse(users).find(|u| u.name == wanted).ok_or_else(|| {
        Error::invalid(format!("there is no such user of the operating system. key=postgres.user, user={wanted}"))
            .hint(format!("useradd --system --shell /usr/sbin/nologin {wanted}"))
            .hint("or set postgres.user to the user that PostgreSQL shall run as")
    })?;
    if user.uid == 0 {
        return Err(Error::invalid(format!("postgresql does not run as root. key=postgres.user, user={wanted}"))
            .hint("set postgres.user to a user without privileges, such as `postgres`"));
    }
    Ok(OsUser { switch: true, ..user })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n# no user\ntoor:x:0:0::/:\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\nann:x:1000:1001::/home/ann:/bin/sh\nbroken:x\n";

    #[test]
    fn root_becomes_the_configured_user() {
        let user = choose("postgres", 0, USERS).unwrap();
        assert_eq!((user.uid, user.gid, user.switch), (101, 104, true));
    }

    #[test]
    fn postgresql_never_runs_as_root() {
        for name in ["root", "toor"] {
            let error = choose(name, 0, USERS).unwrap_err();
            assert!(error.to_string().contains("does not run as root"), "{error}");
        }
    }

    #[test]
    fn an_ordinary_user_stays_itself() {
        let user = choose("postgres", 1000, USERS).unwrap();
        assert_eq!((user.name.as_str(), user.switch), ("ann", false));
        assert!(choose("postgres", 4711, USERS).unwrap_err().to_string().contains("uid=4711"));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = choose("pg", 0, USERS).unwrap_err();
        assert!(error.to_string().contains("user=pg"), "{error}");
    }
}
