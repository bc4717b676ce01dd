//! [`ImageRecipe`]: what an image of a node is built from: a recipe that this library holds, and a pgdock.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::tar::Tar;
use crate::executor::docker::Engine;
use crate::{Error, Result};

const DOCKERFILE: &str = include_str!("../../images/Dockerfile");
/// What images are built on.
const BASE: &str = "debian:trixie-slim";
/// The C libraries of bases that are known.
const BASES: [(&str, (u32, u32)); 3] = [("bullseye", (2, 31)), ("bookworm", (2, 36)), ("trixie", (2, 41))];

/// What an image of a node is built from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageRecipe {
    /// PostgreSQL's major version.
    pub postgres: u32,
    /// The image that it is built on: a Debian, or what is made from one.
    pub base: String,
    /// The name of the image.
    pub tag: String,
    /// Variables for the build, such as `http_proxy`. They are not in the image; engines show them in its history if
    /// they are none of those.
    pub arguments: BTreeMap<String, String>,
    /// The network that the build uses, such as `host`; the engine's usual one where nothing is said.
    pub network: Option<String>,
}

impl ImageRecipe {
    /// For a version of PostgreSQL, on Debian, under the name that settings expect.
    #[must_use]
    pub fn new(postgres: u32) -> Self {
        Self {
            postgres,
            base: BASE.to_owned(),
            tag: crate::settings::default_image(Some(postgres)),
            arguments: BTreeMap::new(),
            network: None,
        }
    }

    /// Builds it on an engine, with `program`, a pgdock. What the build says is passed on line by line.
    ///
    /// # Errors
    /// `Invalid` when the program fits neither the engine's machine nor the base; `Internal` when a step fails, as when a
    /// package is missing; `Unavailable` when the engine is lost.
    pub async fn build(&self, engine: &Engine, program: &[u8], said: impl FnMut(&str) + Send) -> Result<()> {
        self.fits(program, &engine.about().await?.architecture)?;
        let mut arguments = self.arguments.clone();
        arguments.insert("BASE".to_owned(), self.base.clone());
        arguments.insert("POSTGRES".to_owned(), self.postgres.to_string());
        let context = self.context(program)?;
        engine.build_image(&self.tag, context, &arguments, self.network.as_deref(), said).await
    }

    /// What the engine gets: two files.
    fn context(&self, program: &[u8]) -> Result<Bytes> {
        let mut tar = Tar::default();
        tar.file("Dockerfile", 0o644, DOCKERFILE.as_bytes())?;
        tar.file("pgdock", 0o755, program)?;
        Ok(tar.finish().into())
    }

    fn fits(&self, program: &[u8], machine: &str) -> Result<()> {
        let own = machine_of(program);
        if !machine.is_empty() && own.is_some_and(|own| own != machine) {
            return Err(Error::invalid(format!(
                "this program does not run on the engine's machine. engine={machine}, program={}",
                own.unwrap_or("unknown")
            ))
            .hint("build pgdock for that machine, and name it: `pgdock image build --program FILE`"));
        }
        let known = BASES.iter().find(|(name, _)| self.base.contains(name)).map(|(_, libc)| *libc);
        if let (Some((major, minor)), Some(has)) = (libc_of(program), known)
            && (major, minor) > has
        {
            return Err(Error::invalid(format!(
                "this program needs a newer C library than the base has. program={major}.{minor}, base={}.{}, image={}",
                has.0, has.1, self.base
            ))
            .hint(
                "`--base` names a newer Debian; or build pgdock on an older system, or for x86_64-unknown-linux-musl",
            ));
        }
        Ok(())
    }
}

/// The machine of a program in ELF, as Docker names it.
pub(super) fn machine_of(program: &[u8]) -> Option<&'static str> {
    if !program.starts_with(b"\x7fELF") {
        return None;
    }
    match u16::from_le_bytes([*program.get(18)?, *program.get(19)?]) {
        62 => Some("amd64"),
        183 => Some("arm64"),
        _ => None,
    }
}

/// The newest version of glibc whose symbols a program names. Nothing where it needs none, as one that is linked with musl.
#[must_use]
pub fn libc_of(program: &[u8]) -> Option<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_2.";
    let mut newest = None;
    let mut rest = program;
    while let Some(at) = memchr(rest, NAME) {
        rest = &rest[at + NAME.len()..];
        let digits: String =
            rest.iter().take_while(|byte| byte.is_ascii_digit()).map(|&byte| char::from(byte)).collect();
        // A name ends with a zero or a point; what only looks like one does not count.
        let end = rest.get(digits.len()).copied();
        if let (Ok(minor), Some(0 | b'.')) = (digits.parse::<u32>(), end) {
            newest = newest.max(Some((2, minor)));
        }
    }
    newest
}

fn memchr(text: &[u8], part: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|&byte| byte == part[0])?;
        if text[at..].starts_with(part) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(machine: u16, symbols: &str) -> Vec<u8> {
        let mut program = b"\x7fELF".to_vec();
        program.resize(18, 0);
        program.extend_from_slice(&machine.to_le_bytes());
        program.extend_from_slice(symbols.as_bytes());
        program
    }

    #[test]
    fn a_program_that_does_not_fit_is_refused_before_anything_is_built() {
        let recipe = ImageRecipe::new(17);
        let own = program(62, "x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.99x\0");
        assert_eq!((libc_of(&own), machine_of(&own)), (Some((2, 34)), Some("amd64")));
        recipe.fits(&own, "amd64").unwrap();
        assert!(recipe.fits(&own, "arm64").unwrap_err().to_string().contains("program=amd64"));
        let newer = program(62, "GLIBC_2.42\0");
        let error = recipe.fits(&newer, "amd64").unwrap_err();
        assert!(error.to_string().contains("program=2.42, base=2.41"), "{error}");
        recipe.fits(&program(62, ""), "amd64").unwrap();
        let old = ImageRecipe { base: "debian:bullseye-slim".into(), ..recipe };
        assert!(old.fits(&own, "amd64").is_err());
    }

    #[test]
    fn the_running_program_is_recognised() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(machine_of(&own).is_some(), cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));
        assert_eq!(libc_of(&own).is_some(), cfg!(target_env = "gnu"));
    }
}
