//! Sessions over HTTP: what a request wrote, the next one reads.
//!
//! ```text
//!   request ──▶ cookie or header ──▶ Session ──▶ scope(handler) ──▶ response
//!                                       └────────── commit ──────────▶ Set-Cookie, header
//! ```

mod layer;
mod seal;

pub use layer::{HEADER, SessionFuture, SessionLayer, SessionService};
pub use seal::{Key, KeyError};
