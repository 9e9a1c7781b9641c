"""A real Chromium for the tests: `chromium()` starts one, `serve(folder)` gives it something to look at."""
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

FLAGS = ("--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --disable-dev-shm-usage --hide-scrollbars --no-default-browser-check").split()


def found() -> tuple[str | None, str | None]:
    "The browser and its driver, where they are installed; of several browsers the one that the driver was made for."
    driver = shutil.which("chromedriver")
    browsers = [b for b in map(shutil.which, ("chromium", "google-chrome", "chrome")) if b]
    if driver and len(browsers) > 1:
        browsers.sort(key=lambda b: major(b) != major(driver))
    return (browsers or [None])[0], driver


def major(command: str) -> str:
    "The major version that a command says it has."
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20).stdout
    return (re.search(r"\b(\d+)\.\d+\.\d+", said) or [None, ""])[1]


def need_browser() -> tuple[str, str]:
    "The browser and its driver; skips the test where they are missing, or fails it where BEHAVIOUR_SIM_NEEDS_BROWSER says so."
    browser, driver = found()
    if not (browser and driver):
        reason = "Chromium or chromedriver is not installed (apt-get install chromium chromium-driver)"
        (pytest.fail if os.environ.get("BEHAVIOUR_SIM_NEEDS_BROWSER") == "1" else pytest.skip)(reason)
    return browser, driver


@contextlib.contextmanager
def chromium():
    "A headless Chromium with a profile of its own, which is removed afterwards."
    from selenium import webdriver
    browser, driver = need_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        page.set_page_load_timeout(30)
        try:
            yield page
        finally:
            page.quit()


@contextlib.contextmanager
def serve(folder: Path):
    "The address of a server of a folder, on a port of its own."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def complaints(page, home: str) -> list[str]:
    "What went wrong since the last call: console errors, failed requests, and every request that left the machine."
    wrong = [f"console: {e['message']}" for e in page.get_log("browser") if e["level"] in ("SEVERE", "ERROR")]
    urls = {}
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        what, at = message["method"], message["params"]
        if what == "Network.requestWillBeSent":
            url = urls[at["requestId"]] = at["request"]["url"]
            if not url.startswith((home, "data:", "blob:", "about:", "chrome")):
                wrong.append(f"left the machine: {url[:120]}")
        elif what == "Network.responseReceived" and at["response"]["status"] >= 400:
            wrong.append(f"{at['response']['status']}: {at['response']['url'][:120]}")
        elif what == "Network.loadingFailed" and not at.get("canceled"):
            wrong.append(f"failed: {urls.get(at['requestId'], '?')[:120]} {at.get('errorText', '')}")
    return wrong


@contextlib.contextmanager
def running(*args, **env):
    "The address of `behaviour-sim app`, started as a person starts it; afterwards it is stopped as with Ctrl-C and has to end in peace."
    code = 'from behaviour_sim.apps.cli import main; main()'
    p = subprocess.Popen([sys.executable, '-c', code, 'app', '--port', '0', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    try:
        said = p.stdout.readline()
        assert (m := re.match(r'http://127\.0\.0\.1:(\d+)/ ', said)), said + p.stderr.read()
        yield int(m[1])
        p.send_signal(signal.SIGINT)
        assert p.wait(20) == 0 and 'Traceback' not in (err := p.stderr.read()), err
    finally:
        p.kill(); p.wait(); p.stdout.close(); p.stderr.close()


def wait(page, what, seconds=60):
    "Until a script gives something true."
    end = time.monotonic() + seconds
    while not (x := page.execute_script('return ' + what)):
        assert time.monotonic() < end, f'{what} never came; the page says {page.execute_script("return document.body.innerText")[:600]}'
        time.sleep(.1)
    return x


def settled(page):
    "Until what is expected belongs to what is typed."
    time.sleep(.4) # the pause that the page waits for
    wait(page, "['expected', 'hours'].every(id => document.getElementById(id).getAttribute('aria-busy') === 'false')")
    return page.find_element('id', 'likes').text


def type_in(page, name, text):
    e = page.find_element('id', name); e.clear(); e.send_keys(text)
