//! The address of the client behind proxies that are trusted, and behind no others.
//!
//! `x-forwarded-for` is written by whoever sends it: only what a trusted proxy added
//! means something, and that is the last entry. So the way is walked from its near end,
//! and each step must be vouched for by a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// An entry that a trusted proxy passed on is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "holds an entry from a trusted proxy that is no IP address; have the proxy append its peer's address"
)]
pub struct Malformed;

/// The client's address: the peer's, or, while the address in hand is a trusted proxy's,
/// the next entry of `x-forwarded-for` from its end. None where the peer is not known.
///
/// An IPv4 address that is mapped into IPv6 is taken as IPv4. An entry may name a port,
/// which is left out.
///
/// # Errors
///
/// An entry behind a trusted proxy is no address. Entries that nobody vouches for are
/// not looked at.
pub fn client_ip<'a>(
    peer: Option<IpAddr>,
    forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> Result<Option<IpAddr>, Malformed> {
    let Some(peer) = peer else { return Ok(None) };
    let mut address = peer.to_canonical();
    let mut entries = forwarded_for.rev();
    while trusted.iter().any(|network| network.contains(&address)) {
        match entries.next() {
            Some(entry) => address = parse(entry).ok_or(Malformed)?,
            None => break,
        }
    }
    Ok(Some(address))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => entry
            .parse()
            .ok()
            .or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip())),
    };
    address.as_ref().map(IpAddr::to_canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [&str; 3] = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];

    /// From this peer, with these header lines, the client is…
    #[track_caller]
    fn check(peer: &str, lines: &[&str], client: Result<&str, Malformed>) {
        let trusted = PROXIES.map(|it| it.parse().unwrap());
        let entries = lines.iter().flat_map(|line| line.split(','));
        let found = client_ip(Some(peer.parse().unwrap()), entries, &trusted);
        assert_eq!(found, client.map(|it| Some(it.parse().unwrap())), "{peer} {lines:?}");
    }

    #[test]
    fn without_a_trusted_proxy_the_header_means_nothing() {
        check("203.0.113.9", &["198.51.100.1"], Ok("203.0.113.9"));
        check("203.0.113.9", &["nonsense"], Ok("203.0.113.9"));
        check("203.0.113.9", &["10.0.0.1, 10.0.0.2"], Ok("203.0.113.9"));
        let none = client_ip(Some([10, 0, 0, 1].into()), ["198.51.100.1"].into_iter(), &[]);
        assert_eq!(none, Ok(Some([10, 0, 0, 1].into())));
    }

    #[test]
    fn the_last_entry_is_what_the_proxy_saw() {
        check("10.0.0.1", &["198.51.100.1"], Ok("198.51.100.1"));
        // What the client itself sent stands in front, and says nothing.
        check("10.0.0.1", &["127.0.0.1, 198.51.100.1"], Ok("198.51.100.1"));
        check("10.0.0.1", &["nonsense,198.51.100.1"], Ok("198.51.100.1"));
        check("10.0.0.1", &["", "198.51.100.1"], Ok("198.51.100.1"));
    }

    #[test]
    fn one_proxy_may_stand_behind_another() {
        check("10.0.0.1", &["198.51.100.1, 192.0.2.1"], Ok("198.51.100.1"));
        check("10.0.0.1", &["8.8.8.8, 198.51.100.1, 10.9.9.9, 192.0.2.1"], Ok("198.51.100.1"));
        check("10.0.0.1", &["8.8.8.8, 198.51.100.1, 192.0.2.2, 10.9.9.9"], Ok("192.0.2.2"));
    }

    #[test]
    fn header_lines_are_one_list_in_order() {
        check("10.0.0.1", &["8.8.8.8", "198.51.100.1,10.1.1.1", "10.2.2.2"], Ok("198.51.100.1"));
        check("10.0.0.1", &["198.51.100.1", "8.8.8.8"], Ok("8.8.8.8"));
    }

    #[test]
    fn a_proxy_that_names_nobody_is_the_client() {
        check("10.0.0.1", &[], Ok("10.0.0.1"));
        check("10.0.0.1", &["192.0.2.1, 10.0.0.2"], Ok("192.0.2.1"));
    }

    #[test]
    fn what_a_proxy_vouches_for_must_be_an_address() {
        for bad in [
            "",
            " ",
            "unknown",
            "_hidden",
            "198.51.100",
            "198.51.100.256",
            "198.51.100.01",
            "198.51.100.1:",
            "198.51.100.1:65536",
            "198.51.100.1:x",
            "[198.51.100.1]",
            "[198.51.100.1]:1",
            "2001:db9::1]",
            "[2001:db9::1",
            "fe80::1%eth0",
            "\u{fffd}",
            "198.51.100.1 8.8.8.8",
            "for=198.51.100.1",
            "0x7f.1",
            "::ffff:300.1.1.1",
        ] {
            check("10.0.0.1", &[bad], Err(Malformed));
            check("10.0.0.1", &["8.8.8.8", bad, "10.0.0.2"], Err(Malformed));
            check("10.0.0.1", &[bad, "8.8.8.8"], Ok("8.8.8.8"));
        }
        check("10.0.0.1", &["8.8.8.8,,10.0.0.2"], Err(Malformed));
        check("10.0.0.1", &["8.8.8.8,"], Err(Malformed));
    }

    #[test]
    fn an_entry_may_have_a_port_and_space_around_it() {
        check("10.0.0.1", &["\t198.51.100.1:4711 "], Ok("198.51.100.1"));
        check("10.0.0.1", &["[2001:db9::1]:4711"], Ok("2001:db9::1"));
        check("10.0.0.1", &["[2001:db9::1]"], Ok("2001:db9::1"));
        check("10.0.0.1", &["2001:db9::1"], Ok("2001:db9::1"));
        check("2001:db8::5", &["2001:DB9::1"], Ok("2001:db9::1"));
    }

    #[test]
    fn ipv4_mapped_into_ipv6_is_ipv4() {
        check("::ffff:203.0.113.9", &["8.8.8.8"], Ok("203.0.113.9"));
        check("::ffff:10.0.0.1", &["198.51.100.1"], Ok("198.51.100.1"));
        check("10.0.0.1", &["198.51.100.1, ::ffff:10.0.0.2"], Ok("198.51.100.1"));
        check("10.0.0.1", &["[::ffff:198.51.100.1]:1"], Ok("198.51.100.1"));
    }

    #[test]
    fn a_peer_that_nobody_knows_stays_unknown() {
        let trusted = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(client_ip(None, ["198.51.100.1"].into_iter(), &trusted), Ok(None));
    }
}
