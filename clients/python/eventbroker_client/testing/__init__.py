"""For the tests of those who use the SDK: a broker in memory. The fixture of pytest is in eventbroker_pytest."""

from eventbroker_client.testing.in_memory_broker import InMemoryBroker

__all__ = ["InMemoryBroker"]
