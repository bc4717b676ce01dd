//! Robot's web service, as far as a failover address needs it.

use std::net::IpAddr;

use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};

use super::{Asked, Reply, Ways};

/// One failover address.
#[derive(Clone, Debug)]
pub struct HetznerRobot {
    /// The address.
    pub address: IpAddr,
    /// `user:password`
    pub login: String,
    /// The main addresses of the servers of this user.
    pub servers: Vec<IpAddr>,
    /// Where it points.
    pub active: Option<IpAddr>,
    /// A switch that was accepted: where to, and how many requests still find the old place.
    pub switching: Option<(IpAddr, u32)>,
    /// How many requests find the old place after each switch.
    pub lag: u32,
    /// How many requests are answered until the limit is reached.
    pub requests_left: Option<u32>,
}

impl HetznerRobot {
    fn shown(&self) -> Value {
        json!({
            "ip": self.address,
            "netmask": "255.255.255.255",
            "server_ip": self.servers[0],
            "server_number": 321,
            "active_server_ip": self.active,
        })
    }
}

fn failed(status: u16, code: &str, message: &str) -> Reply {
    Reply::new(status, json!({"error": {"status": status, "code": code, "message": message}}).to_string())
}

impl Ways for HetznerRobot {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let login = base64::engine::general_purpose::STANDARD.encode(&self.login);
        if asked.header("authorization") != format!("Basic {login}") {
            return failed(401, "UNAUTHORIZED", "Unauthorized");
        }
        if let Some(left) = &mut self.requests_left {
            if *left == 0 {
                let error = json!({
                    "status": 403, "code": "RATE_LIMIT_EXCEEDED", "message": "rate limit exceeded",
                    "max_request": 50, "interval": 3600,
                });
                return Reply::new(403, json!({"error": error}).to_string());
            }
            *left -= 1;
        }
        if asked.path != format!("/failover/{}", self.address) {
            return failed(404, "NOT_FOUND", "Failover not found");
        }
        // Time passes with each request.
        match &mut self.switching {
            Some((to, 0)) => {
                self.active = Some(*to);
                self.switching = None;
            }
            Some((_, requests)) => *requests -= 1,
            None => {}
        }
        match asked.method {
            Method::GET => Reply::new(200, json!({"failover": self.shown()}).to_string()),
            Method::POST => {
                let Some(to) = asked.field("active_server_ip").and_then(|ip| ip.parse::<IpAddr>().ok()) else {
                    return failed(400, "INVALID_INPUT", "invalid input");
                };
                if !self.servers.contains(&to) {
                    return failed(404, "FAILOVER_NEW_SERVER_NOT_FOUND", "Server not found");
                }
                if self.switching.is_some() {
                    return failed(409, "FAILOVER_LOCKED", "Failover is locked");
                }
                if self.active == Some(to) {
                    return failed(409, "FAILOVER_ALREADY_ROUTED", "Failover already routed");
                }
                self.switching = Some((to, self.lag));
                Reply::new(200, json!({"failover": self.shown()}).to_string())
            }
            _ => failed(405, "METHOD_NOT_ALLOWED", "method not allowed"),
        }
    }
}
