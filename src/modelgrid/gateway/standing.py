"""A replica as a worker knows it: what it has in flight there, and how far it trusts it. Kept from table to table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelgrid.gateway.affinity import digest
from modelgrid.gateway.breaker import Breaker

if TYPE_CHECKING:
    from modelgrid.gateway.routes import Destination


class Standing:
    """One replica's. `Replicas` writes it, but for the destination; whoever chooses reads it."""

    __slots__ = (
        "breaker",
        "destination",
        "in_flight",
        "is_listed",
        "lost_under",
        "peers",
        "replica",
        "seed",
        "slot",
        "turn",
    )

    destination: Destination  # how to reach it; set by who makes the table's routes

    def __init__(self, replica: str, slot: int = 0) -> None:
        self.replica = replica
        self.slot = slot  # where workers count together; 0: nowhere
        self.in_flight = 0  # of this worker's requests
        self.turn = 0  # when it was last chosen: a count, not a time
        self.breaker = Breaker()
        self.seed = digest(replica.encode())  # its place among others, for a key
        self.peers: tuple[Standing, ...] = (self,)  # all of its model, itself among them
        self.is_listed = True  # it stands in the table in force
        self.lost_under = -1  # the number of the table in force when it was last lost

    def __repr__(self) -> str:
        return f"Standing({self.replica!r}, in_flight={self.in_flight}, {self.breaker.state})"
