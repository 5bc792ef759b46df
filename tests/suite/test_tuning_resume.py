"""A search that was interrupted, or that several processes share: what is tried again, and by whom."""

import time

import optuna
import pytest

from suite import runner
from suite.errors import ConfigError
from suite.tuning import ladder, loop, search
from suite.tuning.search import Options
from suite.tuning.storage import journal_path, open_storage
from suite.tuning.trials import CELLS, FOLDER, RETRY, best_trials, measured_trials

pytestmark = pytest.mark.usefixtures("untracked_search")


def test_an_interrupted_search_goes_on_with_the_trial_that_it_was_at(tuned, monkeypatch):
    climbed, climb = [], ladder.Ladder.climb

    def until_third(self, cells):
        climbed.append(cells)
        if len(climbed) == 3:
            raise KeyboardInterrupt
        return climb(self, cells)

    monkeypatch.setattr(ladder.Ladder, "climb", until_third)
    with pytest.raises(KeyboardInterrupt):
        tuned()
    searched = tuned()
    assert len(measured_trials(searched.study)) == 4
    assert climbed[3] == climbed[2] and climbed[0] not in climbed[3:]


def test_a_trial_that_a_kill_left_running_is_tried_again(tuned, asked, tmp_path):
    searched = tuned(trials=1)
    lost = searched.study.ask()
    searched.space.draw(lost)
    lost.set_user_attr(CELLS, ["abc"])
    again = tuned(trials=2)
    [repeated] = [trial for trial in again.study.trials if trial.user_attrs.get("retry_of") == lost.number]
    assert repeated.params == lost.params and repeated.state.is_finished()
    assert again.study.trials[lost.number].state == optuna.trial.TrialState.FAIL


def test_a_journal_that_a_kill_cut_short_can_be_read_again(tuned):
    searched = tuned(trials=2)
    with journal_path(searched.folder).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert len(measured_trials(tuned(trials=3).study)) == 3


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_in_two_parts_tries_what_it_tries_in_one(searched_settings, tuned, asked, tmp_path, sampler):
    wide = {"nowag-vq": searched_settings | {"iterations": {"low": 1, "high": 60}}}
    for trials in (2, 4):
        parts = tuned(wide, trials=trials, sampler=sampler)
    whole = search.search(asked(wide, trials=4, sampler=sampler), Options(tmp_path / "whole", offline=True))
    assert [each.params for each in parts.study.trials] == [each.params for each in whole.study.trials]


def test_a_trial_that_was_lost_before_its_settings_were_chosen_is_proposed_again(searched_settings, tuned):
    wide = {"nowag-vq": searched_settings | {"iterations": {"low": 1, "high": 60}}}
    searched = tuned(wide, trials=1)
    lost = searched.study.ask()  # killed before it drew anything
    again = tuned(wide, trials=2)
    assert not any(RETRY in trial.user_attrs for trial in again.study.trials)
    assert [trial.state.name for trial in again.study.trials][lost.number] == "FAIL"
    assert measured_trials(again.study)[1].params.keys() == measured_trials(again.study)[0].params.keys()


def test_a_lock_that_a_kill_left_does_not_hold_up_the_next_search(tuned):
    searched = tuned(trials=1)
    lock = journal_path(searched.folder).with_name("optuna.log.lock")
    lock.touch()
    start = time.monotonic()
    tuned(trials=2)
    assert time.monotonic() - start < 15 and not lock.exists()  # Optuna would take it away after 30 s


def test_weights_that_a_kill_left_of_a_trial_that_was_over_go_at_the_next_start(tuned):
    searched = tuned(trials=4)
    best = set(best_trials(searched.study)[0].user_attrs[CELLS])
    cells = {cell for each in measured_trials(searched.study) for cell in each.user_attrs[CELLS]}
    left = min(cells - best)
    shard = searched.folder / "cells" / left / "block_000.safetensors"
    shard.parent.mkdir(exist_ok=True)
    shard.touch()
    tuned(trials=4)
    assert not shard.exists()


@pytest.fixture
def team(asked, tmp_path):
    """A function that searches in a folder of its own, with one database for all."""
    url = f"sqlite:///{tmp_path / 'team.db'}"
    return lambda out, trials, methods=None: search.search(
        asked(methods, trials=trials), Options(tmp_path / out, offline=True, storage=url)
    )


@pytest.fixture
def ask(tmp_path):
    """A function that begins a trial of the team's study as a process would that is killed then."""
    return lambda: optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'team.db'}").ask()


def test_only_the_folder_that_a_trial_ran_in_takes_it_for_lost(team, ask, monkeypatch):
    monkeypatch.setattr(runner.Tracker, "folder_id", property(lambda self: self.out.parent.name), raising=False)
    searched, lost = team("one", 1), ask()
    lost.set_user_attr(FOLDER, "one")
    searched.space.draw(lost)
    lost.set_user_attr(CELLS, ["abc"])
    assert team("two", 2).study.trials[lost.number].state.name == "RUNNING"
    again = team("one", 3).study
    assert again.trials[lost.number].state.name == "FAIL"
    assert [each.params for each in again.trials if each.user_attrs.get(RETRY) == lost.number] == [lost.params]


def test_a_trial_that_others_took_for_dead_does_not_end_the_search(team, monkeypatch):
    climb, taken = ladder.Ladder.climb, []

    def silent(self, cells):
        if not taken:
            study = optuna.load_study(study_name=None, storage=f"sqlite:///{self.bench.folder.parents[1]}/team.db")
            taken.append(study.tell(study.trials[-1].number, state=optuna.trial.TrialState.FAIL))
        return climb(self, cells)

    monkeypatch.setattr(ladder.Ladder, "climb", silent)
    states = [trial.state.name for trial in team("one", 2).study.trials]
    assert states.count("FAIL") == 1 and states.count("COMPLETE") + states.count("PRUNED") == 2


def test_what_another_process_is_at_is_not_tried_as_well(tuned, team, ask, monkeypatch):
    monkeypatch.setattr(loop, "MOST_REPEATED", 5)
    two = {"nowag-vq": {"bits": 1, "dim": [2, 4], "iterations": 1}}
    cells = [trial.user_attrs[CELLS] for trial in measured_trials(tuned(two, trials=2).study)]
    team("one", 1, two)
    ask().set_user_attr(CELLS, cells[1])
    assert [trial.user_attrs[CELLS] for trial in measured_trials(team("two", 2, two).study)] == cells[:1]


def test_a_database_takes_the_place_of_the_file(asked, tmp_path):
    url = f"sqlite:///{tmp_path / 'team.db'}"
    searched = search.search(asked(trials=1), Options(tmp_path / "one", offline=True, storage=url))
    other = search.search(asked(trials=2), Options(tmp_path / "two", offline=True, storage=url))
    assert other.study.study_name == searched.study.study_name and len(measured_trials(other.study)) == 2
    assert not journal_path(other.folder).exists()


def test_a_database_that_does_not_answer_is_one_line_without_its_password(tmp_path):
    with pytest.raises(ConfigError, match=r"--storage nonsense://\*\*\*@host") as error:
        open_storage(tmp_path, "nonsense://user:secret@host/db")
    assert "secret" not in str(error.value)
