//! From settings to a store of backups.

use std::sync::Arc;

use super::{BackupSink, BackupUrl, DirSink};
#[cfg(feature = "bucket")]
use super::{BucketSink, ProbedSink};
#[allow(unused_imports, reason = "with all features there is no other kind of store")]
use crate::Error;
use crate::Result;
use crate::backup::layout;
#[cfg(feature = "bucket")]
use crate::bucket::BucketConfig;
#[cfg(feature = "bucket")]
use crate::clock::SystemClock;
use crate::settings::BackupSettings;

/// The place of a cluster's backups: `URL/CLUSTER/v1/`. Nothing is sent yet. A bucket is probed before the first
/// object is put: see [`ProbedSink`].
///
/// # Errors
/// `Invalid` where credentials are missing, a file is not readable, or this build does not know the store.
pub fn open(settings: &BackupSettings, cluster: &str) -> Result<Arc<dyn BackupSink>> {
    let place = layout::root(cluster)?;
    let place = place.trim_end_matches('/');
    match &settings.url {
        BackupUrl::File(path) => Ok(Arc::new(DirSink::new(path.join(place)))),
        #[cfg(feature = "bucket")]
        BackupUrl::Bucket { provider, bucket, prefix } => {
            let config = BucketConfig::of(*provider, bucket, &settings.store, settings.read_credentials()?)?;
            let sink = BucketSink::new(config, &format!("{prefix}/{place}"))?;
            Ok(Arc::new(ProbedSink::new(Arc::new(sink), Arc::new(SystemClock))))
        }
        #[cfg(not(feature = "bucket"))]
        BackupUrl::Bucket { .. } => {
            Err(Error::invalid("this build of pgdock knows no buckets").hint("build it with the feature `bucket`"))
        }
    }
}
