//! Settings that are lists: networks, and origins of pages.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use ipnet::IpNet;
use serde::Deserialize;

/// Addresses of one network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("`{text}` must be a network or an address, such as `10.0.0.0/8`")
            })?,
        };
        if network.trunc() != network {
            let meant = network.trunc();
            return Err(format!("`{text}` is an address inside a network; write `{meant}`"));
        }
        // Peers are compared as IPv4 where they are, so such a network would match nobody.
        if matches!(network.network(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(format!("`{text}` maps IPv4 into IPv6; write it as IPv4"));
        }
        Ok(Self(network))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The origin of a page, as browsers name it: `https://example.com`; or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

impl Origin {
    /// Whether it stands for all.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// As browsers send it.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        self.0.parse().ok()
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` must be an origin such as `https://example.com`, or `*`");
        if text != "*" {
            let uri: http::Uri = text.parse().map_err(|_| wrong())?;
            let scheme = uri.scheme_str().filter(|it| ["http", "https"].contains(it));
            let authority = uri.authority().filter(|it| !it.as_str().contains('@'));
            let (Some(scheme), Some(authority)) = (scheme, authority) else { return Err(wrong()) };
            // Browsers send it in small letters and bare: anything else would match nothing.
            if format!("{scheme}://{authority}").to_ascii_lowercase() != text {
                return Err(wrong());
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_as_it_is_matched() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().map(|it| it.0.to_string()), Ok(network.to_owned()));
        }
        for (text, says) in [
            ("", "must be a network"),
            ("10.0.0.1/8", "write `10.0.0.0/8`"),
            ("10.0.0.0/33", "must be a network"),
            ("10.0.0.0/-1", "must be a network"),
            ("proxy.example.com", "must be a network"),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
            ("::ffff:10.0.0.1", "write it as IPv4"),
            (" 10.0.0.0/8", "must be a network"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for text in ["*", "https://example.com", "http://localhost:8080", "https://[::1]:1"] {
            assert!(text.parse::<Origin>().is_ok_and(|it| it.header().is_some()), "{text}");
        }
        for text in [
            "",
            "example.com",
            "https://example.com/",
            "https://example.com/page",
            "https://Example.com",
            "https://u@example.com",
            "ftp://example.com",
            "null",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
