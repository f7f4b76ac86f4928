"""`wgdisco export`: a membership, or a registry, as plain wg-quick files."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgdisco.errors import ConfigError, LocalError


def add_verb(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Add `export` to the verbs."""
    parser = verbs.add_parser("export", help="write wg-quick files of what this host has: the way out")
    parser.description = (
        "Write NETWORK.conf, for wg-quick: a member's with the registry and all members it knows, a registry's with all"
        " members and devices; keys, addresses and last endpoints in it. Files are made for their owner alone, and"
        " those that are there stay."
    )
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="may be left out where there is only one")
    parser.add_argument("-o", "--output", default="-", metavar="FILE|DIR|-", help="where to (- is standard output)")
    parser.add_argument(
        "--all", action="store_true", help="of a registry: a file for each member and device too, into -o DIR"
    )
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    parser.add_argument("--store", type=Path, metavar="FILE", help="where `registry init` put its facts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; none of them where one is there already."""
    from wgdisco.peer.io.state import StateStore  # noqa: PLC0415  costs nothing to those who do not use it
    from wgdisco.registry.io import store  # noqa: PLC0415  likewise

    memberships = StateStore()
    facts = args.store or store.PATH
    own = store.peek(facts)
    names = [*([] if own is None else [own.name]), *memberships.names()]
    if args.network is not None and args.network not in names:
        raise LocalError(f"this host knows no network {args.network!r}: it has {', '.join(names) or 'none'}")
    if not names:
        raise LocalError("there is no network here: this host is no member of one, and no registry")
    if args.network is None and len(names) > 1:
        raise ConfigError(f"which network? this host has {', '.join(names)}")
    name = args.network or names[0]
    is_registry = own is not None and own.name == name
    if args.all and not is_registry:
        raise ConfigError(f"--all: this host is a member of {name}; its registry knows of the others' files")
    texts = _of_registry(facts, everybody=args.all) if is_registry else {name: _of_member(name)}
    _write(texts, name, args)
    return 0


def _of_member(network: str) -> str:
    from wgdisco.machine import has_ipv6  # noqa: PLC0415  as above
    from wgdisco.peer.export import member_text  # noqa: PLC0415  as above
    from wgdisco.peer.io.state import StateStore  # noqa: PLC0415  as above
    from wgdisco.peer.roster import Roster  # noqa: PLC0415  as above

    state = StateStore().load(network)
    assert state is not None, "its file was listed"
    return member_text(
        Roster(state.private_key.public_key(), state.accept, state.memory, state.offline_trust),
        state.private_key,
        state.preshared_key,
        state.listen_port,
        state.registries,
        state.endpoints,
        with_ipv6=has_ipv6(),
    )


def _of_registry(path: Path, *, everybody: bool) -> dict[str, str]:
    from wgdisco.machine import has_ipv6  # noqa: PLC0415  as above
    from wgdisco.registry.export import member_texts, registry_text  # noqa: PLC0415  as above
    from wgdisco.registry.io import store  # noqa: PLC0415  as above
    from wgdisco.registry.membership import Membership  # noqa: PLC0415  as above

    facts, observations = store.peek_all(path)
    membership = Membership(facts)
    observed = {one.key: one.endpoint for one in observations}
    texts = {membership.network.name: registry_text(membership, observed, with_ipv6=has_ipv6())}
    if everybody:
        texts |= {f"members/{name}": text for name, text in member_texts(membership).items()}
    return texts


def _write(texts: Mapping[str, str], network: str, args: argparse.Namespace) -> None:
    from wgdisco.registry.io.setup import write_secret  # noqa: PLC0415  as above

    if args.output == "-":
        if args.all:
            raise ConfigError("--all: several files need a directory: -o DIR")
        print(texts[network], end="")
        return
    target = Path(args.output)
    if args.all:
        _make_directory(target)
        _make_directory(target / "members")
    files = {target / f"{name}.conf": text for name, text in texts.items()} if target.is_dir() else {}
    files = files or {target: texts[network]}
    there = [str(path) for path in files if path.exists() or path.is_symlink()]
    if there and not args.force:
        raise LocalError(f"{', '.join(there)}: there already; --force writes over it")
    for path, text in files.items():
        write_secret(path, text.encode())


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make the directory {path}: {error.strerror}") from error
