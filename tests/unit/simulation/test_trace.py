"""Traces are read as they were recorded, and what can't be read is told with its place and the next step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from modelgrid.simulation.synthetic import SYNTHETIC, Shape
from modelgrid.simulation.trace import TraceError, law, read_trace
from modelgrid.spec import ModelName

A, B = ModelName("a"), ModelName("b")
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,0
"""


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_recorded_csv_is_read(tmp_path: Path) -> None:
    requests = read_trace(written(tmp_path, AZURE), [A, B], law("turns", [A, B]), deadline_s=30.0)
    assert [round(request.at, 3) for request in requests] == [0.0, 4.315, 4.542]
    assert [(request.input, request.output) for request in requests] == [(374, 44), (396, 109), (879, 1)]
    assert [request.model for request in requests] == [A, B, A]
    assert {request.deadline_s for request in requests} == {30.0}


def test_json_lines_are_read_in_order_of_time(tmp_path: Path) -> None:
    text = (
        '{"at": 12.5, "model": "b", "input": 10, "output": 20, "priority": 2}\n\n'
        '{"at": 10, "model": "a", "input": 1, "output": 2}\n'
    )
    first, second = read_trace(written(tmp_path, text), [A, B], None)
    assert (first.at, first.model, first.priority) == (0.0, A, 0)
    assert (second.at, second.model, second.priority) == (2.5, B, 2)


def test_iso_times_may_have_a_zone(tmp_path: Path) -> None:
    text = (
        '{"at": "2026-11-21T14:00:00Z", "model": "a", "input": 1, "output": 2}\n'
        '{"at": "2026-11-21T15:00:01+01:00", "model": "a", "input": 1, "output": 2}\n'
    )
    assert [request.at for request in read_trace(written(tmp_path, text), [A], None)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no requests"),
        ("TIMESTAMP,Tokens\n", "line 1 has no column ContextTokens, GeneratedTokens"),
        (AZURE + "2023-11-16 18:15:52.1,many,3\n", "line 5 ContextTokens is 'many' (write a number of tokens)"),
        (AZURE + "yesterday,1,3\n", "line 5 TIMESTAMP is 'yesterday' (write seconds, or an ISO time"),
        (AZURE + "2023-11-16 18:15:52.1,1\n", "line 5 has 2 of 3 columns"),
        (AZURE, "line 2 names no model (add --model NAME, or --models zipf:1.1:7)"),
        ('{"at": 1,\n', "line 1 is not JSON"),
        ('{"at": 1, "model": "c", "input": 1, "output": 1}', "line 1 asks for the model 'c' (there are: a, b)"),
        ('{"at": 1, "model": "a", "input": -1, "output": 1}', "line 1 input is -1"),
        ('{"at": 1, "model": "a", "input": 1}', "line 1 has no output"),
        ('{"at": 1, "model": "a", "input": 1, "output": 1, "out": 2}', "line 1 has out, which nobody knows"),
        ('{"at": NaN, "model": "a", "input": 1, "output": 1}', "line 1 at is 'nan'"),
        ('[{"at": 1, "model": "a", "input": 1, "output": 1}]', "line 1 is not an object"),
        ('{"at": true, "model": "a", "input": 1, "output": 1}', "line 1 at is 'True'"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as raised:
        read_trace(path, [A, B], None)
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file or directory"):
        read_trace(tmp_path / "none.csv", [A], None)


def test_zipf_asks_for_the_first_most_often() -> None:
    models = [ModelName(f"m{n}") for n in range(5)]
    assign = law("zipf:1.0:7", models)
    counts = Counter(assign() for _ in range(5000))
    assert [name for name, _ in counts.most_common()] == models
    assert 1.7 < counts[models[0]] / counts[models[1]] < 2.3


def test_the_same_seed_is_the_same_law() -> None:
    one, other = law("zipf:1.1:3", [A, B]), law("zipf:1.1:3", [A, B])
    assert [one() for _ in range(50)] == [other() for _ in range(50)]


@pytest.mark.parametrize("text", ["zipf", "zipf:a:b", "evenly"])
def test_a_law_that_nobody_knows_is_told(text: str) -> None:
    with pytest.raises(TraceError, match="write zipf:EXPONENT:SEED"):
        law(text, [A])


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_synthetic_traces_have_the_rate_that_was_asked_for(kind: str) -> None:
    models = [ModelName(f"m{n}") for n in range(4)]
    requests = SYNTHETIC[kind](models, Shape(2.0, 3600.0), 1)
    assert len(requests) == pytest.approx(7200, rel=0.1)
    assert [request.at for request in requests] == sorted(request.at for request in requests)
    assert {request.model for request in requests} == set(models)
    assert requests == SYNTHETIC[kind](models, Shape(2.0, 3600.0), 1)
    assert requests != SYNTHETIC[kind](models, Shape(2.0, 3600.0), 2)
