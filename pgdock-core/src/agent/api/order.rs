//! [`OrderRequest`]: what an operator can ask of an agent, and how it comes over the wire.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::bundle::Digest;
use crate::decide::action::Verdict;
use crate::{Error, NodeName, Result};

/// The longest time that a caller can wait for an order.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What an operator can ask of an agent: each is a path `/v1/NAME`, its fields those of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderRequest {
    /// Make this node the first primary of a new cluster.
    Bootstrap,
    /// Make this node, whose data directory another program looked after, the first primary.
    Adopt {
        /// PostgreSQL's system identifier, which the data directory must have.
        system_identifier: u64,
    },
    /// Hand the lead over.
    Switchover {
        /// To whom; to the best node where nobody is named.
        to: Option<NodeName>,
    },
    /// Become primary.
    Failover {
        /// Also where acknowledged commits may be missing.
        allow_data_loss: bool,
    },
    /// Stop automatic decisions, in the whole cluster.
    Pause,
    /// Go on with them.
    Resume,
    /// Restart PostgreSQL in its present role.
    Restart,
    /// Read PostgreSQL's configuration again.
    Reload,
    /// Use a bundle that is installed on this node.
    UseBundle {
        /// Which.
        digest: Digest,
        /// The tag that it came under.
        tag: Option<String>,
        /// Whether an operator goes back to it.
        rollback: bool,
    },
    /// Make this node's data directory anew, as a copy.
    Reclone,
    /// Follow the leader, by rewind or copy if it must be.
    Rejoin,
    /// Have the agent begin anew with the settings as they are now, while PostgreSQL goes on.
    BeginAnew,
    /// Stop PostgreSQL in order, and end the agent.
    Stop {
        /// Give the lead to another node first, if this one has it.
        hand_over: bool,
    },
}

impl OrderRequest {
    /// The names of all orders.
    pub(super) const NAMES: [&'static str; 13] = [
        "bootstrap",
        "adopt",
        "switchover",
        "failover",
        "pause",
        "resume",
        "restart",
        "reload",
        "use-bundle",
        "reclone",
        "rejoin",
        "begin-anew",
        "stop",
    ];

    /// Its name, the last part of its path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Adopt { .. } => "adopt",
            Self::Switchover { .. } => "switchover",
            Self::Failover { .. } => "failover",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::UseBundle { .. } => "use-bundle",
            Self::Reclone => "reclone",
            Self::Rejoin => "rejoin",
            Self::BeginAnew => "begin-anew",
            Self::Stop { .. } => "stop",
        }
    }

    /// How long to wait for it where the caller does not say: copies take their time.
    fn patience(&self) -> Duration {
        match self {
            Self::Bootstrap | Self::Reclone | Self::Rejoin => Duration::from_secs(3600),
            _ => Duration::from_secs(60),
        }
    }

    /// Reads an order; a body may be empty. Also how long the caller waits.
    pub(super) fn parse(name: &str, body: &[u8]) -> Result<(Self, Duration)> {
        let mut fields = Fields::read(body)?;
        let order = match name {
            "bootstrap" => Self::Bootstrap,
            // As a text: it has more digits than the numbers of some JSON.
            "adopt" => Self::Adopt {
                system_identifier: fields
                    .take::<String>("system_identifier", "a number in quotes")?
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| Error::invalid("field `system_identifier`: expected a number in quotes"))?,
            },
            "switchover" => Self::Switchover { to: fields.take("to", "the name of a node")? },
            "failover" => {
                Self::Failover { allow_data_loss: fields.take("allow_data_loss", "true or false")?.unwrap_or(false) }
            }
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "restart" => Self::Restart,
            "reload" => Self::Reload,
            "use-bundle" => Self::UseBundle {
                digest: fields
                    .take("digest", "the digest of a bundle")?
                    .ok_or_else(|| Error::invalid("field `digest`: expected the digest of a bundle, found nothing"))?,
                tag: fields.take("tag", "a tag")?,
                rollback: fields.take("rollback", "true or false")?.unwrap_or(false),
            },
            "reclone" => Self::Reclone,
            "rejoin" => Self::Rejoin,
            "begin-anew" => Self::BeginAnew,
            "stop" => Self::Stop { hand_over: fields.take("hand_over", "true or false")?.unwrap_or(false) },
            _ => return Err(Error::invalid(format!("there is no such order. order={name}"))),
        };
        let wait = fields
            .take::<f64>("timeout_seconds", "a number of seconds")?
            .map(|seconds| {
                Duration::try_from_secs_f64(seconds)
                    .map_err(|_| Error::invalid(format!("field `timeout_seconds`: no span of time. found={seconds}")))
            })
            .transpose()?;
        fields.end()?;
        let wait = wait.unwrap_or(order.patience()).min(WAIT_MAX);
        Ok((order, wait))
    }

    /// The body that [`parse`](Self::parse) reads.
    pub(in crate::agent) fn body(&self, wait: Duration) -> Value {
        let mut body = match self {
            Self::Switchover { to: Some(to) } => json!({ "to": to }),
            Self::Adopt { system_identifier } => json!({ "system_identifier": system_identifier.to_string() }),
            Self::Failover { allow_data_loss } => json!({ "allow_data_loss": allow_data_loss }),
            Self::UseBundle { digest, tag, rollback } => json!({ "digest": digest, "tag": tag, "rollback": rollback }),
            Self::Stop { hand_over } => json!({ "hand_over": hand_over }),
            _ => json!({}),
        };
        body["timeout_seconds"] = wait.as_secs_f64().into();
        body
    }
}

/// The fields of a body. Every fault names its field.
struct Fields {
    rest: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self> {
        let rest = if body.trim_ascii().is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(body).map_err(|e| Error::invalid("the body is no JSON object").because(e))?
        };
        Ok(Self { rest, known: Vec::new() })
    }

    fn take<T: DeserializeOwned>(&mut self, name: &'static str, expected: &str) -> Result<Option<T>> {
        self.known.push(name);
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(&value)
                .map(Some)
                .map_err(|e| Error::invalid(format!("field `{name}`: expected {expected}, found {value}")).because(e)),
        }
    }

    fn end(self) -> Result<()> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::invalid(format!("unknown field `{name}`. known={}", self.known.join(",")))),
        }
    }
}

/// How an order ended, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct OrderAnswer {
    pub(in crate::agent) outcome: Outcome,
    pub(in crate::agent) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::agent) enum Outcome {
    /// It is done.
    Done,
    /// Nothing was done.
    Refused,
    /// It was tried.
    Failed,
    /// Another one is under way; nothing was done.
    Busy,
    /// It did not end in time, and goes on.
    Unknown,
}

impl From<Verdict> for OrderAnswer {
    fn from(verdict: Verdict) -> Self {
        let (outcome, message) = match verdict {
            Verdict::Done(message) => (Outcome::Done, message),
            Verdict::Refused(message) => (Outcome::Refused, message),
            Verdict::Failed(message) => (Outcome::Failed, message),
        };
        Self { outcome, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_survives_the_wire() {
        let wait = Duration::from_millis(1500);
        let all = [
            OrderRequest::Bootstrap,
            OrderRequest::Adopt { system_identifier: u64::MAX },
            OrderRequest::Switchover { to: None },
            OrderRequest::Switchover { to: Some(NodeName::new("n2").unwrap()) },
            OrderRequest::Failover { allow_data_loss: true },
            OrderRequest::Pause,
            OrderRequest::Resume,
            OrderRequest::Restart,
            OrderRequest::Reload,
            OrderRequest::UseBundle { digest: Digest::of(b""), tag: Some("n1v1".to_owned()), rollback: true },
            OrderRequest::Reclone,
            OrderRequest::Rejoin,
            OrderRequest::BeginAnew,
            OrderRequest::Stop { hand_over: true },
        ];
        for order in &all {
            let body = order.body(wait).to_string();
            assert_eq!(OrderRequest::parse(order.name(), body.as_bytes()).unwrap(), (order.clone(), wait));
        }
        for name in OrderRequest::NAMES {
            assert!(all.iter().any(|order| order.name() == name));
            if !["adopt", "use-bundle"].contains(&name) {
                assert_eq!(OrderRequest::parse(name, b"").unwrap().0.name(), name);
            }
        }
    }

    #[test]
    fn faults_name_the_field() {
        for (name, body, part) in [
            ("switchover", r#"{"to": "N 2"}"#, "`to`"),
            ("failover", r#"{"allow_data_loss": "yes"}"#, "`allow_data_loss`"),
            ("failover", r#"{"allow_dataloss": true}"#, "`allow_dataloss`"),
            ("use-bundle", "", "`digest`"),
            ("adopt", "", "`system_identifier`"),
            ("use-bundle", r#"{"digest": "sha256:../x"}"#, "`digest`"),
            ("pause", r#"{"timeout_seconds": -1}"#, "`timeout_seconds`"),
            ("pause", "[1]", "JSON object"),
            ("pause", "{", "JSON object"),
            ("dance", "", "dance"),
        ] {
            let error = OrderRequest::parse(name, body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{name} {body}: {error}");
        }
    }
}
