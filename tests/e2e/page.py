#!/usr/bin/env python3
"""The page of honed in a real browser (chromium by its WebDriver; standard library alone).

    page.py URL TOKEN JOB [--shots DIR]

JOB is a job that trains with a name that is markup. Ends with "page: passed", or says what
is wrong.
"""
import argparse
import base64
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

OPTIONS = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--window-size=1200,1000"]}


class Browser:
    def __init__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}/session"
        capabilities = {"alwaysMatch": {"goog:chromeOptions": OPTIONS,
                                        "goog:loggingPrefs": {"browser": "ALL"}}}
        for _ in range(200):
            try:
                self.base += "/" + self.ask("", {"capabilities": capabilities})["sessionId"]
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise SystemExit("the browser does not start")

    def ask(self, path, body=None, method=None):
        request = urllib.request.Request(self.base + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def run(self, script):
        return self.ask("/execute/sync", {"script": script, "args": []})

    def text(self):
        return self.run("return document.body.innerText")

    def await_(self, script, what, seconds=30):
        end = time.time() + seconds
        while not self.run("return " + script):
            if time.time() > end:
                raise SystemExit(f"{what}: not in {seconds} s; the page says:\n{self.text()}\n"
                                 f"{json.dumps(self.log(), indent=1)}")
            time.sleep(0.1)

    def log(self):
        return self.ask("/se/log", {"type": "browser"})

    def shot(self, folder, name):
        if folder:
            with open(os.path.join(folder, name), "wb") as f:
                f.write(base64.b64decode(self.ask("/screenshot")))

    def close(self):
        try:
            self.ask("", method="DELETE")
        finally:
            self.driver.kill()
            self.driver.wait()


def check(browser, o):
    login = """document.getElementById('token').value = %s;
               document.querySelector('#login button').click();"""
    browser.ask("/url", {"url": o.url})
    browser.await_("!document.getElementById('login').hidden", "the question for a token")
    browser.run(login % json.dumps("hone_wrong"))
    browser.await_("!document.getElementById('error').hidden", "a wrong token is refused")
    browser.shot(o.shots, "refused.png")
    browser.run(login % json.dumps(o.token))
    browser.await_("document.querySelectorAll('#jobs tr').length > 0", "the jobs")
    browser.shot(o.shots, "jobs.png")
    browser.run(f"location.hash = '#{o.job}'")
    browser.await_("document.querySelectorAll('#charts polyline').length > 1", "the curves")
    browser.await_("document.getElementById('log').textContent.includes('step')", "the log")
    browser.shot(o.shots, "job.png")
    before = browser.run("return document.getElementById('log').textContent.length")
    browser.await_(f"document.getElementById('log').textContent.length > {before}", "more log")
    browser.run("[...document.querySelectorAll('#actions button')]"
                ".find(b => b.textContent === 'pause').click()")
    browser.await_("document.querySelector('#title .state').textContent === 'paused'", "pause")
    browser.run("document.querySelector('#actions button').click()")
    browser.await_("['queued', 'running'].includes("
                   "document.querySelector('#title .state').textContent)", "resume")
    if browser.run("return window.injected || document.querySelector('main img') !== null"):
        raise SystemExit("the name of a job became markup")
    bad = [e["message"] for e in browser.log()
           if e["level"] == "SEVERE" and "401" not in e["message"]]
    if bad:
        raise SystemExit("the browser complains: " + "; ".join(bad))


def main():
    parser = argparse.ArgumentParser()
    for word in ("url", "token", "job"):
        parser.add_argument(word)
    parser.add_argument("--shots")
    browser = Browser()
    try:
        check(browser, parser.parse_args())
    finally:
        browser.close()
    print("page: passed")


if __name__ == "__main__":
    main()
