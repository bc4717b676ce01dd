//! Which paths a bundle may hold: relative, plain, and short enough for every tool that reads a tar.

/// The longest path, in bytes: what fits into the header of a `ustar` entry wherever it is divided.
pub(super) const PATH_MAX: usize = 100;

/// Why a path is not one of a bundle's.
pub(super) fn fault(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.len() > PATH_MAX {
        return Some("it is longer than 100 bytes");
    }
    if path.starts_with('/') {
        return Some("it is absolute");
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return Some("it holds a backslash or a control character");
    }
    for part in path.split('/') {
        match part {
            "" => return Some("a part of it is empty"),
            "." | ".." => return Some("it leads elsewhere"),
            _ => {}
        }
    }
    None
}

/// Whether a path leads to what never enters a bundle: `secrets/`, `env/` of a node or of all.
pub(super) fn is_kept_out(path: &str) -> bool {
    let mut parts = path.split('/');
    let first = parts.next();
    first == Some("secrets") || parts.next() == Some("env")
}
