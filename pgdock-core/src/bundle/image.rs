//! A bundle as an image of one layer that begins `FROM scratch` (OCI image format 1.1): what registries keep.
//!
//! The layer is the archive as it is, so that its digest is that of the bundle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Bundle;
use super::digest::Digest;
use crate::{Error, Result};

/// The media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// No image of a bundle has a larger manifest or configuration, in bytes.
pub(super) const JSON_MAX: usize = 1 << 20;
/// Whatever says when something was made says this, so that it is the same each time.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Where the files came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The commit that was checked out.
    pub commit: String,
    /// Whether files of the bundle were changed since.
    pub changed: bool,
}

/// Something in a store or registry, by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ImageConfig {
    architecture: String,
    os: String,
    created: String,
    config: RunConfig,
    rootfs: RootFs,
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunConfig {
    #[serde(rename = "Labels")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HistoryEntry {
    created: String,
    created_by: String,
}

/// A bundle as an image: three things that are kept by their digest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bundle: the one layer.
    pub bundle: Bundle,
    config: Vec<u8>,
    manifest: Vec<u8>,
    labels: BTreeMap<String, String>,
}

impl Image {
    /// Packs a bundle. The same bundle from the same source makes the same image.
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn pack(bundle: Bundle, source: Option<&Source>) -> Result<Self> {
        let mut labels: BTreeMap<String, String> = [
            ("org.opencontainers.image.title", "pgdock bundle".to_owned()),
            ("pgdock.bundle", bundle.digest().to_string()),
            ("pgdock.cluster", bundle.manifest().cluster.clone()),
            ("pgdock.format", bundle.manifest().format.to_string()),
            ("pgdock.node", bundle.manifest().node.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(source) = source {
            labels.insert("org.opencontainers.image.revision".to_owned(), source.commit.clone());
            if source.changed {
                labels.insert("pgdock.source.changed".to_owned(), "true".to_owned());
            }
        }
        let write = |value: serde_json::Result<Vec<u8>>| {
            value.map_err(|e| Error::internal("the image cannot be written as JSON").because(e))
        };
        let config = write(serde_json::to_vec(&ImageConfig {
            // Nothing in it is run; the field must be there.
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            created: EPOCH.to_owned(),
            config: RunConfig { labels: labels.clone() },
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![bundle.digest().clone()] },
            history: vec![HistoryEntry { created: EPOCH.to_owned(), created_by: "pgdock config build".to_owned() }],
        }))?;
        let manifest = write(serde_json::to_vec(&ImageManifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: Descriptor::of(CONFIG, &config),
            layers: vec![Descriptor::of(LAYER, bundle.archive())],
        }))?;
        Ok(Self { bundle, config, manifest, labels })
    }

    /// Puts an image together that somebody kept: `fetch` gives what a digest stands for, and it is checked.
    pub(super) async fn unpack(manifest: Vec<u8>, fetch: impl AsyncFn(&Descriptor) -> Result<Vec<u8>>) -> Result<Self> {
        let odd = |why: &str| {
            Error::invalid(format!("this is no image of a bundle: {why}"))
                .hint("name the image that `pgdock config build` and `push` made")
        };
        let described: ImageManifest =
            serde_json::from_slice(&manifest).map_err(|e| odd("its manifest cannot be read").because(e))?;
        let [layer] = described.layers.as_slice() else { return Err(odd("it has not one layer")) };
        if layer.media_type != LAYER {
            return Err(odd("its layer is of another kind"));
        }
        if described.config.size > JSON_MAX as u64 || layer.size > super::tar::ARCHIVE_MAX as u64 {
            return Err(odd("it is too large"));
        }
        let get = async |what: &Descriptor| {
            let bytes = fetch(what).await?;
            if Digest::of(&bytes) == what.digest {
                Ok(bytes)
            } else {
                Err(Error::invalid(format!("what is kept is not what its digest says. digest={}", what.digest))
                    .hint("build and push it anew"))
            }
        };
        let config = get(&described.config).await?;
        let parsed: ImageConfig =
            serde_json::from_slice(&config).map_err(|e| odd("its configuration cannot be read").because(e))?;
        let bundle = Bundle::from_archive(get(layer).await?)?;
        let labels = parsed.config.labels;
        if labels.get("pgdock.node").map(String::as_str) != Some(bundle.manifest().node.as_str())
            || labels.get("pgdock.cluster") != Some(&bundle.manifest().cluster)
        {
            return Err(odd("its labels name another node or cluster than its layer"));
        }
        Ok(Self { bundle, config, manifest, labels })
    }

    /// What the image is labelled with: `pgdock.node`, `pgdock.cluster`, `pgdock.bundle`, and the source's commit.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The image's own digest, which names bundle and source.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(super) fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    /// The image as a tar that `docker load` and `podman load` take, under this name.
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn export(&self, name: &str) -> Result<Vec<u8>> {
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        let mut entry = Descriptor::of(MANIFEST, &self.manifest);
        let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
        entry.annotations.insert("io.containerd.image.name".to_owned(), name.to_owned());
        entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
        // What engines older than 25 read.
        let loaded = serde_json::json!([{
            "Config": blob(&self.config), "RepoTags": [name], "Layers": [blob(self.bundle.archive())],
        }]);
        let files = [
            (blob(self.bundle.archive()), self.bundle.archive().to_vec()),
            (blob(&self.config), self.config.clone()),
            (blob(&self.manifest), self.manifest.clone()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("oci-layout".to_owned(), super::store::LAYOUT.as_bytes().to_vec()),
        ];
        let files = files.into_iter().map(|(path, bytes)| (path, super::tar::File { runs: false, bytes })).collect();
        Ok(super::tar::write_named("manifest.json", loaded.to_string().as_bytes(), &files))
    }
}
