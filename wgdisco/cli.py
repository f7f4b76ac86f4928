"""The command line: verbs to settings to run. Nothing is decided here.

Exit codes: 0 ok, 1 error, 2 usage or configuration, 3 not running, 4 degraded, 5 timed out.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from wgdisco import config, export_cli, logs, member_cli, registry_cli, seeing_cli
from wgdisco.errors import ConfigError, NotRunningError, WgdiscoError
from wgdisco.keys import PrivateKey
from wgdisco.machine import take_capabilities
from wgdisco.process import heed_signals, ignore_signals, program_version, run_daemon
from wgdisco.tunnel.engines import EngineKind


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(ConfigError.exit_code, f"wgdisco: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="wgdisco", description="Connect WireGuard peers behind NATs.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    registry = verbs.add_parser("registry", help="the public side: learns endpoints, publishes them by DNS-SD")
    registry_verbs = registry.add_subparsers(dest="registry_verb", required=True, metavar="VERB")
    run = registry_verbs.add_parser(
        "run", help="run the registry in the foreground: of `registry init`, or of the peers in --conf"
    )
    run.description = (
        "Run the registry in the foreground: of the network that `registry init` made; with --conf, of the peers in a"
        " file; with --interface alone, of an interface that is up, which is left as it is."
    )
    _add_daemon_flags(run)
    run.add_argument(
        "--engine",
        choices=("auto", "userspace", "kernel", "external"),
        help="whose WireGuard runs the interface: ours (userspace, the default), or as for join",
    )
    run.add_argument("--wgsd-exact", action="store_true", default=None, help="answer byte for byte as wgsd does")
    run.add_argument(
        "--self",
        nargs="?",
        const=True,
        metavar="ADDRESS:PORT",
        help="publish the registry's own key too, at this endpoint or at the address it is asked on",
    )
    run.add_argument(
        "--publish",
        nargs="+",
        metavar="NAME",
        help="with --dns on a public address: whoever knows the key of one of these members is told where it is",
    )
    run.add_argument(
        "--public-zone", choices=config.PUBLIC_ZONES, help="with --dns: tell strangers that, or all of the zone (full)"
    )
    run.add_argument(
        "--secondary",
        action="append",
        metavar="ADDRESS[:PORT]",
        help="a name server that has the zone from here (AXFR, IXFR), and is told when it changes; may be repeated",
    )
    run.add_argument("--tsig-key", metavar="FILE", help="the key, of tsig-keygen, with which it has to sign")
    run.add_argument("--store", type=Path, metavar="FILE", help="where `registry init` put its facts")
    run.set_defaults(run=_registry_run, holds_signals=True)
    registry_cli.add_verbs(registry_verbs)

    member_cli.add_verbs(verbs, _add_daemon_flags, _join_pinned)

    status = verbs.add_parser("status", help="what the daemons on this host see: peers, paths, endpoints")
    status.description = (
        "What the daemons on this host see: peers, paths, endpoints; why a path is not direct, and what to do about it."
    )
    status.add_argument("interface", nargs="?", help="one interface; all that run when left out")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    status.set_defaults(run=_status)
    metrics = verbs.add_parser("metrics", help="what the daemon of an interface counts, as Prometheus reads it")
    metrics.add_argument("interface", nargs="?", metavar="INTERFACE", help="may be left out where there is only one")
    metrics.set_defaults(run=_metrics)
    seeing_cli.add_verbs(verbs)
    export_cli.add_verb(verbs)

    from wgdisco.lab import cli as lab_cli  # noqa: PLC0415  costs nothing to those who do not use it

    lab_cli.add_parser(verbs)

    verbs.add_parser("genkey", help="print a new private key").set_defaults(run=_genkey)
    verbs.add_parser("pubkey", help="read a private key, print its public key").set_defaults(run=_pubkey)
    verbs.add_parser("version", help="print the version and the engine in use").set_defaults(run=_version)
    return parser


def _add_daemon_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conf", metavar="FILE", help="wg-quick file with keys and peers")
    parser.add_argument("--zone", metavar="ZONE", help="DNS zone of the network, for example example.com.")
    parser.add_argument("--dns", metavar="ADDRESS:PORT", help="address of the zone's DNS server")
    parser.add_argument("--interface", metavar="NAME", help="interface name (default: the stem of the .conf)")
    parser.add_argument(
        "--offload",
        metavar="NAMES",
        help="what the kernel may do for many packets at once: of tso,uso,udp_gso,udp_gro those to use; all, or none",
    )
    parser.add_argument(
        "--host-dns",
        choices=("auto", "resolved", "resolvconf", "none"),
        help="what has this host ask the name servers inside the tunnel: systemd-resolved or resolvconf, whichever"
        " looks names up here (auto, the default), one of them, or nothing",
    )
    member_cli.add_metrics_flag(parser)
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="one line an event, for people or machines"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is usually not worth a line")


def _registry_run(args: argparse.Namespace) -> int:
    logs.configure(args.log, args.verbose)
    flags = _settings_flags(args)
    if config.is_managed(flags, os.environ):
        from wgdisco.registry.io import managed, store  # noqa: PLC0415  each daemon loads only its own half
        from wgdisco.registry.public_dns import PublicDns  # noqa: PLC0415  the same

        public, offloads = config.load_public_dns(flags, os.environ), config.load_offloads(flags, os.environ)
        dns = PublicDns(public.listen, public.published, public.is_full, public.secondaries)
        path = args.store or store.PATH
        engine = config.load_engine(flags, os.environ) or EngineKind.USERSPACE
        metrics, version = config.load_metrics(flags, os.environ, None), program_version()
        return run_daemon(
            lambda: managed.run(store=path, dns=dns, engine=engine, offloads=offloads, metrics=metrics, version=version)
        )
    _take_back_dns(flags)
    settings = config.load_registry(flags, os.environ)
    from wgdisco.registry.io import daemon  # noqa: PLC0415  each daemon loads only its own half

    return run_daemon(
        lambda: daemon.run(
            interface=settings.interface,
            conf=settings.conf,
            engine=settings.engine,
            zone=settings.zone,
            dns=settings.dns,
            exact=settings.exact,
            publish_self=settings.publish_self,
            self_endpoint=settings.self_endpoint,
            offloads=settings.offloads,
            host_dns=settings.host_dns,
            version=program_version(),
            secondaries=settings.secondaries,
            metrics=settings.metrics,
        )
    )


def _join_pinned(args: argparse.Namespace) -> int:
    logs.configure(args.log, args.verbose)
    flags = _settings_flags(args)
    _take_back_dns(flags)
    settings = config.load_join(flags, os.environ)
    from wgdisco.peer.io import daemon  # noqa: PLC0415  each daemon loads only its own half

    if isinstance(settings, config.AttachSettings):
        attached = settings
        return run_daemon(
            lambda: daemon.run_attached(
                interface=attached.interface,
                engine=attached.engine,
                zone=attached.zone,
                dns=attached.dns,
                metrics=attached.metrics,
                version=program_version(),
            )
        )
    return run_daemon(
        lambda: daemon.run(
            interface=settings.interface,
            conf=settings.conf,
            zone=settings.zone,
            dns=settings.dns,
            offloads=settings.offloads,
            engine=settings.engine,
            host_dns=settings.host_dns,
            metrics=settings.metrics,
            version=program_version(),
        )
    )


def _take_back_dns(flags: dict[str, Any]) -> None:
    """Have names looked up by the host's own servers, where one that was killed left others."""
    from wgdisco.tunnel.io.host_dns import take_back_left  # noqa: PLC0415  not for every verb

    asyncio.run(take_back_left(config.load_interface(flags, os.environ)))


def _settings_flags(args: argparse.Namespace) -> dict[str, Any]:
    names = (
        *("conf", "zone", "dns", "interface", "offload", "engine", "host_dns", "self", "wgsd_exact"),
        *("publish", "public_zone", "secondary", "tsig_key", "metrics"),
    )
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def _status(args: argparse.Namespace) -> int:
    from wgdisco.status import render_status  # noqa: PLC0415  only for this verb
    from wgdisco.tunnel.io import control  # noqa: PLC0415  only for this verb

    async def fetch() -> list[Any]:
        if args.interface:
            return [await control.fetch_status(args.interface)]
        found = []
        for interface in control.running_interfaces():
            with contextlib.suppress(NotRunningError):  # the socket of a daemon that was killed
                found.append(await control.fetch_status(interface))
        return found

    reports = asyncio.run(fetch())
    if not reports:
        raise NotRunningError("no wgdisco daemon runs here: start `wgdisco join` or `wgdisco registry run`")
    if args.output == "json":
        print(json.dumps({"schema": 1, "interfaces": [report.to_json() for report in reports]}, indent=2))
    else:
        print("\n\n".join(render_status(report) for report in reports))
    return 0


def _metrics(args: argparse.Namespace) -> int:
    from wgdisco.tunnel.io import control  # noqa: PLC0415  only for this verb

    running = [args.interface] if args.interface else control.running_interfaces()
    if not running:
        raise NotRunningError("no wgdisco daemon runs here: start `wgdisco join` or `wgdisco registry run`")
    if len(running) > 1:
        raise ConfigError(f"which interface? there are {', '.join(running)}")
    print(asyncio.run(control.fetch_metrics(running[0])), end="")
    return 0


def _genkey(_args: argparse.Namespace) -> int:
    print(PrivateKey(os.urandom(32)).to_text())
    return 0


def _pubkey(_args: argparse.Namespace) -> int:
    try:
        print(PrivateKey.from_text(sys.stdin.readline().strip()).public_key().to_text())
    except ValueError as error:
        raise ConfigError(f"standard input: {error}") from error
    return 0


def _version(_args: argparse.Namespace) -> int:
    from wgdisco.tunnel import burst  # noqa: PLC0415  only for this verb

    print(f"wgdisco {program_version()} (engine: {burst.implementation()})")
    return 0


def main() -> int:
    """Run the command line; every expected failure is one line on standard error."""
    args = build_parser().parse_args()
    take_capabilities()
    try:
        if not getattr(args, "holds_signals", False):
            heed_signals()
        code: int = args.run(args)
    except WgdiscoError as error:
        logs.say(str(error), logging.ERROR)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        ignore_signals()
        return 130
    return code
