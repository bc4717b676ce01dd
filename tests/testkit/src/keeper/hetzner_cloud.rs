//! The interface of Hetzner's cloud, as far as a floating address needs it.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{Asked, Reply, Ways};

/// The floating addresses of one project.
#[derive(Clone, Debug)]
pub struct HetznerCloud {
    /// The token of the project.
    pub token: String,
    /// Addresses, or networks of IPv6, by their number; one a page.
    pub addresses: BTreeMap<u64, String>,
    /// The servers of the project.
    pub servers: Vec<u64>,
    /// Which server each address is assigned to.
    pub assigned: BTreeMap<u64, u64>,
    /// What was begun.
    pub actions: BTreeMap<u64, Action>,
    /// How many requests find an action still running.
    pub lag: u32,
    /// The next action ends with an error.
    pub fail_next: bool,
}

/// What was begun to be done with an address.
#[derive(Clone, Debug)]
pub struct Action {
    address: u64,
    server: u64,
    requests_left: u32,
    status: &'static str,
}

impl HetznerCloud {
    /// Time passes with each request.
    fn tick(&mut self) {
        for action in self.actions.values_mut().filter(|action| action.status == "running") {
            if action.requests_left > 0 {
                action.requests_left -= 1;
            } else if std::mem::take(&mut self.fail_next) {
                action.status = "error";
            } else {
                action.status = "success";
                self.assigned.insert(action.address, action.server);
            }
        }
    }

    fn shown(&self, id: u64) -> Value {
        json!({"id": id, "ip": self.addresses[&id], "type": "ipv4", "server": self.assigned.get(&id)})
    }

    fn action(&self, id: u64) -> Value {
        let status = self.actions[&id].status;
        let error = (status == "error").then(|| json!({"code": "action_failed", "message": "Action failed"}));
        json!({"action": {"id": id, "command": "assign_floating_ip", "status": status, "error": error}})
    }
}

fn failed(status: u16, code: &str, message: &str) -> Reply {
    Reply::new(status, json!({"error": {"code": code, "message": message, "details": {}}}).to_string())
}

impl Ways for HetznerCloud {
    fn answer(&mut self, asked: &Asked) -> Reply {
        if asked.header("authorization") != format!("Bearer {}", self.token) {
            return failed(401, "unauthorized", "unable to authenticate");
        }
        self.tick();
        let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        match (&asked.method, &parts[..]) {
            (&Method::GET, ["floating_ips"]) => {
                let page =
                    asked.query.split('&').find_map(|pair| pair.strip_prefix("page=")?.parse().ok()).unwrap_or(1);
                let here = self.addresses.keys().nth(page - 1).map(|id| self.shown(*id));
                let next = (page < self.addresses.len()).then_some(page + 1);
                let meta = json!({"pagination": {"page": page, "per_page": 1, "next_page": next}});
                Reply::new(200, json!({"floating_ips": here.into_iter().collect::<Vec<_>>(), "meta": meta}).to_string())
            }
            (&Method::GET, ["floating_ips", id]) => {
                match id.parse().ok().filter(|id| self.addresses.contains_key(id)) {
                    Some(id) => Reply::new(200, json!({"floating_ip": self.shown(id)}).to_string()),
                    None => failed(404, "not_found", "floating IP not found"),
                }
            }
            (&Method::POST, ["floating_ips", id, "actions", "assign"]) => {
                let Some(id) = id.parse().ok().filter(|id| self.addresses.contains_key(id)) else {
                    return failed(404, "not_found", "floating IP not found");
                };
                let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
                let Some(server) = body["server"].as_u64().filter(|server| self.servers.contains(server)) else {
                    return failed(404, "not_found", "server not found");
                };
                if self.actions.values().any(|action| action.address == id && action.status == "running") {
                    return failed(423, "locked", "floating IP is locked");
                }
                if self.assigned.get(&id) == Some(&server) {
                    return failed(422, "invalid_input", "floating IP is already assigned to this server");
                }
                let action = 1000 + u64::try_from(self.actions.len()).unwrap_or_default();
                let begun = Action { address: id, server, requests_left: self.lag, status: "running" };
                self.actions.insert(action, begun);
                Reply::new(201, self.action(action).to_string())
            }
            (&Method::GET, ["actions", id]) => match id.parse().ok().filter(|id| self.actions.contains_key(id)) {
                Some(id) => Reply::new(200, self.action(id).to_string()),
                None => failed(404, "not_found", "action not found"),
            },
            _ => failed(404, "not_found", "not found"),
        }
    }
}
