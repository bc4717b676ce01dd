//! [`Spoilt`]: the body of an answer that breaks off, or in which a bit is flipped.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use s3s::{Body, StdError};

use crate::faults::Spoil;

/// A body with its fate.
pub(crate) struct Spoilt {
    body: Body,
    /// After how many bytes it breaks off.
    cut: Option<u64>,
    /// In which byte from here a bit is flipped.
    flip: Option<u64>,
}

impl Spoilt {
    /// Draws where it happens, by two numbers between 0 and 1. A body without a length is left as it is.
    pub(crate) fn new(body: Body, spoil: Spoil) -> Self {
        let size = body.size_hint().exact().unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = |part: Option<f64>| part.filter(|_| size > 0).map(|part| (size as f64 * part) as u64);
        Self { body, cut: place(spoil.cut), flip: place(spoil.flip) }
    }
}

impl hyper::body::Body for Spoilt {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
        let length = data.len() as u64;
        if let Some(left) = self.cut {
            if left < length {
                return Poll::Ready(Some(Err("the body is cut on purpose".into())));
            }
            self.cut = Some(left - length);
        }
        let mut data = data.to_vec();
        match self.flip {
            Some(at) if at < length => {
                data[usize::try_from(at).unwrap_or(0)] ^= 1;
                self.flip = None;
            }
            Some(at) => self.flip = Some(at - length),
            None => {}
        }
        Poll::Ready(Some(Ok(Frame::data(data.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
