"""Debian's Chromium, in a lab's host, driven by Playwright."""

import os
import stat
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

from wgdisco.lab.world import enter_command

# In a lab's host everybody is root
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"]


@contextmanager
def browser(host, directory):
    """A browser that stands in the host."""
    program = Path(directory) / "chromium-there"
    words = " ".join(enter_command(host.pid))
    program.write_text(f'#!/bin/sh\nexec {words} -- chromium "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=str(program), args=ARGUMENTS, env={**os.environ, "HOME": str(directory)}
        )
        try:
            yield running
        finally:
            running.close()
