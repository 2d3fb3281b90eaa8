"""What `make eval` keeps, and what it does not make again."""

from pathlib import Path

import pytest

import evaluation.scenes.__main__ as main
from evaluation.scenes import report, results, rows
from foi_core.engine import Engine
from tests.evaluation.scenes.made_up import record


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("demo", "cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "COUNTS", {1: 2})
    monkeypatch.setattr(main, "DIRECTION_COUNTS", {1: 1})
    monkeypatch.setattr(rows, "ALL", (rows.NOTHING, rows.IP2P))
    monkeypatch.setattr(rows, "DIRECTIONS", rows.FIGURE_8[:1])


@pytest.mark.usefixtures("small")
def test_a_clean_clone_goes_on_from_the_committed_edits_even_after_a_quick_run(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = {"digest": "same"}
    main.whole(engine, meta, tmp_path / "first.jsonl", 1, tmp_path / "results")
    committed = (tmp_path / "results" / "rows.json").read_bytes()
    (tmp_path / "clone.jsonl").write_text((tmp_path / "first.jsonl").read_text().splitlines(keepends=True)[0])

    def never(*_: object) -> None:
        raise AssertionError("an edit was made again")

    monkeypatch.setattr("evaluation.scenes.run.admit", never)
    main.whole(engine, meta, tmp_path / "clone.jsonl", 1, tmp_path / "results")
    assert (tmp_path / "results" / "rows.json").read_bytes() == committed


@pytest.mark.usefixtures("small")
def test_edits_of_other_weights_or_settings_are_never_mixed_in(engine: Engine, tmp_path: Path) -> None:
    results.save(tmp_path / "rows.json", [], {"digest": "other"}, [])
    before = (tmp_path / "rows.json").read_bytes()
    with pytest.raises(SystemExit, match="other weights or settings"):
        main.whole(engine, {"digest": "mine"}, tmp_path / "edits.jsonl", 1, tmp_path)
    assert (tmp_path / "rows.json").read_bytes() == before


def test_the_digest_changes_with_the_weights_and_the_precision(engine: Engine) -> None:
    now = main.provenance(engine, "float32")["digest"]
    assert main.provenance(engine, "float32")["digest"] == now
    assert main.provenance(engine, "bfloat16")["digest"] != now
    bias = engine._model.unet.source.conv_out.bias
    bias.add_(1.0)
    assert main.provenance(engine, "float32")["digest"] != now
    bias.sub_(1.0)


def asked_for(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The precision that the command loads the model in."""
    loaded = []

    def load(_model: str, _device: str, dtype: str, **_: object) -> Engine:
        loaded.append(dtype)
        raise InterruptedError

    monkeypatch.setattr(main.Engine, "load", load)
    monkeypatch.setattr("sys.argv", ["evaluation.scenes", "--device", "cpu", *arguments])
    with pytest.raises(InterruptedError):
        main.main()
    return str(loaded[0])


@pytest.mark.parametrize("part", [["--quick"], ["--report"], ["--tuning"], ["--rows", "IP2P"]])
def test_what_goes_on_from_no_results_is_computed_in_the_precision_of_the_device(
    part: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_for(monkeypatch, *part) == "auto"


@pytest.mark.parametrize("times", [0.5, 1.3])
def test_a_whole_run_goes_on_in_the_precision_of_the_results_that_are_there(
    times: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "slowdown", lambda _: times)
    assert asked_for(monkeypatch, "--out", str(tmp_path)) == "auto"
    results.save(tmp_path / "rows.json", [], {"dtype": "bfloat16"}, [])
    assert asked_for(monkeypatch, "--out", str(tmp_path)) == "bfloat16"
    assert asked_for(monkeypatch, "--out", str(tmp_path), "--dtype", "float32") == "float32"


def test_a_whole_run_that_would_go_on_slowly_says_so_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "slowdown", lambda _: 50)
    results.save(tmp_path / "rows.json", [], {"dtype": "bfloat16"}, [])
    with pytest.raises(SystemExit, match="50 times slower than float32: give another --out"):
        asked_for(monkeypatch, "--out", str(tmp_path))
    assert asked_for(monkeypatch, "--out", str(tmp_path), "--dtype", "bfloat16") == "bfloat16"


def test_tables_hold_only_whole_rows_and_the_seeds_that_all_of_them_have() -> None:
    made = [
        *(record("A", case, "sky", [0.1], sample=sample) for case in (1, 2) for sample in (0, 1)),
        *(record("B", case, "sky", [0.1], sample=0) for case in (1, 2)),
        record("B", 1, "sky", [0.1], sample=1),
        record("C", 1, "sky", [0.1], sample=0),
    ]
    kept = report.whole(made)
    assert {(r["row"], r["case"], r["sample"]) for r in kept} == {("A", 1, 0), ("A", 2, 0), ("B", 1, 0), ("B", 2, 0)}
