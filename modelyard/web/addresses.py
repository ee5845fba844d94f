"""Where a call comes from, as far as limits need to tell callers apart."""

from ipaddress import IPv6Address, ip_address

_SITE_BITS = 64


def site(address: str) -> str:
    """What stands for whoever calls from there: a caller has a whole /64 of IPv6 addresses to choose from."""
    if ":" not in address:
        return address
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(int(found) >> _SITE_BITS)
    return str(found.ipv4_mapped if isinstance(found, IPv6Address) else found)
