//! Settings with a form of their own: durations, networks, origins of pages, a collector's URL.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderValue, Uri};
use ipnet::IpNet;
use serde::Deserialize;

/// A duration such as `30d` or `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || "must be numbers with units (ms, s, m, h, d, w), such as `30d` or `1h30m`".to_owned();
    let mut millis: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        millis = number
            .checked_mul(unit_ms)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| "is too long".to_owned())?;
        rest = behind;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    if millis == 0 {
        Err("must be more than 0".to_owned())
    } else {
        Ok(Duration::from_millis(millis))
    }
}

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
            let uri: Uri = text.parse().map_err(|_| wrong())?;
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

/// Where an OpenTelemetry collector is: `http://127.0.0.1:4317`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CollectorUrl(Uri);

impl CollectorUrl {
    /// The URL.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether TLS is spoken to it.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl FromStr for CollectorUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text is not repeated: it may hold a password, which has no place there.
        let wrong = || {
            "must be a URL such as `http://127.0.0.1:4317`, with `http` or `https`, a host, perhaps a port, and nothing else"
                .to_owned()
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().ok_or_else(wrong)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = authority.host();
        let place = authority.as_str() == host || authority.port_u16().is_some();
        if !known || !bare || !place || host.is_empty() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self(uri))
    }
}

impl TryFrom<String> for CollectorUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Who is told about calls, about how many, and by whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Where it is.
    pub endpoint: CollectorUrl,
    /// Which part of the calls it is told about, from 0 to 1, where callers do not say.
    pub sample_ratio: f64,
    /// What this server is called there.
    pub service_name: String,
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

    #[test]
    fn a_collectors_url_is_a_place_and_nothing_else() {
        for (text, tls) in [
            ("http://127.0.0.1:4317", false),
            ("http://collector/", false),
            ("https://collector.example.com:443", true),
            ("http://[::1]:4317", false),
        ] {
            assert_eq!(text.parse::<CollectorUrl>().map(|it| it.is_tls()), Ok(tls), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:4317",
            "collector",
            "grpc://collector:4317",
            "http://",
            "http://:4317",
            "http://me:s3cret@collector:4317",
            "http://collector:4317/v1/traces",
            "http://collector:4317?key=s3cret",
            "http://collector:x",
        ] {
            let error = text.parse::<CollectorUrl>().expect_err(text);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
