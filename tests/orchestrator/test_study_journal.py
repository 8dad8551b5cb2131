"""The journal of a study survives kills, and says which line is damaged."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from files.journal import first_damage
from orchestrator.study import StorageAddress, StorageDamagedError, open_storage_at
from orchestrator.study_journal import CheckedJournal

ROOT = Path(__file__).parents[2]


def address(tmp_path):
    return StorageAddress(url=None, journal=tmp_path / "study.journal")


def study(where):
    return optuna.create_study(
        storage=open_storage_at(where), study_name="s", load_if_exists=True, direction="minimize"
    )


def add(where, n=2):
    found = study(where)
    for _ in range(n):
        trial = found.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.report(0.25, 3)
        trial.set_user_attr("note", {"1": [1.5, None, float("nan")]})
        found.tell(trial, 0.5)
    return found


def test_trials_come_back_and_every_line_has_a_checksum(tmp_path):
    before = add(address(tmp_path)).trials
    after = study(address(tmp_path)).trials
    assert [trial.params for trial in after] == [trial.params for trial in before]
    assert after[0].intermediate_values == {3: 0.25}
    lines = address(tmp_path).journal.read_text().splitlines()
    assert all("crc32" in json.loads(line) for line in lines)


@pytest.mark.parametrize("torn", [b'{"op_code":5,"work', b"{", b"\xff\x00"])
def test_a_torn_last_line_is_cut_off_and_the_study_goes_on(tmp_path, torn, caplog):
    """The next line was once added to the torn one, which lost the study for good."""
    where = address(tmp_path)
    add(where)
    with where.journal.open("ab") as file:
        file.write(torn)
    assert len(study(where).trials) == 2
    assert len(add(where).trials) == 4
    assert len(study(where).trials) == 4
    (kept,) = tmp_path.glob("study.journal.torn-*")
    assert kept.read_bytes() == torn
    assert sum("torn by a kill" in message for message in caplog.messages) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator.study_journal import CheckedJournal
journal = CheckedJournal(Path(sys.argv[1]))
whole = os.fsync
def dies(number):
    os.truncate(sys.argv[1], os.path.getsize(sys.argv[1]) - 20)
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = dies
journal.append_logs([{"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [1]}])
"""


def test_a_writer_that_was_killed_leaves_a_study_that_goes_on(tmp_path, monkeypatch):
    where = address(tmp_path)
    add(where)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(where.journal)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not where.journal.read_bytes().endswith(b"\n")
    lock = where.journal.with_name("study.journal.lock")
    assert lock.is_symlink()
    lock.unlink()  # Optuna waits thirty seconds before it does the same
    assert len(add(where).trials) == 4


@pytest.mark.parametrize("change", [(b"0.5", b"0.7"), (b'"op_code"', b'"op_c'), (b"{", b"")])
def test_a_damaged_line_is_named_with_a_way_out(tmp_path, change):
    where = address(tmp_path)
    add(where)
    lines = where.journal.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if n > 2 and change[0] in line)
    lines[number] = lines[number].replace(*change, 1)
    where.journal.write_bytes(b"".join(lines))
    with pytest.raises(StorageDamagedError) as error:
        study(where)
    words = str(error.value)
    assert f"{where.journal}: line {number + 1}" in words
    assert "move it away" in words


def test_a_line_that_is_damaged_while_the_study_is_open_is_not_taken_as_it_is(tmp_path):
    where = address(tmp_path)
    add(where)
    journal = CheckedJournal(where.journal)
    content = where.journal.read_bytes()
    where.journal.write_bytes(content.replace(b"0.25", b"0.75"))
    with pytest.raises(ValueError, match="line"):
        list(journal.read_logs(0))


def test_a_journal_of_an_older_version_goes_on(tmp_path):
    where = address(tmp_path)
    old = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(where.journal))),
        study_name="s",
    )
    old.enqueue_trial({"x": 0.5})
    assert b"crc32" not in where.journal.read_bytes()
    found = add(where, 1)
    assert [trial.params for trial in found.trials] == [{"x": 0.5}]
    assert first_damage(where.journal) is None
    assert replace(where).name == str(where.journal)
