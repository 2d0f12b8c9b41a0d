"""Counts by the machine at the other end of the TCP connections."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MOST, OTHER = 256, "other"


@dataclass(eq=False)
class Peer:
    held: int = 0
    accepted: int = 0
    refused: int = 0


class Peers:
    """At most 256 are told apart: who is new takes the place of the one that holds nothing and was quiet for longest."""

    def __init__(self) -> None:
        self._all: dict[str, Peer] = {}

    def of(self, address: str | None) -> Peer:
        name = named(address)
        if name not in self._all and name != OTHER and len(self._all) >= MOST:
            quiet = next((key for key, one in self._all.items() if key != OTHER and not one.held), None)
            if quiet is None:
                name = OTHER
            else:
                del self._all[quiet]
        known = self._all.pop(name, None)
        self._all[name] = known or Peer()
        return self._all[name]

    def said(self) -> dict[str, dict[str, int]]:
        return {name: vars(peer).copy() for name, peer in self._all.items()}


def named(address: str | None) -> str:
    """The address as text without zone, IPv4 as such; OTHER where it is none, as of a Unix socket."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return OTHER
    return str(getattr(ip, "ipv4_mapped", None) or ip)
