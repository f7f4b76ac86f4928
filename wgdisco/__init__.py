"""Connect WireGuard peers behind NATs: registry, DNS-SD zone, hole punching, userspace engine."""
