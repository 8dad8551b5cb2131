"""After `run`, every command finds what was run, from anywhere, and none answers falsely."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine
from tiny_sweep import TINY_SWEEP

from files.reading import read_json
from files.writing import write_json
from iac_core.data.phantom import PhantomSettings, write_phantom
from orchestrator.printed import PROGRAM
from orchestrator.remembered import note_data, note_runs, noted_data, noted_runs
from orchestrator.session import open_sweep

ANSWERS = ("status", "sync", "replay", "export", "report")
"""Commands about what was run."""


def options_of(command, folder):
    return ("--into", folder / "out") if command == "export" else ()


def write_tiny(folder: Path, pruners="[none, js_stability]", path="") -> Path:
    """A sweep file whose name has a blank, without a data folder unless one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    text = TINY_SWEEP.replace(", path: PHANTOM", path)
    sweep = folder / "tiny é.yaml"
    sweep.write_text(text.replace("PRUNERS", pruners).replace("SEEDS", "[0]"))
    return sweep


@pytest.fixture
def call(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, phantom_folder):
    """A folder with a sweep that ran to its end with ``--data`` and ``--runs``."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copytree(phantom_folder, folder / "my hearts")
    sweep = write_tiny(folder / "my sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = f"phantom={folder / 'my hearts'}"
        patch.setattr("sys.argv", ["o", "run", str(sweep), "--data", data, "--runs", "a b",
                                   "--inline"])  # fmt: skip
        from orchestrator.cli.commands import run_commands

        assert run_commands() == 0
    return folder


@pytest.fixture
def copied(ran, tmp_path):
    """A copy of it that a test may change; its notes name the copy."""
    folder = tmp_path / "copy"
    shutil.copytree(ran, folder)
    for path in [*folder.rglob(".orchestrator/*.json"), *folder.rglob("folders/*.json")]:
        note = read_json(path, dict)
        write_json(
            path, json.loads(json.dumps(note).replace(json.dumps(str(ran))[1:-1], str(folder)))
        )
    return folder


@pytest.mark.parametrize("command", ANSWERS)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_commands_find_what_run_took(command, elsewhere, ran, call, tmp_path):
    sweep = ran / "my sweeps" / "tiny é.yaml"
    cwd = tmp_path if elsewhere else ran
    done = call(command, sweep, *options_of(command, tmp_path), cwd=cwd)
    assert done.code == 0, done
    said = {
        "status": "2 of 2 jobs done",
        "sync": "0 jobs sent, 2 were there already",
        "replay": "js_stability",
        "export": "phantom-unet-js_stability-seed0",
        "report": str(ran / "a b" / "tiny" / "report" / "report.html"),
    }
    assert said[command] in done.out
    assert f"runs folder: {ran / 'a b'}, as in the last run" in done.err


def test_a_plan_after_a_run_says_that_all_is_done(ran, call, tmp_path):
    done = call("plan", ran / "my sweeps" / "tiny é.yaml", cwd=tmp_path)
    assert (done.code, "2 jobs, 2 done" in done.out) == (0, True)


def test_a_second_run_without_options_runs_nothing(copied, call, tmp_path):
    done = call("run", copied / "my sweeps" / "tiny é.yaml", "--inline", cwd=tmp_path)
    assert done.code == 0, done
    assert "start " not in done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ANSWERS)
def test_provisional_keys_yield_no_counts_and_no_advice_to_run(command, call, tmp_path):
    sweep = write_tiny(tmp_path)
    (tmp_path / "runs").mkdir()
    done = call(command, sweep, *options_of(command, tmp_path), cwd=tmp_path)
    text = done.out + done.err
    # Only MLflow itself shows that nothing was ever run.
    advice = "orchestrator run" if command == "report" else "run the sweep|orchestrator run"
    assert not re.search(rf"\d+ of \d+|\d+ jobs|{advice}| left", text)
    if command == "report":  # it is of what MLflow has
        assert done.code in (1, 2)
        assert "the folder of phantom is not at hand" in text.lower()
    else:
        assert done.code == 2
    assert "--data phantom=PATH" in text


def test_a_plan_without_data_counts_what_the_grid_holds_and_nothing_that_is_done(call, tmp_path):
    text = write_tiny(tmp_path).read_text()
    two = "datasets: {phantom: {layout: acdc}, other: {layout: acdc}}"
    sweep = tmp_path / "two.yaml"
    sweep.write_text(
        text.replace("datasets: {phantom: {layout: acdc}}", two).replace(
            "[phantom]", "[phantom, other]"
        )
    )
    done = call("plan", sweep, cwd=tmp_path)
    assert done.code == 0, done
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()[2:7]}
    assert rows["prepare"] == ["4", "2"], "two data sets at least"
    assert "done cannot be said" in done.out
    assert not re.search(r"\b0 done|nothing was ever observed|hours", done.out)
    assert "--data phantom=PATH --data other=PATH" in done.out


@pytest.mark.parametrize("command", ANSWERS)
def test_a_missing_runs_folder_is_named(command, call, tmp_path, phantom_folder):
    sweep = write_tiny(tmp_path, path=f", path: {phantom_folder}")
    for words, named in (((), tmp_path / "runs"), (("--runs", "x y"), tmp_path / "x y")):
        done = call(command, sweep, *options_of(command, tmp_path), *words, cwd=tmp_path)
        assert done.code == 2
        assert f"{named}: the runs folder must exist" in done.err
        assert not named.exists()


def test_a_runs_folder_that_is_gone_is_named_even_if_another_one_is_there(copied, call, tmp_path):
    shutil.rmtree(copied / "a b")
    (tmp_path / "runs").mkdir()
    sweep = copied / "my sweeps" / "tiny é.yaml"
    done = call("status", sweep, cwd=tmp_path)
    assert done.code == 2
    assert f"{copied / 'a b'}: the runs folder, where this sweep ran last, must exist" in done.err
    done = call("plan", sweep, cwd=tmp_path)
    assert f"the runs folder of the last run is gone: {copied / 'a b'}" in done.err


def test_a_data_folder_that_is_gone_is_named_and_what_was_run_is_still_known(copied, call):
    (copied / "my hearts").rename(copied / "moved")
    sweep = copied / "my sweeps" / "tiny é.yaml"
    done = call("status", sweep, cwd=copied)
    assert (done.code, "2 of 2 jobs done" in done.out) == (0, True)
    assert f"phantom: the folder {copied / 'my hearts'} is gone" in done.err
    done = call("run", sweep, "--inline", cwd=copied)
    assert done.code == 2
    assert f"no folder {copied / 'my hearts'}, which the last run took" in done.err
    moved = ("--data", f"phantom={copied / 'moved'}")
    assert "2 of 2 jobs done" in call("status", sweep, *moved, cwd=copied).out


def test_a_data_folder_that_has_changed_is_named(copied, call):
    label = next((copied / "my hearts").rglob("*_gt.nii.gz"))
    raw = bytearray(label.read_bytes())
    raw[-5] ^= 1  # gzip's checksum, which the fingerprint rests on
    label.write_bytes(bytes(raw))
    done = call("status", copied / "my sweeps" / "tiny é.yaml", cwd=copied)
    assert "phantom: the content of" in done.err
    assert "has changed since the last run" in done.err
    assert "0 of 2 jobs done" in done.out


def test_what_is_typed_wins_and_so_does_a_later_edit_of_the_file(copied, call, tmp_path):
    other = tmp_path / "other"
    write_phantom(other, PhantomSettings(n_patients=8, seed=1))
    sweep = copied / "my sweeps" / "tiny é.yaml"
    typed = call("status", sweep, "--data", f"phantom={other}", cwd=copied)
    assert "0 of 2 jobs done" in typed.out
    write_tiny(sweep.parent, path=f", path: {other}")
    edited = call("status", sweep, cwd=copied)
    assert "0 of 2 jobs done" in edited.out
    absent = call("status", sweep, "--data", "phantom=/absent", cwd=copied)
    assert absent.code == 2
    assert "no folder /absent" in absent.err
    assert call("plan", sweep, "--data", "phantom=/absent", cwd=copied).code == 2


def test_an_option_of_the_last_run_wins_over_a_path_that_the_file_had_then(
    call, tmp_path, phantom_folder
):
    other = tmp_path / "other"
    write_phantom(other, PhantomSettings(n_patients=8, seed=1))
    sweep = write_tiny(tmp_path, "[no_cell]", path=f", path: {phantom_folder}")
    words = ("--data", f"phantom={other}", "--inline")
    assert call("run", sweep, *words, cwd=tmp_path).code == 0
    done = call("status", sweep, cwd=tmp_path)
    assert "1 of 1 jobs done" in done.out
    assert (
        f"phantom: {other}, as in the last run; the sweep file names {phantom_folder}" in done.err
    )


def test_each_working_directory_has_its_last_runs_folder(tmp_path, monkeypatch):
    sweep = write_tiny(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / name / "runs").mkdir(parents=True)
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        assert note_runs(sweep, tmp_path / name / "runs")
    monkeypatch.chdir(tmp_path / "a")
    assert noted_runs(sweep)[0] == [tmp_path / "a" / "runs"]
    monkeypatch.chdir(tmp_path / "c")
    own, others = noted_runs(sweep)
    assert (own, others[0]) == ([], tmp_path / "b" / "runs")


def test_notes_of_two_hosts_lie_side_by_side_and_each_reads_its_own_first(
    tmp_path, monkeypatch, phantom_folder
):
    sweep = write_tiny(tmp_path, path=f", path: {phantom_folder}")
    notes = open_sweep(sweep, {}, tmp_path / "runs", needs_data=False).data_notes()
    found = {}
    for host in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda host=host: host)
        there = {name: type(note)(**{**fields_of(note), "path": f"/{host}"})
                 for name, note in notes.items()}  # fmt: skip
        note_data(tmp_path / "run", there)
        note_runs(sweep, tmp_path / host)
    for host in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda host=host: host)
        found[host] = next(noted_data(tmp_path / "run", "phantom")).path, noted_runs(sweep)[0]
    assert found == {
        "one": ("/one", [tmp_path / "one"]),
        "two": ("/two", [tmp_path / "two"]),
    }


def fields_of(note):
    return {name: getattr(note, name) for name in note.__dataclass_fields__}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"datasets": 3}', b'{"datasets": {"phantom": 7}}']
)
def test_a_damaged_note_counts_as_absent(content, copied, call):
    for path in copied.rglob("folders/*.json"):
        path.write_bytes(content)
    done = call("status", copied / "my sweeps" / "tiny é.yaml", cwd=copied)
    assert done.code == 2
    assert "--data phantom=PATH" in done.err
    for path in copied.rglob(".orchestrator/*.json"):
        path.write_bytes(content)
    assert call("status", copied / "my sweeps" / "tiny é.yaml", cwd=copied).code == 2


def test_a_relative_store_starts_at_the_sweep_file(tmp_path, phantom_folder, monkeypatch):
    sweep = write_tiny(tmp_path / "sweeps", path=f", path: {phantom_folder}")
    sweep.write_text(sweep.read_text() + "    store: ../stages\n")
    roots = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        session = open_sweep(sweep, {}, tmp_path / "runs", needs_data=False)
        roots.add(Path(session.store.root).resolve())
    assert roots == {tmp_path / "stages"}


def commands_in(text):
    """Every printed command, as words for this project's command line."""
    found = re.findall(rf"`({PROGRAM} [^`]+)`|(?:again:|^   ) ({PROGRAM} .+)$", text, re.MULTILINE)
    return [shlex.split(one or other)[1:] for one, other in found]


def test_the_advice_of_a_plan_is_a_whole_command_that_runs(call, tmp_path, phantom_folder):
    sweep = write_tiny(tmp_path / "my sweeps")
    shutil.copytree(phantom_folder, tmp_path / "my hearts")
    words = ("--data", "phantom=my hearts", "--runs", "it's", "--machines", "3", "--cpus", "4")
    done = call("plan", "my sweeps/tiny é.yaml", *words, cwd=tmp_path)
    (advice,) = commands_in(done.out)
    assert sorted(advice) == sorted(["plan", "my sweeps/tiny é.yaml", "--probe", *words])
    done = call(*advice, cwd=tmp_path)
    assert done.code == 0, done
    assert "On 3 × 4 CPUs" in done.out
    assert sweep.exists()
    assert (tmp_path / "it's" / "store" / "costs").exists()


def test_the_command_that_a_failure_and_a_missing_run_print_is_whole(
    call, tmp_path, phantom_folder
):
    sweep = write_tiny(tmp_path / "my sweeps", "[none]")
    faulty = """    backbones:
      unet: {type: external, target: "faulty_networks:Faulty", classes_argument: out_channels,
             arguments: {fault: gpu_memory}, skips: [{module: upcat_2, argument: 1}]}
"""
    plain = "    backbones: {unet: {widths: [8, 16]}}\n"
    sweep.write_text(sweep.read_text().replace(plain, faulty))
    words = ("--data", f"phantom={phantom_folder}", "--runs", "r 1")
    (tmp_path / "r 1").mkdir()
    done = call("replay", "my sweeps/tiny é.yaml", *words, cwd=tmp_path)
    assert done.code == 2
    (first,) = commands_in(done.err)
    assert first == ["run", "my sweeps/tiny é.yaml", *words]
    failed = call(*first, "--inline", cwd=tmp_path)
    assert failed.code == 1
    assert "failed  pretrain" in failed.err
    status = call("status", "my sweeps/tiny é.yaml", cwd=tmp_path)
    (again,) = commands_in(status.out)
    assert again[:3] == ["run", "my sweeps/tiny é.yaml", "--inline"]
    assert call(*again, cwd=tmp_path).code == 1
