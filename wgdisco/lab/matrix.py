"""`wgdisco lab matrix`: every pair of NAT types, as often as asked, with the real daemons; against what theory says."""

import random
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from wgdisco.errors import LocalError
from wgdisco.lab.internet import Internet
from wgdisco.lab.mesh import Registry
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.topologies import PROBE, REGISTRY, TOPOLOGIES, Event, Pair, Topology
from wgdisco.lab.trial import PATIENCE, POLLED_PATIENCE, Members, Trial
from wgdisco.lab.wire import Conditions
from wgdisco.nat import MappingBehavior
from wgdisco.tunnel.engines import EngineKind

_RTT = re.compile(r"time=([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run. `rtt` is the nominal round trip of registry and peers alike, seconds; `loss` a fraction.

    `engines` are those of the two sides.
    """

    types: tuple[str, ...]
    topologies: tuple[str, ...]
    seeds: int
    rtt: float
    loss: float
    engines: tuple[EngineKind, EngineKind] = (EngineKind.USERSPACE, EngineKind.USERSPACE)

    @property
    def patience(self) -> float:
        """How long a pair may take, in seconds."""
        is_ours = all(engine is EngineKind.USERSPACE for engine in self.engines)
        return (PATIENCE if is_ours else POLLED_PATIENCE) * (1 + 5 * self.loss)


@dataclass(frozen=True, slots=True)
class Measured:
    """Round trips outside the tunnel in one topology, milliseconds: to the registry, and to a host elsewhere."""

    registry_ms: float
    peer_ms: float


@dataclass(slots=True)
class Cell:
    """One pair in one topology, and its trials in the order of the seeds."""

    topology: str
    pair: Pair
    trials: list[Trial] = field(default_factory=list)

    @property
    def passed(self) -> int:
        """How many trials were as expected."""
        return sum(not trial.verdict.faults for trial in self.trials)

    @property
    def is_eim(self) -> bool:
        """Whether both sides map independently of the destination, with nothing but the Internet between them."""
        types = [NAT_TYPES.get(name) for name in (self.pair.type_a, self.pair.type_b)]
        return self.topology == "T1" and all(
            it is not None and it.profile.mapping is MappingBehavior.ENDPOINT_INDEPENDENT for it in types
        )

    def times(self) -> list[float]:
        """Times to direct, milliseconds, of those that got there."""
        return [trial.verdict.time_to_direct_ms for trial in self.trials if trial.verdict.time_to_direct_ms is not None]

    def times_to_relay(self) -> list[float]:
        """Times to the relay, milliseconds, of those that used it, for a while or for good."""
        return [trial.verdict.time_to_relay_ms for trial in self.trials if trial.verdict.time_to_relay_ms is not None]

    def first_replies(self) -> list[float]:
        """When the first ping was answered, milliseconds from when a path was asked for."""
        return [trial.verdict.first_reply_ms for trial in self.trials if trial.verdict.first_reply_ms is not None]

    def packets(self) -> list[int]:
        """What the busier side sent to punch."""
        return [max(trial.verdict.packets) for trial in self.trials if trial.verdict.packets is not None]

    def gaps(self) -> list[float]:
        """How long the pair was silent after something happened to it, milliseconds."""
        return [trial.verdict.gap_ms for trial in self.trials if trial.verdict.gap_ms is not None]

    def to_json(self) -> dict[str, Any]:
        """As part of schema 1."""
        return {
            "topology": self.topology,
            "a": self.pair.type_a,
            "b": self.pair.type_b,
            "expected": self.pair.expected.value,
            "passed": self.passed,
            "time_to_direct_ms": percentiles(self.times()),
            "time_to_relay_ms": percentiles(self.times_to_relay()),
            "first_reply_ms": percentiles(self.first_replies()),
            "gap_ms": percentiles(self.gaps()),
            "trials": [trial.verdict.to_json() for trial in self.trials],
        }


@dataclass(slots=True)
class Report:
    """All cells, and how far things were apart."""

    settings: Settings
    cells: list[Cell] = field(default_factory=list)
    measured: dict[str, Measured] = field(default_factory=dict)

    @property
    def failed(self) -> list[Cell]:
        """Cells with a trial that was not as expected."""
        return [cell for cell in self.cells if cell.passed < len(cell.trials)]

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        settings = self.settings
        trials = [trial for cell in self.cells for trial in cell.trials]
        outcomes = [trial.verdict.outcome for trial in trials]
        measured = {name: {"registry_ms": it.registry_ms, "peer_ms": it.peer_ms} for name, it in self.measured.items()}
        return {
            "schema": 1,
            "seeds": settings.seeds,
            "engines": [engine.value for engine in settings.engines],
            "rtt_ms": 1000 * settings.rtt,
            "loss": settings.loss,
            "measured": measured,
            "trials": len(trials),
            "passed": sum(cell.passed for cell in self.cells),
            "outcomes": {outcome.value: outcomes.count(outcome) for outcome in Outcome},
            **self._figures(),
            "lost_pings": sum(trial.verdict.lost_pings for trial in trials),
            "cells": [cell.to_json() for cell in self.cells],
        }

    def _figures(self) -> dict[str, Any]:
        """Percentiles over all cells they concern."""

        def over(values: Callable[[Cell], Sequence[float]], counts: Callable[[Cell], bool] = lambda _cell: True) -> Any:
            return percentiles([value for cell in self.cells if counts(cell) for value in values(cell)])

        return {
            "time_to_direct_ms": over(Cell.times),
            "time_to_direct_eim_ms": over(Cell.times, lambda cell: cell.is_eim),
            "time_to_relay_ms": over(Cell.times_to_relay, lambda cell: cell.pair.expected is Outcome.RELAY),
            "first_reply_ms": over(Cell.first_replies),
            "first_relayed_reply_ms": over(Cell.first_replies, lambda cell: cell.pair.expected is Outcome.RELAY),
            "packets_a_side": over(Cell.packets),
            "gap_ms": {
                event.name.lower(): percentiles(
                    [gap for cell in self.cells if cell.pair.event is event for gap in cell.gaps()]
                )
                for event in Event
            },
        }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The nearest-rank p50, p90 and p99, the least and the most; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    named = {f"p{rank}": ranked[max(0, -(-len(ranked) * rank // 100) - 1)] for rank in (50, 90, 99)}
    return {"min": ranked[0], **named, "max": ranked[-1]}


def run(settings: Settings, progress: Callable[[Cell], None]) -> Report:
    """Run it all; `progress` hears of each trial. LocalError when the lab cannot be made, or a daemon ends."""
    report = Report(settings)
    for name in settings.topologies:
        topology = TOPOLOGIES[name](settings.types)
        seeds = range(settings.seeds)
        # what happens to a pair stays so: each seed then has a lab of its own
        is_changed = any(pair.event is not None for pair in topology.pairs)
        for some in ([range(seed, seed + 1) for seed in seeds] if is_changed else [seeds]) if topology.pairs else []:
            with Internet(topology.plan, Conditions((), delay=settings.rtt / 2)) as net:
                run_topology(net, topology, report, progress, some)
    return report


def run_topology(
    net: Internet, topology: Topology, report: Report, progress: Callable[[Cell], None], seeds: range | None = None
) -> None:
    """Run it in a lab that stands, which is as `topology` has it from now on; `seeds` are all, unless it is told."""
    net.set_names(topology.names)
    if topology.ports is not None:
        net.set_ports(topology.ports)
    settings = report.settings
    cells = [cell for cell in report.cells if cell.topology == topology.name]
    if not cells:
        cells = [Cell(topology.name, pair) for pair in topology.pairs]
        report.cells += cells
    for seed in range(settings.seeds) if seeds is None else seeds:
        conditions = Conditions(
            (), settings.rtt / 2, settings.loss, seed=seed, blocked=topology.blocked, dead=topology.dead
        )
        groups = [f"p{number}" for number in range(len(cells))]
        with Registry(net, groups, topology.endpoint, topology.init) as registry:
            if seed == 0:
                report.measured[topology.name] = measure(net, topology)
            net.set_conditions(conditions)
            order = list(zip(cells, groups, strict=True))
            if seed:
                random.Random(seed).shuffle(order)
            _run_round(net, order, registry, settings, progress)
            registry.check()


def _run_round(
    net: Internet,
    order: Sequence[tuple[Cell, str]],
    registry: Registry,
    settings: Settings,
    progress: Callable[[Cell], None],
) -> None:
    """Every pair once. The next joins while this one is still pinging, where nothing happens to this one."""
    with ExitStack() as stack:
        left = []
        for cell, group in order:
            members = Members(net, cell.pair, group, registry.links[group], settings.rtt, settings.engines)
            left.append((cell, stack.enter_context(members)))
        before: Members | None = None
        cell, members = left.pop(0)
        members.start()
        while True:
            members.watch(settings.patience)
            if before is not None:
                before.close()
            following = left.pop(_next(cell.pair, [other.pair for other, _ in left])) if left else None
            overlaps = following is not None and cell.pair.event is None and _are_apart(cell.pair, following[0].pair)
            if following is not None and overlaps:
                following[1].start()
            cell.trials.append(members.conclude())
            progress(cell)
            if following is None:
                return
            if not overlaps:
                members.close()
                following[1].start()
            before = members
            cell, members = following


def _next(pair: Pair, others: Sequence[Pair]) -> int:
    """Which to take: the first that needs none of this one's hosts, so that it can begin before that ends."""
    return next((number for number, other in enumerate(others) if _are_apart(pair, other)), 0)


def _are_apart(one: Pair, other: Pair) -> bool:
    return not {one.a, one.b} & {other.a, other.b}


def measure(net: Internet, topology: Topology) -> Measured:
    """Ping outside the tunnel, from the first host there is."""
    host = net.hosts[topology.pairs[0].a]
    found = {}
    for target in (REGISTRY, PROBE):
        command = ["ping", "-nc10", "-i0.02", "-W2", str(net.plan.outside(target)[0])]
        with host.popen(command, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate(timeout=20)
        times = [float(time) for time in _RTT.findall(output)]
        if not times:
            raise LocalError(f"{topology.pairs[0].a} does not reach {target}")
        found[target] = round(median(times), 2)
    return Measured(found[REGISTRY], found[PROBE])
