"""Pulling from a hub: whole, resumed, refused, and when it isn't there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from traceback import format_exception

import pytest

from hubs import Hub
from modelgrid.spec import Unknown
from modelgrid.spec.weights import Weights
from modelgrid.weights import (
    Progress,
    WeightsError,
    hub_answers,
    inspect,
    list_weights,
    needs_pull,
    pull,
    remove,
    resolve,
    weigh,
)

WEIGHTS = bytes(range(256)) * 4096 * 12  # more than one of the pieces that the library fetches


def nothing(_: Progress) -> None:
    pass


@pytest.fixture
def model(hub: Hub) -> str:
    hub.models["owner/tiny"] = {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"the same in an older format",
        "onnx/model.onnx": b"the same for another runtime",
    }
    return "owner/tiny"


def test_pull_fetches_one_format_of_the_weights(hub: Hub, model: str, tmp_path: Path) -> None:
    folder = pull(model, tmp_path, nothing)
    assert folder == tmp_path / "owner" / "tiny"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b'{"model_type": "llama"}'
    assert not (folder / "pytorch_model.bin").exists()
    assert not (folder / "onnx").exists()
    assert resolve(model, tmp_path) == folder


def test_pull_tells_how_far_it_is(hub: Hub, model: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    pull(model, tmp_path, seen.append)
    total = len(WEIGHTS) + len(b'{"model_type": "llama"}')
    assert {progress.total_bytes for progress in seen} == {total}
    assert [progress.done_bytes for progress in seen] == sorted(progress.done_bytes for progress in seen)
    assert seen[-1] == Progress(total, total, "")
    assert len([progress for progress in seen if progress.file == "model.safetensors"]) > 1
    assert [progress.done_bytes for progress in seen if progress.file == "checking model.safetensors"] == [total]


def test_pull_twice_asks_the_hub_once(hub: Hub, model: str, tmp_path: Path) -> None:
    pull(model, tmp_path, nothing)
    asked = len(hub.asked)
    pull(model, tmp_path, nothing)
    assert len(hub.asked) == asked


def test_two_pulls_at_once_fetch_once(hub: Hub, model: str, tmp_path: Path) -> None:
    second: list[Future[Path]] = []
    told: SimpleQueue[str] = SimpleQueue()

    def meanwhile(progress: Progress) -> None:
        if not second:
            second.append(pool.submit(pull, model, tmp_path, lambda step: told.put(str(step))))
            assert told.get(timeout=30) == "another process is pulling it"

    with ThreadPoolExecutor(1) as pool:
        folder = pull(model, tmp_path, meanwhile)
        assert second[0].result() == folder
    assert hub.files_asked().count("model.safetensors") == 1
    assert told.empty()


class BrokenOff(Exception):
    """What a test raises to end a pull."""


def test_a_pull_that_was_broken_off_is_resumed(hub: Hub, model: str, tmp_path: Path) -> None:
    def leave(progress: Progress) -> None:
        if progress.file == "model.safetensors" and progress.done_bytes > len(WEIGHTS) // 2:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        pull(model, tmp_path, leave)
    assert resolve(model, tmp_path) is None
    assert needs_pull(model, tmp_path)
    (begun,) = list_weights(tmp_path)
    assert (begun.source, begun.is_whole, begun.size_bytes > len(WEIGHTS) // 2) == (model, False, True)
    hub.asked.clear()
    folder = pull(model, tmp_path, nothing)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [asked for method, path, asked in hub.asked if method == "GET" and path.endswith("model.safetensors")]
    assert ranges
    assert ranges[0].startswith("bytes=")
    assert not ranges[0].startswith("bytes=0-")


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.breaks_at["model.safetensors"] = len(WEIGHTS) // 2
    folder = pull(model, tmp_path, nothing)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_knows_no_ranges_sends_it_all_again(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.knows_ranges = False
    hub.breaks_at["model.safetensors"] = len(WEIGHTS) // 2
    folder = pull(model, tmp_path, nothing)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_pull_of_a_newer_revision_keeps_nothing_of_the_older(hub: Hub, model: str, tmp_path: Path) -> None:
    def leave(progress: Progress) -> None:
        if progress.file == "model.safetensors":
            raise BrokenOff

    with pytest.raises(BrokenOff):
        pull(model, tmp_path, leave)
    hub.revision = "f" * 40
    hub.models[model]["config.json"] = b'{"model_type": "qwen2"}'
    assert len(hub.models[model]["config.json"]) == len(b'{"model_type": "llama"}')
    folder = pull(model, tmp_path, nothing)
    assert (folder / "config.json").read_bytes() == b'{"model_type": "qwen2"}'


def test_a_file_that_is_not_what_the_hub_says_is_refused_and_not_kept(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.claimed_sha256["model.safetensors"] = "0" * 64
    with pytest.raises(WeightsError, match="its content is not what the hub says"):
        pull(model, tmp_path, nothing)
    del hub.claimed_sha256["model.safetensors"]
    assert (pull(model, tmp_path, nothing) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_name_that_leads_out_of_the_folder_is_refused(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.models[model]["../../planted.json"] = b"{}"
    with pytest.raises(WeightsError, match="is not the name of a file"):
        pull(model, tmp_path, nothing)


def test_a_gated_model_says_where_to_accept_its_licence(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.gated.add(model)
    with pytest.raises(WeightsError) as failure:
        pull(model, tmp_path, nothing)
    assert str(failure.value) == (
        f"cannot pull owner/tiny: it is gated, and HF_TOKEN is not set (accept its licence at {hub.url}/owner/tiny, "
        "then set HF_TOKEN to a token of that account)"
    )


def test_a_token_without_access_is_told_so(
    hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(model)
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    with pytest.raises(WeightsError, match="the account of HF_TOKEN has no access") as failure:
        pull(model, tmp_path, nothing)
    assert "hf_canary" not in str(failure.value)


def test_a_token_with_access_is_used(hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(model)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert pull(model, tmp_path, nothing).is_dir()


@pytest.mark.parametrize("token", ["", " good\n"])
def test_a_token_is_taken_without_what_surrounds_it(
    hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    if token:
        hub.gated.add(model)
    monkeypatch.setenv("HF_TOKEN", token)
    assert pull(model, tmp_path, nothing).is_dir()


@pytest.mark.parametrize("token", ["hf_canary\x01tail", "hf_canary\u00e4", "hf_canary\x7f"])
def test_a_token_that_no_request_can_carry_is_told_and_not_shown(
    hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WeightsError, match="HF_TOKEN has characters that no request can carry") as failure:
        pull(model, tmp_path, nothing)
    assert "canary" not in "".join(format_exception(failure.value))


def test_a_model_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as failure:
        pull("owner/missing", tmp_path, nothing)
    assert str(failure.value) == (
        f"cannot ask the hub for owner/missing: {hub.url} has no such model, or it is private "
        "(check the spelling; for a private one set HF_TOKEN)"
    )


def test_a_hub_that_fails(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.status = 500
    with pytest.raises(WeightsError, match=r"answered 500 \(try again later\)"):
        pull(model, tmp_path, nothing)


def test_a_hub_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:1 can't be reached: .*check the network and HF_ENDPOINT"):
        pull("owner/tiny", tmp_path, nothing)


def test_offline_asks_nobody(hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        pull(model, tmp_path, nothing)
    assert not hub_answers()
    assert hub.asked == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.claimed["model.safetensors"] = shutil.disk_usage(tmp_path).total + (1 << 40)
    with pytest.raises(WeightsError, match=r"cannot pull owner/tiny: it needs .* TiB, .* has .* free"):
        pull(model, tmp_path, nothing)
    assert not any("/resolve/" in path for _, path, _ in hub.asked)
    assert not (tmp_path / "owner").exists()


@pytest.mark.parametrize("source", ["../../etc", "/etc", "package:x", "stand-in", "a/b/c", "owner/..", "", "owner/a b"])
def test_what_is_no_hub_id_is_not_pulled(hub: Hub, tmp_path: Path, source: str) -> None:
    with pytest.raises(WeightsError, match="it is not the id of a model on a hub"):
        pull(source, tmp_path, nothing)
    assert hub.asked == []


def test_a_path_needs_no_pull_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    here, missing = str(tmp_path), str(tmp_path / "missing")
    assert not needs_pull(here, tmp_path)
    assert resolve(here, tmp_path) == tmp_path
    assert needs_pull(missing, tmp_path)
    with pytest.raises(WeightsError) as failure:
        pull(missing, tmp_path, nothing)
    assert str(failure.value) == f"cannot find {missing}: there is nothing at this path (check the model's source)"


def test_progress_reads_as_a_line() -> None:
    assert str(Progress(1 << 30, 3 << 30, "a.safetensors")) == "1.0 GiB of 3.0 GiB, a.safetensors"
    assert str(Progress(512, 512, "")) == "512 B of 512 B"


def test_a_hub_answers_when_it_knows_a_model_that_all_hubs_have(hub: Hub) -> None:
    assert not hub_answers()
    hub.models["sentence-transformers/all-MiniLM-L6-v2"] = {}
    assert hub_answers()


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:9", "nothing"])
def test_an_address_of_no_hub_is_no_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert not hub_answers()


def test_a_page_of_a_proxy_is_no_answer_of_a_hub(hub: Hub) -> None:
    hub.models["sentence-transformers/all-MiniLM-L6-v2"] = {}
    hub.status = 403
    assert not hub_answers()


def test_the_size_comes_from_the_hub_before_and_from_the_files_after_a_pull(
    hub: Hub, model: str, tmp_path: Path
) -> None:
    assert weigh(model, tmp_path) == Weights(len(WEIGHTS))
    pull(model, tmp_path, nothing)
    hub.status = 500
    assert weigh(model, tmp_path) == Weights(len(WEIGHTS))


def test_a_size_that_cannot_be_had_is_unknown(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.status = 503
    assert isinstance(weigh(model, tmp_path), Unknown)
    assert isinstance(weigh("/no/such/folder", tmp_path), Unknown)
    assert isinstance(weigh(str(tmp_path), tmp_path), Unknown)


def test_what_was_pulled_is_listed_and_removed(hub: Hub, model: str, tmp_path: Path) -> None:
    folder = pull(model, tmp_path, nothing)
    (held,) = list_weights(tmp_path)
    assert (held.source, held.path) == (model, folder)
    assert held.size_bytes >= len(WEIGHTS)
    assert remove(model, tmp_path) == held.size_bytes
    assert list_weights(tmp_path) == []
    assert resolve(model, tmp_path) is None
    assert not (tmp_path / "owner").exists()


def test_what_is_not_there_or_not_ours_is_not_removed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it is not there"):
        remove("owner/tiny", tmp_path)
    with pytest.raises(WeightsError, match="its files are not ours to delete"):
        remove(str(tmp_path), tmp_path)
    assert tmp_path.is_dir()


@pytest.fixture
def quantised(hub: Hub) -> str:
    hub.models["owner/tiny-GGUF"] = {
        "README.md": b"about",
        "tiny-Q4_K_M.gguf": b"GGUF four",
        "tiny-Q8_0-00001-of-00002.gguf": b"GGUF eight",
        "tiny-Q8_0-00002-of-00002.gguf": b"GGUF eight and more",
        "mmproj-F16.gguf": b"GGUF eyes",
    }
    return "owner/tiny-GGUF"


@pytest.mark.parametrize(
    ("pick", "folder", "entry", "fetched"),
    [
        ("", "tiny-GGUF", "tiny-Q4_K_M.gguf", {"README.md", "tiny-Q4_K_M.gguf", "mmproj-F16.gguf"}),
        (
            *(":q8_0", "tiny-GGUF--Q8_0", "tiny-Q8_0-00001-of-00002.gguf"),
            {"README.md", "tiny-Q8_0-00001-of-00002.gguf", "tiny-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf"},
        ),
        (
            *(":tiny-Q4_K_M.gguf", "tiny-GGUF--tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf"),
            {"README.md", "tiny-Q4_K_M.gguf"},
        ),
    ],
)
def test_of_a_repository_of_gguf_files_one_model_is_pulled_and_named_by_its_file(
    hub: Hub, quantised: str, tmp_path: Path, pick: str, folder: str, entry: str, fetched: set[str]
) -> None:
    source = f"{quantised}{pick}"
    path = pull(source, tmp_path, nothing)
    assert path == tmp_path / "owner" / folder / entry == resolve(source, tmp_path)
    assert set(hub.files_asked()) == fetched
    (held,) = list_weights(tmp_path)
    assert held.path == path
    assert resolve(held.source, tmp_path) == path
    remove(held.source, tmp_path)
    assert not (tmp_path / "owner").exists()


def test_quantisations_lie_side_by_side(hub: Hub, quantised: str, tmp_path: Path) -> None:
    for pick in ("", ":Q8_0"):
        pull(f"{quantised}{pick}", tmp_path, nothing)
    assert [held.source for held in list_weights(tmp_path)] == [quantised, f"{quantised}:Q8_0"]
    remove(quantised, tmp_path)
    assert [held.source for held in list_weights(tmp_path)] == [f"{quantised}:Q8_0"]


def test_a_quantisation_that_is_not_there_is_told_with_those_that_are(hub: Hub, quantised: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as failure:
        pull(f"{quantised}:Q5_K_M", tmp_path, nothing)
    assert str(failure.value) == "cannot pull owner/tiny-GGUF:Q5_K_M: it has no Q5_K_M (there is Q4_K_M, Q8_0)"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_is_waited_out(hub: Hub, model: str, tmp_path: Path, status: int) -> None:
    hub.refusals = [(status, {"Retry-After": "0"})] * 3
    assert (pull(model, tmp_path, nothing) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_refusal_that_stays_is_told_after_a_few_tries(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.refusals = [(429, {"Retry-After": "0"})] * 100
    with pytest.raises(WeightsError) as failure:
        pull(model, tmp_path, nothing)
    assert str(failure.value) == (
        f"cannot pull owner/tiny: {hub.url} says that it was asked too often "
        "(try again in 0 s; with HF_TOKEN set it allows more)"
    )
    assert len(hub.refusals) == 95


def test_a_hub_that_was_asked_too_often_says_when_to_come_back(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.status, hub.headers = 429, {"Retry-After": "120"}
    with pytest.raises(WeightsError, match=r"was asked too often \(try again in 120 s; with HF_TOKEN set"):
        pull(model, tmp_path, nothing)


def test_of_a_file_that_is_longer_than_announced_no_more_is_taken(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.claimed["model.safetensors"] = 3 << 20
    seen: list[Progress] = []
    with pytest.raises(WeightsError, match="it has more instead of the 3145728 bytes that were announced"):
        pull(model, tmp_path, seen.append)
    assert max(progress.done_bytes for progress in seen) <= seen[0].total_bytes


@pytest.mark.parametrize("lie", [100, -100])
def test_a_size_that_is_a_lie_ends_the_pull(hub: Hub, model: str, tmp_path: Path, lie: int) -> None:
    hub.claimed["model.safetensors"] = len(WEIGHTS) + lie
    with pytest.raises(WeightsError, match=r"cannot pull model.safetensors: it has .* that were announced"):
        pull(model, tmp_path, nothing)
    assert resolve(model, tmp_path) is None
    del hub.claimed["model.safetensors"]
    assert (pull(model, tmp_path, nothing) / "model.safetensors").read_bytes() == WEIGHTS


def test_what_is_being_pulled_is_not_removed(hub: Hub, model: str, tmp_path: Path) -> None:
    refused: list[str] = []

    def meanwhile(progress: Progress) -> None:
        if progress.file == "model.safetensors" and not refused:
            with pytest.raises(WeightsError) as failure:
                remove(model, tmp_path)
            refused.append(str(failure.value))

    assert pull(model, tmp_path, meanwhile).is_dir()
    assert refused == ["cannot remove owner/tiny: it is being pulled now (stop that first)"]


def test_what_the_disk_refuses_is_told(hub: Hub, model: str, tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("a file where a folder should be")
    with pytest.raises(WeightsError, match=r"cannot pull owner/tiny: .*File exists"):
        pull(model, tmp_path, nothing)
    with pytest.raises(WeightsError, match=r"cannot remove owner/tiny: File exists: .*/.locks"):
        remove(model, tmp_path)


def test_what_was_begun_is_listed_and_can_be_removed(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.claimed_sha256["model.safetensors"] = "0" * 64
    with pytest.raises(WeightsError):
        pull(model, tmp_path, nothing)
    (begun,) = list_weights(tmp_path)
    assert (begun.source, begun.is_whole) == (model, False)
    assert remove(model, tmp_path) == begun.size_bytes
    assert list_weights(tmp_path) == []


def test_a_repository_cannot_say_that_it_is_whole(hub: Hub, model: str, tmp_path: Path) -> None:
    """Somebody uploaded a folder that modelgrid had pulled, or means ill: the marker would name any file as weights."""
    hub.models[model] = {".modelgrid.json": b'{"entry": "/etc/passwd"}', **hub.models[model]}
    seen: list[Path | None] = []
    folder = pull(model, tmp_path, lambda _: seen.append(resolve(model, tmp_path)))
    assert set(seen) == {None}
    assert resolve(model, tmp_path) == folder


@pytest.mark.parametrize("name", ["a\0b.json", "/planted.json", ".parts/x.json"])
def test_a_name_that_no_file_can_have_is_refused(hub: Hub, model: str, tmp_path: Path, name: str) -> None:
    hub.models[model][name] = b"{}"
    with pytest.raises(WeightsError, match="is not the name of a file"):
        pull(model, tmp_path, nothing)


def test_files_whose_names_differ_by_a_folder_lie_apart(hub: Hub, tmp_path: Path) -> None:
    hub.models["owner/g"] = {"a/b.gguf": b"GGUF in a folder", "a--b.gguf": b"GGUF beside it"}
    sources = ["owner/g:a--b.gguf", "owner/g:a/b.gguf"]
    paths = [pull(source, tmp_path, nothing) for source in sources]
    assert [path.read_bytes() for path in paths] == [b"GGUF beside it", b"GGUF in a folder"]
    assert [held.source for held in list_weights(tmp_path)] == sources
    for source in sources:
        remove(source, tmp_path)
    assert list_weights(tmp_path) == []


def test_what_is_half_removed_is_listed_and_pulled_anew(
    hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next revision has files of the same sizes: none of the old ones may pass for them."""
    folder = pull(model, tmp_path, nothing)

    def refuses(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuses)
        with pytest.raises(WeightsError, match="Permission denied"):
            remove(model, tmp_path)
    (begun,) = list_weights(tmp_path)
    assert (begun.source, begun.is_whole) == (model, False)
    hub.revision = "f" * 40
    hub.models[model]["model.safetensors"] = WEIGHTS[::-1]
    pull(model, tmp_path, nothing)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_a_password_in_a_hubs_address_is_not_shown(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (hub.url.replace("://", "://me:secret@"), "http://me:secret@127.0.0.1:9", "http://me:secret@[::1"):
        for name, source in (("HF_ENDPOINT", "owner/none"), ("MODELGRID_OLLAMA_REGISTRY", "none:1b")):
            monkeypatch.setenv(name, address)
            with pytest.raises(WeightsError) as failure:
                pull(source, tmp_path, nothing)
            assert "secret" not in str(failure.value)


@pytest.mark.parametrize("name", ["config.json", "model_index.json"])
@pytest.mark.parametrize("text", [b"[" * 200_000, b"NaN", b'{"hidden_size": 1e999}', b"\xff"])
def test_what_no_reader_of_json_would_take_leaves_the_size(
    hub: Hub, model: str, tmp_path: Path, name: str, text: bytes
) -> None:
    hub.models[model][name] = text
    assert isinstance(weigh(model, tmp_path), Weights)
    pull(model, tmp_path, nothing)
    assert isinstance(weigh(model, tmp_path), Weights)


def test_a_config_that_is_longer_than_any_is_not_asked_for(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.claimed["config.json"] = 1 << 40
    assert isinstance(weigh(model, tmp_path), Weights)
    assert "config.json" not in hub.files_asked()


@pytest.mark.parametrize("path", ["/" + "a" * 300, "/a\0b", "/dev/null/x"])
def test_a_path_that_cannot_be_looked_at_is_told(tmp_path: Path, path: str) -> None:
    assert resolve(path, tmp_path) is None
    with pytest.raises(WeightsError, match="there is nothing at this path"):
        pull(path, tmp_path, nothing)
    with pytest.raises(WeightsError, match="there is nothing at this path"):
        inspect(Path(path))
    assert isinstance(weigh(path, tmp_path), Unknown)


def test_a_model_without_an_owner_lies_apart_from_an_owner_of_its_name(hub: Hub, tmp_path: Path) -> None:
    for name in ("tiny", "tiny/large"):
        hub.models[name] = {"config.json": b"{}", "model.safetensors": name.encode()}
        assert (pull(name, tmp_path, nothing) / "model.safetensors").read_bytes() == name.encode()
    assert [held.source for held in list_weights(tmp_path)] == ["tiny", "tiny/large"]
    remove("tiny", tmp_path)
    assert [held.source for held in list_weights(tmp_path)] == ["tiny/large"]


def test_a_list_is_not_spoilt_by_a_pull_that_goes_on(
    hub: Hub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(model, tmp_path, nothing)
    find = Path.rglob

    def find_and_lose(path: Path, pattern: str) -> Iterator[Path]:
        for found in list(find(path, pattern)):
            if found.name == "config.json":
                found.unlink()
            yield found

    monkeypatch.setattr(Path, "rglob", find_and_lose)
    (held,) = list_weights(tmp_path)
    assert held.path == folder
