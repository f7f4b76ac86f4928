"""What the daemons of a lab say, as it happens: read from their logs, shown line by line, waited for.

A daemon run with `--log json` writes one object a line on standard error: `schema`, `at` (boot-time seconds), `event`
and the event's own fields. Unknown events are kept and not shown; what is not JSON is shown as it is.
"""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from wgdisco.errors import LocalError
from wgdisco.lab.warm import WarmProcess
from wgdisco.lab.world import Host, HostProcess
from wgdisco.machine import boot_time

Process = HostProcess | WarmProcess


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a daemon's log. `event` is None where it was not JSON; the line is then `fields["text"]`."""

    host: str
    at: float
    event: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def about(self, key: str) -> bool:
        """Whether it concerns the peer with that public key (base64)."""
        return self.fields.get("peer") == key


@dataclass(frozen=True, slots=True)
class Shown:
    """A line for people; `at` is seconds since the timeline's start."""

    at: float
    host: str
    text: str
    is_milestone: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    host: str
    process: Process


def now() -> float:
    """Boot-time clock, seconds: the one the daemons log by."""
    return boot_time()


def parse_line(host: str, line: str) -> Said:
    """One log line, whatever it holds; a line without a usable time counts as said now."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("event"), str):
        return Said(host, now(), None, {"text": line.rstrip()})
    at = fields.get("at")
    return Said(host, float(at) if isinstance(at, (int, float)) else now(), fields["event"], fields)


def describe(said: Said, names: Mapping[str, str]) -> str | None:
    """One line for people, or None for what only a log is for. `names` are the hosts' by public key."""
    if said.event is None:
        return str(said.fields["text"])
    peer = _name(said.fields.get("peer"), names)
    endpoint = said.fields.get("endpoint")
    match said.event:
        case "started":
            return "started"
        case "handshake" | "registry_handshake":
            return f"handshake with {peer or 'the registry'}" + (f", seen at {endpoint}" if endpoint else "")
        case "published":
            return f"published {peer} at {endpoint}"
        case "stale":
            return f"{peer} is stale: out of the zone"
        case "found":
            return f"found {peer} in the zone at {endpoint}"
        case "punching":
            endpoints = said.fields.get("endpoints")
            return (
                f"punching towards {peer} at {_listed(endpoints)}" if endpoints else f"looking for {peer} in the zone"
            )
        case "direct" if peer == "registry":
            return f"reached the registry at {endpoint}"
        case "direct":
            return f"{peer} answers from {endpoint}: hole punched"
        case "path":
            reason = said.fields.get("reason")
            return f"path to {peer} is {said.fields.get('path')}" + (f" ({reason})" if reason else "")
        case event if said.fields.get("level") in {"warning", "error", "critical"}:
            details = (f"{key}={value}" for key, value in said.fields.items() if key not in _ENVELOPE)
            return " ".join([f"{said.fields['level']}: {event}", *details])
    return None


_ENVELOPE = frozenset({"schema", "at", "level", "event"})
_MILESTONES = frozenset({"published", "found", "direct"})


def _name(key: object, names: Mapping[str, str]) -> str:
    return names.get(key, f"{key[:8]}…") if isinstance(key, str) else ""


def _listed(endpoints: object) -> str:
    return ", ".join(map(str, endpoints)) if isinstance(endpoints, list) else str(endpoints)


class Timeline:
    """The daemons of one lab and all they have said, in the order it was heard."""

    def __init__(self, names: Mapping[str, str], output: TextIO) -> None:
        """`names` are the hosts' by public key (base64); lines go to `output` as they come."""
        self.said: list[Said] = []
        self.shown: list[Shown] = []
        self._names = names
        self._output = output
        self._colours = output.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._start = now()
        self._queue: queue.SimpleQueue[Said | _Ended] = queue.SimpleQueue()
        self._processes: dict[str, Process] = {}

    def start(self, host: Host, command: Sequence[str]) -> float:
        """Start a daemon and listen to it; returns the moment just before its exec."""
        at = now()
        self.follow(host.name, host.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        return at

    def follow(self, host: str, process: Process) -> None:
        """Listen to a daemon that was just started on `host`."""
        self._processes[host] = process
        threading.Thread(target=self._listen, args=(host, process), daemon=True).start()

    def stop(self, host: str) -> int:
        """End the host's daemon with SIGTERM; its exit status. That it ended is then no surprise."""
        return self._processes.pop(host).stop()

    def tell_to_stop(self) -> None:
        """Send SIGTERM to every daemon that still runs, and do not wait."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End every daemon that still runs, all at the same time."""
        self.tell_to_stop()
        for host in list(self._processes):
            self.stop(host)

    def _listen(self, host: str, process: Process) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._queue.put(parse_line(host, line))
        self._queue.put(_Ended(host, process))

    def wait(self, is_met: Callable[[], bool], timeout: float | None) -> bool:
        """Listen until `is_met()` or for `timeout` seconds; whether it was met. LocalError when a daemon ends."""
        deadline = None if timeout is None else now() + timeout
        while not is_met():
            try:
                said = self._queue.get(timeout=None if deadline is None else max(0.0, deadline - now()))
            except queue.Empty:
                return False
            if isinstance(said, _Ended):
                if said.process is self._processes.get(said.host):
                    raise LocalError(self._obituary(said.host))
                continue
            self.said.append(said)
            self._show(said)
        return True

    def first(self, host: str, event: str, key: str | None = None) -> Said | None:
        """The first time `host` said `event` (of the peer with public key `key`)."""
        matching = (said for said in self.said if said.host == host and said.event == event)
        return next((said for said in matching if key is None or said.about(key)), None)

    def last(self, host: str, event: str, key: str) -> Said | None:
        """The last time `host` said `event` of the peer with public key `key`."""
        matching = (said for said in reversed(self.said) if said.host == host and said.event == event)
        return next((said for said in matching if said.about(key)), None)

    def note(self, host: str, text: str, is_milestone: bool = False) -> None:
        """Show a line of our own, as of now."""
        self._write(host, now(), text, is_milestone)

    def _show(self, said: Said) -> None:
        text = describe(said, self._names)
        if text is not None:
            self._write(said.host, said.at, text, said.event in _MILESTONES)

    def _write(self, host: str, at: float, text: str, is_milestone: bool) -> None:
        self.shown.append(Shown(at - self._start, host, text, is_milestone))
        if self._colours and is_milestone:
            text = f"\x1b[32m{text}\x1b[0m"
        self._output.write(f"{at - self._start:8.3f} s  {host:<9} {text}\n")
        self._output.flush()

    def _obituary(self, host: str) -> str:
        status = self._processes[host].wait()
        lines = [describe(said, self._names) for said in self.said if said.host == host]
        last = next((line for line in reversed(lines) if line), "it said nothing")
        return f"the daemon on {host} ended with status {status}: {last}"
