"""Which addresses belong to the public internet: the union of what careful fetchers refuse."""

from __future__ import annotations

import ipaddress

# Ranges that the standard library calls global, in some of its versions, or leaves out: protocol assignments, 6to4
# and its relays, CGNAT, site-local, IPv4-compatible, NAT64, Teredo, documentation; and the one address of the public
# range at which a cloud's machines are told their secrets (Azure).
EXTRA_BLOCKED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "168.63.129.16/32",
        "fec0::/10",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also when it hides in an IPv6 form of IPv4."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        ip = mapped
    if any(ip.version == network.version and ip in network for network in EXTRA_BLOCKED):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified
