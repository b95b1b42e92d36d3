"""When a replica is left alone, and when it is tried again."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelgrid.gateway.breaker import (
    CALM_S,
    ERRORS_IN_ROW,
    LONGEST_LOSS_PAUSE_S,
    LONGEST_PAUSE_S,
    WINDOW_S,
    Breaker,
    Cause,
    State,
    is_engine_error,
    may_eject,
)


def failing(errors: int, successes: int = 0) -> Breaker:
    """With so many errors, the first at 0 s, and then successes."""
    breaker = Breaker()
    for _ in range(errors):
        breaker.err(0, 0.0)
    for _ in range(successes):
        breaker.succeed(0, 0.0)
    return breaker


def ejected() -> Breaker:
    breaker = Breaker()
    breaker.eject()
    return breaker


def lost() -> Breaker:
    breaker = Breaker()
    breaker.lose(0)
    return breaker


@pytest.mark.parametrize(
    ("status", "says_when", "is_error"),
    [
        (200, False, False),
        (404, False, False),
        (429, False, False),
        (500, False, True),
        (500, True, True),
        (501, False, False),
        (502, False, True),
        (503, False, True),
        (503, True, False),
        (504, False, True),
        (505, False, False),
        (529, True, False),
        (529, False, True),
    ],
)
def test_which_answers_speak_against_an_engine(status: int, says_when: bool, is_error: bool) -> None:
    assert is_engine_error(status, says_when) is is_error


def test_a_loss_opens_at_once() -> None:
    breaker = lost()
    assert (breaker.state, breaker.is_out, breaker.pause_s) == (State.OPEN, True, 1.0)


def test_requests_that_break_together_are_one_loss() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.lose(0)
    assert breaker.pause_s == 1.0


def test_pauses_double_while_probes_are_lost() -> None:
    breaker = Breaker()
    pauses = []
    for _ in range(7):
        breaker.begin()
        breaker.lose(breaker.era)
        pauses.append(breaker.pause_s)
        breaker.half_open(breaker.era)
    assert pauses == [1, 2, 4, LONGEST_LOSS_PAUSE_S, LONGEST_LOSS_PAUSE_S, LONGEST_LOSS_PAUSE_S, LONGEST_LOSS_PAUSE_S]


def test_an_engine_that_errs_is_left_alone_for_longer_than_one_that_was_lost() -> None:
    breaker = Breaker()
    pauses = []
    for _ in range(7):
        breaker.eject()
        pauses.append(breaker.pause_s)
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    breaker.half_open(breaker.era)
    breaker.lose(breaker.era)
    assert breaker.pause_s == LONGEST_LOSS_PAUSE_S


def test_one_request_alone_is_the_probe() -> None:
    breaker = lost()
    breaker.half_open(breaker.era)
    assert not breaker.is_out
    breaker.begin()
    assert (breaker.state, breaker.is_out) == (State.PROBING, True)


def test_a_probe_that_is_answered_closes() -> None:
    breaker = lost()
    breaker.half_open(breaker.era)
    breaker.begin()
    breaker.succeed(breaker.era, 1.0)
    assert (breaker.state, breaker.is_out) == (State.CLOSED, False)


def test_a_probe_that_tells_nothing_makes_room_for_the_next() -> None:
    breaker = lost()
    breaker.half_open(breaker.era)
    breaker.begin()
    era = breaker.era
    breaker.end(era)
    assert (breaker.state, breaker.is_out) == (State.HALF_OPEN, False)
    breaker.begin()
    breaker.end(era)  # an older one is not the probe
    assert breaker.state == State.PROBING


def test_an_answer_to_a_request_of_before_closes_nothing() -> None:
    breaker = lost()
    breaker.succeed(0, 0.5)
    states = [breaker.state]
    breaker.half_open(breaker.era)
    breaker.begin()
    breaker.succeed(0, 1.5)
    assert [*states, breaker.state] == [State.OPEN, State.PROBING]


def test_a_pause_of_before_ends_nothing() -> None:
    breaker = lost()
    old = breaker.era
    breaker.believe()
    breaker.lose(breaker.era)
    breaker.half_open(old)
    assert breaker.state is State.OPEN


def test_a_loss_is_forgiven_and_not_forgotten() -> None:
    breaker = lost()
    breaker.believe()
    assert (breaker.state, breaker.is_out) == (State.CLOSED, False)
    breaker.lose(breaker.era)
    assert breaker.pause_s == 2.0


def test_errors_are_not_forgiven_by_a_table() -> None:
    breaker = ejected()
    breaker.believe()
    assert breaker.state is State.OPEN


def test_a_replica_without_trouble_is_not_watched() -> None:
    breaker = Breaker()
    breaker.begin()
    breaker.succeed(0, 0.0)
    assert not breaker.is_watched


def test_five_errors_in_a_row_are_many() -> None:
    breaker = Breaker()
    assert [breaker.err(0, 100.0 * n) for n in range(ERRORS_IN_ROW)] == [False] * 4 + [True]


def test_a_success_ends_a_row() -> None:
    breaker = failing(4)
    breaker.succeed(0, 1.0)
    assert not breaker.err(0, 2.0)


def test_half_of_twenty_within_the_window_are_many() -> None:
    breaker = Breaker()
    told = []
    for _ in range(10):
        told.append(breaker.err(0, 0.0))
        breaker.succeed(0, 0.0)
    told.append(breaker.err(0, WINDOW_S))
    assert told == [False] * 10 + [True]


def test_fewer_than_half_are_not_many() -> None:
    breaker = Breaker()
    for _ in range(100):
        assert not breaker.err(0, 0.0)
        breaker.succeed(0, 0.0)
        breaker.succeed(0, 0.0)


def test_errors_of_long_ago_are_not_counted() -> None:
    breaker = Breaker()
    for n in range(40):
        assert not breaker.err(0, n * (WINDOW_S / 9))
        breaker.succeed(0, n * (WINDOW_S / 9))


def test_a_probe_that_gets_an_error_opens_again_what_errors_opened() -> None:
    breaker = ejected()
    breaker.half_open(breaker.era)
    breaker.begin()
    breaker.err(breaker.era, 1.0)
    assert (breaker.state, breaker.cause, breaker.pause_s) == (State.OPEN, Cause.ERRORS, 2.0)


def test_a_probe_that_gets_an_error_has_found_what_was_lost() -> None:
    breaker = lost()
    breaker.half_open(breaker.era)
    breaker.begin()
    breaker.err(breaker.era, 1.0)
    assert (breaker.state, breaker.error_share(1.0)) == (State.CLOSED, 1.0)


def test_what_was_is_forgotten_after_a_calm_time() -> None:
    breaker = lost()
    breaker.half_open(breaker.era)
    breaker.begin()
    watched = []
    for after_s in (0.0, CALM_S - 1, CALM_S):
        breaker.succeed(breaker.era, 100.0 + after_s)
        watched.append(breaker.is_watched)
    assert watched == [True, True, False]
    breaker.lose(breaker.era)
    assert breaker.pause_s == 1.0


def test_an_outlier_is_ejected() -> None:
    assert may_eject(failing(5), [Breaker()], 1.0)


def test_the_only_replica_is_never_ejected() -> None:
    assert not may_eject(failing(5), [], 1.0)


def test_who_fails_like_the_others_is_no_outlier() -> None:
    assert not may_eject(failing(5), [failing(3), failing(4, 1)], 1.0)


def test_who_fails_much_more_than_the_others_is_one() -> None:
    assert may_eject(failing(5), [failing(1, 3), failing(1, 3)], 1.0)


@pytest.mark.parametrize(
    ("out", "of", "may"), [(0, 2, True), (1, 3, False), (1, 4, True), (2, 4, False), (2, 5, False)]
)
def test_half_of_the_replicas_are_left_in(out: int, of: int, may: bool) -> None:
    others = [ejected() for _ in range(out)] + [Breaker() for _ in range(of - out - 1)]
    assert may_eject(failing(5), others, 1.0) is may


def test_what_others_failed_of_long_ago_excuses_nobody() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.err(0, 2 * WINDOW_S)
    assert may_eject(breaker, [failing(4), failing(4)], 2 * WINDOW_S)


def test_a_probe_of_an_outlier_counts_as_out_still() -> None:
    probed = ejected()
    probed.half_open(probed.era)
    probed.begin()
    assert not may_eject(failing(5), [probed, Breaker()], 1.0)


def test_nobody_is_ejected_where_no_other_serves() -> None:
    assert not may_eject(failing(5), [lost(), lost(), lost()], 1.0)


class Life(RuleBasedStateMachine):
    """Requests begin, tell something and end, in any order, while pauses and tables come."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.requests: list[int] = []  # the eras of those in flight
        self.pause = -1  # the era that a timer is set for

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.breaker.is_out)
    @rule()
    def one_begins(self) -> None:
        self.breaker.begin()
        self.requests.append(self.breaker.era)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), kind=st.sampled_from(("success", "error", "loss", "none")), ends=st.booleans())
    def one_tells(self, data: st.DataObject, kind: str, ends: bool) -> None:
        at = data.draw(st.integers(0, len(self.requests) - 1))
        era = self.requests[at]
        before = (self.breaker.state, self.breaker.era, self.breaker.pause_s, self.breaker.error_share(self.now))
        is_old = era != self.breaker.era
        if kind == "success":
            self.breaker.succeed(era, self.now)
            assert is_old or self.breaker.state is State.CLOSED
        elif kind == "error":
            if self.breaker.err(era, self.now) and may_eject(self.breaker, [Breaker()], self.now):
                self.breaker.eject()
        elif kind == "loss":
            self.breaker.lose(era)
            assert is_old or self.breaker.state is State.OPEN
        if is_old:
            after = (self.breaker.state, self.breaker.era, self.breaker.pause_s, self.breaker.error_share(self.now))
            assert after == before
        if ends or kind == "loss":
            self.breaker.end(self.requests.pop(at))
        self.set_timer()

    @precondition(lambda self: self.breaker.state is State.OPEN)
    @rule()
    def the_pause_ends(self) -> None:
        self.now += self.breaker.pause_s
        self.breaker.half_open(self.pause)
        assert self.breaker.state is State.HALF_OPEN

    @rule()
    def a_table_comes(self) -> None:
        self.breaker.believe()

    @invariant()
    def is_consistent(self) -> None:
        breaker = self.breaker
        assert breaker.is_out is (breaker.state in (State.OPEN, State.PROBING))
        assert breaker.is_watched or breaker.state is State.CLOSED
        assert 0.0 <= breaker.error_share(self.now) <= 1.0
        if breaker.state is not State.CLOSED:
            assert 1.0 <= breaker.pause_s <= LONGEST_PAUSE_S

    @invariant()
    def a_probe_is_alone(self) -> None:
        of_now = self.requests.count(self.breaker.era)
        assert of_now == {State.OPEN: 0, State.HALF_OPEN: 0, State.PROBING: 1}.get(self.breaker.state, of_now)

    def teardown(self) -> None:
        """Whatever was, a pause and an answer later it serves."""
        if self.breaker.state is State.PROBING:
            self.breaker.end(self.breaker.era)
        self.breaker.half_open(self.breaker.era)
        assert not self.breaker.is_out
        self.breaker.begin()
        self.breaker.succeed(self.breaker.era, self.now)
        assert self.breaker.state is State.CLOSED

    def set_timer(self) -> None:
        if self.breaker.state is State.OPEN:
            self.pause = self.breaker.era


TestLife = Life.TestCase
