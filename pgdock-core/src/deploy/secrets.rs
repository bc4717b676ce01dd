//! A node's secrets: which of the operator's folder it needs, and how they get there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::tar::Tar;
use crate::executor::{Command, Executor, Stdin};
use crate::settings::{BackupSettings, FailoverIpSettings, Settings};
use crate::{Error, NodeName, Result, secrets};

/// One file of a node's secrets. Its content is not shown.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretFile {
    /// Its path below the node's folder of secrets.
    pub name: String,
    /// What it holds.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a node needs of the operator's secrets, and nothing else: never the authority's key, nor another node's.
///
/// # Errors
/// `Invalid` when one that is needed is missing, or a file cannot be read; all at once.
pub fn secrets_of(settings: &Settings, node: &NodeName) -> Result<Vec<SecretFile>> {
    settings.node(node)?;
    let dir = settings.secrets();
    // What is there must be whole, and closed to others.
    secrets::Secrets::load(&dir)?.certificate(node)?;
    let mut wanted: BTreeMap<String, PathBuf> = BTreeMap::new();
    let own = [format!("{node}.crt"), format!("{node}.key"), "ca.crt".to_owned()];
    for name in secrets::TOKENS.iter().map(ToString::to_string).chain(own) {
        wanted.insert(name.clone(), dir.join(name));
    }
    let failover = dir.join("failover.env");
    if failover.exists() {
        wanted.insert("failover.env".to_owned(), failover);
    }
    let witness = &settings.witness;
    let mut named: Vec<PathBuf> = [&witness.certificate, &witness.key].into_iter().flatten().cloned().collect();
    named.extend(witness.store.files());
    named.extend(settings.backup.iter().flat_map(BackupSettings::files));
    named.extend(settings.failover_ip.as_ref().and_then(FailoverIpSettings::env_file).cloned());
    for path in named {
        if let Ok(below) = path.strip_prefix(&dir) {
            wanted.insert(below.display().to_string(), path.clone());
        }
    }
    for folder in ["shared", node.as_str()] {
        for path in files_in(&settings.dir.join(folder).join("env"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            wanted.insert(format!("env/{name}"), path);
        }
    }
    let mut files = Vec::new();
    let mut missing = Vec::new();
    for (name, path) in wanted {
        match std::fs::read(&path) {
            Ok(content) => files.push(SecretFile { name, content }),
            Err(e) => missing.push(format!("{} ({e})", path.display())),
        }
    }
    if missing.is_empty() {
        return Ok(files);
    }
    Err(Error::invalid(format!("secrets of the node are not readable. node={node}, files={}", missing.join(", ")))
        .hint("`pgdock init` adds what it makes; what cluster.toml names besides must be there"))
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::invalid(format!("the folder is not readable. path={}", dir.display())).because(e)),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// Unpacks an archive beside the folder, and moves each file into its place. What belongs to root, as it came from root, is
/// given to whom the home belongs to.
const UNPACK: &str = r#"set -eu
umask 077
new="$HOME_DIR/secrets/.new"
mkdir -p "$HOME_DIR/secrets"
chmod 700 "$HOME_DIR/secrets"
rm -rf "$new"
mkdir "$new"
tar -xf - -C "$new"
if [ "$(id -u)" = 0 ]; then chown -R --reference="$HOME_DIR" "$HOME_DIR/secrets"; fi
cd "$new"
find . -type f | while IFS= read -r file; do
    mkdir -p "../${file%/*}"
    sync "$file"
    mv -f -T "$file" "../$file"
done
if [ "$(id -u)" = 0 ]; then chown -R --reference="$HOME_DIR" "$HOME_DIR/secrets"; fi
cd ..
rm -rf "$new"
sync .
"#;

/// Brings a node its secrets: files of mode 0600 in `HOME/secrets`, each replaced in one step. They travel on standard
/// input, and are in no argument, environment or log. Answers how many there are.
///
/// # Errors
/// Those of [`secrets_of`], and of the executor; `Internal` when the node cannot take them.
pub async fn deliver(executor: &dyn Executor, settings: &Settings, node: &NodeName) -> Result<usize> {
    let files = secrets_of(settings, node)?;
    let mut tar = Tar::default();
    for file in &files {
        tar.file(&file.name, 0o600, &file.content)?;
    }
    let home = settings.node(node)?.home.display().to_string();
    let command = Command::shell(UNPACK).env("HOME_DIR", home).stdin(Stdin::Bytes(Bytes::from(tar.finish())));
    super::run(executor, "the node does not take its secrets", &command).await?;
    Ok(files.len())
}

/// Gives what root has brought into a node's home to whom that home belongs to. What came from anybody else is his already.
///
/// # Errors
/// Those of the executor.
pub async fn own(executor: &dyn Executor, home: &Path) -> Result<()> {
    let line = r#"if [ "$(id -u)" = 0 ] && [ -d "$HOME_DIR/bundles" ]; then chown -R -h --reference="$HOME_DIR" "$HOME_DIR/bundles"; fi"#;
    let give = Command::shell(line).env("HOME_DIR", home.display().to_string());
    super::run(executor, "what was brought cannot be given to the node's user", &give).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::SystemClock;
    use crate::executor::LocalExecutor;
    use crate::scaffold::Scaffold;

    #[tokio::test]
    async fn a_node_gets_what_it_needs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        let name = |name: &str| NodeName::new(name).unwrap();
        let nodes = vec![(name("n1"), "127.0.0.1".to_owned()), (name("n2"), "127.0.0.2".to_owned())];
        Scaffold::new("main", nodes).write(&folder, &SystemClock).unwrap();
        for (path, text) in [("shared/env/main", "A=shared"), ("shared/env/backup", "B=1"), ("n1/env/main", "A=own")] {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let settings = Settings::from_path(&folder).unwrap();
        let home = settings.node(&name("n1")).unwrap().home.clone();
        std::fs::create_dir_all(home.join("secrets")).unwrap();
        std::fs::write(home.join("secrets/ca.crt"), "old").unwrap();
        std::fs::write(home.join("secrets/passfile"), "of its own").unwrap();
        let sent = deliver(&LocalExecutor, &settings, &name("n1")).await.unwrap();
        // Twice is as good as once.
        assert_eq!(deliver(&LocalExecutor, &settings, &name("n1")).await.unwrap(), sent);

        let loaded = secrets::Secrets::load(&home.join("secrets")).unwrap();
        loaded.certificate(&name("n1")).unwrap();
        let read = |name: &str| std::fs::read_to_string(home.join("secrets").join(name)).unwrap();
        assert_eq!((read("env/main").as_str(), read("env/backup").as_str()), ("A=own", "B=1"));
        assert_eq!((read("passfile").as_str(), read("ca.crt") == "old"), ("of its own", false));
        for other in ["ca.key", "n2.key", "n2.crt", ".new"] {
            assert!(!home.join("secrets").join(other).exists(), "{other}");
        }
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(home.join("secrets")), mode(home.join("secrets/n1.key"))), (0o700, 0o600));
    }
}
