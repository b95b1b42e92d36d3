"""One request's time in lines, by itself."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from time import monotonic

import uvloop

from modelgrid.gateway.options import GatewayOptions
from modelgrid.gateway.stay import Stay
from modelgrid.gateway.switchboard import Switchboard
from modelgrid.gateway.wishes import Wishes
from modelgrid.spec import RoutingTable
from unit.gateway.world import route


class Waiter:
    """A request that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def proceed(self) -> None:
        self.told.append("proceed")

    def reconsider(self) -> None:
        self.told.append("reconsider")

    def wait_out(self) -> None:
        self.told.append("wait_out")

    def give_way(self) -> None:
        self.told.append("give_way")


def test_whose_deadline_has_passed_is_not_sent_though_nobody_has_noticed_it_yet() -> None:
    """The table may come in the very turn of the loop in which the time is over."""

    async def whole(folder: Path) -> None:
        options = GatewayOptions(worker="w1", link_socket=folder / "link", table_file=folder / "table")
        board = Switchboard(asyncio.get_running_loop(), options, lambda routes: None)
        board.take_table(RoutingTable(number=1, routes=(route(),)), is_first=True)
        lane = board.find("m")
        assert lane is not None
        for timeout_s, is_in_time in ((60.0, True), (10.01, False)):
            waiter = Waiter()
            stay = Stay(board, waiter, monotonic() - 10.0, Wishes(timeout_s=timeout_s), b"", None)
            left_s = stay.left_s(lane.route)
            assert 0 < left_s <= timeout_s - 10.0
            assert stay.join(lane, left_s, has_place=False, is_flexible=False) is None
            until_s = monotonic() + 0.02
            while monotonic() < until_s:
                pass  # the loop has no turn meanwhile
            assert stay.leave() == is_in_time
            assert waiter.told == []
            assert stay.waited_s > 0.015
        board.close()

    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(whole(Path(folder)))
