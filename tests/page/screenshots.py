"""Pictures of the page for the documentation, into docs/page: `python -m tests.page.screenshots`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from tests.page.browser import browser
from wgdisco.lab.world import World

PICTURES = Path(__file__).parents[2] / "docs" / "page"
WIDE = {"width": 1500, "height": 740}
HIGH = {"width": 1500, "height": 680}
PHONE = {"width": 360, "height": 640}


def shoot(running, url, name, size, scheme, act=None):
    page = running.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page.goto(url)
    expect(page.locator("#link")).to_have_text("live")
    if act is not None:
        act(page)
    page.mouse.move(1, 1)
    page.screenshot(path=PICTURES / f"{name}.png")
    page.close()


def open_nas(page):
    page.get_by_role("button", name="nas", exact=True).first.click()


def main():
    PICTURES.mkdir(exist_ok=True)
    for members in ("3", "200"):
        with World(["looker"]) as world, tempfile.TemporaryDirectory() as directory:
            host = world.hosts["looker"]
            command = [sys.executable, "-m", "tests.page.shown_network", members]
            with host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                url = process.stdout.readline().strip()
                with browser(host, directory) as running:
                    size, act = (WIDE, open_nas) if members == "3" else (HIGH, None)
                    for scheme in ("light", "dark"):
                        shoot(running, url, f"{members}-{scheme}", size, scheme, act)
                    if members == "200":
                        shoot(running, f"{url}#mesh", "200-mesh", HIGH, "light")
                        shoot(running, url, "200-phone", PHONE, "dark")
                process.stdin.close()
                process.wait(10)


if __name__ == "__main__":
    main()
