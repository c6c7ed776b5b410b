"""The page: what it says, that foreign words stay words, and that a real browser fetches nothing for it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sample_campaign import broken_rollback, corrupt_records, feature_store_outage, make_campaign
from samples import Plan, campaign_of, write_trial

from monkeyproof.errors import UsageError
from monkeyproof.record.history import Kind
from monkeyproof.reports.charts.bins import limit_for
from monkeyproof.reports.formats import html
from monkeyproof.reports.model.report import build
from monkeyproof.types import Campaign

HOSTILE = (
    "<script>document.title='evil'</script><img src=http://evil.test/i.png onerror=alert(1)>"
    '" onload="alert(2)\' \x1b[31mred\x1b[0m\x00\x07\u202e </title></svg></style>'
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, str]:
    folder = tmp_path_factory.mktemp("page")
    campaign = make_campaign(folder, seeds=2)
    return campaign, html.render(build(campaign, folder))


def hostile_plan() -> Plan:
    plan = corrupt_records("elephant", 1)
    return replace(
        plan,
        experiment="corrupt-records",
        title=HOSTILE,
        reason=HOSTILE,
        healed_by=(HOSTILE,),
        escalations=(HOSTILE,),
        not_reverted=(HOSTILE,),
        faults=[replace(plan.faults[0], name=HOSTILE, subject=HOSTILE, evidence=HOSTILE)],
        steps=[(1.0, Kind.HEALER_DETECTED, HOSTILE, {"signal": HOSTILE, "summary": HOSTILE})],
        versions=((-10.0, HOSTILE.replace("\x00", "")),),
    )


def hostile_campaign(folder: Path) -> Campaign:
    campaign = campaign_of([write_trial(folder, hostile_plan(), 1, 0)])
    return replace(
        campaign,
        name=HOSTILE,
        target=HOSTILE,
        started_utc=HOSTILE,
        machine={HOSTILE: HOSTILE},
        versions={"a": HOSTILE},
    )


def test_page_content(page: tuple[Campaign, str]) -> None:
    campaign, text = page
    tags = Tags(text)
    timelines = [attrs for tag, attrs in tags.found if tag == "svg" and attrs.get("class") == "timeline"]
    assert len(timelines) == len(campaign.trials) == 20
    assert all(attrs.get("aria-label") for attrs in timelines)
    for expected in (
        "With elephant, right answers were back",
        "With no healer, right answers did not come back",
        "&gt; 15.0 s (censored)",
        "not reached",
        "could not tell",
        "How these numbers are made",
        "monkeyproof report DIR",
        "1.4 ms",
        "quarantine and restore",
        "148 of 1,480 records changed",
    ):
        assert expected in text, expected
    ids = [attrs["id"] for _, attrs in tags.found if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_every_link_leads_somewhere_on_the_page(page: tuple[Campaign, str]) -> None:
    tags = Tags(page[1])
    ids = {attrs["id"] for _, attrs in tags.found if "id" in attrs}
    links = [attrs.get("href") or "" for tag, attrs in tags.found if tag == "a"]
    assert len(links) == 20
    assert all(link.removeprefix("#") in ids for link in links)


def test_the_page_needs_no_network(page: tuple[Campaign, str]) -> None:
    _, text = page
    for _, attrs in Tags(text).found:
        assert not {"src", "srcset", "background", "poster"} & set(attrs)
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
        assert "style" not in attrs  # The policy would forbid it, silently.
    assert "@import" not in text
    assert "url(h" not in text


def test_sixty_long_trials_stay_under_two_megabytes(tmp_path: Path) -> None:
    """Every one bad to the end, which is what takes most room; the same history twenty times, to be quick."""
    plans = [corrupt_records("none", 1), broken_rollback("elephant", 4), feature_store_outage("none", 1)]
    trials = [write_trial(tmp_path, plan, 1, index) for index, plan in enumerate(plans)]
    text = html.render(build(campaign_of(trials * 20), tmp_path))
    assert text.count('class="timeline"') == 60
    assert len(text.encode()) < 2_000_000


@pytest.mark.parametrize(("trials_count", "limit"), [(0, 200), (1, 200), (28, 200), (60, 93), (10_000, 40)])
def test_more_trials_get_coarser_timelines(trials_count: int, limit: int) -> None:
    assert limit_for(trials_count) == limit


def test_foreign_words_stay_words(tmp_path: Path) -> None:
    text = html.render(build(hostile_campaign(tmp_path), tmp_path))
    tags = Tags(text)
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (1, 0, 1)
    assert not any(name.startswith("on") for _, attrs in tags.found for name in attrs)
    assert not set(text) & set("\x00\x07\x1b\u202e")
    assert "[31m" not in text
    assert "&lt;script&gt;" in text


def test_missing_history_leaves_the_rest(tmp_path: Path) -> None:
    campaign = campaign_of([write_trial(tmp_path, corrupt_records("elephant", seed), seed, 0) for seed in (1, 2)])
    shutil.rmtree(tmp_path / campaign.trials[0].folder)
    text = html.render(build(campaign, tmp_path))
    assert "No timeline:" in text
    assert text.count('class="timeline"') == 1


def test_a_campaign_without_trials_is_a_page(tmp_path: Path) -> None:
    assert "No trial was run." in html.render(build(campaign_of([]), tmp_path))


def test_campaign_with_a_broken_slo(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"slo\.objective"):
        build(replace(campaign_of([]), slo={"objective": 7}), tmp_path)


@contextmanager
def served(body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A page on a loopback port, that is also the browser's proxy: all that the browser asks for is seen."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.requestline)
            found = self.path.endswith("/report.html")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(body)

        def do_CONNECT(self) -> None:
            asked.append(self.requestline)
            self.send_error(502)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def dump(address: str, profile: Path) -> str:
    """The page's document after a real browser has loaded it and run its script."""
    assert CHROMIUM is not None
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync disable-quic"
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", *quiet.split()]
    found = subprocess.run(
        [
            CHROMIUM,
            *(f"--{flag}" for flag in flags),
            f"--user-data-dir={profile}",
            f"--proxy-server={address}",
            "--proxy-bypass-list=<-loopback>",  # Loopback too goes through the proxy, and is seen.
            "--dump-dom",
            f"http://{address}/report.html",
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return found.stdout.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_real_browser(tmp_path: Path) -> None:
    campaign = hostile_campaign(tmp_path)
    fine = [write_trial(tmp_path, corrupt_records(arm, 2), 2, 1) for arm in ("elephant", "none")]
    campaign = replace(campaign, trials=(*campaign.trials, *fine))
    with served(html.render(build(campaign, tmp_path)).encode()) as (address, asked):
        document = dump(address, tmp_path / "profile")
    tags = Tags(document)
    timelines = [attrs for tag, attrs in tags.found if tag == "svg" and attrs.get("class") == "timeline"]
    assert len(timelines) == 3
    # The page's own script ran, so its policy names the right digest: it shows the buttons that it serves.
    buttons = [attrs for tag, attrs in tags.found if tag == "button"]
    assert len(buttons) == 2
    assert not any("hidden" in attrs for attrs in buttons)
    assert "<title>evil</title>" not in document
    assert [line for line in asked if address in line] == [f"GET http://{address}/report.html HTTP/1.1"]
    assert not any("evil.test" in line for line in asked)
