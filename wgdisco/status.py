"""`wgdisco status` for a terminal: what `wg show` says, and each peer's path."""

import time

from wgdisco.api import PeerReport, StatusReport


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
    for peer in report.peers:
        lines.append("")
        lines.extend(_peer_lines(peer, unix_now))
    return "\n".join(lines)


def _peer_lines(peer: PeerReport, now: float) -> list[str]:
    path = peer.path if peer.reason is None else f"{peer.path} ({peer.reason})"
    lines = [f"peer: {peer.public_key}", f"  path: {path}"]
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
