"""No secret of an address is printed, logged or written, whatever a command meets."""

import logging
import sys

import pytest
from commands import command
from http_answers import answering

from addresses.redaction import redact, redact_logs_and_tracebacks
from iac_core.errors import Problem
from orchestrator.reporting import sync_sweep
from orchestrator.session import open_sweep
from results.errors import TrackingRefusedError

SECRET = "hunter2-geheim"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql+psycopg://iac:{SECRET}@h:1/db", "postgresql+psycopg://iac:***@h:1/db"),
        (f"mysql://iac:a@b/{SECRET}:c@h/db failed", "mysql://iac:***@h/db failed"),
        (f"https://{SECRET}@h/x", "https://***@h/x"),
        (
            f"https://u:{SECRET}@h, then http://v:{SECRET}@i",
            "https://u:***@h, then http://v:***@i",
        ),
        (f"http://h/?token={SECRET}&sslmode=require", "http://h/?token=***&sslmode=require"),
        (f"http://h/?a_name_of_its_own={SECRET}: no", "http://h/?a_name_of_its_own=***: no"),
        (
            f"s3://b/k?X-Amz-Signature={SECRET}&sig={SECRET}",
            "s3://b/k?X-Amz-Signature=***&sig=***",
        ),
        (f"postgresql://h/db?user=u&password={SECRET}", "postgresql://h/db?user=u&password=***"),
        (f"with url: /?token={SECRET}/api (Caused by", "with url: /?token=*** (Caused by"),
        (f"host=h password={SECRET} dbname=d", "host=h password=*** dbname=d"),
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"{{'api_key': '{SECRET}'}}", "{'api_key': '***'}"),
        (f"h/?x=1;AWS_SECRET_ACCESS_KEY={SECRET}", "h/?x=***;AWS_SECRET_ACCESS_KEY=***"),
        (f"password='{SECRET} with a blank' host=h", "password='***' host=h"),
        (f'password="{SECRET} b" host=h', 'password="***" host=h'),
        (f"password='{SECRET} host=h", "password=*** host=h"),
        (f"http://h?token={SECRET}: it must answer", "http://h?token=***: it must answer"),
        (
            "a@b.example, http://h:5000/#/experiments/1",
            "a@b.example, http://h:5000/#/experiments/1",
        ),
        ("s3://bucket/runs@2026/a", "s3://bucket/runs@2026/a"),
        ("sqlite:////runs/mlflow.db, threshold=0.5", "sqlite:////runs/mlflow.db, threshold=0.5"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(text, shown):
    assert redact(text) == shown


def test_logs_tracebacks_problems_and_errors_are_redacted(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = logging.getLogRecordFactory()
    redact_logs_and_tracebacks()
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("a.library")
    logger.addHandler(handler)
    try:
        try:
            raise ValueError(f"http://u:{SECRET}@h")
        except ValueError as error:
            logger.exception("with %s", f"https://h?token={SECRET}")
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(before)
    said = capsys.readouterr().err
    assert said.count("ValueError: http://u:***@h") == 2
    assert "https://h?token=***" in said
    assert SECRET not in said
    uri = f"http://u:{SECRET}@h"
    problem = Problem(file="sweep.yaml", rule="uri must be", value=uri, way_out="correct it")
    error = TrackingRefusedError(uri, "it must answer", f"{uri}?key={SECRET}", f"see {uri}")
    for one in (str(problem), str(error), error.value):
        assert SECRET not in one


ADDRESSES = (
    "postgresql://iac:SECRET@127.0.0.1:9/db",
    "postgresql://iac:p/SECRET@127.0.0.1:x/db",
    "http://iac:SECRET@127.0.0.1:9/?token=SECRET",
    "http://iac:SECRET@127.0.0.1:99999",
    "http://SECRET@[::1",
    "htp://iac:SECRET@h/?key=SECRET",
    "mysql://iac:SECRET@h/db",
)


@pytest.mark.slow
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_command_prints_or_writes_a_secret(
    write_sweep, tmp_path, capsys, caplog, monkeypatch, address
):
    monkeypatch.setattr("orchestrator.tracking_writer.PATIENCE_S", 1.0)
    uri = address.replace("SECRET", SECRET)
    sweep = write_sweep("[no_cell]")
    runs = ("--runs", tmp_path / "runs")
    text = sweep.read_text()
    sweep.write_text(text.replace("    grid:", f"    tracking: {{uri: '{uri}'}}\n    grid:", 1))
    for words in (
        ("plan", sweep), ("doctor", sweep), ("run", sweep, "--inline"), ("status", sweep),
        ("sync", sweep), ("report", sweep), ("report", "--tracking-uri", uri, "--experiment", "x"),
    ):  # fmt: skip
        ended = command(capsys, monkeypatch, *words, *runs)
        assert SECRET not in ended.said, words
        assert "Traceback" not in ended.said
        if words[0] not in ("plan", "status"):
            assert ended.code in (1, 2), ended.said
    assert SECRET not in caplog.text
    assert_nowhere(tmp_path / "runs")


@pytest.mark.slow
def test_no_file_holds_the_secret_of_a_server_that_refuses(
    write_sweep, tmp_path, capsys, monkeypatch
):
    with answering(500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}') as where:
        uri = where.replace("http://", f"http://iac:{SECRET}@")
        sweep = write_sweep("[no_cell]")
        text = sweep.read_text()
        sweep.write_text(
            text.replace("    grid:", f"    tracking: {{uri: '{uri}'}}\n    grid:", 1)
        )
        for words in (("run", sweep, "--inline"), ("doctor", sweep), ("report", sweep)):
            ended = command(capsys, monkeypatch, *words, "--runs", tmp_path / "runs")
            assert "HTTP 500" in ended.said
            assert SECRET not in ended.said
        session = open_sweep(sweep, {}, tmp_path / "runs", needs_data=False)
        with pytest.raises(TrackingRefusedError) as caught:
            sync_sweep(session)
        assert SECRET not in str(caught.value)
    assert_nowhere(tmp_path / "runs")


@pytest.mark.slow
def test_tables_tags_and_pages_hide_what_the_error_of_a_stage_says(
    write_sweep, tmp_path, capsys, monkeypatch
):
    def break_down(*arguments, **options):
        raise RuntimeError(f"cannot read https://iac:{SECRET}@h/data?token={SECRET}")

    monkeypatch.setattr("workers.run_stage._compute", break_down)
    runs = ("--runs", tmp_path / "runs")
    sweep = write_sweep("[no_cell]")
    ended = command(capsys, monkeypatch, "run", sweep, "--inline", *runs)
    assert ended.code == 1
    assert "https://iac:***@h/data?token=***" in ended.said
    assert SECRET not in ended.said + command(capsys, monkeypatch, "status", sweep, *runs).said
    assert (tmp_path / "runs" / "tiny" / "report" / "report.html").exists()
    assert_nowhere(tmp_path / "runs")


def assert_nowhere(folder):
    """No file below the folder holds the secret, be it compressed by Parquet or not."""
    from results.store import read_tables

    for path in folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    for path in folder.rglob("tables"):
        if (path / "jobs.parquet").exists():
            for frame in read_tables(path).values():
                assert SECRET not in frame.to_csv()
