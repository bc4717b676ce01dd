//! The roles that pgdock needs, made on the running primary: replication brings them to the standbys.

use secrecy::ExposeSecret as _;

use super::Source;
use super::source::said;
use crate::postgres::conf_file::SUPERUSER;
use crate::postgres::instance::roles;
use crate::secrets::Secrets;
use crate::{Error, Result};

/// Makes pgdock's roles, or gives them the passwords of `secrets`. The application's role stays as it is, and so does
/// `postgres` where its password is the one that was logged in with. Idempotent.
///
/// The server gets to see SCRAM verifiers, never a password.
///
/// # Errors
/// `Unavailable` when the server does not answer, or refuses.
pub async fn make_roles(source: &Source, secrets: &Secrets) -> Result<()> {
    let known = source
        .password_of(SUPERUSER)
        .is_some_and(|password| password.expose_secret() == secrets.superuser.expose_secret());
    let mut sql = String::new();
    if !known {
        roles::role(&mut sql, SUPERUSER, "SUPERUSER", &secrets.superuser);
    }
    roles::own(&mut sql, &secrets.replication, &secrets.rewind, &secrets.monitor);
    let client = source.connect().await?;
    client
        .batch_execute(&format!("BEGIN; {sql} COMMIT; CHECKPOINT"))
        .await
        .map_err(|e| Error::unavailable("the roles could not be made").because(said(&e)))
}
