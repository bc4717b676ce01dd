//! [`reach`]: which timelines an archive knows, and where its WAL ends.

use crate::backup::frame::Codec;
use crate::backup::layout::{self, Name};
use crate::backup::object;
use crate::backup::restore::Reach;
use crate::backup_sink::{BackupSink, Key, PAGE};
use crate::postgres::wal_aside::parse_history;
use crate::{Error, History, Lsn, Result, TimelineId};

/// The most bytes of a timeline's history.
const HISTORY_MAX: usize = 4 << 20;

/// What the WAL of a database system reaches in an archive: along the newest timeline, or the one that is named.
///
/// # Errors
/// Those of the sink; `Invalid` when the timeline is not in the archive, or its history is damaged.
pub async fn reach(
    sink: &dyn BackupSink,
    codec: &Codec,
    system: u64,
    segment_bytes: u64,
    timeline: Option<TimelineId>,
) -> Result<Reach> {
    let known = timelines(sink, system).await?;
    let along = match timeline {
        Some(wanted) if known.contains(&wanted) => wanted,
        Some(wanted) => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            return Err(Error::invalid(format!(
                "the archive has no WAL of that timeline. timeline={wanted}, known={}",
                known.join(",")
            )));
        }
        None => match known.last() {
            Some(newest) => *newest,
            // Not a single segment: the backups are all there is.
            None => return Ok(Reach::default()),
        },
    };
    Ok(Reach {
        history: history(sink, codec, system, along).await?,
        end: end(sink, system, along, segment_bytes).await?,
        end_time: None,
    })
}

/// The timelines that anything is archived of, in order.
async fn timelines(sink: &dyn BackupSink, system: u64) -> Result<Vec<TimelineId>> {
    let folder = layout::wal_system(system);
    let (mut found, mut after): (Vec<TimelineId>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = sink.list(&folder, after.as_ref()).await?;
        let full = page.len() >= PAGE;
        for entry in &page {
            if let Some(Name::Wal { timeline, .. }) = Name::parse(&entry.key)
                && found.last() != Some(&timeline)
            {
                found.push(timeline);
            }
        }
        // A timeline may have very many segments: on with what follows it.
        after = match (full, found.last()) {
            (true, Some(last)) => Some(Key::new(format!("{}z", layout::wal_folder(system, *last)))?),
            (true, None) => page.last().map(|entry| entry.key.clone()),
            (false, _) => return Ok(found),
        };
    }
}

/// The past of a timeline. It is not known where the timeline is older than the archive: PostgreSQL archives it once, when it begins.
async fn history(sink: &dyn BackupSink, codec: &Codec, system: u64, timeline: TimelineId) -> Result<Option<History>> {
    if timeline.0 <= 1 {
        return Ok(Some(History::new(timeline)));
    }
    let key = Name::Wal { system, timeline, file: format!("{:08X}.history", timeline.0) }.key()?;
    let Some(text) = object::fetch_patiently(sink, codec, &key, HISTORY_MAX).await? else { return Ok(None) };
    let history = parse_history(timeline, &String::from_utf8_lossy(&text));
    history.map(Some).ok_or_else(|| Error::invalid(format!("the history of a timeline is not understood. key={key}")))
}

/// Behind the last whole segment of a timeline. Where pieces of the next one are there, too, the end is not known to the byte.
async fn end(sink: &dyn BackupSink, system: u64, timeline: TimelineId, segment_bytes: u64) -> Result<Option<Lsn>> {
    let folder = layout::wal_folder(system, timeline);
    let (mut last, mut after) = (None, None);
    loop {
        let page = sink.list(&folder, after.as_ref()).await?;
        for entry in &page {
            let file = &entry.key.as_str()[folder.len()..];
            if file.contains('+') {
                last = None;
            } else if let Some(end) = segment_end(file, segment_bytes) {
                last = Some(end);
            }
        }
        if page.len() < PAGE {
            return Ok(last);
        }
        after = page.last().map(|entry| entry.key.clone());
    }
}

fn segment_end(file: &str, segment_bytes: u64) -> Option<Lsn> {
    if file.len() != 24 || segment_bytes == 0 {
        return None;
    }
    let part = |from: usize| u64::from_str_radix(file.get(from..from + 8)?, 16).ok();
    let number = part(8)?.checked_mul((1 << 32) / segment_bytes)?.checked_add(part(16)?)?;
    number.checked_add(1)?.checked_mul(segment_bytes).map(Lsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_sink::{BackupSinkExt, MemorySink};

    const SYSTEM: u64 = 7;
    const BYTES: u64 = 16 << 20;

    async fn put(sink: &MemorySink, timeline: u32, file: &str, content: &[u8]) {
        let key = Name::Wal { system: SYSTEM, timeline: TimelineId(timeline), file: file.to_owned() }.key().unwrap();
        let object = object::encode(&Codec::default(), &key, content).unwrap();
        let _ = sink.put_bytes(&key, &object.bytes).await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_timeline_and_its_end() {
        let (sink, codec) = (MemorySink::new(), Codec::default());
        let look = async |timeline: Option<u32>| reach(&sink, &codec, SYSTEM, BYTES, timeline.map(TimelineId)).await;
        assert_eq!(look(None).await.unwrap(), Reach::default());
        for number in 0..1_100 {
            put(&sink, 1, &format!("00000001{:08X}{:08X}", number / 256, number % 256), b"x").await;
        }
        let found = look(None).await.unwrap();
        assert_eq!((found.history, found.end), (Some(History::new(TimelineId(1))), Some(Lsn(1_100 * BYTES))));

        put(&sink, 2, "000000020000000400000050", b"x").await;
        // Older than the archive.
        let found = look(None).await.unwrap();
        assert_eq!((found.history, found.end), (None, Some(Lsn(0x4_5100_0000))));
        put(&sink, 2, "00000002.history", b"1\t4/50000060\tno recovery target specified\n").await;
        let found = look(None).await.unwrap();
        assert_eq!(found.end, Some(Lsn(0x4_5100_0000)));
        assert!(found.history.unwrap().contains(TimelineId(1), Lsn(0x4_5000_0060)));
        assert_eq!(look(Some(1)).await.unwrap().end, Some(Lsn(1_100 * BYTES)));
        assert!(look(Some(3)).await.unwrap_err().to_string().contains("known=1,2"));

        put(&sink, 2, "000000020000000400000051+00001000", b"x").await;
        assert_eq!(look(None).await.unwrap().end, None);
    }
}
