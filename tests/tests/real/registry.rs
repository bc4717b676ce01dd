//! Bundles in a real registry: pushed, pulled, and pushed again after it went down in the middle.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgdock_core::bundle::{Bundle, Image, Registry, RegistryConfig};
use pgdock_core::witness::http::Tls;
use pgdock_core::{Error, ErrorKind, NodeName, Result, Settings};
use pgdock_tests::real::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::SOON;

/// A user, and his password as it is kept: a vector that bcrypt's own tests have.
const USER: (&str, &str) = ("keeper", "U*U");
const KEPT: &str = "keeper:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";

/// A registry that keeps its images in a folder of its own. Dropped, it leaves nothing running.
struct Server {
    dir: tempfile::TempDir,
    address: String,
    child: Option<Child>,
}

fn program() -> Option<PathBuf> {
    let found = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"].map(PathBuf::from);
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "there is no docker-registry");
        eprintln!("skipped: there is no docker-registry; scripts/setup.sh --tests installs one");
    }
    found
}

impl Server {
    async fn start(asks: bool) -> Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let io = |e: std::io::Error| Error::internal("cannot start a registry for the test").because(e);
        let dir = tempfile::tempdir().map_err(io)?;
        let free = std::net::TcpListener::bind("127.0.0.239:0").and_then(|l| l.local_addr()).map_err(io)?;
        let address = free.to_string();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("users"), KEPT).map_err(io)?;
        let auth = if asks {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", at("users"))
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{auth}",
            at("images")
        );
        std::fs::write(at("config.yml"), config).map_err(io)?;
        let child = Command::new(program)
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io)?;
        let this = Self { dir, address, child: Some(child) };
        until("the registry listens", SOON, async || TcpStream::connect(&this.address).await.is_ok()).await?;
        Ok(Some(this))
    }

    fn registry(&self, address: &str, user: Option<(&str, &str)>) -> Registry {
        let tls = Tls { allow_plain: true, ..Tls::default() };
        let user = user.map(|(user, password)| (user.to_owned(), password.to_owned().into()));
        Registry::new(RegistryConfig { repository: format!("{address}/team/pgdock"), tls, user }).expect("a registry")
    }

    /// How many bytes of blobs it keeps.
    fn keeps(&self) -> usize {
        fn size(dir: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().map_or(0, |m| m.len() as usize) })
                .sum()
        }
        size(&self.dir.path().join("images/docker/registry/v2/blobs"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An image of a node, which differs by this text.
fn image(text: &str) -> Image {
    let dir = tempfile::tempdir().expect("a folder");
    let toml = "[cluster]\nname = \"main\"\n[nodes.n1]\naddress = \"127.0.0.2\"\n";
    std::fs::create_dir(dir.path().join("shared")).expect("a folder");
    std::fs::write(dir.path().join("shared/text"), text).expect("a file");
    std::fs::write(dir.path().join("cluster.toml"), toml).expect("a file");
    let settings = Settings::from_path(dir.path()).expect("settings");
    let bundle = Bundle::build(&settings, &NodeName::new("n1").expect("a name")).expect("a bundle");
    Image::pack(bundle, None).expect("an image")
}

#[tokio::test]
async fn what_is_pushed_is_pulled_and_sent_once() -> Result<()> {
    let Some(server) = Server::start(true).await? else { return Ok(()) };
    let registry = server.registry(&server.address, Some(USER));
    let first = image("one");
    let error = registry.pull("n1v1").await.unwrap_err();
    assert!(error.to_string().contains("no image of this tag"), "{error}");
    let sent = registry.push(&first, "n1v1").await?;
    assert!(!sent.unchanged && sent.bytes as usize > first.bundle.archive().len());
    let pulled = registry.pull("n1v1").await?;
    assert_eq!((pulled.digest(), pulled.bundle.archive()), (first.digest(), first.bundle.archive()));
    assert_eq!(pulled.labels(), first.labels());
    assert!(registry.push(&first, "n1v1").await?.unchanged);
    let again = registry.push(&first, "n1v2").await?;
    assert!((again.bytes as usize) < first.bundle.archive().len(), "the layer is there: {again:?}");

    for (user, said) in [(None, "wants to know who asks"), (Some(("keeper", "wrong")), "does not accept who asks")] {
        let error = server.registry(&server.address, user).push(&first, "n1v3").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.chain().contains("wrong"), "{}", error.chain());
    }
    Ok(())
}

/// Passes on what goes to the registry, and breaks off for good after so many bytes.
async fn breaking(to: String, after: usize) -> Result<String> {
    let io = |e: std::io::Error| Error::internal("cannot listen").because(e);
    let listener = TcpListener::bind("127.0.0.239:0").await.map_err(io)?;
    let address = listener.local_addr().map_err(io)?.to_string();
    let left = Arc::new(AtomicUsize::new(after));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, left) = (to.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                if left.load(Ordering::SeqCst) == 0 {
                    return;
                }
                let Ok(server) = TcpStream::connect(&to).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 4096];
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    let pass = n.min(left.load(Ordering::SeqCst));
                    left.fetch_sub(pass, Ordering::SeqCst);
                    if to_server.write_all(&buffer[..pass]).await.is_err() || pass < n {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_push_that_broke_off_leaves_no_tag_and_is_gone_on_with() -> Result<()> {
    let Some(server) = Server::start(false).await? else { return Ok(()) };
    let direct = server.registry(&server.address, None);
    // In the middle of the layer; after the layer; and before the tag.
    let size = image(&"text ".repeat(20_000)).bundle.archive().len();
    for (i, after) in [size / 2, size + 900].into_iter().enumerate() {
        let sent = image(&format!("{i} {}", "text ".repeat(20_000)));
        let address = breaking(server.address.clone(), after).await?;
        let error = server.registry(&address, None).push(&sent, "n1v1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(direct.pull("n1v1").await.is_err(), "a half of an image counts");
        let kept = server.keeps();
        let rest = direct.push(&sent, "n1v1").await?;
        if after > size {
            assert!(
                (rest.bytes as usize) < size,
                "the layer had arrived, and is not sent again: {rest:?}, kept={kept}"
            );
        }
        assert_eq!(direct.pull("n1v1").await?.digest(), sent.digest());
        // The next round begins without it.
        let (tags, gone) =
            (server.dir.path().join("images/docker/registry/v2/repositories/team/pgdock/_manifests"), "tags");
        std::fs::remove_dir_all(tags.join(gone)).map_err(|e| Error::internal("the tag stays").because(e))?;
    }
    Ok(())
}
