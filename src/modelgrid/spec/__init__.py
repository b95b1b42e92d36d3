"""The nouns: values that everything above speaks in. Pure."""

from modelgrid.spec.fleet import (
    Action,
    Drain,
    Failures,
    Fleet,
    Machine,
    Model,
    Refuse,
    Start,
    Stop,
    Wish,
)
from modelgrid.spec.launch import Environment, Exited, FirstRequest, Launch, Running, Seen
from modelgrid.spec.messages import (
    AccessKey,
    Demand,
    Hello,
    Load,
    Outcome,
    Route,
    RoutingTable,
    Target,
    Unavailable,
)
from modelgrid.spec.model import Limits, ModelName, ModelSpec, ReplicaId, Scaling
from modelgrid.spec.replica import MOVES, IllegalMove, Replica, State
from modelgrid.spec.status import Event, ModelStatus, ReplicaStatus, Status
from modelgrid.spec.unknown import Unknown

__all__ = [
    "MOVES",
    "AccessKey",
    "Action",
    "Demand",
    "Drain",
    "Environment",
    "Event",
    "Exited",
    "Failures",
    "FirstRequest",
    "Fleet",
    "Hello",
    "IllegalMove",
    "Launch",
    "Limits",
    "Load",
    "Machine",
    "Model",
    "ModelName",
    "ModelSpec",
    "ModelStatus",
    "Outcome",
    "Refuse",
    "Replica",
    "ReplicaId",
    "ReplicaStatus",
    "Route",
    "RoutingTable",
    "Running",
    "Scaling",
    "Seen",
    "Start",
    "State",
    "Status",
    "Stop",
    "Target",
    "Unavailable",
    "Unknown",
    "Wish",
]
