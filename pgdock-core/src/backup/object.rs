//! Whole objects between memory and a [`BackupSink`].

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::digest::Digest;
use super::frame::{Codec, Content, Decoder, Encoded, Encoder};
use crate::backup_sink::{BackupSink, BackupSinkExt, Body, Key, Put};
use crate::{Error, ErrorKind, Result};

/// How [`store`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stored {
    /// The object is there now.
    Created,
    /// It was there before, with the same content: perhaps an earlier try of one's own has landed.
    Same,
    /// One of that name is there with other content, and stays.
    Different,
}

/// Encodes content that lies in memory. It works on the caller's thread.
///
/// # Errors
/// As [`Encoder::new`].
pub fn encode(codec: &Codec, key: &Key, content: &[u8]) -> Result<Encoded> {
    let mut encoder = Encoder::new(codec, key)?;
    encoder.push(content)?;
    encoder.finish()
}

/// Decodes an object that lies in memory, and appends its content to `out`. It works on the caller's thread.
///
/// # Errors
/// `Invalid` when it is damaged, or not what it should be; what was appended then is worth nothing.
pub fn decode(codec: &Codec, key: &Key, mut object: &mut [u8], out: &mut Vec<u8>) -> Result<Content> {
    let mut decoder = Decoder::new(codec, key)?;
    loop {
        if let Some(content) = decoder.content() {
            return if object.is_empty() { Ok(content) } else { Err(too_long(key)) };
        }
        let (now, later) = object.split_at_mut_checked(decoder.wants()).ok_or_else(|| too_short(key))?;
        decoder.take(now, out)?;
        object = later;
    }
}

/// Puts an object. Where one of that name exists, its content is read and compared: stored bytes of one content differ where they
/// are encrypted.
///
/// # Errors
/// Those of the sink; `Invalid` when the object that is there is damaged.
pub async fn store(sink: &dyn BackupSink, codec: &Codec, key: &Key, encoded: &Encoded) -> Result<Stored> {
    if let Put::Created(_) = sink.put_bytes(key, &encoded.bytes).await? {
        return Ok(Stored::Created);
    }
    let content = inspect(sink, codec, key).await?.ok_or_else(|| {
        // Some stores say so of a name that somebody else was about to create, too.
        Error::unavailable(format!("the store says that an object exists, and has none. key={key}"))
    })?;
    let same = content.plain_len == encoded.plain_len && content.plain_digest == encoded.plain_digest;
    Ok(if same { Stored::Same } else { Stored::Different })
}

/// The content of an object of at most `max` plain bytes; `None` where there is none.
///
/// # Errors
/// Those of the sink; `Invalid` when the object is damaged, or larger.
pub async fn fetch(sink: &dyn BackupSink, codec: &Codec, key: &Key, max: usize) -> Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    let larger = || Error::invalid(format!("the object is larger than expected. key={key}, max={max}"));
    let found = stream(sink, codec, key, |piece| {
        if all.len() + piece.len() > max {
            return Err(larger());
        }
        all.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    Ok(found.map(|_| all))
}

/// Reads an object to its end, and says what it holds; `None` where there is none.
///
/// # Errors
/// Those of the sink; `Invalid` when the object is damaged.
pub async fn inspect(sink: &dyn BackupSink, codec: &Codec, key: &Key) -> Result<Option<Content>> {
    stream(sink, codec, key, |_| Ok(())).await
}

/// Reads an object frame by frame, whatever its size; `None` where there is none. What `each` gets is proven only when this returns.
///
/// # Errors
/// Those of the sink and of `each`; `Invalid` when the object is damaged.
pub async fn stream(
    sink: &dyn BackupSink,
    codec: &Codec,
    key: &Key,
    mut each: impl FnMut(&[u8]) -> Result<()> + Send,
) -> Result<Option<Content>> {
    let Some((size, body)) = sink.get(key).await? else { return Ok(None) };
    let mut body = Bounded { body, left: size, key };
    let mut decoder = Decoder::new(codec, key)?;
    loop {
        if let Some(content) = decoder.content() {
            body.ends().await?;
            return Ok(Some(content));
        }
        let mut bytes = body.exactly(decoder.wants()).await?;
        // Decompression and digests of a frame take as long as a thread switch a hundred times over.
        let (back, content) = blocking(move || {
            let mut content = Vec::new();
            decoder.take(&mut bytes, &mut content)?;
            Ok((decoder, content))
        })
        .await?;
        decoder = back;
        if !content.is_empty() {
            each(&content)?;
        }
    }
}

/// As [`store`], again after a pause where the store does not answer.
///
/// # Errors
/// As [`store`].
pub async fn store_patiently(sink: &dyn BackupSink, codec: &Codec, key: &Key, encoded: &Encoded) -> Result<Stored> {
    patiently(|| store(sink, codec, key, encoded)).await
}

/// As [`fetch`], again after a pause where the store does not answer.
///
/// # Errors
/// As [`fetch`].
pub async fn fetch_patiently(sink: &dyn BackupSink, codec: &Codec, key: &Key, max: usize) -> Result<Option<Vec<u8>>> {
    patiently(|| fetch(sink, codec, key, max)).await
}

/// The pauses between tries.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// Tries again what may succeed later.
pub(crate) async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    for pause in PAUSES {
        match attempt().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!(error = error.chain(), "the backup store is asked again");
                tokio::time::sleep(error.retry_after().map_or(pause, |asked| asked.clamp(pause, PAUSES[4]))).await;
            }
            answer => return answer,
        }
    }
    attempt().await
}

/// That there is something else in the place of an object.
pub(crate) fn taken(key: &Key) -> Error {
    Error::conflict(format!("another object of that name is in the archive, with other content. key={key}"))
        .hint("does another cluster write into the same archive?")
}

/// The digest of the bytes that lie under a name, with their number, whatever they mean; `None` where there is nothing.
///
/// # Errors
/// Those of the sink.
pub async fn stored_digest(sink: &dyn BackupSink, key: &Key) -> Result<Option<(u64, Digest)>> {
    let Some((size, mut body)) = sink.get(key).await? else { return Ok(None) };
    let mut hasher = blake3::Hasher::new();
    let (mut buffer, mut read) = (vec![0; 256 << 10], 0);
    loop {
        let came = body.read(&mut buffer).await.map_err(|e| broke_off(key).because(e))?;
        if came == 0 {
            break;
        }
        read += came as u64;
        hasher.update(&buffer[..came]);
    }
    if read == size { Ok(Some((size, hasher.finalize().into()))) } else { Err(broke_off(key)) }
}

/// Work for a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(Error::internal("a task of the backup died").because(died)))
}

/// A body that tells a truncated object from a connection that broke.
struct Bounded<'a> {
    body: Body,
    left: u64,
    key: &'a Key,
}

impl Bounded<'_> {
    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        if length as u64 > self.left {
            return Err(too_short(self.key));
        }
        let mut bytes = vec![0; length];
        self.body.read_exact(&mut bytes).await.map_err(|e| broke_off(self.key).because(e))?;
        self.left -= length as u64;
        Ok(bytes)
    }

    async fn ends(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(too_long(self.key));
        }
        match self.body.read(&mut [0]).await {
            Ok(0) => Ok(()),
            Ok(_) => Err(too_long(self.key)),
            Err(e) => Err(broke_off(self.key).because(e)),
        }
    }
}

fn broke_off(key: &Key) -> Error {
    Error::unavailable(format!("an object broke off while it was read. key={key}"))
}

fn too_short(key: &Key) -> Error {
    Error::invalid(format!("an object of the archive is damaged: it is cut off. key={key}"))
}

fn too_long(key: &Key) -> Error {
    Error::invalid(format!("an object of the archive is damaged: something follows its end. key={key}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backup::Cipher;
    use crate::backup_sink::MemorySink;

    fn codecs() -> [Codec; 2] {
        let cipher = Arc::new(Cipher::new(&[9; 32]).unwrap());
        [Codec::default(), Codec { cipher: Some(cipher), ..Codec::default() }]
    }

    #[tokio::test]
    async fn an_object_that_is_there_already_is_compared() {
        for codec in codecs() {
            let sink = MemorySink::new();
            let key: Key = "wal/1".parse().unwrap();
            let content = vec![5; 3 << 20];
            assert_eq!(inspect(&sink, &codec, &key).await.unwrap(), None);
            let first = encode(&codec, &key, &content).unwrap();
            assert_eq!(store(&sink, &codec, &key, &first).await.unwrap(), Stored::Created);
            let again = encode(&Codec { level: 3, ..codec.clone() }, &key, &content).unwrap();
            assert_eq!(store(&sink, &codec, &key, &again).await.unwrap(), Stored::Same);
            let other = encode(&codec, &key, &content[1..]).unwrap();
            assert_eq!(store(&sink, &codec, &key, &other).await.unwrap(), Stored::Different);
            assert_eq!(fetch(&sink, &codec, &key, content.len()).await.unwrap().unwrap(), content);
            assert!(fetch(&sink, &codec, &key, content.len() - 1).await.is_err());
            let (size, digest) = stored_digest(&sink, &key).await.unwrap().unwrap();
            assert_eq!((size, digest), (first.bytes.len() as u64, first.stored_digest));
        }
    }

    #[tokio::test]
    async fn an_object_that_is_cut_off_or_goes_on_is_refused() {
        for codec in codecs() {
            let sink = MemorySink::new();
            let key: Key = "a".parse().unwrap();
            let object = encode(&codec, &key, b"some content").unwrap();
            let _ = store(&sink, &codec, &key, &object).await.unwrap();
            for length in 0..object.bytes.len() {
                assert!(sink.spoil(&key, object.bytes[..length].to_vec()));
                let error = inspect(&sink, &codec, &key).await.unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{length}: {error}");
            }
            assert!(sink.spoil(&key, [&object.bytes[..], b"\0"].concat()));
            assert!(inspect(&sink, &codec, &key).await.unwrap_err().to_string().contains("follows"));
            assert!(store(&sink, &codec, &key, &object).await.is_err(), "a damaged object is not the same");
        }
    }
}
