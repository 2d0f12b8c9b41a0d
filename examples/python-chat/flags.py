"""The flags of examples/chat, for the chats here."""

import argparse
import re


def seconds(duration):
    """Reads 500ms, 3s or 1m."""
    n, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)", duration).groups()
    return float(n) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def flags():
    p = argparse.ArgumentParser()
    p.add_argument("--name", default="chat-b1")
    p.add_argument("--colour", default="blue")
    p.add_argument("--version", default="v1")
    p.add_argument("--listen", type=address, default=("127.0.0.1", 9001))
    p.add_argument("--drain", help="address of the drain endpoint; without: drop the connections on SIGTERM")
    p.add_argument("--token", default="", help="what the drain endpoint demands; empty: keep it on loopback")
    p.add_argument("--refusal", type=int, default=503, help="how WebSockets are refused: 503, or 1013")
    p.add_argument("--close", type=int, default=100, help="on SIGTERM without orders: connections to close per --every")
    p.add_argument("--every", type=seconds, default=1.0)
    p.add_argument("--grace", type=seconds, default=60.0, help="on SIGTERM: the longest to wait until empty")
    p.add_argument("--workers", type=int, default=1, help="processes behind the port, where the server can have several")
    return p.parse_args()
