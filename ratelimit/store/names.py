"""The names of the keys in Redis.

All keys of a tenant share a hash tag, so that a script finds them on the same node of a cluster.

- A record is a hash: `{hg:TENANT}r:RESERVATION`.
- A counter is a string: `{hg:TENANT}c:KEY`.
- A bucket is a string with its level and the time of that: `{hg:TENANT}b:KEY`.
- A lease is a member of a sorted set: `{hg:TENANT}l:KEY`.
- A finish in a queue is a string: `{hg:TENANT}f:QUEUE` (`ratelimit.fair.tags`).
- The replicas are a sorted set, by the end of their life on Redis' clock: `hg:replicas`.
- The batches for a replica are a hash, by their ids: `hg:post:REPLICA`.
- The virtual times are a hash, by queue: `hg:virtual_times`.
- The ids of requests that ended unanswered are a stream: `hg:unanswered`.
"""

from dataclasses import dataclass

from ratelimit.keys import escaped, escaped_name

REPLICAS = "hg:replicas"
BATCHES = "hg:post:"
"""The keys of forwarded settlements. Replicas of every version share them: the word stays."""
VIRTUAL_TIMES = "hg:virtual_times"
UNANSWERED = "hg:unanswered"


@dataclass(frozen=True, slots=True)
class Scope:
    """The key names of one tenant. The braces hold an escaped name: no name can break out."""

    tag: str

    @classmethod
    def of(cls, tenant: str) -> "Scope":
        return cls(f"{{hg:{escaped_name(tenant)}}}")

    def record(self, reservation: str) -> str:
        return f"{self.tag}r:{escaped(reservation)}"

    def counter(self, key: str, drain: int = 0) -> str:
        """A counter, or a bucket if it drains."""
        return f"{self.tag}{'b' if drain else 'c'}:{key}"

    def lease(self, key: str) -> str:
        return f"{self.tag}l:{key}"

    def finish(self, queue: str) -> str:
        return f"{self.tag}f:{escaped_name(queue)}"

    def start(self, queue: str) -> str:
        """Names the start in a record. No key has this name (`reserve.lua`)."""
        return f"{self.tag}s:{queue}"

    def bare(self, full_key: bytes) -> str:
        """The key of a counter or a lease as the caller knows it."""
        return full_key.decode()[len(self.tag) + 2 :]
