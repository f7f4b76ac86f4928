"""What secrets are left in the memory of a process that had them (rule Z1): what docs/security.md says.

The other side of the handshake is this test, with randomness it gave the device, so that it knows every secret there
ever was: from a key schedule of its own, by the white paper. It looks for them in all memory the process may write to.
"""

import hashlib
import hmac
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import nacl.bindings
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgdisco.keys import PublicKey
from wgdisco.tunnel.cookie import CookieJar
from wgdisco.tunnel.messages import CONSTRUCTION, IDENTIFIER, TRANSPORT_HEADER, Initiation, Response


def clamped(data: bytes) -> bytes:
    return bytes([data[0] & 248, *data[1:31], data[31] & 127 | 64])


class Schedule:
    """Noise's symmetric state by the white paper (section 5.4), which notes every secret it has had."""

    def __init__(self, responder: bytes) -> None:
        self.chain_key = hash_of(CONSTRUCTION)
        self.hash = hash_of(hash_of(self.chain_key, IDENTIFIER), responder)
        self.secrets: dict[str, bytes] = {}

    def mix(self, token: str, data: bytes, count: int) -> bytes:
        """The last of `count` outputs; the first is the next chaining key."""
        extracted = hmac.new(self.chain_key, data, hashlib.blake2s).digest()
        outputs = [b""]
        for number in range(1, count + 1):
            outputs.append(hmac.new(extracted, outputs[-1] + bytes([number]), hashlib.blake2s).digest())
            self.secrets[f"{token}, output {number}"] = outputs[-1]
        self.secrets[f"{token}, extracted"] = extracted
        self.chain_key = outputs[1]
        return outputs[-1]

    def mix_hash(self, data: bytes) -> None:
        self.hash = hash_of(self.hash, data)

    def exchange(self, token: str, private: bytes, public: bytes, count: int) -> bytes:
        self.secrets[token] = nacl.bindings.crypto_scalarmult(private, public)
        return self.mix(token, self.secrets[token], count)

    def begin(self, ephemeral: bytes) -> None:
        self.mix("e", ephemeral, 1)
        self.mix_hash(ephemeral)
        self.secrets.clear()  # all of it is public so far

    def open(self, key: bytes, sealed: bytes) -> bytes:
        plain = ChaCha20Poly1305(key).decrypt(bytes(12), sealed, self.hash)
        self.mix_hash(sealed)
        return plain

    def seal(self, key: bytes, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, self.hash)
        self.mix_hash(sealed)
        return sealed

    def respond(self, ee_own: bytes, ee_other: bytes, se_own: bytes, se_other: bytes, e: bytes, psk: bytes) -> bytes:
        """From the response's ephemeral `e` to the end; what it seals."""
        self.mix("e of the response", e, 1)
        self.mix_hash(e)
        self.exchange("ee", ee_own, ee_other, 1)
        self.exchange("se", se_own, se_other, 1)
        key = self.mix("psk", psk, 3)
        self.mix_hash(self.secrets["psk, output 2"])
        nothing = self.seal(key, b"")
        self.mix("split", b"", 2)
        return nothing


def hash_of(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


@dataclass
class Held:
    """A process that has had a handshake, and what it knew."""

    process: subprocess.Popen
    handshake: dict[str, bytes]
    session: dict[str, bytes]
    configured: dict[str, bytes]

    def step(self, letter: bytes) -> bytes:
        return step(self.process, letter)

    def found(self, secrets: dict[str, bytes]) -> set[str]:
        """Which of them are somewhere in its memory."""
        found: set[str] = set()
        with open(f"/proc/{self.process.pid}/maps") as maps, open(f"/proc/{self.process.pid}/mem", "rb", 0) as memory:
            for line in maps:
                where, rights = line.split()[:2]
                if not rights.startswith("rw"):
                    continue
                start, end = (int(text, 16) for text in where.split("-"))
                memory.seek(start)
                data = memory.read(end - start)
                found |= {name for name, secret in secrets.items() if secret in data}
        return found


def step(process: subprocess.Popen, words: bytes) -> bytes:
    """Let the device do something; what it sends then."""
    process.stdin.write(words)
    return process.stdout.read(int.from_bytes(process.stdout.read(2), "big"))


@contextmanager
def held(role: str, seed: int = 1):
    """The process is through a handshake in that role, and data has gone both ways."""
    chance = random.Random(seed)
    private, psk, own, ephemeral = (chance.randbytes(32) for _ in range(4))
    stream = chance.randbytes(4096)
    reader, writer = os.pipe()
    os.write(writer, stream)
    os.close(writer)
    command = [sys.executable, "-m", "tests.tunnel.key_holder", str(reader)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=[reader]
    ) as process:
        os.close(reader)
        step(process, b"c" + private + public_of(own) + psk)
        play = initiated if role == "initiator" else responded
        schedule, its_ephemeral = play(process, own, public_of(private), psk, ephemeral)
        secrets = schedule.secrets
        keys = {"initiator's": secrets.pop("split, output 1"), "responder's": secrets.pop("split, output 2")}
        data = step(process, b"s")
        assert ChaCha20Poly1305(keys[f"{role}'s"]).decrypt(bytes(4) + data[8:16], data[16:], None), (
            "we know what it knew"
        )
        drawn = next(stream[at : at + 32] for at in range(4064) if public_of(stream[at : at + 32]) == its_ephemeral)
        secrets |= {"ephemeral": drawn, "ephemeral, clamped": clamped(drawn)}
        configured = {"private key": clamped(private), "preshared key": psk, "static-static": secrets.pop("ss")}
        yield Held(process, secrets, keys, configured)
        process.stdin.close()


def initiated(process, own: bytes, remote: bytes, psk: bytes, ephemeral: bytes):
    """The device initiates, we respond."""
    initiation = Initiation.parse(step(process, b"s")[:148])
    schedule = Schedule(public_of(own))
    schedule.begin(initiation.ephemeral)
    key = schedule.exchange("es", own, initiation.ephemeral, 2)
    assert schedule.open(key, initiation.static) == remote
    schedule.open(schedule.exchange("ss", own, remote, 2), initiation.timestamp)
    nothing = schedule.respond(ephemeral, initiation.ephemeral, ephemeral, remote, public_of(ephemeral), psk)
    response = Response(1, initiation.sender, public_of(ephemeral), nothing).pack()
    step(process, b"m\x5c" + CookieJar(PublicKey(remote)).add_macs(response, 0.0))
    return schedule, initiation.ephemeral


def responded(process, own: bytes, remote: bytes, psk: bytes, ephemeral: bytes):
    """We initiate, the device responds; a keepalive of ours lets it use the session."""
    schedule = Schedule(remote)
    schedule.begin(public_of(ephemeral))
    static = schedule.seal(schedule.exchange("es", ephemeral, remote, 2), public_of(own))
    stamp = schedule.seal(schedule.exchange("ss", own, remote, 2), b"\x40" + bytes(11))
    initiation = Initiation(1, public_of(ephemeral), static, stamp).pack()
    response = Response.parse(step(process, b"m\x94" + CookieJar(PublicKey(remote)).add_macs(initiation, 0.0)))
    schedule.respond(ephemeral, response.ephemeral, own, response.ephemeral, response.ephemeral, psk)
    key = schedule.secrets["split, output 1"]
    keepalive = ChaCha20Poly1305(key).encrypt(bytes(12), b"", None)
    step(process, b"m\x20" + TRANSPORT_HEADER.pack(4, response.sender, 0) + keepalive)
    return schedule, response.ephemeral


def public_of(private: bytes) -> bytes:
    return nacl.bindings.crypto_scalarmult_base(private)


ROLES = pytest.mark.parametrize("role", ["initiator", "responder"])


@pytest.mark.rule("Z1")
@ROLES
def test_what_led_to_a_session_is_gone_when_it_begins(role):
    for seed in range(3):
        with held(role, seed) as it:
            assert it.found(it.handshake) == set()
            assert it.found(it.session) == set(it.session), "these it has: the search does find"
            assert it.found(it.configured) == set(it.configured)


@pytest.mark.rule("Z1")
@ROLES
@pytest.mark.parametrize("end", [b"f", b"d", b"z", b"r"], ids=["suspended", "down", "zero-key timer", "peer removed"])
def test_a_sessions_keys_are_gone_when_it_ends(role, end):
    with held(role) as it:
        it.step(end)
        assert it.found(it.session | it.handshake) == set()


@pytest.mark.rule("Z1")
def test_of_a_peer_that_is_removed_nothing_derived_is_left():
    """What may remain is what docs/security.md says: keys that were configured."""
    with held("initiator") as it:
        it.step(b"r")
        assert it.found(it.configured) <= {"private key", "preshared key"}
