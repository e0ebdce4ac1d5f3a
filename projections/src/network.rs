//! Networks: the addresses from which a key may be used.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most networks in one list.
pub const NETWORKS_MAX: usize = 32;

/// Text that is no network, or no list of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not an address or a network.
    #[error("must be an address such as `192.0.2.7`, or a network such as `192.0.2.0/24`")]
    Form,
    /// The address of the network has bits behind its prefix.
    #[error("has bits set behind its prefix; write `{0}`")]
    HostBits(IpNet),
    /// The list is empty.
    #[error("must name at least one network")]
    Empty,
    /// The list is too long.
    #[error("must name at most {NETWORKS_MAX} networks")]
    TooMany,
    /// The list names a network twice.
    #[error("`{0}` is named twice")]
    Twice(IpNet),
}

/// Networks, distinct and sorted, in one piece of memory: a request from an address of
/// any of them is accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Networks(Arc<[IpNet]>);

/// Reads one network: CIDR text, or a single address. An IPv4 address written as IPv6
/// is not accepted: it has one spelling.
fn network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| InvalidNetwork::Form)?),
    };
    if net.addr().to_canonical() != net.addr() {
        return Err(InvalidNetwork::Form);
    }
    if net.trunc() == net { Ok(net) } else { Err(InvalidNetwork::HostBits(net.trunc())) }
}

impl Networks {
    /// Makes a list of texts; names the place of the first that is wrong.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, InvalidNetwork)> {
        if texts.is_empty() {
            return Err((0, InvalidNetwork::Empty));
        }
        if texts.len() > NETWORKS_MAX {
            return Err((NETWORKS_MAX, InvalidNetwork::TooMany));
        }
        let mut networks: Vec<IpNet> = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let net = network(text.as_ref()).map_err(|error| (place, error))?;
            if networks.contains(&net) {
                return Err((place, InvalidNetwork::Twice(net)));
            }
            networks.push(net);
        }
        networks.sort_unstable();
        Ok(Self(networks.into()))
    }

    /// Whether this address is in one of them. An IPv4 address is the same one when it is
    /// written as IPv6.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// The network of all addresses of a kind, where together they are that: such a list
    /// narrows nothing.
    #[must_use]
    pub fn everywhere(&self) -> Option<IpNet> {
        let whole = IpNet::aggregate(&self.0.to_vec());
        whole.into_iter().find(|net| net.prefix_len() == 0)
    }

    /// The networks as CIDR texts, in order.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(ToString::to_string)
    }
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<&str>::deserialize(deserializer)?;
        let networks = Self::new(&texts).map_err(|(_, error)| de::Error::custom(error))?;
        // One list has one spelling, in history too.
        if networks.texts().eq(texts.iter().copied()) {
            Ok(networks)
        } else {
            Err(de::Error::custom("networks are written in order, as CIDR"))
        }
    }
}

/// How often a key may be used: so many requests in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests, which may also come all at once.
    pub requests: u32,
    /// In how many seconds.
    pub per_seconds: u32,
}

/// Most requests of a rate limit.
pub const RATE_REQUESTS_MAX: u32 = 1_000_000;
/// Most seconds of a rate limit: a day.
pub const RATE_SECONDS_MAX: u32 = 86_400;

/// A rate that is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {RATE_REQUESTS_MAX} requests in 1 to {RATE_SECONDS_MAX} seconds")]
pub struct InvalidRateLimit;

impl RateLimit {
    /// A limit of so many requests in so many seconds.
    pub fn new(requests: u32, per_seconds: u32) -> Result<Self, InvalidRateLimit> {
        let valid = (1..=RATE_REQUESTS_MAX).contains(&requests)
            && (1..=RATE_SECONDS_MAX).contains(&per_seconds);
        if valid { Ok(Self { requests, per_seconds }) } else { Err(InvalidRateLimit) }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}s", self.requests, self.per_seconds)
    }
}

impl FromStr for RateLimit {
    type Err = InvalidRateLimit;
    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        let parts = text.strip_suffix('s').and_then(|it| it.split_once('/'));
        let (requests, seconds) = parts.ok_or(InvalidRateLimit)?;
        let number = |text: &str| text.parse().map_err(|_| InvalidRateLimit);
        Self::new(number(requests)?, number(seconds)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Result<Networks, (usize, InvalidNetwork)> {
        Networks::new(texts)
    }

    #[test]
    fn a_network_has_one_spelling() {
        let list = networks(&["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"]).unwrap();
        let texts: Vec<_> = list.texts().collect();
        assert_eq!(texts, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<Networks>(&json).unwrap(), list);
        for other in
            [r#"["192.0.2.7"]"#, r#"["192.0.2.7/32","10.0.0.0/8"]"#, "[]", r#"["10.0.0.1/8"]"#]
        {
            assert!(serde_json::from_str::<Networks>(other).is_err(), "{other}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "010.0.0.1",
            "host",
            "10.0.0.0/8 ",
            "::ffff:10.0.0.1",
            "::ffff:0:0/96",
        ] {
            assert_eq!(networks(&["1.1.1.1", bad]), Err((1, InvalidNetwork::Form)), "{bad}");
        }
        let written = "10.0.0.0/8".parse().unwrap();
        assert_eq!(networks(&["10.1.0.0/8"]), Err((0, InvalidNetwork::HostBits(written))));
        assert_eq!(networks(&[]), Err((0, InvalidNetwork::Empty)));
        let twice = networks(&["10.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(twice, Err((1, InvalidNetwork::Twice(written))));
        let many: Vec<_> = (0..=NETWORKS_MAX).map(|n| format!("10.0.0.{n}")).collect();
        assert_eq!(Networks::new(&many), Err((NETWORKS_MAX, InvalidNetwork::TooMany)));
        assert!(Networks::new(many.get(1..).unwrap()).is_ok());
    }

    #[test]
    fn an_address_is_the_same_in_both_spellings() {
        let list = networks(&["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(list.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.1.2.3", "::ffff:11.1.2.3", "2001:db9::1", "::10.1.2.3"] {
            assert!(!list.contain(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn a_list_of_all_addresses_is_known_however_it_is_cut() {
        let everywhere = |texts: &[&str]| networks(texts).unwrap().everywhere();
        let (four, six) = ("0.0.0.0/0".parse().ok(), "::/0".parse().ok());
        assert_eq!(everywhere(&["0.0.0.0/0"]), four);
        assert_eq!(everywhere(&["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"]), four);
        assert_eq!(everywhere(&["0.0.0.0/1", "128.0.0.0/1"]), four);
        assert_eq!(everywhere(&["128.0.0.0/1", "0.0.0.0/2", "64.0.0.0/2", "1.2.3.4"]), four);
        assert_eq!(everywhere(&["::/0"]), six);
        assert_eq!(everywhere(&["::/0", "ffff::/16", "192.0.2.7"]), six);
        assert_eq!(everywhere(&["8000::/1", "::/1"]), six);
        let narrower: [&[&str]; 4] = [
            &["192.0.2.7"],
            &["0.0.0.0/1", "128.0.0.0/2", "::/1", "8000::/2"],
            &["0.0.0.0/1", "8000::/1"],
            &["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.0", "::"],
        ];
        for texts in narrower {
            assert_eq!(everywhere(texts), None, "{texts:?}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!("100/60s".parse(), RateLimit::new(100, 60));
        assert_eq!(RateLimit::new(100, 60).unwrap().to_string(), "100/60s");
        for (requests, seconds) in
            [(0, 1), (1, 0), (RATE_REQUESTS_MAX + 1, 1), (1, RATE_SECONDS_MAX + 1)]
        {
            assert_eq!(RateLimit::new(requests, seconds), Err(InvalidRateLimit));
        }
        for bad in ["", "1", "1/1", "1/1m", "-1/1s", "1/1s "] {
            assert_eq!(bad.parse::<RateLimit>(), Err(InvalidRateLimit), "{bad}");
        }
    }
}
