//! From settings to a failover IP.

#[cfg(any(feature = "aws", feature = "hetzner"))]
use std::collections::BTreeMap;
#[cfg(any(feature = "aws", feature = "hetzner"))]
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(any(feature = "aws", feature = "hetzner"))]
use secrecy::SecretString;

use super::{FailoverIp, LinuxFailoverIp, ScriptFailoverIp};
#[cfg(any(feature = "aws", feature = "hetzner"))]
use crate::settings::KeeperSettings;
use crate::settings::{FailoverIpSettings, Settings, env_file};
use crate::{Error, NodeName, Result};

/// The failover IP of the settings, as the agent of one node uses it; nothing where there is none.
///
/// # Errors
/// `Invalid` where credentials are missing or open to others, or this build does not know the kind.
pub fn open(settings: &Settings, me: &NodeName) -> Result<Option<Arc<dyn FailoverIp>>> {
    let Some(ip) = &settings.failover_ip else { return Ok(None) };
    Ok(Some(match ip {
        FailoverIpSettings::Script { address, script, env_file, timeout } => {
            let mut ip = ScriptFailoverIp::new(script, address).timeout(*timeout);
            // What `env/main` holds for such a script, such as HETZNER_USER; not what it says of PostgreSQL.
            let env = settings.env(me, "main")?;
            for (name, value) in env.into_iter().filter(|(name, _)| !name.starts_with("POSTGRES_") && name != "PGDATA")
            {
                ip = ip.var(name, value);
            }
            if let Some(file) = env_file {
                for (name, value) in env_file::read(file)? {
                    ip = ip.var(name, value);
                }
            }
            Arc::new(ip)
        }
        FailoverIpSettings::Linux { address, prefix } => {
            let node = settings.node(me)?;
            let ip = match (&node.failover_ip.interface, node.address.parse()) {
                (Some(interface), _) => LinuxFailoverIp::on(me.clone(), *address, interface),
                (None, Ok(own)) => LinuxFailoverIp::beside(me.clone(), *address, own),
                (None, Err(_)) => {
                    return Err(Error::invalid(format!("the interface of the failover IP is not known. node={me}"))
                        .hint(format!("add interface = \"eth0\" to [nodes.{me}]")));
                }
            };
            match prefix {
                Some(bits) => Arc::new(ip.prefix(*bits)),
                None => Arc::new(ip),
            }
        }
        #[cfg(feature = "hetzner")]
        FailoverIpSettings::HetznerRobot(keeper) => Arc::new(robot(settings, keeper, me)?),
        #[cfg(feature = "hetzner")]
        FailoverIpSettings::HetznerCloud(keeper) => Arc::new(cloud(settings, keeper, me)?),
        #[cfg(feature = "aws")]
        FailoverIpSettings::Aws { keeper, region, credentials } => {
            Arc::new(aws(settings, keeper, me, region, *credentials)?)
        }
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        other => {
            let feature = if other.kind().starts_with("hetzner") { "hetzner" } else { other.kind() };
            return Err(Error::invalid(format!(
                "this build of pgdock knows no such failover IP. kind={}, node={me}",
                other.kind()
            ))
            .hint(format!("build it with the feature `{feature}`")));
        }
    }))
}

/// The credentials, and where they were found: in the file that is named, in the usual one, or in the node's
/// `env/main`. Nobody else may read a file of its own.
#[cfg(any(feature = "aws", feature = "hetzner"))]
fn credentials(
    settings: &Settings,
    keeper: &KeeperSettings,
    me: &NodeName,
) -> Result<(PathBuf, BTreeMap<String, SecretString>)> {
    use std::os::unix::fs::PermissionsExt as _;

    let file = keeper.env_file.clone().unwrap_or_else(|| settings.secrets().join("failover.env"));
    let delivered =
        if keeper.env_file.is_none() && !file.exists() { settings.env(me, "main")? } else { BTreeMap::new() };
    let values = if delivered.is_empty() { env_file::read(&file)? } else { delivered };
    let mode = std::fs::metadata(&file).map_or(0, |meta| meta.permissions().mode() & 0o7777);
    if mode & 0o077 != 0 {
        return Err(Error::invalid(format!(
            "the credentials of the failover IP are open to others. file={}, mode={mode:04o}",
            file.display()
        ))
        .hint(format!("chmod 600 {}", file.display())));
    }
    let file = if file.exists() { file } else { PathBuf::from("env/main") };
    Ok((file, values.into_iter().map(|(key, value)| (key, SecretString::from(value))).collect()))
}

/// Takes out what must be there.
#[cfg(any(feature = "aws", feature = "hetzner"))]
fn take(values: &mut BTreeMap<String, SecretString>, file: &Path, key: &str) -> Result<SecretString> {
    use secrecy::ExposeSecret as _;
    values.remove(key).filter(|value| !value.expose_secret().is_empty()).ok_or_else(|| {
        Error::invalid(format!("a credential of the failover IP is missing. file={}, key={key}", file.display()))
            .hint(format!("add a line {key}=…"))
    })
}

#[cfg(feature = "hetzner")]
fn robot(settings: &Settings, keeper: &KeeperSettings, me: &NodeName) -> Result<super::HetznerRobotIp> {
    use secrecy::ExposeSecret as _;

    let (file, mut values) = credentials(settings, keeper, me)?;
    let user = take(&mut values, &file, "HETZNER_USER")?.expose_secret().to_owned();
    let password = take(&mut values, &file, "HETZNER_PASS")?;
    // What the file says beside them is no secret, and must not contradict.
    let mut address = |key: &str| -> Result<Option<std::net::IpAddr>> {
        let Some(text) = values.remove(key) else { return Ok(None) };
        let text = text.expose_secret();
        text.parse().map(Some).map_err(|_| {
            Error::invalid(format!("not an IP address. file={}, key={key}, value={text}", file.display()))
                .hint("correct it, or remove the line")
        })
    };
    if let Some(other) = address("HETZNER_FAILOVER_IP")?.filter(|ip| *ip != keeper.address) {
        return Err(Error::invalid(format!(
            "two failover IPs are named. file={}, HETZNER_FAILOVER_IP={other}, address={}",
            file.display(),
            keeper.address
        ))
        .hint("correct one of them, or remove the line"));
    }
    let own = address("HETZNER_ACTIVE_SERVER_IP")?;
    let mut ip = super::HetznerRobotIp::new(keeper.address, user, password)?;
    for (name, node) in &settings.nodes {
        let named = node.failover_ip.server_ip.or(own.filter(|_| name == me));
        if let Some(server) = named.or_else(|| node.address.parse().ok()) {
            ip = ip.server(name.clone(), server);
        }
    }
    if let Some(endpoint) = &keeper.endpoint {
        ip = ip.endpoint(endpoint)?;
    }
    Ok(match keeper.timeout {
        Some(timeout) => ip.timeout(timeout),
        None => ip,
    })
}

#[cfg(feature = "hetzner")]
fn cloud(settings: &Settings, keeper: &KeeperSettings, me: &NodeName) -> Result<super::HetznerCloudIp> {
    let (file, mut values) = credentials(settings, keeper, me)?;
    let mut ip = super::HetznerCloudIp::new(keeper.address, take(&mut values, &file, "HCLOUD_TOKEN")?)?;
    for (name, node) in &settings.nodes {
        if let Some(server) = node.failover_ip.server_id {
            ip = ip.server(name.clone(), server);
        }
    }
    if let Some(endpoint) = &keeper.endpoint {
        ip = ip.endpoint(endpoint)?;
    }
    Ok(match keeper.timeout {
        Some(timeout) => ip.timeout(timeout),
        None => ip,
    })
}

#[cfg(feature = "aws")]
fn aws(
    settings: &Settings,
    keeper: &KeeperSettings,
    me: &NodeName,
    region: &str,
    from: crate::settings::Credentials,
) -> Result<super::AwsFailoverIp> {
    use secrecy::ExposeSecret as _;

    use super::aws::{Attachment, AwsKeys};
    use crate::settings::Credentials;

    let std::net::IpAddr::V4(address) = keeper.address else {
        return Err(Error::invalid(format!("an Elastic IP is an IPv4 address. address={}", keeper.address)));
    };
    let keys = match from {
        Credentials::Instance => AwsKeys::Instance { metadata: None },
        Credentials::File => {
            let (file, mut values) = credentials(settings, keeper, me)?;
            AwsKeys::Static {
                id: take(&mut values, &file, "AWS_ACCESS_KEY_ID")?.expose_secret().to_owned(),
                secret: take(&mut values, &file, "AWS_SECRET_ACCESS_KEY")?,
                token: values.remove("AWS_SESSION_TOKEN").filter(|token| !token.expose_secret().is_empty()),
            }
        }
    };
    let mut ip = super::AwsFailoverIp::new(address, region, keys)?;
    for (name, node) in &settings.nodes {
        let own = &node.failover_ip;
        let instance = own.instance_id.clone().map(Attachment::Instance);
        if let Some(attachment) = instance.or_else(|| own.network_interface_id.clone().map(Attachment::Interface)) {
            ip = ip.node(name.clone(), attachment);
        }
    }
    if let Some(endpoint) = &keeper.endpoint {
        ip = ip.endpoint(endpoint)?;
    }
    Ok(match keeper.timeout {
        Some(timeout) => ip.timeout(timeout),
        None => ip,
    })
}

#[cfg(all(test, feature = "hetzner"))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder with one node, and what lies in its files.
    fn folder(kind: &str, node: &str, files: &[(&str, &str, u32)]) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, mode) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let toml = format!(
            "[cluster]\nname = \"main\"\n[nodes.n1]\naddress = \"10.0.0.1\"\n{node}\n[failover_ip]\naddress = \"1.2.3.4\"\n{kind}\n"
        );
        let settings = Settings::from_toml(&toml, dir.path()).unwrap();
        (dir, settings)
    }

    fn opened(settings: &Settings) -> Result<String> {
        let ip = open(settings, &NodeName::new("n1").unwrap())?.unwrap();
        let shown = format!("{ip} {ip:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        Ok(shown)
    }

    const ARTICLE: &str = "POSTGRES_DB=shop\nHETZNER_USER=robot\nHETZNER_PASS=hunter2\nHETZNER_FAILOVER_IP=1.2.3.4\n\
                           HETZNER_ACTIVE_SERVER_IP=5.6.7.8\n";

    #[test]
    fn the_articles_file_says_all() {
        let kind = "kind = \"hetzner_robot\"";
        for place in ["secrets/failover.env", "shared/env/main", "n1/env/main"] {
            let (_dir, settings) = folder(kind, "", &[(place, ARTICLE, 0o600)]);
            let shown = opened(&settings).unwrap();
            assert!(shown.contains("1.2.3.4 by Hetzner Robot") && shown.contains("5.6.7.8"), "{shown}");
        }
        // What cluster.toml says of the node comes first; without either, it is the node's address.
        let (_dir, settings) = folder(kind, "server_ip = \"5.6.7.9\"", &[("n1/env/main", ARTICLE, 0o600)]);
        assert!(opened(&settings).unwrap().contains("5.6.7.9"));
        let bare = "HETZNER_USER=robot\nHETZNER_PASS=hunter2\n";
        let (_dir, settings) = folder(kind, "", &[("secrets/failover.env", bare, 0o600)]);
        assert!(opened(&settings).unwrap().contains("10.0.0.1"));
    }

    #[test]
    fn what_is_missing_or_open_is_said() {
        let kind = "kind = \"hetzner_robot\"";
        let fails = |files: &[(&str, &str, u32)], words: &str| {
            let (_dir, settings) = folder(kind, "", files);
            let error = opened(&settings).unwrap_err();
            let text = format!("{} {:?}", error.chain(), error.hints());
            assert!(text.contains(words) && !text.contains("hunter2"), "{words}: {text}");
        };
        fails(&[], "failover.env");
        fails(&[("secrets/failover.env", ARTICLE, 0o644)], "chmod 600");
        fails(&[("secrets/failover.env", "HETZNER_USER=robot\nHETZNER_PASS=\n", 0o600)], "key=HETZNER_PASS");
        let other = ARTICLE.replace("1.2.3.4", "1.2.3.5");
        fails(&[("secrets/failover.env", &other, 0o600)], "two failover IPs are named");
        fails(&[("secrets/failover.env", &ARTICLE.replace("5.6.7.8", "5.6.7"), 0o600)], "key=HETZNER_ACTIVE_SERVER_IP");
        let (_dir, settings) =
            folder("kind = \"hetzner_cloud\"", "server_id = 7", &[("secrets/failover.env", "X=1\n", 0o600)]);
        assert!(opened(&settings).unwrap_err().chain().contains("key=HCLOUD_TOKEN"));
    }

    #[test]
    fn a_machine_of_its_own_needs_no_file() {
        let (_dir, settings) = folder("kind = \"linux\"", "", &[]);
        assert!(opened(&settings).unwrap().contains("1.2.3.4 on this machine"));
    }
}
