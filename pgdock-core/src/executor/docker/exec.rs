//! A process in a container, with its inputs and outputs.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use super::engine::{Engine, Sending, encoded};
use crate::executor::command::{Exit, Stream};
use crate::executor::remote::script;
use crate::{Error, ErrorKind, Result};

/// The largest piece of output that an engine announces.
const FRAME_MAX: usize = 64 << 20;
/// The head of a piece of output: which stream, three zeros, how many bytes.
const HEAD: usize = 8;
/// The pauses between looks at a process that is about to end.
const LOOKS: [u64; 6] = [2, 5, 10, 20, 50, 100];

/// A process that has been started.
pub(super) struct Exec {
    engine: Engine,
    id: String,
    pub(super) input: WriteHalf<TokioIo<Upgraded>>,
    pub(super) output: Frames,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    exit_code: Option<i32>,
}

impl Exec {
    /// Starts the shell that reads its script. The command line tells nothing of it.
    pub(super) async fn shell(engine: &Engine, container: &str) -> Result<Self> {
        let what = "a command cannot be started in the container";
        let config = json!({
            "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": false,
            "Cmd": ["/bin/sh", "-c", script::bootstrap()],
        });
        let at = |e: Error| in_container(e, container);
        let path = format!("/containers/{}/exec", encoded(container));
        let created: Created = engine.json(Method::POST, &path, Some(&config), what).await.map_err(at)?;
        let start = Bytes::from(json!({ "Detach": false, "Tty": false }).to_string());
        let sending = Sending { upgrade: true, ..Sending::default() };
        let path = format!("/exec/{}/start", created.id);
        let content = Some(("application/json", start));
        let answer = engine.call_with(Method::POST, &path, content, sending, what).await.map_err(at)?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(|e| {
            at(Error::unavailable(format!("the engine gave no way to a command. engine={engine}")).because(e))
        })?;
        let (output, input) = tokio::io::split(TokioIo::new(upgraded));
        Ok(Self {
            engine: engine.clone(),
            id: created.id,
            input,
            output: Frames { from: output, held: BytesMut::new() },
        })
    }

    pub(super) fn handle(&self) -> Handle {
        Handle { engine: self.engine.clone(), id: self.id.clone() }
    }
}

/// What tells whether a process runs.
pub(super) struct Handle {
    engine: Engine,
    id: String,
}

impl Handle {
    /// How it ended, if it has.
    pub(super) async fn exit(&self) -> Result<Option<Exit>> {
        let what = "the engine does not tell how a command ended";
        let state: State = self.engine.json(Method::GET, &format!("/exec/{}/json", self.id), None, what).await?;
        match (state.running, state.exit_code) {
            (true, _) => Ok(None),
            (false, Some(code)) => Ok(Some(exit(code))),
            (false, None) => Err(Error::internal(format!("{what}. engine={}", self.engine))),
        }
    }

    /// Waits for its end, which is near.
    pub(super) async fn ended(&self) -> Result<Exit> {
        let mut looks = LOOKS.iter();
        let mut pause = LOOKS[LOOKS.len() - 1];
        loop {
            if let Some(exit) = self.exit().await? {
                return Ok(exit);
            }
            pause = looks.next().copied().unwrap_or(pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Waits for its end, which may be far away.
    pub(super) async fn watched(&self, every: Duration) -> Result<Exit> {
        loop {
            tokio::time::sleep(every).await;
            if let Some(exit) = self.exit().await? {
                return Ok(exit);
            }
        }
    }
}

/// An engine tells one number: that of a signal with 128 added.
fn exit(code: i32) -> Exit {
    if (129..=128 + 64).contains(&code) { Exit::Signal(code - 128) } else { Exit::Code(code) }
}

/// An error of the engine's, told of a container.
pub(super) fn in_container(error: Error, container: &str) -> Error {
    let (kind, said) = (error.kind(), error.chain());
    let error = error.at(format_args!("container={container}"));
    match kind {
        ErrorKind::NotReady => error.hint("`pgdock up` makes the container of a node and starts it"),
        ErrorKind::Conflict if said.contains("paused") => {
            error.hint(format!("`docker unpause {container}` lets it go on"))
        }
        ErrorKind::Conflict => error
            .hint("`pgdock up` starts the container of a node")
            .hint(format!("why it ended: `docker logs {container}` on the engine's machine")),
        _ => error,
    }
}

/// The outputs of a process, in pieces.
pub(super) struct Frames {
    from: ReadHalf<TokioIo<Upgraded>>,
    held: BytesMut,
}

impl Frames {
    /// The next piece; nothing at the end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<(Stream, Bytes)>> {
        loop {
            if let Some(frame) = take(&mut self.held)? {
                return Ok(Some(frame));
            }
            if self.from.read_buf(&mut self.held).await? == 0 {
                return if self.held.is_empty() { Ok(None) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

/// Takes a whole piece off the front.
pub(super) fn take(held: &mut BytesMut) -> std::io::Result<Option<(Stream, Bytes)>> {
    let Some(head) = held.first_chunk::<HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let stream = match head[0] {
        0 | 1 => Stream::Stdout,
        2 => Stream::Stderr,
        other => {
            return Err(std::io::Error::other(format!("the engine speaks of an output that is unknown: {other}")));
        }
    };
    if length > FRAME_MAX {
        return Err(std::io::Error::other(format!("the engine announces a piece of {length} bytes")));
    }
    if held.len() < HEAD + length {
        held.reserve(HEAD + length - held.len());
        return Ok(None);
    }
    held.advance(HEAD);
    Ok(Some((stream, held.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_told_apart_however_they_are_cut() {
        let all =
            [&[1, 0, 0, 0, 0, 0, 0, 2][..], b"ab", &[2, 0, 0, 0, 0, 0, 0, 1], b"c", &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        for cut in 1..all.len() {
            let (mut held, mut seen) = (BytesMut::new(), Vec::new());
            for piece in [&all[..cut], &all[cut..]] {
                held.extend_from_slice(piece);
                while let Some((stream, data)) = take(&mut held).unwrap() {
                    seen.push((stream, data));
                }
            }
            let expected = [(Stream::Stdout, "ab".into()), (Stream::Stderr, "c".into()), (Stream::Stdout, "".into())];
            assert_eq!(seen, expected, "cut at {cut}");
        }
        assert!(take(&mut BytesMut::from(&[9, 0, 0, 0, 0, 0, 0, 0][..])).is_err());
        assert!(take(&mut BytesMut::from(&[1, 0, 0, 0, 255, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn signals_are_numbers_above_128() {
        for (code, what) in
            [(0, Exit::Code(0)), (128, Exit::Code(128)), (143, Exit::Signal(15)), (255, Exit::Code(255))]
        {
            assert_eq!(exit(code), what);
        }
    }
}
