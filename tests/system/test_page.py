"""The page of a real registry, in a browser on a member's host: members join, are renamed and revoked as it watches."""

import pytest
from playwright.sync_api import expect

from tests.page.browser import browser
from tests.system.members import Mesh, read_lab
from tests.system.network import await_

pytestmark = pytest.mark.usefixtures("needs_lab", "needs_browser")


def row(page, name):
    return page.locator("#table > tbody").filter(has=page.get_by_role("button", name=name, exact=True)).first


def test_an_admin_invites_watches_renames_and_revokes(tmp_path):
    with read_lab("port-restricted", "port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice", link=mesh.registry("invite", "alice", "--admin"))
        url = f"http://{mesh.address('alice').rpartition('.')[0]}.1/"
        with browser(lab.hosts["alice"], tmp_path) as running:
            page = running.new_page()
            page.set_default_timeout(10_000)
            complaints = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            expect(row(page, "alice")).to_contain_text("online")

            page.get_by_role("button", name="Invite…").click()
            page.get_by_label("Name").fill("bob")
            page.get_by_role("button", name="Make a link").click()
            link = page.get_by_role("textbox", name="Link").input_value()
            page.get_by_role("button", name="Copy").click()  # without navigator.clipboard: this is plain HTTP
            expect(page.get_by_role("button", name="Copied")).to_be_focused()
            page.get_by_role("button", name="Done").click()

            mesh.join("bob", link=link)
            bob = row(page, "bob")
            expect(bob).to_contain_text(str(lab.outside("bob")))
            expect(bob.locator("td.reach")).to_contain_text("1 direct", timeout=20_000)
            bob.get_by_role("button", name="bob").click()
            expect(bob.locator(".paths tbody tr")).to_contain_text("ms")
            page.get_by_role("link", name="Invitations").click()
            expect(page.locator("#invitations tbody tr").filter(has_text="bob").filter(has_text="used")).to_have_count(
                1
            )
            page.get_by_role("link", name="Members").click()

            page.get_by_role("button", name="Rename…").click()
            page.get_by_label("New name").fill("robert")
            page.get_by_role("button", name="Rename", exact=True).click()
            expect(row(page, "robert")).to_be_visible()
            page.get_by_role("button", name="Revoke…").click()
            page.get_by_role("button", name="Revoke robert").click()
            expect(page.locator("#table > tbody")).to_have_count(1)
            assert "robert" not in mesh.registry("list")
            await_(
                lambda: "no longer a member" in str(mesh.status("bob")["notes"]), "bob to hear that it is revoked", 20
            )
            assert complaints == []


def test_who_is_no_member_gets_no_page_and_a_readable_line(tmp_path):
    with read_lab("port-restricted") as lab:
        mesh = Mesh(lab)
        mesh.join("alice")
        prefix = mesh.address("alice").rpartition(".")[0]
        with browser(lab.hosts["registry"], tmp_path) as running:
            page = running.new_page()
            answer = page.goto(f"http://{prefix}.1/")
            assert answer.status == 403
            expect(page.locator("body")).to_contain_text("only members")
