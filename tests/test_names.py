"""What a member may be called."""

import pytest

from wgdisco.names import check_member_name, free_name, label_of


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("laptop", "laptop"),
        ("Laptop.example.com", "laptop"),
        ("DESKTOP_7 (Anna's)", "desktop-7-anna-s"),
        ("-x-", "x"),
        ("ünï", "n"),
        ("...", ""),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_a_host_name_becomes_a_label(host, label):
    assert label_of(host) == label
    if label:
        check_member_name(label)


@pytest.mark.parametrize(
    ("wanted", "taken", "free"),
    [
        ("web", [], "web"),
        ("web", ["web"], "web-2"),
        ("web", ["web", "web-2", "web-4"], "web-3"),
        ("web-2", ["web-2"], "web-2-2"),
        ("a" * 63, ["a" * 63], "a" * 61 + "-2"),
        ("a" * 60 + "-aa", ["a" * 60 + "-aa"], "a" * 60 + "-2"),
    ],
)
def test_a_name_that_is_taken_gets_a_number(wanted, taken, free):
    assert free_name(wanted, taken) == free
    check_member_name(free)
