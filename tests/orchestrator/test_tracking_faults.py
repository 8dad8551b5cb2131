"""Tracking that cannot be used stops a sweep before it starts; tracking that is away does not."""

import sqlite3
import time

import pytest
from commands import command
from http_answers import answering, silent
from mlflow.tracking import MlflowClient

from addresses.sqlite import sqlite_url
from results.errors import TrackingAwayError, TrackingRefusedError, TrackingSettingError
from results.tracking.address import check_address, check_experiment_name
from results.tracking.database import make_database
from results.tracking.server import ask


@pytest.fixture
def database(tmp_path):
    """The URL of a SQLite file with MLflow's tables."""
    url = sqlite_url(tmp_path / "mlflow.db")
    make_database(url)
    return url


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://host:5000", "did you mean http://"),
        ("uc://x", "must begin with one of http, https, sqlite"),
        ("./mlruns", "this MLflow writes no folder of files"),
        ("file:///tmp/mlruns", "this MLflow writes no folder of files"),
        ("", "this MLflow writes no folder of files"),
        ("http://127.0.0.1:99999", "a port from 1 to 65535"),
        ("http://127.0.0.1:0", "a port from 1 to 65535"),
        ("http://[::1", "an IPv6 address stands in"),
        ("http://", "got no host"),
        ("http://ho st:5000", "got a blank"),
        ("sqlite://", "must name a SQLite file"),
        ("sqlite:///:memory:", "must name a SQLite file"),
        ("sqlite://host/mlflow.db", "got the host 'host'"),
        ("mssql://u:p@h/db", "run `pip install 'pyodbc'`"),
        ("postgresql+nope://u:p@h/db", "must be one that SQLAlchemy knows"),
        ("postgresql://u:p@h:99999/db", "from 1 to 65535, got 99999"),
        ("postgresql://u:p@[::1/db", "got a malformed address"),
        ("postgresql://u:p@w@h:x/db", "got a malformed address"),
    ],
)
def test_an_address_that_can_be_none_is_told_without_asking(uri, said):
    with pytest.raises(TrackingSettingError) as caught:
        check_address(uri)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "", "a\nb"])
def test_a_name_that_no_database_holds_is_refused(name):
    with pytest.raises(TrackingSettingError, match="an experiment's name must"):
        check_experiment_name("http://host", name)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"broken", "HTTP 500 Internal Server Error"),
        (401, b"", "MLFLOW_TRACKING_USERNAME"),
        (403, b"", "HTTP 403 Forbidden"),
        (404, b"", "an MLflow tracking server must answer there"),
        (200, b"<html>a page</html>", "an MLflow tracking server must answer there"),
        (200, b'{"hello": 1}', "an MLflow tracking server must answer there"),
        (302, b"", "an MLflow tracking server must answer there"),
    ],
)
def test_a_server_that_answers_otherwise_is_refused(status, body, said):
    with answering(status, body) as uri, pytest.raises(TrackingRefusedError) as caught:
        ask(uri)
    assert said in str(caught.value)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_not_ready_is_away(status):
    with answering(status) as uri, pytest.raises(TrackingAwayError, match=f"HTTP {status}"):
        ask(uri)


def test_absences_end_in_bounded_time():
    began = time.monotonic()
    for uri in ("postgresql://u:p@127.0.0.1:9/db", "http://[::1]:9", "postgresql://[::1]:9/db"):
        with pytest.raises(TrackingAwayError):
            ask(uri)
    with silent() as uri, pytest.raises(TrackingAwayError):
        ask(uri)
    assert time.monotonic() - began < 60


def test_an_unknown_host_is_no_absence():
    with pytest.raises(TrackingRefusedError, match="must be known"):
        ask("http://no-such-host.invalid:5000")


def test_a_locked_file_is_away_and_one_that_is_read_only_or_no_database_is_refused(
    database, tmp_path
):
    ask(database)
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TrackingAwayError, match="database is locked"):
        ask(database)
    lock.close()
    read_only = f"sqlite:///file:{tmp_path / 'mlflow.db'}?mode=ro&uri=true"
    ask(read_only, writes=False)
    with pytest.raises(TrackingRefusedError, match="readonly database"):
        ask(read_only)
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    with pytest.raises(TrackingRefusedError, match="not a database"):
        ask(sqlite_url(tmp_path / "text.db"))
    with pytest.raises(TrackingRefusedError, match="no folder"):
        ask(sqlite_url(tmp_path / "text.db" / "mlflow.db"))
    with pytest.raises(TrackingSettingError, match="must exist"):
        ask(sqlite_url(tmp_path / "typo.db"), writes=False)
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.parametrize(
    ("revision", "way_out"),
    [("f" * 12, "install the MLflow that made them"), ("451aebb31d03", "mlflow db upgrade")],
)
def test_tables_of_another_version_are_refused(database, tmp_path, revision, way_out):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    connection.close()
    with pytest.raises(TrackingRefusedError) as caught:
        ask(database)
    assert f"got revision {revision}" in str(caught.value)
    assert way_out in str(caught.value)


def with_tracking(path, settings):
    text = path.read_text().replace("    grid:", f"    tracking: {settings}\n    grid:", 1)
    path.write_text(text)
    return path


@pytest.mark.slow
def test_run_stops_before_any_stage_where_tracking_cannot_be_used(
    write_sweep, tmp_path, capsys, monkeypatch
):
    for settings in ("{uri: 'htp://h'}", "{uri: ./mlruns}", f"{{experiment: {'x' * 300}}}"):
        sweep = with_tracking(write_sweep("[no_cell]"), settings)
        for words in (("run", "--inline"), ("sync",), ("report",)):
            ended = command(capsys, monkeypatch, words[0], sweep, *words[1:],
                            "--runs", tmp_path / "runs")  # fmt: skip
            assert ended.code == 2, ended.said
            assert ", got " in ended.err
            lines = ended.err.strip().splitlines()
            assert lines[1:] in ([], ["1 problem; nothing was started."])
    with answering(500) as uri:
        sweep = with_tracking(write_sweep("[no_cell]"), f"{{uri: '{uri}'}}")
        ended = command(capsys, monkeypatch, "run", sweep, "--inline", "--runs", tmp_path / "runs")
        assert ended.code == 2
        assert "HTTP 500" in ended.err
        ended = command(capsys, monkeypatch, "sync", sweep, "--runs", tmp_path / "runs")
        assert ended.code == 1
        ended = command(capsys, monkeypatch, "doctor", sweep, "--runs", tmp_path / "runs")
        assert ended.code == 1
        assert "HTTP 500" in ended.out
    assert not (tmp_path / "runs" / "store" / "prepare").exists()


@pytest.mark.slow
def test_a_deleted_experiment_stops_every_command_and_leaves_the_old_report(
    write_sweep, tmp_path, capsys, monkeypatch
):
    runs = ("--runs", tmp_path / "runs")
    sweep = write_sweep("[no_cell]")
    ended = command(capsys, monkeypatch, "run", sweep, "--inline", *runs)
    assert ended.code == 0, ended.said
    client = MlflowClient(tracking_uri=sqlite_url(tmp_path / "runs" / "mlflow.db"))
    identity = client.get_experiment_by_name("tiny").experiment_id
    assert client.get_experiment(identity).tags == {}  # what was tried is gone again
    client.delete_experiment(identity)
    page = tmp_path / "runs" / "tiny" / "report" / "report.html"
    before = page.read_bytes()
    for words, code in ((("run", "--inline"), 2), (("report",), 1), (("sync",), 1)):
        ended = command(capsys, monkeypatch, words[0], sweep, *words[1:], *runs)
        assert ended.code == code, ended.said
        assert "the experiment must not be deleted, got 'tiny', deleted" in ended.err
        assert f"--experiment-id {identity}" in ended.err
    ended = command(
        capsys, monkeypatch, "report", "--tracking-uri",
        sqlite_url(tmp_path / "runs" / "mlflow.db"), "--experiment", "tiny", *runs,
    )  # fmt: skip
    assert ended.code == 1
    ended = command(capsys, monkeypatch, "doctor", sweep, *runs)
    assert ended.code == 1
    assert "deleted" in ended.out
    assert page.read_bytes() == before
    client.restore_experiment(identity)
    assert command(capsys, monkeypatch, "report", sweep, *runs).code == 0
    ended = command(capsys, monkeypatch, "doctor", sweep, *runs)
    assert "written and read (experiment 'tiny')" in ended.out


@pytest.mark.slow
def test_a_locked_database_costs_seconds_and_sync_sends_what_was_kept(
    write_sweep, tmp_path, capsys, monkeypatch
):
    runs = ("--runs", tmp_path / "runs")
    sweep = write_sweep("[no_cell]")
    (tmp_path / "runs").mkdir()
    make_database(sqlite_url(tmp_path / "runs" / "mlflow.db"))
    lock = sqlite3.connect(tmp_path / "runs" / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    ended = command(capsys, monkeypatch, "run", sweep, "--inline", *runs)
    assert ended.code == 1, ended.said
    assert "MLflow is away" in ended.err
    assert f"1 jobs are kept and sent by `orchestrator sync {sweep} --runs" in ended.err
    assert "Traceback" not in ended.said
    for words in ("sync", "report"):
        ended = command(capsys, monkeypatch, words, sweep, *runs)
        assert ended.code == 1, ended.said
        assert "database is locked" in ended.err
    lock.close()
    ended = command(capsys, monkeypatch, "sync", sweep, *runs)
    assert (ended.code, "1 jobs sent" in ended.out) == (0, True)
