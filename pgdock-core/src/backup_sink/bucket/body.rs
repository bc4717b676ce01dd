//! Reading an object: where the connection breaks, reading goes on from there.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, try_unfold};
use http::StatusCode;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult};
use tokio_util::io::StreamReader;

use super::ask::Failed;
use super::{BucketSink, carrying};
use crate::backup_sink::{Body, Key};
use crate::bucket::is_key_missing;
use crate::bucket::wire::Fate;
use crate::{Error, Result};

/// How long nothing may come.
const IDLE: Duration = Duration::from_secs(30);
/// How often a body may break off without a byte in between.
const BREAKS_MAX: u32 = 5;

pub(super) async fn get(sink: &BucketSink, key: &Key) -> Result<Option<(u64, Body)>> {
    let path = sink.path(key);
    let found = match ask(sink, &path, None).await {
        Ok(found) => found,
        Err(failed) => {
            return match &failed.fate {
                Fate::Answered(answer) if answer.status == StatusCode::NOT_FOUND && is_key_missing(answer) => Ok(None),
                _ => Err(sink.error(failed)),
            };
        }
    };
    let size = found.meta.size;
    let reading = Reading {
        sink: sink.clone(),
        path,
        e_tag: found.meta.e_tag.clone(),
        size,
        at: 0,
        breaks: 0,
        stream: Some(found.into_stream()),
    };
    let stream = try_unfold(reading, |mut reading| async {
        let bytes = reading.next().await?;
        Ok::<_, io::Error>(bytes.map(|bytes| (bytes, reading)))
    });
    Ok(Some((size, Box::pin(StreamReader::new(stream.boxed())))))
}

async fn ask(sink: &BucketSink, path: &Path, rest: Option<(u64, Option<&str>)>) -> Result<GetResult, Failed> {
    let objects = &sink.client.objects;
    sink.asked(sink.timeout, |note| {
        let mut options = GetOptions { extensions: carrying(note), ..GetOptions::default() };
        if let Some((at, e_tag)) = rest {
            options.range = Some(GetRange::Offset(at));
            options.if_match = e_tag.map(str::to_owned);
        }
        objects.get_opts(path, options)
    })
    .await
}

struct Reading {
    sink: BucketSink,
    path: Path,
    e_tag: Option<String>,
    size: u64,
    at: u64,
    breaks: u32,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.size {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => {
                    let rest = Some((self.at, self.e_tag.as_deref()));
                    let found = ask(&self.sink, &self.path, rest).await;
                    let found = found.map_err(|failed| io::Error::other(self.sink.error(failed)))?;
                    none.insert(found.into_stream())
                }
            };
            match tokio::time::timeout(IDLE, stream.next()).await {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
                Ok(Some(Ok(bytes))) => {
                    self.at += bytes.len() as u64;
                    self.breaks = 0;
                    if self.at > self.size {
                        return Err(self.broken("more came than the object has"));
                    }
                    return Ok(Some(bytes));
                }
                Ok(Some(Err(_)) | None) | Err(_) => {
                    self.stream = None;
                    self.breaks += 1;
                    if self.breaks >= BREAKS_MAX {
                        return Err(self.broken("it broke off again and again"));
                    }
                }
            }
        }
        Ok(None)
    }

    fn broken(&self, why: &str) -> io::Error {
        let (sink, path, size, at) = (&self.sink, &self.path, self.size, self.at);
        let what = format!("an object cannot be read: {why}. store={sink}, object={path}, size={size}, read={at}");
        io::Error::other(Error::unavailable(what))
    }
}
