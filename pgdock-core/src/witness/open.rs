//! From settings to a witness, and to a scratch document for a probe.

#[cfg(feature = "bucket")]
use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(feature = "etcd")]
use secrecy::ExposeSecret as _;

use super::postgres::{PostgresConfig, PostgresWitness};
use super::url::WitnessUrl;
use super::{FileWitness, Scratch, Witness, file, fresh_nonce};
use crate::agent::tls;
#[cfg(feature = "bucket")]
use crate::bucket::BucketConfig;
use crate::settings::WitnessSettings;
use crate::{Error, Result};

/// Through how many addresses of a store it is probed at most.
#[cfg(feature = "bucket")]
const ADDRESSES_MAX: usize = 8;

/// The witness of a cluster. Nothing is sent yet.
///
/// # Errors
/// `Invalid` where credentials are missing, a file is not readable, or this build does not know the store.
pub fn open(settings: &WitnessSettings, cluster: &str) -> Result<Arc<dyn Witness>> {
    Ok(match &settings.url {
        WitnessUrl::File(path) => Arc::new(FileWitness::new(file::document(path, cluster))),
        #[cfg(feature = "bucket")]
        WitnessUrl::Bucket { prefix, .. } => {
            Arc::new(super::BucketWitness::new(bucket(settings)?, &format!("{prefix}/{cluster}.json"))?)
        }
        #[cfg(feature = "etcd")]
        WitnessUrl::Etcd { prefix, .. } => {
            Arc::new(super::EtcdWitness::new(etcd(settings, format!("/{prefix}/{cluster}"))?)?)
        }
        WitnessUrl::Postgres { .. } => Arc::new(PostgresWitness::new(postgres(settings, cluster.to_owned())?)),
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        other => return Err(unknown(other)),
    })
}

/// A document of its own in the store of the settings, for [`probe()`](super::probe()): never the cluster's.
/// Where the store has several addresses, the probe goes through each of them.
///
/// # Errors
/// As [`open`]; `Unavailable` where the store's name has no address.
pub async fn open_scratch(settings: &WitnessSettings, cluster: &str) -> Result<Scratch> {
    let nonce = &fresh_nonce()[..16];
    Ok(match &settings.url {
        WitnessUrl::File(path) => {
            let mut name = file::document(path, cluster).into_os_string();
            name.push(format!(".probe-{nonce}"));
            let witness = FileWitness::new(name);
            let path = witness.path().to_owned();
            Scratch::new(Arc::new(witness), async move { file::remove(&path).await })
        }
        #[cfg(feature = "bucket")]
        WitnessUrl::Bucket { prefix, .. } => {
            let (config, key) = (bucket(settings)?, format!("{prefix}/probe/{cluster}-{nonce}.json"));
            let witness = Arc::new(super::BucketWitness::new(config.clone(), &key)?);
            let mut handles: Vec<(String, Arc<dyn Witness>)> = Vec::new();
            if let Some((host, addresses)) = addresses(settings).await? {
                for address in addresses {
                    let pinned = BucketConfig { pinned: Some((host.clone(), address)), ..config.clone() };
                    handles.push((address.to_string(), Arc::new(super::BucketWitness::new(pinned, &key)?)));
                }
            }
            let remover = Arc::clone(&witness);
            let scratch = Scratch::new(witness, async move { remover.remove().await });
            if handles.len() > 1 { scratch.through(handles) } else { scratch }
        }
        #[cfg(feature = "etcd")]
        WitnessUrl::Etcd { prefix, .. } => {
            let config = etcd(settings, format!("/{prefix}/probe/{cluster}-{nonce}"))?;
            let witness = Arc::new(super::EtcdWitness::new(config.clone())?);
            let mut handles: Vec<(String, Arc<dyn Witness>)> = Vec::new();
            for endpoint in &config.endpoints {
                let one = super::etcd::EtcdConfig { endpoints: vec![endpoint.clone()], ..config.clone() };
                handles.push((endpoint.clone(), Arc::new(super::EtcdWitness::new(one)?)));
            }
            let remover = Arc::clone(&witness);
            let scratch = Scratch::new(witness, async move { remover.remove().await });
            if handles.len() > 1 { scratch.through(handles) } else { scratch }
        }
        WitnessUrl::Postgres { .. } => {
            let witness = Arc::new(PostgresWitness::new(postgres(settings, format!("{cluster}.probe-{nonce}"))?));
            let remover = Arc::clone(&witness);
            Scratch::new(witness, async move { remover.remove().await })
        }
        #[allow(unreachable_patterns, reason = "with all features there is no other")]
        other => return Err(unknown(other)),
    })
}

fn unknown(url: &WitnessUrl) -> Error {
    Error::invalid(format!("this build of pgdock knows no such store. kind={}", url.kind()))
        .hint(format!("build it with the feature `{}`", url.kind()))
}

fn pem(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::invalid(format!("a file of the witness is not readable. file={}", path.display())).because(e)
    })
}

#[cfg(feature = "etcd")]
fn http_tls(settings: &WitnessSettings) -> Result<super::http::Tls> {
    let key = settings.key.as_deref().map(pem).transpose()?;
    let key =
        key.map(String::from_utf8).transpose().map_err(|_| Error::invalid("the key for the witness is no PEM"))?;
    Ok(super::http::Tls {
        ca: settings.store.ca.as_deref().map(pem).transpose()?,
        certificate: settings.certificate.as_deref().map(pem).transpose()?,
        key: key.map(Into::into),
        allow_plain: !settings.store.tls,
    })
}

#[cfg(feature = "bucket")]
fn bucket(settings: &WitnessSettings) -> Result<BucketConfig> {
    let WitnessUrl::Bucket { provider, bucket, .. } = &settings.url else { return Err(unknown(&settings.url)) };
    BucketConfig::of(*provider, bucket, &settings.store, settings.read_credentials()?)
}

/// The host that a bucket's requests go to, with its addresses: several servers may stand behind one name.
#[cfg(feature = "bucket")]
async fn addresses(settings: &WitnessSettings) -> Result<Option<(String, Vec<SocketAddr>)>> {
    use super::url::Provider;

    let WitnessUrl::Bucket { provider, .. } = &settings.url else { return Ok(None) };
    let endpoint = match (&settings.store.endpoint, provider) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Provider::S3) => {
            format!("https://s3.{}.amazonaws.com", settings.store.region.as_deref().unwrap_or("us-east-1"))
        }
        (None, Provider::Gcs) => "https://storage.googleapis.com".to_owned(),
        (None, Provider::Azure) => {
            format!("https://{}.blob.core.windows.net", settings.store.account.as_deref().unwrap_or_default())
        }
    };
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return Ok(None) };
    let Some(host) = uri.host() else { return Ok(None) };
    let bare = host.trim_matches(['[', ']']);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(None);
    }
    let port = uri.port_u16().unwrap_or(if settings.store.tls { 443 } else { 80 });
    let found = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|e| Error::unavailable(format!("the store of the witness has no address. host={bare}")).because(e))?;
    let mut found: Vec<_> = found.collect();
    // A machine without IPv6 may still be told such addresses.
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    Ok(Some((bare.to_owned(), found)))
}

#[cfg(feature = "etcd")]
fn etcd(settings: &WitnessSettings, key: String) -> Result<super::etcd::EtcdConfig> {
    let WitnessUrl::Etcd { endpoints, .. } = &settings.url else { return Err(unknown(&settings.url)) };
    let mut credentials = settings.read_credentials()?;
    let user = credentials.remove("ETCD_USER").map(|user| user.expose_secret().to_owned());
    let user = user.map(|user| (user, credentials.remove("ETCD_PASSWORD").unwrap_or_default()));
    Ok(super::etcd::EtcdConfig { endpoints: endpoints.clone(), key, user, tls: http_tls(settings)? })
}

fn postgres(settings: &WitnessSettings, row: String) -> Result<PostgresConfig> {
    let WitnessUrl::Postgres { user, host, port, database } = &settings.url else {
        return Err(unknown(&settings.url));
    };
    let tls = match &settings.store.ca {
        Some(ca) if settings.store.tls => {
            let client = match (&settings.certificate, &settings.key) {
                (Some(certificate), Some(key)) => Some((pem(certificate)?, pem(key)?)),
                _ => None,
            };
            let client = client.as_ref().map(|(c, k)| (c.as_slice(), k.as_slice()));
            let mut config = (*tls::client_config_with(&pem(ca)?, client)?).clone();
            // PostgreSQL 17 hangs up on any other.
            config.alpn_protocols = vec![b"postgresql".to_vec()];
            Some(Arc::new(config))
        }
        None if settings.store.tls => {
            return Err(Error::invalid("the witness server is reached by TLS, and no authority is named")
                .hint("set `ca` under [witness]"));
        }
        _ => None,
    };
    Ok(PostgresConfig {
        host: host.clone(),
        port: *port,
        database: database.clone(),
        user: user.clone(),
        password: settings.read_credentials()?.remove("PGPASSWORD"),
        tls,
        row,
    })
}
