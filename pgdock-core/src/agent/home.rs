//! [`ready`]: an agent that waits, in its node's own folder, for its configuration and secrets.
//!
//! So a container or a service can be started while it is still empty, and everything else comes by the same way as
//! later changes do.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::{Error, ErrorKind, NodeName, Result};

/// How often it is looked whether all is there.
const LOOK: Duration = Duration::from_millis(300);
/// How often somebody who waits says so again, in looks.
const SAY_EVERY: u32 = 200;

/// Waits until a node's home has its configuration, in `bundles/current`, and its secrets, in `secrets`; what is missing is
/// said. Answers the settings and the node's name; nothing where `stop` was cancelled first.
///
/// # Errors
/// `Invalid` when what is there is wrong, such as faults in the settings.
pub async fn ready(home: &Path, stop: &CancellationToken) -> Result<Option<(Settings, NodeName)>> {
    if !home.is_absolute() {
        return Err(Error::invalid(format!("the home of a node must be an absolute path. home={}", home.display())));
    }
    let mut said = String::new();
    let mut looks: u32 = 0;
    loop {
        match look(home) {
            Ok(found) => return Ok(Some(found)),
            // It is too early.
            Err(missing) if missing.kind() == ErrorKind::NotReady => {
                let text = missing.chain();
                if text != said || looks.is_multiple_of(SAY_EVERY) {
                    tracing::info!(home = %home.display(), "waiting: {text}");
                    said = text;
                }
            }
            Err(wrong) => return Err(wrong),
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn look(home: &Path) -> Result<(Settings, NodeName)> {
    let current = home.join("bundles").join("current");
    if !current.join("bundle.json").exists() {
        return Err(Error::not_ready("there is no configuration yet: `pgdock config update` brings it"));
    }
    let settings = Settings::from_path(&current)?;
    let node = settings.bundle.clone().ok_or_else(|| {
        Error::invalid(format!("the configuration does not tell whose it is. path={}", current.display()))
            .hint("install the bundle anew: `pgdock config update`")
    })?;
    let lacking = |e: Error| {
        // One that is there, and open to others or not to be read, does not get better by waiting; one may be on its way.
        let error = Error::not_ready("the secrets are not all there: `pgdock up` brings them");
        if e.chain().contains("missing") { error.because(e.chain()) } else { e }
    };
    let secrets = Secrets::load(&settings.secrets()).map_err(lacking)?;
    secrets.certificate(&node).map_err(lacking)?;
    Ok((settings, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::scaffold::Scaffold;

    #[tokio::test]
    async fn it_waits_for_what_is_missing_and_refuses_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let node = NodeName::new("n1").unwrap();
        let kind = || look(&home).map(|(_, node)| node).map_err(|e| (e.kind(), e.chain()));
        let (missing, text) = kind().unwrap_err();
        assert!(missing == ErrorKind::NotReady && text.contains("config update"), "{text}");

        let folder = dir.path().join("folder");
        Scaffold::new("main", [(node.clone(), "127.0.0.1".to_owned())]).write(&folder, &SystemClock).unwrap();
        let bundle = home.join("bundles/abc");
        std::fs::create_dir_all(&bundle).unwrap();
        std::os::unix::fs::symlink("abc", home.join("bundles/current")).unwrap();
        std::fs::write(bundle.join("bundle.json"), r#"{"format": 1, "node": "n1"}"#).unwrap();
        let write = |executor: &str| {
            let text = format!(
                "[cluster]\nname = \"main\"\nexecutor = \"docker\"\nroot = \"{executor}\"\n[witness]\nurl = \"etcd://10.0.0.9:1\"\n\
                 tls = false\n[nodes.n1]\naddress = \"127.0.0.1\"\n"
            );
            std::fs::write(bundle.join("cluster.toml"), text).unwrap();
        };
        write(home.to_str().unwrap());
        let (missing, text) = kind().unwrap_err();
        assert!(missing == ErrorKind::NotReady && text.contains("secrets"), "{text}");
        let copied =
            std::process::Command::new("cp").arg("-a").arg(folder.join("secrets")).arg(&home).status().unwrap();
        assert!(copied.success());
        assert_eq!(kind(), Ok(node));

        std::fs::write(bundle.join("bundle.json"), "{}").unwrap();
        assert_eq!(kind().unwrap_err().0, ErrorKind::Invalid);
        std::fs::remove_file(bundle.join("bundle.json")).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(ready(&home, &stop).await.unwrap().is_none());
    }
}
