//! The cluster's own authority, and a certificate for each node.
//!
//! ECDSA on P-256, for both ends of a connection: agents and PostgreSQL serve with a node's certificate, and
//! call others with it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;

use super::keep::Folder;
use crate::settings::Settings;
use crate::{Error, NodeName, Result};

const YEARS: i16 = 10;

/// TLS knows no earlier day.
const EPOCH: Date = Date::constant(1970, 1, 1);

/// Makes those that are missing.
pub(super) fn add(folder: &mut Folder<'_>, settings: &Settings, now: Timestamp) -> Result<()> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for name in settings.nodes.keys() {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        match (folder.has(&certificate), folder.has(&key)) {
            (true, false) => {
                return Err(Error::needs_operator(format!(
                    "a certificate lacks its key. certificate={}",
                    folder.path(&certificate).display()
                ))
                .hint(format!("put {key} back; or remove {certificate}, and `pgdock init` makes both anew")));
            }
            (true, true) => there.push(name),
            (false, _) => missing.push(name),
        }
    }
    // The authority's key may lie elsewhere as long as nothing is to be signed.
    let has_authority = folder.has("ca.crt");
    if has_authority && !folder.has("ca.key") && missing.is_empty() {
        for name in there {
            keep_pair(folder, name)?;
        }
        return folder.keep("ca.crt", 0o600, "");
    }
    let issuer = authority(folder, !there.is_empty(), &missing, now)?;
    for name in settings.nodes.keys() {
        node(folder, settings, name, &issuer, now)?;
    }
    Ok(())
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Reads or makes `ca.key` and `ca.crt`.
fn authority(folder: &mut Folder<'_>, is_used: bool, missing: &[&NodeName], now: Timestamp) -> Result<Authority> {
    match (folder.has("ca.crt"), folder.has("ca.key")) {
        (true, false) => {
            return Err(Error::needs_operator(format!(
                "the authority's key is missing. file={}, unsigned={}",
                folder.path("ca.key").display(),
                names(missing)
            ))
            .hint("put ca.key back for as long as `pgdock init` runs, or sign certificates for these nodes yourself"));
        }
        (false, false) if is_used => {
            return Err(Error::needs_operator(format!(
                "the authority is missing, though certificates of it are there. file={}",
                folder.path("ca.crt").display()
            ))
            .hint("put ca.crt back; or remove all of *.crt and *.key, and `pgdock init` makes them anew")
            .hint("nodes with old certificates and nodes with new ones do not trust each other"));
        }
        _ => {}
    }
    let key_pem = folder.read_or_make("ca.key", 0o600, || Ok(new_key()?.serialize_pem()))?;
    let key = read_key(folder, "ca.key", &key_pem)?;
    let params = authority_params(now);
    let pem = folder.read_or_make("ca.crt", 0o600, || Ok(params.self_signed(&key).map_err(failed)?.pem()))?;
    Ok(Authority { issuer: Issuer::new(params, key), pem })
}

/// Reads or makes a node's key and certificate.
fn node(
    folder: &mut Folder<'_>,
    settings: &Settings,
    name: &NodeName,
    authority: &Authority,
    now: Timestamp,
) -> Result<()> {
    let key_name = format!("{name}.key");
    let key_pem = folder.read_or_make(&key_name, 0o600, || Ok(new_key()?.serialize_pem()))?;
    let key = read_key(folder, &key_name, &key_pem)?;
    folder
        .read_or_make(&format!("{name}.crt"), 0o600, || {
            let params = node_params(name, &settings.nodes[name].address, now)?;
            let certificate = params.signed_by(&key, &authority.issuer).map_err(failed)?;
            verify(certificate.der(), &authority.pem, now)?;
            Ok(certificate.pem())
        })
        .map(drop)
}

fn keep_pair(folder: &mut Folder<'_>, name: &NodeName) -> Result<()> {
    folder.keep(&format!("{name}.key"), 0o600, "")?;
    folder.keep(&format!("{name}.crt"), 0o600, "")
}

/// The name is the same for every cluster, so that renaming one leaves its authority usable.
fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = common_params("pgdock cluster authority", now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn node_params(name: &NodeName, address: &str, now: Timestamp) -> Result<CertificateParams> {
    let mut params = common_params(name.as_str(), now);
    let names: BTreeSet<&str> = [name.as_str(), address, "localhost", "127.0.0.1"].into();
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    params.subject_alt_names = CertificateParams::new(names).map_err(failed)?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn common_params(common_name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // From yesterday: the nodes' clocks may be behind this one.
    let midnight =
        |date: Date| rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    let first = now.to_zoned(jiff::tz::TimeZone::UTC).date().saturating_sub(1.day()).max(EPOCH);
    params.not_before = midnight(first);
    params.not_after = midnight(first.saturating_add(YEARS.years()));
    params
}

/// Refuses what `ca.crt` does not vouch for, as where `ca.crt` and `ca.key` are not of one pair.
fn verify(certificate: &CertificateDer<'_>, authority_pem: &str, now: Timestamp) -> Result<()> {
    let check = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &roots,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all,
        )?;
        Ok(())
    };
    check().map_err(|e| {
        Error::needs_operator("ca.crt does not vouch for what ca.key signs")
            .because(e)
            .hint("put back the ca.crt and ca.key that belong together")
            .hint("with an authority of your own, sign the nodes' certificates yourself")
    })
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)
}

fn read_key(folder: &Folder<'_>, name: &str, pem: &str) -> Result<KeyPair> {
    KeyPair::from_pem(pem).map_err(|e| {
        Error::needs_operator(format!("a private key is not readable. file={}", folder.path(name).display()))
            .because(e)
            .hint("put the right file back; pgdock overwrites no key")
    })
}

fn names(nodes: &[&NodeName]) -> String {
    nodes.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",")
}

fn failed(error: rcgen::Error) -> Error {
    Error::internal("a certificate could not be made").because(error)
}
