"""What becomes of rows when workers are lost, and when parts of a walk end in another order."""

import pytest

from methods.nowag_p import NoWagP
from suite import runner
from suite.errors import ConfigError
from suite.schedule import Ended, Here
from suite.work import Measure, Walk

pytestmark = pytest.mark.usefixtures("no_tracking")


class Unlucky(Here):
    """Loses its worker, `times` over, at `doomed` work: as a walk starts, after the row of a measurement."""

    slots, times, doomed = 1, 0, staticmethod(lambda work: False)

    def start(self, work):
        self.due = isinstance(work, Walk)
        super().start(work)

    def wait(self):
        if self.due and self.times > 0 and self.doomed(self._work):
            self.times, lost, self._work = self.times - 1, self._work, None
            return [Ended(lost, "killed")]
        self.due = True
        return super().wait()


@pytest.fixture
def unlucky(monkeypatch):
    """A function that makes the run's worker so."""

    def make(doomed, times):
        monkeypatch.setattr(Unlucky, "doomed", staticmethod(doomed))
        monkeypatch.setattr(Unlucky, "times", times)
        monkeypatch.setattr(runner, "pool_of", lambda workers, device: Unlucky(device))

    return make


def test_a_cell_that_takes_its_worker_along_is_a_row_and_spares_those_of_its_walk(run_with, unlucky):
    methods = {"rtn": {"bits": [3, 4, 8]}}
    cells = []

    def doomed(work):
        cells.extend(work.cells if isinstance(work, Walk) and not cells else ())
        return isinstance(work, Walk) and cells[1] in work.cells

    unlucky(doomed, 100)
    rows = run_with(methods=methods).rows
    assert [(row.status, row.reason) for row in rows] == [("ok", None), ("failed", "killed"), ("ok", None)]
    unlucky(doomed, 0)
    assert [row.status for row in run_with(methods=methods).rows] == ["ok"] * 3


def test_a_row_that_a_lost_worker_had_found_is_not_written_twice(run_with, unlucky, recipe_values):
    unlucky(lambda work: isinstance(work, Measure), 2)
    evaluations = [recipe_values["evaluation"] | {"length": length} for length in (32, 48)]
    outcome = run_with(evaluation=evaluations)
    assert len(outcome.rows) == len((outcome.folder / "results.jsonl").read_text().splitlines()) == 6


def test_of_a_walk_in_parts_the_first_block_that_fails_is_the_reason(run_with, monkeypatch, tmp_path):
    class Backwards(Here):
        """Two pieces at a time, of which the later one is done first."""

        def __init__(self, device):
            super().__init__(device, slots=2)
            self.begun = []

        def start(self, work):
            self.begun.append(work)

        def wait(self):
            if self._work is None:
                super().start(self.begun.pop())
            return super().wait()

    def refuse(*_):
        raise ValueError("no luck today")

    monkeypatch.setattr(runner, "LEAST_BLOCKS", 1)
    monkeypatch.setattr(runner, "pool_of", lambda workers, device: Backwards(device))
    monkeypatch.setattr(NoWagP, "compress", refuse)
    row = run_with(methods={"nowag-p": {}}).rows[0]
    assert row.status == "failed" and row.reason.startswith("model.layers.0.self_attn.q_proj: ")
    assert {path.name.split("-")[1] for path in (tmp_path / "out/tiny/failures").iterdir()} == {
        "model.layers.0.self_attn.q_proj.safetensors",
        "model.layers.1.self_attn.q_proj.safetensors",
    }


@pytest.mark.parametrize("works", [True, False])
def test_workers_are_dismissed_at_the_end_and_where_preparing_fails(run_with, monkeypatch, works):
    pools = []

    class Noting(Here):
        closed = False

        def close(self):
            self.closed = True

    monkeypatch.setattr(runner, "pool_of", lambda workers, device: pools.append(Noting(device)) or pools[0])
    if works:
        run_with(methods={"rtn": {"bits": 4, "group_size": 16}})
    else:
        with pytest.raises(ConfigError):
            run_with(methods={"nowag-vq": {"bits": 8, "dim": 8}})
    assert [pool.closed for pool in pools] == [True]
