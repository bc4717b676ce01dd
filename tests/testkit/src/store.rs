//! The objects: `s3s-fs`, which keeps them in a folder, behind a lock for each key.
//!
//! By itself the library looks at a condition and writes afterwards, and it writes object, attributes and
//! ETag one after the other. Under the lock each request is one step for all others.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use s3s::dto::*;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, Semaphore};

use crate::faults::{Conditions, Switch};

/// How long the first of two racers waits for the second, where conditions are checked and then set.
const RACE: Duration = Duration::from_millis(300);

pub(crate) struct Store {
    files: FileSystem,
    dir: PathBuf,
    switch: Arc<Switch>,
    keys: Mutex<HashMap<Name, Arc<Key>>>,
}

type Name = (String, String);

struct Key {
    lock: Arc<RwLock<()>>,
    /// Racers that have checked and not yet set; a permit for each that may go on.
    racers: Mutex<usize>,
    go: Semaphore,
}

impl Store {
    /// On the files of a folder.
    pub(crate) fn new(files: FileSystem, dir: &Path, switch: Arc<Switch>) -> Self {
        Self { files, dir: dir.to_owned(), switch, keys: Mutex::default() }
    }

    /// Whether a name is only what others begin with: with real stores there is nothing, and here a folder.
    fn is_folder(&self, bucket: &str, key: &str) -> bool {
        self.dir.join(bucket).join(key).is_dir()
    }

    fn key(&self, bucket: &str, key: &str) -> Arc<Key> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Key { lock: Arc::default(), racers: Mutex::default(), go: Semaphore::const_new(0) });
        Arc::clone(keys.entry((bucket.to_owned(), key.to_owned())).or_insert_with(fresh))
    }

    async fn alone(&self, bucket: &str, key: &str) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.key(bucket, key).lock).write_owned().await
    }

    /// What the mode makes of the conditions of a write.
    async fn conditions(
        &self,
        (bucket, key): (&str, &str),
        if_match: &mut Option<IfMatch>,
        if_none_match: &mut Option<IfNoneMatch>,
    ) -> S3Result<()> {
        if if_match.is_none() && if_none_match.is_none() {
            return Ok(());
        }
        match self.switch.conditions() {
            Conditions::Honoured if if_none_match.is_some() && self.switch.create_conflicts() => {
                return Err(s3_error!(ConditionalRequestConflict, "A conflicting operation is under way."));
            }
            Conditions::Honoured => return Ok(()),
            Conditions::Unsupported => {
                let why = "A header you provided implies functionality that is not implemented.";
                return Err(s3_error!(NotImplemented, "{why}"));
            }
            Conditions::Ignored => {}
            Conditions::CheckedThenSet => {
                self.check(bucket, key, if_match.as_ref(), if_none_match.as_ref()).await?;
                self.key(bucket, key).wait_for_a_racer().await;
            }
        }
        *if_match = None;
        *if_none_match = None;
        Ok(())
    }

    async fn check(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<&IfMatch>,
        if_none_match: Option<&IfNoneMatch>,
    ) -> S3Result<()> {
        let _turn = Arc::clone(&self.key(bucket, key).lock).read_owned().await;
        let input = HeadObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..Default::default() };
        let present = match self.files.head_object(request(input)).await {
            Ok(answer) => answer.output.e_tag,
            Err(e) if matches!(e.code(), S3ErrorCode::NoSuchKey) => None,
            Err(e) => return Err(e),
        };
        let holds = if_none_match.is_none_or(|_| present.is_none())
            && if_match
                .and_then(ETagCondition::as_etag)
                .is_none_or(|e| present.as_ref().is_some_and(|p| p.strong_cmp(e)));
        if holds { Ok(()) } else { Err(s3_error!(PreconditionFailed)) }
    }
}

impl Key {
    /// Returns once another racer is here as well, or after a while.
    async fn wait_for_a_racer(&self) {
        let first = {
            let mut racers = self.racers.lock().unwrap_or_else(PoisonError::into_inner);
            *racers += 1;
            *racers == 1
        };
        if first {
            if let Ok(Ok(permit)) = tokio::time::timeout(RACE, self.go.acquire()).await {
                permit.forget();
            }
        } else {
            self.go.add_permits(1);
        }
        *self.racers.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

fn request<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: http::Method::HEAD,
        uri: http::Uri::default(),
        headers: http::HeaderMap::new(),
        extensions: http::Extensions::new(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// Passes on what needs no lock or one lock, and writes out the rest.
macro_rules! store {
    (
        free { $($free:ident($free_in:ident) -> $free_out:ident,)* }
        shared { $($read:ident($read_in:ident) -> $read_out:ident,)* }
        alone { $($write:ident($write_in:ident) -> $write_out:ident,)* }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(async fn $free(&self, r: S3Request<$free_in>) -> S3Result<S3Response<$free_out>> {
                self.files.$free(r).await
            })*
            $(async fn $read(&self, r: S3Request<$read_in>) -> S3Result<S3Response<$read_out>> {
                self.bucket(&r.input.bucket).await?;
                let _turn = Arc::clone(&self.key(&r.input.bucket, &r.input.key).lock).read_owned().await;
                if self.is_folder(&r.input.bucket, &r.input.key) {
                    return Err(s3_error!(NoSuchKey));
                }
                self.files.$read(r).await
            })*
            $(async fn $write(&self, r: S3Request<$write_in>) -> S3Result<S3Response<$write_out>> {
                let _turn = self.alone(&r.input.bucket, &r.input.key).await;
                if self.is_folder(&r.input.bucket, &r.input.key) {
                    return Ok(S3Response::new($write_out::default()));
                }
                self.files.$write(r).await
            })*

            async fn put_object(&self, mut r: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                let PutObjectInput { bucket, key, if_match, if_none_match, .. } = &mut r.input;
                self.bucket(bucket).await?;
                self.conditions((bucket, key), if_match, if_none_match).await?;
                let _turn = self.alone(bucket, key).await;
                self.files.put_object(r).await
            }

            async fn complete_multipart_upload(
                &self,
                mut r: S3Request<CompleteMultipartUploadInput>,
            ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
                let CompleteMultipartUploadInput { bucket, key, if_match, if_none_match, .. } = &mut r.input;
                self.conditions((bucket, key), if_match, if_none_match).await?;
                let _turn = self.alone(bucket, key).await;
                self.files.complete_multipart_upload(r).await
            }

            async fn copy_object(&self, r: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
                let mut names = BTreeSet::from([(r.input.bucket.clone(), r.input.key.clone())]);
                if let CopySource::Bucket { bucket, key, .. } = &r.input.copy_source {
                    names.insert((bucket.to_string(), key.to_string()));
                }
                let _turns = self.all_alone(names).await;
                self.files.copy_object(r).await
            }

            async fn delete_objects(
                &self,
                r: S3Request<DeleteObjectsInput>,
            ) -> S3Result<S3Response<DeleteObjectsOutput>> {
                let bucket = &r.input.bucket;
                let names = r.input.delete.objects.iter().map(|o| (bucket.clone(), o.key.clone())).collect();
                let _turns = self.all_alone(names).await;
                self.files.delete_objects(r).await
            }
        }
    };
}

impl Store {
    /// A missing bucket is told apart from a missing object, as others do.
    async fn bucket(&self, bucket: &str) -> S3Result<()> {
        self.files.head_bucket(request(HeadBucketInput { bucket: bucket.to_owned(), ..Default::default() })).await?;
        Ok(())
    }

    /// In the order of their names, so that two callers never wait for each other.
    async fn all_alone(&self, names: BTreeSet<Name>) -> Vec<OwnedRwLockWriteGuard<()>> {
        let mut turns = Vec::new();
        for (bucket, key) in names {
            turns.push(self.alone(&bucket, &key).await);
        }
        turns
    }
}

store! {
    free {
        create_bucket(CreateBucketInput) -> CreateBucketOutput,
        delete_bucket(DeleteBucketInput) -> DeleteBucketOutput,
        head_bucket(HeadBucketInput) -> HeadBucketOutput,
        get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput,
        list_buckets(ListBucketsInput) -> ListBucketsOutput,
        list_objects(ListObjectsInput) -> ListObjectsOutput,
        list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output,
        create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput,
        upload_part(UploadPartInput) -> UploadPartOutput,
        upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput,
        list_parts(ListPartsInput) -> ListPartsOutput,
        abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput,
    }
    shared {
        get_object(GetObjectInput) -> GetObjectOutput,
        head_object(HeadObjectInput) -> HeadObjectOutput,
    }
    alone {
        delete_object(DeleteObjectInput) -> DeleteObjectOutput,
    }
}
