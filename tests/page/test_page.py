"""The page in a real browser: what it shows, how it follows, and what an admin does with it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.browser import browser
from wgdisco.api import PathWord
from wgdisco.lab.world import World
from wgdisco.status import REMEDIES

pytestmark = pytest.mark.usefixtures("needs_lab", "needs_browser")

PHONE = {"width": 360, "height": 740}
WIDE = {"width": 1500, "height": 860}


class Shown:
    """A registry with members to look at, and pages on it that may not complain."""

    def __init__(self, host, running, *words):
        self._host = host
        self._browser = running
        self._command = [sys.executable, "-m", "tests.page.shown_network", *words]
        self.start()

    def start(self):
        self.process = self._host.popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.url = self.process.stdout.readline().strip()

    def stop(self):
        self.go_on()
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def go_on(self):
        """After SIGSTOP: the nsenter around it has stopped with it."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.send_signal(signal.SIGCONT)

    def tell(self, **words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    @contextmanager
    def page(self, **options):
        """One that is loaded. A request to others than the registry is a complaint, and so is an error of a script."""
        context = self._browser.new_context(**{"viewport": WIDE, **options})
        page = context.new_page()
        page.set_default_timeout(10_000)
        complaints = []
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if self._is_strange(request.url) else None)
        page.goto(self.url)
        expect(page.locator("#link")).to_have_text("live")
        try:
            yield page
        finally:
            context.close()
        assert complaints == []

    def _is_strange(self, url):
        return not url.startswith((self.url, "data:image/svg+xml,"))


def is_complaint(message):
    """Not what the registry refuses, or the browser about a registry that is gone: the page tells that itself."""
    return message.type in ("error", "warning") and not message.text.startswith("Failed to load resource")


@pytest.fixture(scope="module")
def stand(tmp_path_factory, needs_lab, needs_browser):
    """A host, and a browser in it."""
    with World(["looker"]) as world, browser(world.hosts["looker"], tmp_path_factory.mktemp("browser")) as running:
        yield world.hosts["looker"], running


@contextmanager
def shown(stand, *words):
    found = Shown(*stand, *words)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def few(stand):
    with shown(stand, "3") as found:
        yield found


def row(page, name):
    return page.locator("#table > tbody").filter(has=page.get_by_role("button", name=name, exact=True)).first


def names(page):
    return page.locator("#table button.open").all_inner_texts()


def check(page):
    """No violation of WCAG 2.2 AA, or of what axe calls best practice."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def fits(page):
    """Nothing stands out of its frame."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "document.querySelector('#table').offsetWidth <= document.querySelector('#members-view').offsetWidth"
    )


def test_words_and_remedies_are_those_of_the_command_line(few):
    with few.page() as page:
        words = page.evaluate("import('/page/words.js').then(({ WORDS, REMEDIES }) => ({ WORDS, REMEDIES }))")
        assert set(words["WORDS"]) == {word.value for word in PathWord}
        assert words["REMEDIES"] == REMEDIES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(few, scheme):
    with few.page(color_scheme=scheme) as page:
        row(page, "nas").get_by_role("button", name="nas").click()
        expect(row(page, "nas").locator(".remedies")).to_contain_text("both NATs port-dependent")
        check(page)
        page.get_by_role("link", name="Mesh").click()
        check(page)
        page.get_by_role("button", name="Invite…").click()
        check(page)
        page.get_by_role("button", name="Make a link").click()
        expect(page.get_by_role("textbox", name="Link")).to_be_focused()
        check(page)
        page.get_by_role("button", name="Done").click()
        page.get_by_role("link", name="Invitations").click()
        expect(page.locator("#invitations tbody tr")).to_have_count(1)
        check(page)
    with few.page(color_scheme=scheme, viewport=PHONE) as page:
        row(page, "nas").get_by_role("button", name="nas").click()
        check(page)
        fits(page)


def test_a_change_is_seen_within_a_second_or_two(few):
    with few.page() as page:
        expect(row(page, "phone").locator("td.reach")).to_contain_text("1 relay")
        expect(page.locator('.edge[data-word="relay"][data-ends]')).to_have_count(1)
        few.tell(paths="phone", word="lan", reason=None)
        few.tell(paths="nas", word="direct", reason=None)
        expect(row(page, "phone").locator("td.reach")).to_contain_text("2 direct", timeout=3000)
        expect(page.locator('.edge[data-word="relay"][data-ends]')).to_have_count(0)
        expect(page.locator("#summary")).not_to_contain_text("relay")


def test_what_is_typed_and_focused_stays_while_the_network_changes(few):
    with few.page() as page:
        row(page, "nas").get_by_role("button", name="nas").click()
        page.get_by_role("button", name="Rename…").focus()
        before = row(page, "nas").locator("td.transfer span").inner_text()
        few.tell(traffic=1 << 24)
        expect(row(page, "nas").locator("td.transfer span")).not_to_have_text(before)
        expect(page.get_by_role("button", name="Rename…")).to_be_focused()


def test_an_admin_invites_and_takes_it_back(few):
    with few.page() as page:
        page.get_by_role("button", name="Invite…").click()
        page.get_by_label("Name").fill("No Such Name")
        page.get_by_role("button", name="Make a link").click()
        expect(page.get_by_role("alert").last).to_contain_text("cannot be a name")
        page.get_by_label("Name").fill("laptop")
        page.get_by_label("Ephemeral").check()
        page.get_by_role("button", name="Make a link").click()
        link = page.get_by_role("textbox", name="Link")
        expect(link).to_have_value(re.compile(r"^wgdisco://198\.51\.100\.10:51820/1/"))
        assert page.get_by_alt_text("QR code").evaluate("image => image.decode().then(() => image.naturalWidth)") > 50
        page.get_by_role("button", name="Done").click()
        expect(page.get_by_role("button", name="Invite…")).to_be_focused()
        expect(page.locator("#pending")).to_have_text("1")
        page.get_by_role("link", name="Invitations").click()
        invited = page.locator("#invitations tbody tr")
        expect(invited).to_contain_text("laptop")
        expect(invited).to_contain_text("pending")
        page.get_by_role("button", name="Cancel the invitation for laptop").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the invitation").click()
        expect(page.locator("#toast")).to_contain_text("cancelled")
        expect(page.locator("#pending")).to_be_hidden()


def test_an_admin_renames_and_revokes(few):
    with few.page() as page:
        row(page, "phone").get_by_role("button", name="phone").click()
        page.get_by_role("button", name="Rename…").click()
        page.get_by_label("New name").fill("nas")
        page.get_by_role("button", name="Rename", exact=True).click()
        expect(page.get_by_role("alert").last).to_contain_text("nas")
        page.get_by_label("New name").fill("pocket")
        page.keyboard.press("Enter")
        expect(row(page, "pocket")).to_be_visible()
        page.get_by_role("button", name="Revoke…").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert names(page) == ["desk", "nas", "pocket"]
        page.get_by_role("button", name="Revoke…").click()
        page.get_by_role("button", name="Revoke pocket").click()
        expect(page.locator("#table > tbody")).to_have_count(2)
        expect(page.locator("#toast")).to_contain_text("pocket is revoked")
        page.get_by_role("button", name="Invite…").click()
        page.get_by_label("Name").fill("pocket")
        page.get_by_role("button", name="Make a link").click()
        expect(page.get_by_role("dialog")).to_contain_text("wgdisco accept pocket")
        page.get_by_role("button", name="Done").click()
        row(page, "desk").get_by_role("button", name="desk").click()
        expect(page.get_by_role("button", name="Rename…")).to_be_visible()
        expect(page.get_by_role("button", name="Revoke…")).to_have_count(0)  # nobody revokes itself


def test_all_by_keyboard(few):
    with few.page() as page:
        page.keyboard.press("/")
        expect(page.get_by_label("Filter members")).to_be_focused()
        page.keyboard.type("port-dependent")
        assert names(page) == ["nas", "phone"]
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        expect(page.get_by_role("button", name="phone", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="phone", exact=True).first).to_have_attribute("aria-expanded", "true")
        page.get_by_role("button", name="Name", exact=True).focus()
        page.keyboard.press("Enter")
        assert names(page) == ["phone", "nas", "desk"]
        page.get_by_role("link", name="Mesh").focus()
        page.keyboard.press("Enter")
        page.locator(".node").last.focus()
        expect(page.locator("#readout")).to_contain_text("phone, online: 1 direct, 1 relay")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="phone", exact=True).first).to_be_focused()


def test_a_name_is_text_whatever_is_in_it(few):
    trap = "<img src=x onerror=document.title=1>"
    with few.page() as page:
        view = page.evaluate("fetch('/v1/view').then(answer => answer.json())")
        for one in view["members"]:
            one.update(name=trap, endpoint=trap, groups=[trap], subnets=[trap], nat=trap, offers=[trap])
            one["paths"] = [{**told, "endpoint": trap, "reason": trap} for told in one["paths"]]
        view["network"]["name"] = trap
        view["invitations"] = [
            {"id": "1", "name": trap, "groups": [trap], "role": "member", "uses_left": 1, "expires_at": view["time"],
             "state": "pending", "used_by": [trap], "ephemeral": False}
        ]  # fmt: skip
        body = f"event: view\ndata: {json.dumps(view)}\n\n"
        page.route("**/v1/view/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
        page.reload()
        expect(page.locator("h1")).to_have_text(trap)
        page.locator("button.open").first.click()
        page.get_by_role("link", name="Invitations").click()
        expect(page.locator("#invitations tbody th")).to_have_text(trap)
        assert page.locator("img").count() == 0
        assert page.title().startswith(trap)


def test_a_registry_that_is_gone_is_told_of_and_come_back_to(few):
    with few.page() as page:
        few.stop()
        expect(page.locator("#lost")).to_contain_text("No news from the registry")
        assert names(page) == ["desk", "nas", "phone"]
        check(page)
        few.start()
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#lost")).to_be_hidden()


def test_a_registry_that_is_silent_is_not_waited_for(few):
    with few.page() as page:
        page.clock.install()
        page.reload()
        expect(page.locator("#link")).to_have_text("live")
        few.process.send_signal(signal.SIGSTOP)
        page.clock.fast_forward(41_000)
        expect(page.locator("#link")).to_have_text("lost")
        page.clock.fast_forward(3_000)
        expect(page.locator("#lost")).to_contain_text("the registry is silent")
        few.go_on()
        expect(page.locator("#link")).to_have_text("live")


def test_an_admin_no_longer_sees_a_members_page_at_once(few):
    with few.page() as page:
        page.get_by_role("link", name="Invitations").click()
        few.tell(role="member")
        expect(page.locator("#about")).not_to_contain_text("admin", timeout=8000)
        expect(page.get_by_role("button", name="Invite…")).to_be_hidden()
        expect(page.get_by_role("link", name="Members")).to_have_attribute("aria-current", "page")


def test_a_member_sees_its_own_paths_and_no_more(stand):
    with shown(stand, "3", "--as", "phone") as found, found.page() as page:
        assert names(page) == ["desk", "nas", "phone"]
        expect(row(page, "nas").locator("td.reach")).to_contain_text("relay")
        expect(page.get_by_role("button", name="Invite…")).to_be_hidden()
        expect(page.get_by_role("link", name="Invitations")).to_be_hidden()
        row(page, "desk").get_by_role("button", name="desk").click()
        expect(page.get_by_text("How you reach desk")).to_be_visible()
        expect(page.get_by_role("button", name="Rename…")).to_have_count(0)
        check(page)


def test_two_hundred_members_stay_readable_and_quick(stand):
    with shown(stand, "200", "--live") as many, many.page() as page:
        started = time.monotonic()
        expect(page.locator("#table > tbody")).to_have_count(200)
        assert time.monotonic() - started < 10
        for width in (360, 500, 768, 1024, 1280, 1480, 1720):
            page.set_viewport_size({"width": width, "height": 800})
            fits(page)
        page.get_by_label("Filter members").fill("porto relay")
        expect(page.locator("#found")).to_contain_text("of 200")
        shown_names = names(page)
        assert shown_names
        assert all(name.startswith("porto") for name in shown_names)
        check(page)
        page.keyboard.press("Escape")
        # rows are changed where they are: the same elements, and no long task, while all of them have traffic
        one = page.locator("#table > tbody").nth(20)
        figures = one.locator("td.transfer span").inner_text()
        one.evaluate("node => { window.kept = node }")
        page.evaluate(
            "new PerformanceObserver(list => (window.long ??= []).push(...list.getEntries().map(one => one.duration)))"
            ".observe({ entryTypes: ['longtask'] })"
        )
        expect(one.locator("td.transfer span")).not_to_have_text(figures)
        page.wait_for_timeout(3000)
        assert page.evaluate("window.kept.isConnected")
        assert max(page.evaluate("window.long ?? []"), default=0) < 1000
        page.locator(".frame").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#readout")).to_contain_text("→")
