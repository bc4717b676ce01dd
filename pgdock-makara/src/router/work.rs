//! What can be done with a statement on a connection.

use tokio_postgres::types::{BorrowToSql, Type};
use tokio_postgres::{CopyInSink, CopyOutStream, Error, Row, RowStream, SimpleQueryMessage, Statement};

use super::Params;
use super::connection::Connection;

/// What a statement is for: to bring rows, or to change some. It may be run on several nodes, one after the other.
///
/// To prepare may take a round trip and changes nothing; to run sends all there is to send the first time it is polled.
pub(super) trait Work: Sync {
    type Prepared: Send + Sync;
    type Output: Send;

    /// Whether the connection is still in use when the output is there.
    const STREAMS: bool = false;

    fn prepare(&self, connection: &Connection) -> impl Future<Output = Result<Self::Prepared, Error>> + Send;

    fn run(
        &self,
        connection: &Connection,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// A statement, as it is to be prepared.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) sql: &'a str,
    pub(super) types: &'a [Type],
}

/// For its rows.
pub(super) struct Query<'a>(pub(super) Text<'a>, pub(super) &'a Params<'a>);

/// For the number of rows that it touches.
pub(super) struct Execute<'a>(pub(super) Text<'a>, pub(super) &'a Params<'a>);

/// For its rows, one after the other.
pub(super) struct Stream<'a, P>(pub(super) Text<'a>, pub(super) &'a [P]);

/// Texts without arguments, several at once.
pub(super) struct Simple<'a>(pub(super) &'a str);

/// For the data that it copies out.
pub(super) struct CopyOut<'a>(pub(super) &'a str);

/// For the data that it copies in.
pub(super) struct CopyIn<'a>(pub(super) &'a str);

/// To see whether it can be prepared.
pub(super) struct Prepare<'a>(pub(super) Text<'a>);

impl Work for Query<'_> {
    type Prepared = Statement;
    type Output = Vec<Row>;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepared(self.0.sql, self.0.types).await
    }

    async fn run(&self, connection: &Connection, statement: &Statement) -> Result<Vec<Row>, Error> {
        connection.query(statement, self.1).await
    }
}

impl Work for Execute<'_> {
    type Prepared = Statement;
    type Output = u64;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepared(self.0.sql, self.0.types).await
    }

    async fn run(&self, connection: &Connection, statement: &Statement) -> Result<u64, Error> {
        connection.execute(statement, self.1).await
    }
}

impl<P: BorrowToSql + Sync> Work for Stream<'_, P> {
    type Prepared = Statement;
    type Output = RowStream;
    const STREAMS: bool = true;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepared(self.0.sql, self.0.types).await
    }

    async fn run(&self, connection: &Connection, statement: &Statement) -> Result<RowStream, Error> {
        connection.query_raw(statement, self.1.iter().map(BorrowToSql::borrow_to_sql)).await
    }
}

impl Work for Simple<'_> {
    type Prepared = ();
    type Output = Vec<SimpleQueryMessage>;

    async fn prepare(&self, _: &Connection) -> Result<(), Error> {
        Ok(())
    }

    async fn run(&self, connection: &Connection, (): &()) -> Result<Vec<SimpleQueryMessage>, Error> {
        connection.simple_query(self.0).await
    }
}

impl Work for CopyOut<'_> {
    type Prepared = Statement;
    type Output = CopyOutStream;
    const STREAMS: bool = true;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepare(self.0).await
    }

    async fn run(&self, connection: &Connection, statement: &Statement) -> Result<CopyOutStream, Error> {
        connection.copy_out(statement).await
    }
}

impl Work for CopyIn<'_> {
    type Prepared = Statement;
    type Output = CopyInSink<bytes::Bytes>;
    const STREAMS: bool = true;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepare(self.0).await
    }

    async fn run(&self, connection: &Connection, statement: &Statement) -> Result<CopyInSink<bytes::Bytes>, Error> {
        connection.copy_in(statement).await
    }
}

impl Work for Prepare<'_> {
    type Prepared = Statement;
    type Output = Statement;

    async fn prepare(&self, connection: &Connection) -> Result<Statement, Error> {
        connection.prepared(self.0.sql, self.0.types).await
    }

    async fn run(&self, _: &Connection, statement: &Statement) -> Result<Statement, Error> {
        Ok(statement.clone())
    }
}
