//! EC2, as far as an Elastic IP needs it, and the metadata service of an instance.

use aws_lc_rs::{digest, hmac};
use http::Method;

use super::{Asked, Reply, Ways};

/// One Elastic IP.
#[derive(Clone, Debug)]
pub struct Ec2 {
    /// The address.
    pub address: String,
    /// Its number.
    pub allocation: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The number and the secret of the key that they are signed with.
    pub key: (String, String),
    /// The token that comes with it, where it is a temporary one.
    pub token: Option<String>,
    /// Instances, each with its network interface.
    pub instances: Vec<(String, String)>,
    /// Which instance holds the address.
    pub holder: Option<usize>,
    /// Accepted, and not seen yet: which instance, and how many looks show the old one.
    pub moving: Option<(usize, u32)>,
    /// How many looks show the old one after each move.
    pub lag: u32,
}

fn failed(status: u16, code: &str, message: &str) -> Reply {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let id = "<RequestID>ea966190-f9aa-478e-9ede-example</RequestID>";
    Reply::new(status, format!("<?xml version=\"1.0\"?>\n<Response><Errors>{error}</Errors>{id}</Response>"))
}

fn sha256(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Ec2 {
    /// Whether a request is signed as it must be, by the recipe of Signature Version 4.
    fn is_signed(&self, asked: &Asked) -> bool {
        let Some(rest) = asked.header("authorization").strip_prefix("AWS4-HMAC-SHA256 ") else { return false };
        let part = |name: &str| rest.split(", ").find_map(|part| part.strip_prefix(name)).unwrap_or_default();
        let (date, signed) = (asked.header("x-amz-date"), part("SignedHeaders="));
        let Some(day) = date.get(..8) else { return false };
        let scope = format!("{day}/{}/ec2/aws4_request", self.region);
        if part("Credential=") != format!("{}/{scope}", self.key.0) || !signed.split(';').any(|name| name == "host") {
            return false;
        }
        if asked.header("x-amz-security-token") != self.token.as_deref().unwrap_or_default()
            || self.token.is_some() && !signed.split(';').any(|name| name == "x-amz-security-token")
        {
            return false;
        }
        let headers: String = signed.split(';').map(|name| format!("{name}:{}\n", asked.header(name).trim())).collect();
        let canonical =
            format!("{}\n{}\n{}\n{headers}\n{signed}\n{}", asked.method, asked.path, asked.query, sha256(&asked.body));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let sign = |key: &[u8], data: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes()).as_ref().to_vec()
        };
        let key = ["AWS4", &self.key.1].concat();
        let key =
            [day, &self.region, "ec2", "aws4_request"].iter().fold(key.into_bytes(), |key, part| sign(&key, part));
        part("Signature=") == hex(&sign(&key, &text))
    }

    fn describe(&mut self, asked: &Asked) -> Reply {
        if asked.field("PublicIp.1").is_some_and(|ip| ip != self.address) {
            return failed(400, "InvalidAddress.NotFound", "Address not found.");
        }
        match &mut self.moving {
            Some((to, 0)) => {
                self.holder = Some(*to);
                self.moving = None;
            }
            Some((_, looks)) => *looks -= 1,
            None => {}
        }
        let at = self.holder.map_or(String::new(), |i| {
            let (instance, interface) = &self.instances[i];
            format!(
                "<instanceId>{instance}</instanceId><associationId>eipassoc-1</associationId>\
                 <networkInterfaceId>{interface}</networkInterfaceId><privateIpAddress>10.0.0.5</privateIpAddress>"
            )
        });
        let item = format!(
            "<item><publicIp>{}</publicIp><allocationId>{}</allocationId><domain>vpc</domain>{at}</item>",
            self.address, self.allocation
        );
        Reply::new(
            200,
            format!(
                "<DescribeAddressesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>1</requestId>\
                 <addressesSet>{item}</addressesSet></DescribeAddressesResponse>"
            ),
        )
    }

    fn associate(&mut self, asked: &Asked) -> Reply {
        if asked.field("AllocationId").as_ref() != Some(&self.allocation) {
            return failed(400, "InvalidAllocationID.NotFound", "The allocation ID does not exist");
        }
        let (instance, interface) = (asked.field("InstanceId"), asked.field("NetworkInterfaceId"));
        let found = self.instances.iter().position(|(i, n)| {
            instance.as_ref().is_some_and(|asked| asked == i) || interface.as_ref().is_some_and(|asked| asked == n)
        });
        let Some(to) = found else {
            return failed(400, "InvalidInstanceID.NotFound", "The instance ID does not exist");
        };
        let reassociate = asked.field("AllowReassociation").as_deref() == Some("true");
        if self.holder.is_some_and(|held| held != to) && !reassociate {
            return failed(400, "Resource.AlreadyAssociated", "resource is already associated");
        }
        self.moving = Some((to, self.lag));
        Reply::new(
            200,
            "<AssociateAddressResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>2</requestId>\
             <return>true</return><associationId>eipassoc-2</associationId></AssociateAddressResponse>",
        )
    }

    /// What an instance can ask about itself, by the second version of that protocol.
    fn metadata(&self, asked: &Asked) -> Reply {
        const TOKEN: &str = "of-this-instance";
        if asked.method == Method::PUT && asked.path == "/latest/api/token" {
            let seconds = asked.header("x-aws-ec2-metadata-token-ttl-seconds");
            return if seconds.is_empty() { Reply::new(400, "") } else { Reply::new(200, TOKEN) };
        }
        if asked.header("x-aws-ec2-metadata-token") != TOKEN {
            return Reply::new(401, "");
        }
        match asked.path.strip_prefix("/latest/meta-data/iam/security-credentials/") {
            Some("") => Reply::new(200, "failover"),
            Some("failover") => Reply::new(
                200,
                serde_json::json!({
                    "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
                    "AccessKeyId": self.key.0, "SecretAccessKey": self.key.1, "Token": self.token,
                    "Expiration": "2096-01-01T00:00:00Z",
                })
                .to_string(),
            ),
            _ => Reply::new(404, ""),
        }
    }
}

impl Ways for Ec2 {
    fn answer(&mut self, asked: &Asked) -> Reply {
        if asked.path.starts_with("/latest/") {
            return self.metadata(asked);
        }
        if !self.is_signed(asked) {
            return failed(401, "AuthFailure", "AWS was not able to validate the provided access credentials");
        }
        match asked.field("Action").as_deref() {
            _ if asked.field("Version").as_deref() != Some("2016-11-15") => failed(400, "MissingParameter", "Version"),
            Some("DescribeAddresses") => self.describe(asked),
            Some("AssociateAddress") => self.associate(asked),
            _ => failed(400, "InvalidAction", "The action is not valid for this web service."),
        }
    }
}
