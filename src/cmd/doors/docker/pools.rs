//! Subnets that Docker has asked for and not yet made a network with: they are known here alone, so that none is left if Docker ends.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Done, error_reply, with_hint};

/// A subnet, with the part of it that containers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingPool {
    pub(super) subnet: String,
    pub(super) range: Option<String>,
}

impl PendingPool {
    /// Reads what Docker knows a pool by.
    pub(super) fn of_id(id: &str) -> PendingPool {
        match id.split_once(',') {
            Some((subnet, range)) => PendingPool { subnet: subnet.into(), range: Some(range.into()) },
            None => PendingPool { subnet: id.into(), range: None },
        }
    }

    /// Returns what Docker is to know it by.
    pub(super) fn id(&self) -> String {
        self.range.as_ref().map_or(self.subnet.clone(), |range| format!("{},{range}", self.subnet))
    }

    pub(super) fn of_value(value: &Value) -> PendingPool {
        let text = |key: &str| value[key].as_str().map(String::from);
        PendingPool { subnet: text("subnet").unwrap_or_default(), range: text("range") }
    }

    fn value(&self) -> Value {
        json!({ "subnet": self.subnet, "range": self.range })
    }
}

/// The pools of networks that are being made.
#[derive(Debug, Default)]
pub(super) struct PendingPools(Mutex<Vec<PendingPool>>);

impl PendingPools {
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Does a request with `run`, which gets Docker's body and the pools, and keeps up with what it does to them.
    pub(super) fn around(&self, method: &str, body: &[u8], run: impl FnOnce(&Value) -> Done) -> String {
        let body = match body {
            [] => Value::Null,
            body => match serde_json::from_slice::<Value>(body) {
                Ok(body) => body,
                Err(error) => return error_reply(method, &format!("read Docker's request: {error}")).to_string(),
            },
        };
        let done = |pools: &[PendingPool]| {
            let pools: Vec<Value> = pools.iter().map(PendingPool::value).collect();
            run(&json!({ "body": body, "pools": pools })).unwrap_or_else(|error| {
                error_reply(method, &with_hint(&error.to_string(), error.hint_text())).to_string()
            })
        };
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match method {
            // One after the other: two must not choose the same subnet.
            "IpamDriver.RequestPool" => {
                let reply = done(&pools);
                let made: Value = serde_json::from_str(&reply).unwrap_or_default();
                if let Some(id) = made["PoolID"].as_str() {
                    pools.push(PendingPool::of_id(id));
                }
                reply
            }
            "IpamDriver.ReleasePool" => {
                let id = body["PoolID"].as_str().unwrap_or_default().to_string();
                if let Some(at) = pools.iter().position(|pool| pool.id() == id) {
                    pools.remove(at);
                }
                drop(pools);
                done(&[])
            }
            _ => {
                let now = pools.clone();
                drop(pools);
                let reply = done(&now);
                let is_made = method == "NetworkDriver.CreateNetwork"
                    && serde_json::from_str::<Value>(&reply).is_ok_and(|reply| reply.get("Err").is_none());
                if is_made {
                    let data = ["IPv4Data", "IPv6Data"].map(|key| body[key].as_array().cloned().unwrap_or_default());
                    for made in data.concat() {
                        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(at) = pools.iter().position(|pool| Some(&*pool.subnet) == made["Pool"].as_str()) {
                            pools.remove(at);
                        }
                    }
                }
                reply
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pools: &PendingPools, method: &str, body: &Value, reply: &Value) -> Vec<PendingPool> {
        pools.around(method, body.to_string().as_bytes(), |_| Ok(reply.to_string()));
        pools.0.lock().expect("the pools").clone()
    }

    #[test]
    fn a_pool_is_pending_until_its_network_is_made_or_it_is_released() {
        let pools = PendingPools::default();
        let request = json!({ "Pool": "10.5.0.0/24" });
        let id = "10.5.0.0/24,10.5.0.128/25";
        assert_eq!(ask(&pools, "IpamDriver.RequestPool", &request, &json!({ "PoolID": id })), [PendingPool::of_id(id)]);
        assert_eq!(ask(&pools, "IpamDriver.RequestPool", &request, &json!({ "Error": "taken" })).len(), 1);
        let network = json!({ "IPv4Data": [{ "Pool": "10.5.0.0/24" }] });
        assert_eq!(ask(&pools, "NetworkDriver.CreateNetwork", &network, &json!({ "Err": "no" })).len(), 1);
        assert_eq!(ask(&pools, "NetworkDriver.CreateNetwork", &network, &json!({})), []);
        ask(&pools, "IpamDriver.RequestPool", &request, &json!({ "PoolID": id }));
        assert_eq!(ask(&pools, "IpamDriver.ReleasePool", &json!({ "PoolID": id }), &json!({})), []);
        assert!(pools.around("NetworkDriver.Join", b"{", |_| Ok("{}".into())).contains("Err"));
    }
}
