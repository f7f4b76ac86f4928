"""Our reading of files beside that of the installed `wg`, line by line (rules F1 to F5)."""

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.tunnel import conf_corpus
from tests.tunnel.io.namespace import in_namespace
from tests.tunnel.reference import Meaning, Reference, meaning_of_conf
from wgdisco.errors import LocalError
from wgdisco.tunnel.conf import parse_conf
from wgdisco.tunnel.io.resolver import resolve_endpoints, service_port

KNOWN = "v1.0.20210914"


def _version() -> str | None:
    if shutil.which("wg") is None:
        return None
    return subprocess.run(["wg", "--version"], capture_output=True, text=True, check=False).stdout.split()[1]


pytestmark = [
    pytest.mark.rule("F1", "F2", "F3", "F4", "F5"),
    pytest.mark.skipif(_version() != KNOWN, reason=f"needs wg {KNOWN} (wireguard-tools), here is {_version()}"),
]


def ours(text: bytes) -> Meaning | None:
    """What we understand of a file; None when we refuse it."""
    try:
        conf = parse_conf(text.decode("utf-8", "surrogateescape"), "t.conf", service_port)
        return meaning_of_conf(resolve_endpoints(conf, "t.conf", 0))
    except LocalError:
        return None


@contextmanager
def reference():
    with tempfile.TemporaryDirectory(dir="/run") as directory, Reference(Path(directory)) as wg:
        yield wg


def _differences(wg: Reference, texts) -> list[str]:
    found = []
    for text in texts:
        theirs, printed = wg.read(text)
        if ours(text) != theirs:
            found.append(f"{text[:300]!r}: wg {theirs} {printed.strip()[:200]!r}, we {ours(text)}")
    return found


@in_namespace
def test_every_file_of_the_corpus_is_read_as_wg_reads_it():
    with reference() as wg:
        cases = conf_corpus.cases()
        differences = _differences(wg, cases)
    assert not differences, "\n".join(differences)
    taken = sum(ours(case) is not None for case in cases)
    assert min(taken, len(cases) - taken) > 200, "the corpus says nothing about one of the two"


@in_namespace
def test_the_differences_that_are_meant():
    with reference() as wg:
        for text in conf_corpus.MEANT:
            assert wg.read(text.encode())[0] is None, text
            assert ours(text.encode()) is not None, text


# Files nobody thought of

INTERFACE = [
    f"PrivateKey={conf_corpus.PRIVATE}",
    *("ListenPort=51820", "ListenPort=domain", "FwMark=0xca6c", "FwMark=off", "FwMark=4294967295"),
]
PEER = [
    *(f"PublicKey={key}" for key in (conf_corpus.PUBLIC_1, conf_corpus.PUBLIC_2)),
    *(f"PresharedKey={conf_corpus.PSK}", "PersistentKeepalive=25", f"[Peer]\nPublicKey={conf_corpus.PUBLIC_2}"),
    *("AllowedIPs=10.1.2.3/24, fd00::/64", "AllowedIPs=::ffff:10.0.0.1/128", "AllowedIPs=0.0.0.0/0"),
    *("Endpoint=192.0.2.1:51820", "Endpoint=[fe80::1%lo]:5", "Endpoint=a.example:domain", "Endpoint=0x7f.1:65535"),
]
TOKENS = [
    *"\n\r\t\v\f\0 #=:,[]/%+-.*0159afxAZ_",
    *(
        "[Peer]\n",
        "[Interface]\n",
        f"PublicKey={conf_corpus.PUBLIC_1}\n",
        "0x",
        "off",
        "::",
        "/0",
        "/32",
        "65536",
        "\u00e9",
        "domain",
    ),
]


@st.composite
def mutated_files(draw) -> bytes:
    """A file of good lines with a few characters put in, taken out or changed."""
    lines = ["[Interface]", *draw(st.lists(st.sampled_from(INTERFACE), max_size=2))]
    lines += ["[Peer]", f"PublicKey={conf_corpus.PUBLIC_1}", *draw(st.lists(st.sampled_from(PEER), max_size=4))]
    text = "\n".join(lines)
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, len(text)))
        width = draw(st.sampled_from([0, 0, 1, 1, 2, 10]))
        token = draw(st.sampled_from(TOKENS) | st.just("") | st.characters(codec="utf-8"))
        text = text[:where] + token + text[where + width :]
    data = text.encode()
    if draw(st.integers(0, 9)) == 0:
        where = draw(st.integers(0, len(data)))
        data = data[:where] + draw(st.binary(max_size=3)) + data[where:]
    return data


def _meant(text: bytes) -> bool:
    """Whether the file falls under a difference that is meant (`conf_corpus.MEANT`)."""
    squeezed = text.translate(None, b" \t\v\f\r").lower()
    lines = [line.partition(b"\0")[0].partition(b"#")[0] for line in squeezed.split(b"\n")]
    allowed = [line.partition(b"=")[2] for line in lines if line.startswith(b"allowedips=")]
    return any(not value or any(item[:1] in {b"+", b"-"} for item in value.split(b",")) for value in allowed)


def _mutate(wg: Reference, number: int, examples: int) -> None:
    taken = []

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated_files())
    def compare(text: bytes) -> None:
        if not _meant(text):
            theirs, printed = wg.read(text)
            assert ours(text) == theirs, printed
            taken.append(theirs is not None)

    compare()
    assert 0.1 < sum(taken) / len(taken) < 0.9


@in_namespace
def test_mutated_files_are_read_as_wg_reads_them():
    with reference() as wg:
        _mutate(wg, 1, 400)


@pytest.mark.soak
@in_namespace
def test_many_mutated_files_are_read_as_wg_reads_them():
    with reference() as wg:
        for number in range(2, 7):
            _mutate(wg, number, 1500)
