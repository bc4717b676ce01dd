//! The failover address that machines take on themselves, on machines that are namespaces of networks on one bridge:
//! a client in the same network follows it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pgdock_core::agent::deadman::{Armed, Deadman, DeadmanConfig};
use pgdock_core::clock::{Clock, SystemClock};
use pgdock_core::failover_ip::{FailoverIp, Holder, LinuxFailoverIp, Target, conformance};
use pgdock_core::{Error, NodeName, Result, Term};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
const V4: &str = "10.77.0.100";
const V6: &str = "fd77::100";

fn run(program: &str, args: &[&str]) -> std::result::Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.map_err(|e| format!("{program} cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    let said = said.trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{program} {}: {said}", args.join(" "))) }
}

fn ip(args: &str) -> std::result::Result<String, String> {
    run("ip", &args.split(' ').collect::<Vec<_>>())
}

/// Three machines on a bridge of their own. Dropped, they are gone.
struct Network {
    name: String,
    hosts: Vec<Host>,
}

/// A machine: what its runtime runs, runs there.
struct Host {
    namespace: String,
    mac: String,
    runtime: Option<Runtime>,
}

impl Network {
    /// Nothing, and it is said, where this machine has no namespaces.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pgip{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let mut network = Self { name, hosts: Vec::new() };
        match network.build() {
            Ok(()) => Some(network),
            Err(why) => {
                let required = std::env::var("PGDOCK_REAL").as_deref() == Ok("required");
                assert!(!required, "namespaces of networks cannot be made: {why}");
                eprintln!("skipped: namespaces of networks cannot be made: {why}");
                None
            }
        }
    }

    fn build(&mut self) -> std::result::Result<(), String> {
        let switch = format!("{}s", self.name);
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for i in 1..=3 {
            let namespace = format!("{}n{i}", self.name);
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("-n {namespace} link add eth0 type veth peer name p{i} netns {switch}"))?;
            ip(&format!("-n {switch} link set p{i} master br0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} addr add 10.77.0.{i}/24 dev eth0"))?;
            ip(&format!("-n {namespace} addr add fd77::{i}/64 dev eth0 nodad"))?;
            let mac = run("ip", &["netns", "exec", &namespace, "cat", "/sys/class/net/eth0/address"])?;
            let runtime = runtime(&namespace)?;
            self.hosts.push(Host { namespace, mac, runtime: Some(runtime) });
        }
        Ok(())
    }

    fn client(&self) -> &Host {
        &self.hosts[2]
    }

    /// The hardware address that the client believes an address to be at.
    fn believed(&self, address: &str) -> String {
        let shown = ip(&format!("-n {} neigh show {address}", self.client().namespace)).unwrap();
        let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_default().to_owned()
    }

    /// Whom the client reaches at an address.
    async fn reached(&self, address: IpAddr) -> String {
        let reach = async move {
            let mut stream = TcpStream::connect((address, 7000)).await?;
            let mut name = String::new();
            stream.read_to_string(&mut name).await?;
            std::io::Result::Ok(name)
        };
        let bounded = tokio::time::timeout(PATIENCE, reach);
        self.client().inside(bounded).await.expect("the client does not get through").expect("the client is refused")
    }
}

impl Host {
    async fn inside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        runtime.spawn(work).await.expect("it does not panic")
    }

    fn holds(&self, address: &str) -> bool {
        let shown = ip(&format!("-n {} -o addr show", self.namespace)).unwrap();
        shown.contains(&format!(" {address}/"))
    }

    /// Tells its name to whoever connects.
    async fn listen(&self, name: &'static str) {
        let bound = self.inside(async { TcpListener::bind("[::]:7000").await.unwrap() }).await;
        let runtime = self.runtime.as_ref().unwrap();
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = bound.accept().await {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            if let Some(runtime) = host.runtime.take() {
                runtime.shutdown_background();
            }
        }
        for end in ["n1", "n2", "n3", "s"] {
            let _ = ip(&format!("netns del {}{end}", self.name));
        }
    }
}

/// All its threads are in a namespace.
fn runtime(namespace: &str) -> std::result::Result<Runtime, String> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd as _;

    let path = PathBuf::from("/run/netns").join(namespace);
    let file = std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
        })
        .build()
        .map_err(|e| e.to_string())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn target(i: u8) -> Target {
    Target {
        cluster: "shop".into(),
        node: NodeName::new(format!("n{i}")).unwrap(),
        address: format!("10.77.0.{i}"),
        term: Term(7),
    }
}

/// The addresses of two agents as one: whoever leads adds it, and the other one, who does not, takes it off.
#[derive(Debug)]
struct Pair {
    runtimes: [tokio::runtime::Handle; 2],
    ips: [Arc<LinuxFailoverIp>; 2],
}

impl Pair {
    fn new(network: &Network, address: &str) -> Self {
        let ips = [1, 2].map(|i| {
            let own = if address.contains(':') { format!("fd77::{i}") } else { format!("10.77.0.{i}") };
            let (address, own) = (address.parse().unwrap(), own.parse().unwrap());
            Arc::new(LinuxFailoverIp::beside(target(i).node, address, own))
        });
        let runtimes = [0, 1].map(|i: usize| network.hosts[i].runtime.as_ref().unwrap().handle().clone());
        Self { runtimes, ips }
    }

    async fn on<T, F>(&self, i: usize, work: impl FnOnce(Arc<LinuxFailoverIp>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.runtimes[i].spawn(work(Arc::clone(&self.ips[i]))).await.expect("it does not panic")
    }

    async fn add(&self, target: &Target) -> Result<()> {
        let i = usize::from(target.node.as_str() == "n2");
        let target = target.clone();
        self.on(i, async move |ip| ip.assign(&target).await).await
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ips[0].fmt(f)
    }
}

#[async_trait]
impl FailoverIp for Pair {
    async fn current(&self) -> Result<Option<Holder>> {
        let one = self.on(0, async |ip| ip.current().await).await?;
        let two = self.on(1, async |ip| ip.current().await).await?;
        match (one, two) {
            (Some(one), Some(two)) => Err(Error::internal(format!("held by {one} and {two}"))),
            (one, two) => Ok(one.or(two)),
        }
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let other = usize::from(target.node.as_str() != "n2");
        self.on(other, async |ip| ip.release().await).await?;
        self.add(target).await
    }
}

#[tokio::test]
async fn linux_conforms_and_a_client_follows_by_the_announcements() {
    let Some(network) = Network::new() else { return };
    network.hosts[0].listen("n1").await;
    network.hosts[1].listen("n2").await;
    for address in [V4, V6] {
        let pair = Pair::new(&network, address);
        assert_eq!(pair.current().await.unwrap(), None);
        conformance::run(&pair, &target(1), &target(2)).await;
        let at = address.parse().unwrap();
        for (i, name) in [(0, "n1"), (1, "n2"), (0, "n1")] {
            pair.assign(&target(if i == 0 { 1 } else { 2 })).await.unwrap();
            if network.believed(address).is_empty() {
                // It asks, for the first time.
                assert_eq!(network.reached(at).await, name);
            }
            // From now on it asks no more: it must be told.
            let mac = &network.hosts[i].mac;
            until(&format!("the client believes {address} to be at {name}"), || network.believed(address) == *mac)
                .await;
            assert_eq!(network.reached(at).await, name);
            assert!(network.hosts[i].holds(address) && !network.hosts[1 - i].holds(address));
        }
        pair.on(0, async |ip| ip.release().await).await.unwrap();
        pair.on(0, async |ip| ip.release().await).await.unwrap();
        assert_eq!(pair.current().await.unwrap(), None);
    }
}

/// The old leader hangs, and still holds the address: whoever leads now has the client all the same.
#[tokio::test]
async fn the_newer_holder_draws_the_client_from_one_that_hangs() {
    let Some(network) = Network::new() else { return };
    network.hosts[0].listen("n1").await;
    network.hosts[1].listen("n2").await;
    let pair = Pair::new(&network, V4);
    pair.add(&target(1)).await.unwrap();
    assert_eq!(network.reached(V4.parse().unwrap()).await, "n1");
    pair.add(&target(2)).await.unwrap();
    until("the client turns to the newer one", || network.believed(V4) == network.hosts[1].mac).await;
    assert_eq!(network.reached(V4.parse().unwrap()).await, "n2");
    assert!(network.hosts[0].holds(V4), "it hangs");
}

#[tokio::test]
async fn what_was_begun_before_a_release_has_no_effect_after_it() {
    let Some(network) = Network::new() else { return };
    let pair = Pair::new(&network, V4);
    for _ in 0..50 {
        let late = pair.on(0, async |ip| {
            let (add, target) = (Arc::clone(&ip), target(1));
            let adds = tokio::spawn(async move { add.assign(&target).await });
            tokio::task::yield_now().await;
            ip.release().await.unwrap();
            adds.await.unwrap()
        });
        let late = late.await;
        if late.is_ok() {
            // It began after the release, or ended before it.
            let began_after = network.hosts[0].holds(V4);
            pair.on(0, async |ip| ip.release().await).await.unwrap();
            assert!(!network.hosts[0].holds(V4), "{began_after}");
        } else {
            assert!(!network.hosts[0].holds(V4), "{late:?}");
        }
    }
}

#[tokio::test]
async fn errors_say_what_is_missing() {
    let Some(network) = Network::new() else { return };
    let node = target(1).node;
    let refused =
        |ip: LinuxFailoverIp, i| network.hosts[0].inside(async move { ip.assign(&target(i)).await.unwrap_err() });
    let address: IpAddr = V4.parse().unwrap();
    let error = refused(LinuxFailoverIp::on(node.clone(), address, "eth9"), 1).await;
    assert!(error.to_string().contains("no interface") && error.hints()[0].contains("[nodes.n1]"), "{error}");
    let error = refused(LinuxFailoverIp::beside(node.clone(), address, "192.0.2.1".parse().unwrap()), 1).await;
    assert!(error.to_string().contains("own_address=192.0.2.1"), "{error}");
    let error = refused(LinuxFailoverIp::on(node.clone(), address, "eth0"), 2).await;
    assert!(error.to_string().contains("to itself alone"), "{error}");
    // With a prefix of its network; and taken along to another interface.
    let ip = Arc::new(LinuxFailoverIp::on(node.clone(), address, "eth0").prefix(24));
    let added = Arc::clone(&ip);
    network.hosts[0].inside(async move { added.assign(&target(1)).await.unwrap() }).await;
    let shown = self::ip(&format!("-n {} -o addr show dev eth0", network.hosts[0].namespace)).unwrap();
    assert!(shown.contains("10.77.0.100/24"), "{shown}");
    let moved = LinuxFailoverIp::on(node, address, "lo");
    network.hosts[0].inside(async move { moved.assign(&target(1)).await.unwrap() }).await;
    let shown = self::ip(&format!("-n {} -o addr show", network.hosts[0].namespace)).unwrap();
    assert!(shown.contains("10.77.0.100/32") && !shown.contains("10.77.0.100/24"), "{shown}");
}

/// An agent that hangs or dies leaves no address behind.
#[tokio::test]
async fn the_deadman_takes_the_address_off() {
    let Some(network) = Network::new() else { return };
    let program = match pgdock_tests::real::program() {
        Ok(program) => program,
        Err(why) => {
            assert_ne!(std::env::var("PGDOCK_REAL").as_deref(), Ok("required"), "{}", why.chain());
            eprintln!("skipped: {}", why.chain());
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let mut config = DeadmanConfig::new(&dir.path().join("data"), dir.path(), &dir.path().join("log")).unwrap();
    config.program = "/usr/bin/env".into();
    let program = program.display().to_string();
    config.args = ["ip", "netns", "exec", &network.hosts[0].namespace, &program].map(Into::into).to_vec();
    config.shared = dir.path().join("shared");
    config.address = Some(V4.parse().unwrap());
    let pair = Pair::new(&network, V4);
    let holds = || network.hosts[0].holds(V4);

    // What an earlier agent left behind, which was killed.
    pair.add(&target(1)).await.unwrap();
    let mut deadman = Deadman::open_or_spawn(config.clone(), Arc::new(SystemClock)).await.unwrap();
    until("it is taken off while nobody leads", || !holds()).await;

    // The leader has it, as long as the deadline moves.
    let far = || SystemClock.now() + Duration::from_secs(3_600);
    deadman.arm(far()).unwrap();
    pair.add(&target(1)).await.unwrap();
    let seen = deadman.generation();
    until("the deadman looks some times", || {
        deadman.arm(far()).unwrap();
        deadman.generation() > seen + 60
    })
    .await;
    assert!(holds(), "{}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());

    // It hangs.
    deadman.arm(SystemClock.now() + Duration::from_millis(200)).unwrap();
    until("the deadline passes", || deadman.fired().is_some()).await;
    assert!(!holds(), "the deadman has fired and left the address");
    assert_eq!(deadman.armed(), Armed::No);

    // A deadman that knows of no address, or of another one, is replaced.
    let before = deadman.pid();
    drop(deadman);
    config.address = Some("10.77.0.101".parse().unwrap());
    deadman = Deadman::open_or_spawn(config, Arc::new(SystemClock)).await.unwrap();
    assert_ne!(deadman.pid(), before);
    deadman.release();
    until("it ends", || !deadman.is_alive()).await;
}
