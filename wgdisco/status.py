"""`wgdisco status` for a terminal: what `wg show` says, and each peer's path."""

import time
from typing import Any

from wgdisco.api import PeerReport, Reason, StatusReport

# What to do about each reason that a path can have
REMEDIES = {
    Reason.PEER_OFFLINE.value: "start wgdisco there, or connect that host to a network",
    Reason.REGISTRY_UNREACHABLE.value: "see that the registry runs and its UDP port is open (`wgdisco registry check`)",
    Reason.NO_UDP_ANSWER.value: "see whether UDP gets out, here and there (`wgdisco netcheck`)",
    Reason.BOTH_PORT_DEPENDENT.value: "forward a UDP port to one of the two, or give both IPv6",
    Reason.HOST_FIREWALL.value: "join again with --firewall auto, or print",
    Reason.CLOCK.value: "set the clock of this host",
    Reason.REVOKED.value: "`wgdisco leave`, or ask for another invitation",
    Reason.VERSION.value: "update wgdisco on the older of the two",
    Reason.NOT_YET_TRIED.value: "send something there: a path is looked for when there is a packet",
}


def render_status(report: StatusReport, now: float | None = None) -> str:
    """The report as text; `now` is unix time in seconds, for ages."""
    unix_now = time.time() if now is None else now
    lines = [
        f"interface: {report.interface}",
        f"  role: {report.role} of {report.zone}",
        f"  public key: {report.public_key or '(none)'}",
        f"  listening port: {report.listen_port}",
        f"  engine: {report.engine}",
    ]
    lines += [f"  note: {note}" for note in report.notes]
    for peer in report.peers:
        lines.append("")
        lines.extend(_peer_lines(peer, unix_now))
    return "\n".join(lines)


def render_table(report: StatusReport) -> str:
    """One line a peer: name, address, path, endpoint; and what there is to note."""
    rows = [("PEER", "ADDRESS", "PATH", "ENDPOINT")]
    for peer in report.peers:
        if peer.allowed_ips:
            path = peer.path if peer.reason is None else f"{peer.path} ({peer.reason})"
            address = peer.allowed_ips[0].partition("/")[0]
            rows.append((peer.name or peer.public_key, address, path, peer.endpoint or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


_WAYS = {
    "udp": "yes",
    "also-port": "by another port than the registry's own",
    "tls": "no: the registry is reached by TLS",
    None: "the registry is not reached",
}


def render_netcheck(found: dict[str, Any]) -> str:
    """What `netcheck` found, as a table."""
    nat, lifetime = found["nat"], found["nat"]["lifetime"]
    at_least, below = lifetime["at_least"], lifetime["below"]
    remembers = "not measured yet" if at_least is None else f"at least {at_least:.0f} s"
    if below is not None:
        remembers = f"{at_least:.0f} to {below:.0f} s"
    rtt = found["relay"]["rtt_ms"]
    behaviour = "unknown" if nat["mapping"] is None else nat["mapping"]
    near = [f"{peer['name']} at {', '.join(peer['lan'])}" for peer in found["peers"] if peer["lan"]]
    rows = [
        ("UDP", _WAYS[found["udp"]] + ("" if found["registry"] is None else f" ({found['registry']})")),
        ("IPv4", _seen(found["ipv4"])),
        ("IPv6", _seen(found["ipv6"])),
        ("mapping", behaviour + ("" if nat["delta"] is None else f", ports {nat['delta']:+d} apart")),
        ("filtering", nat["filtering"] or "unknown"),
        ("port preserved", _yes_or_no(nat["preserves_port"])),
        ("hairpinning", _yes_or_no(nat["hairpinning"])),
        ("lifetime", f"{remembers}; one packet each {found['keepalive']} s"),
        ("NAT type", nat["classic"] or "unknown"),
        ("near", "; ".join(near) or "nobody"),
        ("relay", "not reached" if rtt is None else f"{rtt:.1f} ms"),
    ]
    if nat["block"] is not None:
        rows.insert(5, ("port block", "{} to {}".format(*nat["block"])))
    lines = [f"{name + ':':<16}{value}" for name, value in rows]
    peers = [("PEER", "NAT", "EXPECTED")]
    peers += [
        (peer["name"], peer["nat"] or "-", (peer["expected"] or "unknown") if peer["online"] else "offline")
        for peer in found["peers"]
    ]
    widths = [max(len(row[column]) for row in peers) for column in range(2)]
    lines += ["", *(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {path}" for name, kind, path in peers)]
    return "\n".join(lines)


def _seen(family: dict[str, Any]) -> str:
    if family["works"] is None:
        return "not looked at: the registry or this host has no such address"
    return "seen at " + ", ".join(family["reflexive"]) if family["works"] else "no answer"


def _yes_or_no(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _peer_lines(peer: PeerReport, now: float) -> list[str]:
    path = peer.path if peer.reason is None else f"{peer.path} ({peer.reason})"
    lines = [f"peer: {peer.public_key}", f"  path: {path}"]
    if peer.name is not None:
        lines.insert(1, f"  name: {peer.name}")
    if peer.reason in REMEDIES:
        lines.append(f"  to do: {REMEDIES[peer.reason]}")
    if peer.preshared_key:
        lines.append("  preshared key: (hidden)")
    if peer.endpoint is not None:
        origin = "" if peer.endpoint_from is None else f" (from {peer.endpoint_from})"
        lines.append(f"  endpoint: {peer.endpoint}{origin}")
    lines.append(f"  allowed ips: {', '.join(peer.allowed_ips) or '(none)'}")
    if peer.latest_handshake is not None:
        lines.append(f"  latest handshake: {max(0, round(now - peer.latest_handshake))} s ago")
    if peer.rx_bytes or peer.tx_bytes:
        lines.append(f"  transfer: {_size(peer.rx_bytes)} received, {_size(peer.tx_bytes)} sent")
    if peer.persistent_keepalive:
        lines.append(f"  persistent keepalive: every {peer.persistent_keepalive} s")
    return lines


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
