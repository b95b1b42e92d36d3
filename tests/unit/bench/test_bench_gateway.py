"""The pure parts of `make bench-gateway`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.gateway import bodies, percentiles, proc
from bench.gateway.draw import PANELS, picture
from bench.gateway.figures import FIGURES, GROUPS
from bench.gateway.machine import Split
from bench.gateway.publish import PAGE, Kept, page_figures, with_figures
from bench.gateway.table import cell, drawn_table

SVG = "{http://www.w3.org/2000/svg}"


def kept(values: dict[str, dict[str, list[float]]], failures: dict[str, str] | None = None) -> Kept:
    return Kept(
        {
            "columns": ["direct", "nginx", "modelgrid", "litellm"],
            "rows": list(FIGURES),
            "failures": failures or {},
            "notes": {"litellm": "chunks of 10 streams"},
            "values": values,
        }
    )


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (99, 99), (99.9, 100), (100, 100)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentiles.percentile(range(1, 101), percent) == value


def test_a_median_of_nothing_is_unknown() -> None:
    assert percentiles.median([]) is None
    assert percentiles.median([3.0, 1.0, 9.0]) == 3.0


@pytest.mark.parametrize("size", bodies.SIZES.values())
def test_a_body_has_the_size_that_is_asked_for(size: int) -> None:
    body = bodies.chat(size)
    assert len(body) == size
    assert json.loads(body)["model"] == bodies.MODEL


def test_the_answer_has_300_bytes_and_a_usage() -> None:
    assert len(bodies.completion()) == 300
    assert json.loads(bodies.completion())["usage"]["total_tokens"] == 46
    assert json.loads(bodies.chunk(usage=True).removeprefix(b"data: "))["usage"]["total_tokens"] == 142


def process(
    proc_folder: Path, pid: int, session: int, ticks: int, threads: dict[int, int], name: str = "a b) c"
) -> None:
    folder = proc_folder / str(pid)
    fields = ["S", "1", str(pid), str(session), *["0"] * 7, str(ticks), "0", *["0"] * 20]
    folder.mkdir(exist_ok=True)
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")
    (folder / "smaps_rollup").write_text("00-ff ---p 0 [rollup]\nRss:  2000 kB\nPss:  1500 kB\nPss_Anon: 7 kB\n")
    for old in folder.glob("task/*/schedstat"):
        old.unlink()
        old.parent.rmdir()
    for thread, ns in threads.items():
        (folder / "task" / str(thread)).mkdir(parents=True)
        (folder / "task" / str(thread) / "schedstat").write_text(f"{ns} 5 6\n")


def test_all_processes_of_a_session_are_found_whatever_their_names(tmp_path: Path) -> None:
    process(tmp_path, 10, 10, 0, {10: 0})
    process(tmp_path, 11, 10, 0, {11: 0}, name="x) S 1 1 99 (y")
    process(tmp_path, 12, 12, 0, {12: 0})
    (tmp_path / "self").mkdir()
    assert proc.session_members(10, tmp_path) == [10, 11]


def test_cpu_time_is_that_of_all_threads_new_ones_and_new_processes_too(tmp_path: Path) -> None:
    process(tmp_path, 10, 10, 1, {10: 1000, 20: 500})
    before = proc.cpu([10], tmp_path)
    process(tmp_path, 10, 10, 1, {10: 1700, 20: 600, 30: 40})
    process(tmp_path, 11, 10, 1, {11: 9})
    assert proc.cpu([10, 11], tmp_path).since_ns(before) == 700 + 100 + 40 + 9


def test_the_time_of_a_thread_that_ended_is_not_lost(tmp_path: Path) -> None:
    process(tmp_path, 10, 10, 100, {10: 0, 20: 1_000_000_000})
    before = proc.cpu([10], tmp_path)
    process(tmp_path, 10, 10, 300, {10: 0})
    tick_ns = 10_000_000
    assert proc.cpu([10], tmp_path).since_ns(before) == 200 * tick_ns


def test_memory_is_summed_over_processes(tmp_path: Path) -> None:
    for pid in (10, 11):
        process(tmp_path, pid, 10, 0, {pid: 0})
    assert proc.memory([10, 11], tmp_path) == proc.Memory(2 * 2000 * 1024, 2 * 1500 * 1024)


def test_callers_and_what_is_measured_share_cores_only_where_they_must() -> None:
    two, four = Split((0, 1)), Split((0, 1, 2, 3))
    assert [sorted(two.callers(1)), sorted(two.proxies(1))] == [[0], [1]]
    assert [sorted(two.callers(2)), sorted(two.proxies(2))] == [[0, 1], [0, 1]]
    assert [sorted(four.callers(2)), sorted(four.proxies(2))] == [[0, 1], [2, 3]]


def test_a_cell_is_the_median_with_its_ratio_to_nginx() -> None:
    results = kept({"cpu-300": {"nginx": [10.0, 11.0, 90.0], "modelgrid": [16.5]}})
    assert cell(results, "cpu-300", "nginx") == "11.0"
    assert cell(results, "cpu-300", "modelgrid") == "16.5 (1.50x)"
    assert cell(results, "cpu-300", "direct") == "-"


def test_what_the_upstream_takes_by_itself_is_not_added() -> None:
    results = kept({"added-p50": {"direct": [0.2], "modelgrid": [0.5]}, "added-p99": {"modelgrid": [0.5]}})
    assert cell(results, "added-p50", "modelgrid") == "0.300"
    assert cell(results, "added-p50", "direct") == "0.200"
    assert cell(results, "added-p99", "modelgrid") == "-"


def test_who_failed_keeps_what_was_measured_and_the_table_says_why() -> None:
    results = kept({"cpu-300": {"nginx": [10.0], "litellm": [8000.0]}}, {"litellm": "cannot build it"})
    table = drawn_table(results)
    assert cell(results, "cpu-300", "litellm") == "8,000.0 (800.00x)"
    assert cell(results, "cpu-chunk", "litellm") == "failed"
    assert "litellm failed: cannot build it" in table
    assert "litellm: chunks of 10 streams" in table


def test_groups_name_every_figure_once() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(FIGURES)
    assert {panel.figure for panel in PANELS} <= FIGURES.keys()


def test_a_bar_that_would_dwarf_the_others_is_cut() -> None:
    drawn = picture(kept({"cpu-300": {"nginx": [12.0], "modelgrid": [17.0], "litellm": [8000.0]}}))
    root = ET.fromstring(drawn)
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect") if bar.attrib["class"] != "card"]
    nginx, ours, litellm = widths
    assert nginx / ours == pytest.approx(12 / 17, abs=0.01)
    assert litellm == ours
    assert len(list(root.iter(f"{SVG}path"))) == 1
    assert "8,000.0" in drawn


@pytest.mark.parametrize(
    ("rate", "compiled", "says"),
    [
        (3933.4, True, "Python 3.11.7, modelgrid compiled; the median of 3 rounds of 4 s; the fixed rate was 3,933 "),
        (None, False, "Python 3.11.7, modelgrid not compiled; the median of 3 rounds of 4 s. All of it: [run.json]"),
        (None, None, "Python 3.11.7; the median of 3 rounds of 4 s. All of it: [run.json]"),
    ],
)
def test_the_page_says_how_it_was_measured(rate: float | None, compiled: bool | None, says: str) -> None:
    results = kept({"cpu-300": {"nginx": [10.0]}})
    results.record.update(
        date="2026-11-21T12:00:00",
        machine={"processor": "P", "cores": 2, "kernel": "K", "python": "3.11.7"},
        plan={"rounds": 3, "seconds": 4.0, "open_loop_rate": rate},
        peers={} if compiled is None else {"modelgrid": {"version": "0.1.0", "configuration": {"compiled": compiled}}},
    )
    assert says in page_figures(results, "run.json")


def test_new_figures_replace_the_old_ones_in_the_page() -> None:
    page = PAGE.read_text()
    once = with_figures(page, "old figures\n")
    assert with_figures(once, "new figures\n") == once.replace("old figures", "new figures")
    with pytest.raises(ValueError, match="marks are missing"):
        with_figures("nothing", "first\n")
