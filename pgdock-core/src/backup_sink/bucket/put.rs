//! Putting an object: whole, or in parts of one size that become an object by a copy that creates.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStoreExt as _, PutMode, PutOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{BucketSink, PARTS, carrying};
use crate::backup_sink::{BackupSink as _, Key, Put};
use crate::bucket::Client;
use crate::{Error, Result};

/// No store takes more parts.
const PARTS_MAX: usize = 10_000;
/// How much a read asks for.
const READ: usize = 256 << 10;

impl BucketSink {
    pub(super) async fn put_body(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        let mut buffer = BytesMut::new();
        if self.fill(key, body, &mut buffer).await? {
            self.put_parts(key, buffer, body).await
        } else {
            self.put_whole(key, buffer.freeze()).await
        }
    }

    /// Reads until there is more than one piece, and says whether there is.
    async fn fill(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut BytesMut) -> Result<bool> {
        while buffer.len() <= self.piece {
            buffer.reserve(READ);
            let read = body.read_buf(buffer).await;
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) => {
                    return Err(Error::unavailable(format!("the source of an object failed. key={key}")).because(e));
                }
            }
        }
        Ok(true)
    }

    async fn put_whole(&self, key: &Key, content: Bytes) -> Result<Put> {
        let (objects, path) = (&self.client.objects, &self.path(key));
        let size = content.len() as u64;
        let put = self
            .asked(self.limit(content.len()), |note| {
                let mut options = PutOptions::from(PutMode::Create);
                options.attributes = Attributes::from_iter([(Attribute::ContentType, "application/octet-stream")]);
                options.extensions = carrying(note);
                objects.put_opts(path, content.clone().into(), options)
            })
            .await;
        match put {
            Ok(_) => Ok(Put::Created(size)),
            Err(failed) if failed.is_refused_condition() && failed.may_have_landed => {
                let own = self.holds(key, &content).await.map_err(Error::outcome_unknown)?;
                Ok(if own { Put::Created(size) } else { Put::AlreadyExists })
            }
            Err(failed) if failed.is_refused_condition() => Ok(Put::AlreadyExists),
            Err(failed) => Err(self.error(failed)),
        }
    }

    /// Whether an object has this content.
    async fn holds(&self, key: &Key, content: &[u8]) -> Result<bool> {
        let Some((size, mut body)) = self.get(key).await? else {
            return Err(Error::unavailable(format!("an object was there and is gone. store={self}, key={key}")));
        };
        if size != content.len() as u64 {
            return Ok(false);
        }
        let mut left = content;
        let mut buffer = vec![0; READ];
        while !left.is_empty() {
            let read = body.read(&mut buffer).await.map_err(|e| {
                Error::unavailable(format!("an object cannot be read. store={self}, key={key}")).because(e)
            })?;
            let Some(rest) = left.strip_prefix(&buffer[..read]).filter(|_| read > 0) else { return Ok(false) };
            left = rest;
        }
        Ok(true)
    }

    async fn put_parts(&self, key: &Key, buffer: BytesMut, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        let Client { objects, parts, .. } = &self.client;
        let path = &self.path(key);
        if self.look(path).await?.is_some() {
            return Ok(Put::AlreadyExists);
        }
        let staged = &Path::from_iter(self.root.split('/').chain([PARTS, &crate::dice::unique()[..16]]));
        let id = self.asked(self.timeout, |_| parts.create_multipart(staged)).await;
        let id = &id.map_err(|failed| self.error(failed).before_sending())?;
        let size = match self.send(key, staged, id, buffer, body).await {
            Ok(size) => size,
            Err(error) => {
                // Only tidiness depends on it: what is left is taken away by the rule of docs/backups.md.
                let _ = self.asked(self.timeout, |_| parts.abort_multipart(staged, id)).await;
                // Nothing is seen under any key.
                return Err(error.before_sending());
            }
        };
        let limit = self.limit(usize::try_from(size / 8).unwrap_or(usize::MAX));
        let copied = self.asked(limit, |_| objects.copy_if_not_exists(staged, path).boxed()).await;
        let _ = self.asked(self.timeout, |_| objects.delete(staged).boxed()).await;
        match copied {
            Ok(()) => Ok(Put::Created(size)),
            Err(failed) if failed.is_refused_condition() && failed.may_have_landed => Err(Error::unavailable(format!(
                "an object is there that may be the one that was just put. store={self}, key={key}"
            ))
            .outcome_unknown()),
            Err(failed) if failed.is_refused_condition() => Ok(Put::AlreadyExists),
            Err(failed) => Err(self.error(failed)),
        }
    }

    /// Sends the body in parts, all but the last of one size, as some stores want it, and makes them one object.
    async fn send(
        &self,
        key: &Key,
        staged: &Path,
        id: &String,
        mut buffer: BytesMut,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<u64> {
        let store = &self.client.parts;
        let (mut parts, mut size) = (Vec::new(), 0);
        loop {
            let more = self.fill(key, body, &mut buffer).await?;
            let content = buffer.split_to(buffer.len().min(self.piece)).freeze();
            if parts.len() == PARTS_MAX {
                return Err(Error::invalid(format!("an object is too large for the store. key={key}, sent={size}")));
            }
            let (limit, number) = (self.limit(content.len()), parts.len());
            let part = self.asked(limit, |_| store.put_part(staged, id, number, content.clone().into())).await;
            parts.push(part.map_err(|failed| self.error(failed))?);
            size += content.len() as u64;
            if !more && buffer.is_empty() {
                break;
            }
        }
        let complete = self.asked(self.timeout, |_| store.complete_multipart(staged, id, parts.clone())).await;
        match complete {
            Ok(_) => Ok(size),
            // One whose answer was lost leaves no upload that the next try could complete.
            Err(failed) if failed.may_have_landed => match self.look(staged).await? {
                Some(found) if found == size => Ok(size),
                _ => Err(self.error(failed)),
            },
            Err(failed) => Err(self.error(failed)),
        }
    }
}
