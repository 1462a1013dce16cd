"""The live page in a real browser, on daemons with simulated nodes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from bench.clusters import cluster
from ganeti_masterd.cli.demo import INSTANCES, _creation
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.browser import Browser, chromium
from tests.functional.waiting import job_is, jobs_end, until
from tests.rpc import pki

#: What would run if a text were taken as HTML.
HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'

#: A route to each view, as :func:`story` makes what is shown there.
ROUTES = ("", "jobs", "job/2", "nodes", "node/node1", "instances", "instance/web1.example.com")

#: Where pictures are kept, if at all.
PICTURES = os.environ.get("GANETI_MASTERD_PICTURES")


def free_port() -> int:
    """Returns a local port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def delay(seconds: float, **more: object) -> dict[str, Any]:
    """Returns an opcode that takes so long."""
    return {"OP_ID": "OP_TEST_DELAY", "duration": seconds, "on_nodes": [], **more}


def says(*messages: str, fail: Any = False) -> dict[str, Any]:
    """Returns an opcode that logs lines."""
    return {
        "OP_ID": "OP_TEST_DUMMY",
        "result": None,
        "messages": list(messages),
        "fail": fail,
        "submit_jobs": None,
    }


@pytest.fixture(scope="module")
def the_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(the_browser: Browser) -> Iterator[Browser]:
    """The browser as if new; after the test its console is empty, and it asked nobody else."""
    the_browser.size(1440, 1000)
    the_browser.prefer("light")
    yield the_browser
    assert the_browser.console(but="net::ERR") == []
    assert the_browser.outside() == []


@pytest.fixture
def site(
    make_daemon: Callable[..., DaemonProcess], browser: Browser
) -> Callable[..., tuple[DaemonProcess, str]]:
    """Starts a daemon and opens its page, which is live then."""

    def start(path: str = "", **settings: object) -> tuple[DaemonProcess, str]:
        port = free_port()
        daemon = make_daemon(f"--monitoring=tcp:{port}", **settings)
        daemon.start()
        base = f"http://127.0.0.1:{port}"
        browser.open(base, path)
        browser.shows("#connection", "Live")
        return daemon, base

    return start


Site = Callable[..., tuple[DaemonProcess, str]]


def test_a_job(site: Site, browser: Browser) -> None:
    """A job appears while it runs, with who sent it; its log grows in its own view; it ends."""
    daemon, _ = site()
    client = daemon.client()
    job = client.submit_job([says("first line"), delay(3), says("second line"), delay(600)])
    shown = browser.shows(".running", "first line")
    assert "TEST_DUMMY and 3 more" in shown
    assert "by " in shown
    browser.holds(
        "its age grows",
        "return parseInt(document.querySelector('.running .age').innerText)",
        lambda seconds: seconds >= 1,
    )
    browser.click(f".running a[href='#/job/{job}']")
    browser.shows(".log", "first line")
    browser.shows(".log", "second line")
    assert browser.text(".log").index("first line") < browser.text(".log").index("second line")
    browser.shows(".card.job", "3 of 4")
    client.cancel_job(job, True)
    browser.shows(".card.job .head", "error")
    client.archive_job(job)
    browser.open(browser.driver.current_url.partition("/#")[0], f"#/job/{job}")
    browser.shows("main", f"Job {job} isn")
    assert any("404" in line for line in browser.console())


def test_chains(site: Site, browser: Browser) -> None:
    """Who waits for whom is told by the names of jobs and nodes, never by uuids."""
    daemon, _ = site()
    client = daemon.client()
    held = delay(600, on_nodes=["node3"], on_master=False, no_locks=False)
    first = client.submit_job([held])
    job_is(client, first, "running")
    others = [client.submit_job([held]) for _ in range(2)]
    for each in others:
        job_is(client, each, "waiting")
    last = client.submit_job([{**delay(1), "depends": [[first, []]]}])
    shown = browser.shows(".waiting .chains", f"{others[0]} and {others[1]} wait for it")
    assert f"job {first} (TEST_DELAY(600.0)) holds node node3" in shown
    shown = browser.shows(".waiting .others", f"Job {last} waits for the end of job {first}")
    uuid = client.query_nodes(["node3"], ["uuid"])[0][0]
    assert uuid not in browser.text("body")
    browser.click(f".waiting a[href='#/job/{others[0]}']")
    browser.shows(".card.job .sentence", f"Job {others[0]} waits for node node3, which job {first}")
    client.cancel_job(first, True)
    browser.shows(".card.job .head", "running")


def test_failures(site: Site, browser: Browser) -> None:
    """What failed is first among what is wrong, and its error stands below it in a sentence."""
    daemon, _ = site()
    client = daemon.client()
    browser.shows(".wrong", "Nothing is wrong")
    failed = client.submit_job([says(fail="The disk is on fire")])
    browser.shows(".wrong", "1 job failed within the last hour")
    assert "The disk is on fire" in browser.shows(".failed", "TEST_DUMMY")
    client.set_drain_flag(True)
    browser.shows(".wrong", "The queue is drained")
    browser.click(".wrong a[href='#/jobs?error']")
    browser.shows(".jobs tbody", str(failed))
    client.set_drain_flag(False)


def test_certificates(site: Site, browser: Browser) -> None:
    """A certificate that expires soon, or has expired, is among what is wrong."""
    daemon, _ = site()
    path = Path(daemon.root, "var/lib/ganeti/spice.pem")
    browser.shows(".wrong", "Nothing is wrong")
    pki.identity("spice").write(str(path))
    browser.shows(".wrong", "The certificate spice expires in 2")
    pki.identity("spice", ends=pki.NOW).write(str(path))
    browser.shows(".wrong", "The certificate spice has expired")
    path.unlink()
    browser.shows(".wrong", "Nothing is wrong")


def test_killed_and_restarted(site: Site, browser: Browser) -> None:
    """The page says when the daemon is gone, and lives again by itself when it is back."""
    daemon, _ = site()
    client = daemon.client()
    job = client.submit_job([says("before the kill"), delay(600)])
    browser.shows(".running", "before the kill")
    browser.run("window.same = true")
    daemon.kill()
    browser.shows("#connection", "Not connected")
    daemon.start()
    browser.shows("#connection", "Live")
    browser.shows(".failed", str(job))
    after = daemon.client().submit_job([delay(600)])
    browser.shows(".running", str(after))
    assert browser.run("return window.same") is True, "it was loaded again"


def test_colours(site: Site, browser: Browser) -> None:
    """Light and dark follow the system, or what was chosen, which a reload doesn't forget."""

    def light() -> bool:
        found = browser.run("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, found[4:-1].split(","))) > 382

    _, base = site()
    assert light()
    browser.prefer("dark")
    assert not light()
    browser.click("#theme option[value=light]")
    assert light()
    browser.open(base)
    browser.shows("#connection", "Live")
    assert light()
    browser.prefer("light")
    browser.click("#theme option[value=dark]")
    assert not light()
    browser.click("#theme option[value=auto]")
    assert light()


def test_hostile_texts(site: Site, browser: Browser, folder: Path) -> None:
    """Names, log lines and errors that look like HTML are shown as they are, and do nothing."""
    root = folder / "node1"
    root.mkdir()
    cluster(3, 2)(root)
    config = root / "var/lib/ganeti/config.data"
    document = json.loads(config.read_bytes())
    instance = next(iter(document["instances"].values()))
    instance["os"] = HOSTILE
    instance["name"] = name = HOSTILE.replace(" ", "/")
    config.write_text(json.dumps(document), "utf-8")
    daemon, _ = site()
    client = daemon.client()
    job = client.submit_job([says(HOSTILE, fail=HOSTILE)])
    jobs_end(client)
    assert HOSTILE in browser.shows(".failed", "onerror")
    browser.shows(".instances tbody", name)
    browser.go(f"#/job/{job}")
    browser.shows(".log", HOSTILE)
    browser.shows(".card.job .error", HOSTILE)
    browser.go("#/instances")
    browser.shows(".instances tbody", name)
    browser.run("document.querySelector('.instances tbody th a[href*=\"%3C\"]').click()")
    browser.shows(".object h2", name)
    browser.shows(".object .facts", HOSTILE)
    browser.go("#/node/" + "%3Cscript%3Ewindow.hurt=1%3C%2Fscript%3E")
    browser.shows("main", "There is no node of that name")
    browser.go("#/job/%")
    browser.shows("main", "t in the queue")
    browser.go("#/toString/1")
    browser.shows("main", "What is wrong")
    assert browser.run("return window.hurt ?? null") is None
    assert browser.count("main img, main script, iframe") == 0


def test_ten_thousand_instances(
    make_daemon: Callable[..., DaemonProcess], site: Site, browser: Browser, folder: Path
) -> None:
    """500 nodes, 10,000 instances: few rows are in the page, and changes come alone."""
    root = folder / "node1"
    root.mkdir()
    cluster(500, 10000, alone=True)(root)
    daemon, _ = site("#/instances", nodes=500)
    browser.shows(".instances .count", "10,000")
    assert 10 < browser.count(".instances tbody tr") < 100
    assert browser.find("table.windowed").get_attribute("aria-rowcount") == "10001"
    browser.shows(".instances tbody", "instance1\t")
    browser.run("document.querySelector('.scroller').scrollTop = 1e9")
    browser.shows(".instances tbody", "instance10000")
    assert 10 < browser.count(".instances tbody tr") < 100
    at = browser.run(
        "return [...document.querySelectorAll('.instances tbody tr[aria-rowindex]')]"
        ".at(-1).getAttribute('aria-rowindex')"
    )
    assert at == "10001"
    frames = browser.driver.execute_async_script(
        "const done = arguments[0], box = document.querySelector('.scroller');"
        "let left = 60, blank = 0;"
        "const step = () => {"
        "  box.scrollTop = (box.scrollHeight * left) / 61;"
        "  requestAnimationFrame(() => {"
        "    const body = box.querySelector('tbody:nth-of-type(2)').getBoundingClientRect();"
        "    const seen = box.getBoundingClientRect();"
        "    if (body.top > seen.top + 40 || body.bottom < seen.bottom - 2) blank += 1;"
        "    left ? (left -= 1, step()) : done(blank);"
        "  });"
        "};"
        "step();"
    )
    assert frames == 0, f"{frames} frames of 60 showed a gap"
    browser.find("input[type=search]").send_keys("instance777")
    browser.shows(".instances .count", "11 of 10,000")
    browser.shows(".instances tbody", "instance7770")
    browser.go("#/nodes")
    browser.shows(".nodes .count", "500")
    assert 10 < browser.count(".nodes tbody tr") < 100
    browser.shows(".nodes .note", "Nodes asked")
    browser.go("#/node/node77")
    browser.shows(".instances-of .count", "20")
    asked = "performance.getEntriesByType('resource').filter(e => e.name.includes('/live/cluster'))"
    before = browser.run(f"return {asked}.length")
    daemon.client().submit_job(
        [{"OP_ID": "OP_TAGS_SET", "kind": "instance", "name": "instance77", "tags": ["seen"]}]
    )
    browser.holds("it asked twice more", f"return {asked}.length", lambda n: n >= before + 2)
    last = browser.run(f"return {asked}.at(-1).transferSize")
    first = browser.run(f"return {asked}[0].transferSize")
    assert first > 1_000_000
    assert last < 5_000, "all rows came again"


def test_what_is_selected_stays(site: Site, browser: Browser) -> None:
    """A selection of text and the focus outlive changes around and in the rows."""
    daemon, _ = site()
    client = daemon.client()
    job = client.submit_job([says("keep me selected"), delay(600)])
    browser.shows(".running", "keep me selected")
    browser.run(
        "getSelection().selectAllChildren(document.querySelector('.running .last'));"
        "document.querySelector('.running a').focus()"
    )
    others = [client.submit_job([delay(600)]) for _ in range(3)]
    browser.shows(".running", str(others[-1]))
    client.cancel_job(others[0], True)
    browser.hides(".running", f"\n{others[0]}\n")
    assert browser.run("return getSelection().toString()").strip() == "keep me selected"
    assert browser.run("return document.activeElement.getAttribute('href')") == f"#/job/{job}"


def test_keyboard(site: Site, browser: Browser) -> None:
    """All of it is reached by keys: skipping to the content, search, scrolling, links."""
    site("#/nodes")
    browser.shows(".nodes .count", "3")
    body = browser.find("body")
    body.send_keys("/")
    assert browser.run("return document.activeElement.type") == "search"
    browser.find("input[type=search]").send_keys("node2")
    browser.shows(".nodes .count", "1 of 3")
    browser.find("input[type=search]").send_keys(Keys.TAB)
    assert "scroller" in browser.run("return document.activeElement.className")
    browser.find(".scroller").send_keys(Keys.TAB, Keys.ENTER)
    if browser.run("return location.hash") == "#/nodes":
        browser.run("document.activeElement.click()")
    browser.shows(".object h2", "node2")
    assert browser.run("return document.activeElement.id") == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_access(site: Site, browser: Browser, scheme: str) -> None:
    """axe-core finds nothing, in every view, wide and narrow; nothing is wider than the window."""
    daemon, base = site()
    browser.prefer(scheme)
    story(daemon)
    browser.shows(".waiting", "wait")
    browser.shows(".failed", "Instance")
    browser.shows(".instances .states", "running")
    browser.shows(".nodes tbody", " % of ")
    if PICTURES:
        picture(browser, Path(PICTURES), scheme)
    looked = {"light": {1440: ROUTES, 320: ("",)}, "dark": {1440: ("", "job/2"), 320: ()}}[scheme]
    for width, height in ((1440, 1000), (720, 500), (320, 640)):  # the second is 200 % of the first
        browser.size(width, height)
        for route in ROUTES:
            browser.go(f"#/{route}")
            browser.holds("a view is drawn", "return document.querySelector('main h2')?.innerText")
            if route in looked.get(width, ()):
                assert browser.faults_of_access() == [], (route, width)
            wide = browser.run("return document.documentElement.scrollWidth")
            assert wide <= width, (route, width, wide)
    assert browser.count("main, nav[aria-label], header, footer") == 4
    assert browser.count("[aria-live]") == 1
    assert base in browser.driver.current_url


def story(daemon: DaemonProcess) -> None:
    """Has jobs run, wait and fail as on a working cluster."""
    client = daemon.client()
    client.submit_many_jobs([[_creation(*each)] for each in INSTANCES])
    client.submit_job([{"OP_ID": "OP_INSTANCE_STARTUP", "instance_name": "web9.example.com"}])
    jobs_end(client)
    job = client.submit_job([says("Copying disk 0", "Copying disk 1"), delay(600), delay(1)])
    held = delay(600, on_nodes=["node3"], on_master=False, no_locks=False)
    first = client.submit_job([held])
    job_is(client, first, "running")
    for _ in range(2):
        client.submit_job([held])
    client.submit_job([{**delay(1), "depends": [[first, []]]}])
    job_is(client, job, "running")


def picture(browser: Browser, folder: Path, scheme: str) -> None:
    """Keeps a picture of the overview."""
    folder.mkdir(parents=True, exist_ok=True)
    browser.size(1280, 1180)
    browser.click(".when option[value='2']")
    until("the page has settled", lambda: browser.text(".running"), lambda text: "Copying" in text)
    browser.run("document.activeElement.blur()")
    browser.picture(folder / f"live-{scheme}.png")
    browser.size(1440, 1000)
