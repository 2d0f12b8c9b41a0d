"""Lets the connections of an asyncio server go a few at a time: Sluice's drain contract.

A Gate holds the connections. sluice_drain.websockets, .asgi and .aiohttp put it before a server; one that owns its
connections calls Gate.admit.
"""

from .gate import Gate, Seat, returned

__all__ = ["Gate", "Seat", "returned"]
