"""What a member may be called."""

import pytest

from wgdisco.names import check_member_name, label_of


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
