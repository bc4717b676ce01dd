//! Settings are tried on the PostgreSQL that shall run with them, before anything rests on them: `postgres -C` reads them as a
//! server would, and needs neither a data directory nor a running one.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use super::command::Command;
use super::conf_file::Main;
use super::instance::UserConfiguration;
use super::os_user::OsUser;
use super::version::Binaries;
use crate::{Error, ErrorKind, Result};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Has PostgreSQL read settings, in a folder of their own below `dir`, which its user must be able to reach.
///
/// # Errors
/// `Invalid` when it refuses them, with what it said; `Internal` when it cannot be asked.
pub(crate) async fn of_settings(
    user: &UserConfiguration,
    binaries: &Binaries,
    os_user: &OsUser,
    dir: &Path,
) -> Result<()> {
    let folder = Scratch(dir.join(format!(".trial-{}", &crate::dice::unique()[..16])));
    let at = &folder.0;
    let failed = |e: std::io::Error| Error::internal(format!("cannot try settings. dir={}", at.display())).because(e);
    std::fs::DirBuilder::new().mode(0o700).create(at).map_err(failed)?;
    let main = Main {
        user: &user.settings,
        address: "127.0.0.1",
        port: 5432,
        socket_dir: at,
        cluster_name: "trial",
        cert: at,
        key: at,
        failover_slots: false,
        archive_command: None,
    };
    let file = at.join("postgresql.conf");
    std::fs::write(&file, main.render()).map_err(failed)?;
    os_user.take_path(&file).map_err(failed)?;
    for included in ["upstream.conf", "names.conf", "clients.conf"] {
        std::fs::write(at.join(included), "").map_err(failed)?;
        os_user.take_path(&at.join(included)).map_err(failed)?;
    }
    os_user.take_path(at).map_err(failed)?;
    let asked = Command::new(binaries.program("postgres"), os_user, Path::new("/"), LIMIT)
        .args(["-C", "port", "-D"])
        .arg(at)
        .arg("-c")
        .arg(format!("config_file={}", file.display()))
        .run()
        .await;
    match asked {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            // Where it stands in the file that was rendered for this helps nobody.
            let said = error.to_string().replace(&format!(" in file \"{}\"", file.display()), "");
            let said = said.split_once("said=").map_or(said.as_str(), |(_, said)| said);
            // Without the time and the process of each line, and without what is no complaint of a setting.
            let said: Vec<_> = said
                .split(" | ")
                .filter(|part| !part.contains("contains errors") && !part.contains("skipping missing"))
                .map(|part| part.split_once("LOG:").or(part.split_once("FATAL:")).map_or(part, |(_, said)| said).trim())
                .collect();
            Err(Error::invalid(format!("postgresql {} refuses the settings: {}", binaries.version(), said.join("; ")))
                .hint("correct it in postgresql.conf of the node or of shared/, or in [postgres.settings]"))
        }
        Err(error) => Err(error),
    }
}

/// A folder that goes when it goes out of scope.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is swept by nobody, and harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
