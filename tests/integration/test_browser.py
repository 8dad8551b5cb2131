"""MLflow's own UI and the HTML report, opened in a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from orchestrator.executors import InlineExecutor
from orchestrator.reporting import report_sweep, sync_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHROMIUM = shutil.which("chromium")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("no browser: install the Debian package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser.new_page(viewport={"width": 1300, "height": 900})
        browser.close()


@pytest.fixture
def session(write_sweep, tmp_path):
    opened = open_sweep(
        write_sweep("[none, js_stability]"), {}, tmp_path / "runs", needs_data=True
    )
    run_sweep(
        opened.expansion.jobs,
        opened.room(),
        InlineExecutor(),
        view=View(),
        on_job_end=lambda end: None,
    )
    sync_sweep(opened)
    return opened


@pytest.fixture
def server(session):
    """The address of MLflow's UI over the sweep's database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", session.tracking_uri,
         "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, 15)
    process.wait(timeout=30)


def screenshot(page, name):
    """Kept where a person can look at it, if asked for."""
    folder = os.environ.get("IAC_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_mlflow_shows_the_runs_side_by_side(page, session, server):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=session.tracking_uri)
    experiment = client.get_experiment_by_name("tiny")
    jobs = client.search_runs([experiment.experiment_id], "tags.`iac.kind` = 'job'")
    assert len(jobs) == 2
    page.goto(f"{server}/#/experiments/{experiment.experiment_id}/runs")
    page.get_by_text("sweep tiny").first.wait_for(timeout=60_000)
    assert "3 matching runs" in page.inner_text("body")
    screenshot(page, "mlflow_runs")
    runs = json.dumps([job.info.run_id for job in jobs]).replace(" ", "")
    page.goto(f'{server}/#/compare-runs?runs={runs}&experiments=["{experiment.experiment_id}"]')
    page.get_by_text("js_stability", exact=True).first.wait_for(timeout=60_000)
    page.get_by_text("Comparing 2 Runs from 1 Experiment").first.wait_for(timeout=60_000)
    page.get_by_text("Artifacts").first.wait_for(timeout=60_000)
    screenshot(page, "mlflow_compare")
    text = page.inner_text("body")
    numbers = [float(word) for word in re.findall(r"\b\d+\.\d+\b", text)]
    for job in jobs:
        assert job.info.run_name in text
        loss = job.data.metrics["search_architecture_loss"]  # shown with three decimals
        assert any(abs(number - loss) < 6e-4 for number in numbers)


def test_the_report_is_one_page_that_fits_a_phone(page, session):
    paths = report_sweep(session, None)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(paths.html.as_uri())
    assert asked == [paths.html.as_uri()]
    assert page.locator("table").first.is_visible()
    assert page.locator("figure svg").count() >= 4
    screenshot(page, "report")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "report_phone")
