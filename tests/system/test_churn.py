"""A registry and its members while everything changes: nobody is left unreached, nothing grows, nothing is lost for no
reason."""

import statistics

import pytest

from tests.system.churn import Churn

pytestmark = pytest.mark.usefixtures("needs_lab")

# Why anything may be dropped in such a network
EXPLAINED = {
    "no peer for destination": "the kernel's own multicast, and what goes to somebody who has just left",
    "unknown receiver index": "data in a session that its receiver had before it began anew",
    "no private key": "what comes to a daemon that has its port, and not yet its key",
    "unknown peer": "initiations of who is revoked, or of who is a member since a moment ago",
    "initiations too close": "who punches says the same initiation several times, by several ways",
    "replayed initiation": "the same",
    "session expired": "data that waited for somebody who slept",
    "staged packet given up": "for a peer that was not reached in time: it slept, or has left",
    "relay: no order": "orders end with the registry, and when a minute has passed without a packet",
    "relay: unknown receiver index": "the same: the index was learnt under that order",
    "relay: unknown source": "the same, or the router has another address now",
    "relay: handshakes cross": "both sides began at once: one of the two is enough",
}


def growth(samples):
    """MiB that came from the second quarter of a daemon's life to its last; None where it was not seen in both."""
    ages = [age for age, _ in samples]
    life = max(ages)
    early = [rss for age, rss in samples if 0.25 * life <= age <= 0.5 * life]
    late = [rss for age, rss in samples if age >= 0.75 * life]
    return statistics.median(late) - statistics.median(early) if early and late else None


def churn(seconds, seed):
    with Churn(seed) as network:
        network.run(seconds)
        grown = {
            host: (growth(samples), samples[-1][1])
            for host, samples in network.memory.items()
            if host in ("registry", "m1", "m2") and len(samples) >= 6 and growth(samples) is not None
        }
        print(f"\nhappened: {dict(network.happened)}")
        print(f"a pair was silent for {network.longest:.1f} s at most; stuck: {network.stuck}")
        print("memory: " + ", ".join(f"{host} {rss:.0f} MiB, grown by {mib:.1f}" for host, (mib, rss) in grown.items()))
        for reason, who in sorted(network.drops.items()):
            print(f"dropped: {reason}: {dict(who)}")
        assert not network.stuck
        assert {host: mib for host, (mib, _) in grown.items() if mib > 4} == {}
        assert set(network.drops) - set(EXPLAINED) == set()
        assert network.happened["registry killed"] + network.happened["registry restarted"] == 2


def test_a_minute_of_churn():
    churn(60, seed=1)


@pytest.mark.soak
def test_half_an_hour_of_churn():
    churn(1800, seed=2)
