//! Ways to the witness that can be cut for one node alone.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use pgdock_core::{Error, NodeName, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::RealCluster;

/// How a node reaches the witness: through a link, behind which a test can put something else.
#[derive(Debug)]
pub struct Way {
    link: PathBuf,
    witness: PathBuf,
    nowhere: PathBuf,
    hole: PathBuf,
}

impl Way {
    /// Whoever goes this way gets no answer any more, and is not refused either: it waits.
    pub fn cut(&self) {
        self.lead_to(&self.nowhere);
    }

    /// The witness is there again.
    pub fn mend(&self) {
        self.lead_to(&self.witness);
        // Whoever still waits at the hole learns that nothing comes.
        let _ = rustix::fs::open(&self.hole, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
    }

    fn lead_to(&self, target: &PathBuf) {
        let fresh = self.link.with_extension("fresh");
        symlink(target, &fresh).expect("a link can be made");
        std::fs::rename(&fresh, &self.link).expect("a link can be replaced");
    }
}

impl RealCluster {
    /// Gives a node a way of its own to the witness, from the next start of its agent on.
    ///
    /// # Errors
    /// Where its settings cannot be written.
    ///
    /// # Panics
    /// Where the witness is no file.
    pub fn own_way(&self, node: &NodeName) -> Result<Way> {
        let io = |e: std::io::Error| Error::internal("cannot prepare a node's own way to the witness").because(e);
        let document = self.settings.witness.file().expect("the witness is a file").to_owned();
        let (folder, name) = (document.parent().expect("a folder"), document.file_name().expect("a name"));
        let dir = self.own_dir(node);
        let nowhere = dir.join("nowhere");
        std::fs::create_dir_all(&nowhere).map_err(io)?;
        // A reader of this waits for a writer, who never comes.
        let hole = nowhere.join(name);
        mknodat(CWD, &hole, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|e| io(e.into()))?;
        let link = dir.join("witness");
        symlink(folder, &link).map_err(io)?;
        symlink(self.settings.secrets(), dir.join("secrets")).map_err(io)?;
        let text = std::fs::read_to_string(self.dir().join("cluster.toml")).map_err(io)?;
        let root = format!("[cluster]\nroot = {:?}\n", self.dir().join("var"));
        let text = text.replacen("[cluster]\n", &root, 1);
        let url = format!("[witness]\nurl = \"file:{}\"", link.join(name).display());
        let text = text.replacen("[witness]", &url, 1);
        std::fs::write(dir.join("cluster.toml"), text).map_err(io)?;
        Ok(Way { link, witness: folder.to_owned(), nowhere, hole })
    }

    /// The folder that a node reads its settings from.
    pub(super) fn config_dir(&self, node: &NodeName) -> PathBuf {
        Some(self.own_dir(node)).filter(|dir| dir.is_dir()).unwrap_or_else(|| self.dir().to_owned())
    }

    fn own_dir(&self, node: &NodeName) -> PathBuf {
        self.dir().join("ways").join(node.as_str())
    }
}
