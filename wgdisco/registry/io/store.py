"""The registry's facts on disk: SQLite in WAL mode, one writer.

`commit` returns when its changes are on the disk, all or none of them. A lock beside the file keeps a second process
out. What cannot be read or written is one LocalError, and nothing is overwritten by it.
"""

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self, TypeVar

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import hand_over, make_state_directory
from wgdisco.registry.facts import (
    REGISTRY_HOST_NUMBER,
    Change,
    Fact,
    Invitation,
    Member,
    Network,
    Put,
    Remove,
    Revoked,
    identity,
    pack_fact,
    parse_fact,
)

PATH = Path("/var/lib/wgdisco/registry.db")
CERTIFICATE = "tls.pem"  # beside it, where the registry is reached by TLS too
SERIAL_BLOCK = 1000
OBSERVATIONS_INTERVAL = 3.0
# A registry that was killed may have left a child (nft, about to be executed) that holds its lock a moment longer.
LOCK_PATIENCE = 0.5

_APPLICATION_ID = 0x77676431  # "wgd1"
# Each takes the schema to the next version, the first from an empty file; its number is PRAGMA user_version.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE fact (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id));
    CREATE TABLE observation (public_key TEXT PRIMARY KEY, endpoint TEXT NOT NULL, at REAL NOT NULL);
    CREATE TABLE serial (one INTEGER PRIMARY KEY CHECK (one = 1), reserved INTEGER NOT NULL);
    INSERT INTO serial VALUES (1, 0);
    """,
)
_REMEDY = "`wgdisco registry restore FILE` puts a backup in place, and keeps this file beside it"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Observation:
    """Where a peer was last heard from; `at` is unix time."""

    key: PublicKey
    endpoint: Endpoint
    at: float


class Store:
    """See the module's docstring. Make it with `open`; all SQL runs on one thread of its own."""

    def __init__(self, path: Path, lock: IO[bytes], connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock = lock
        self._connection = connection
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._observed: dict[PublicKey, Observation] = {}
        self._closed = False

    @classmethod
    def open(cls, path: Path = PATH, migrations: tuple[str, ...] = MIGRATIONS) -> Self:
        """Open the store, made if it is not there; an older schema is copied aside and brought up to date.

        LocalError when another process has it, and when it is damaged, of a later version, or not to be written.
        """
        lock = _take_lock(path)
        try:
            with _explained(path):
                return cls(path, lock, _connect(path, migrations))
        except BaseException:
            lock.close()
            raise

    def load(self) -> list[Fact]:
        """All facts, in the order they came; LocalError when one cannot be read."""
        return self._run(lambda: _load(self._connection, self.path))

    async def commit(self, changes: Iterable[Change]) -> None:
        """Store all of `changes` or none; they are on the disk when this returns. LocalError when they are not."""
        rows = list(changes)
        if rows:
            await self._run_async(lambda: _write(self._connection, rows))

    def observe(self, key: PublicKey, endpoint: Endpoint, at: float) -> None:
        """Note where a peer was heard from; `flush` writes it."""
        self._observed[key] = Observation(key, endpoint, at)

    async def flush(self) -> None:
        """Write what was observed since the last time. LocalError when that fails: it is noted still."""
        observed = dict(self._observed)
        if observed:
            await self._run_async(lambda: _write_observations(self._connection, observed.values()))
            for key, observation in observed.items():
                if self._observed.get(key) == observation:
                    del self._observed[key]

    def observations(self) -> list[Observation]:
        """What `flush` wrote, the latest first."""

        return self._run(lambda: _load_observations(self._connection))

    def reserve_serial(self, at_least: int) -> range:
        """The next block of zone serials, from `at_least` (unix time) up and above all reserved before."""

        def reserve() -> range:
            with self._connection:
                (reserved,) = self._connection.execute("SELECT reserved FROM serial").fetchone()
                first = max(int(reserved), at_least)
                self._connection.execute("UPDATE serial SET reserved = ?", (first + SERIAL_BLOCK,))
            return range(first, first + SERIAL_BLOCK)

        return self._run(reserve)

    def backup(self, target: Path) -> None:
        """Write a whole copy to `target`, mode 0600: a temporary file beside it first, then renamed."""
        self._run(lambda: _copy(self._connection, target))

    def close(self) -> None:
        """Write what is left, and let others have the store. Again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._observed:
                with suppress(LocalError):
                    self._run(lambda: _write_observations(self._connection, self._observed.values()))
            self._writer.submit(self._connection.close).result()
        finally:
            self._writer.shutdown()
            self._lock.close()

    def _run(self, work: Callable[[], _T]) -> _T:
        with _explained(self.path):
            return self._writer.submit(work).result()

    async def _run_async(self, work: Callable[[], _T]) -> _T:
        with _explained(self.path):
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def is_there(path: Path = PATH) -> bool:
    """Whether there is anything at `path`; LocalError where we may not look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise LocalError(f"no access to {path}: use sudo") from error
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error
    return True


def peek(path: Path = PATH) -> Network | None:
    """The network in a store that another process may have open; None when there is none. LocalError as `open`."""
    return next((fact for fact in peek_all(path)[0] if isinstance(fact, Network)), None)


def peek_all(path: Path = PATH) -> tuple[list[Fact], list[Observation]]:
    """All facts, and what was observed, in a store that another process may have open; nothing when there is none."""
    if not is_there(path):
        return [], []
    with _explained(path), closing(sqlite3.connect(path)) as connection:
        if not _version(connection):
            return [], []
        return _load(connection, path), _load_observations(connection)


def delete(path: Path = PATH) -> None:
    """Delete the store, and what was kept beside it; LocalError while another process has it."""
    lock = _take_lock(path)
    try:
        aside = (found for kind in ("before-*", "v[0-9]*") for found in path.parent.glob(f"{path.name}.{kind}"))
        for name in (path, *_companions(path), path.with_name(CERTIFICATE), *aside):
            name.unlink(missing_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"cannot delete {path}: {error.strerror}") from error
    finally:
        lock.close()


def restore(source: Path, path: Path = PATH) -> int:
    """Put the backup `source` in place of the store, which is kept beside it; the new epoch.

    The epoch rises past both, and invitations are dropped: they may have been used. Keys that the store in place knows
    to be revoked stay so. LocalError when `source` is no backup, and while the registry runs; nothing is changed then.
    """
    if not is_there(source) or not source.is_file():
        raise LocalError(f"{source}: there is no such file")
    lock = _take_lock(path)
    temporary = path.with_name(f".{path.name}.restore")
    try:
        with _explained(source), closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as backup:
            _check(backup, source)
            if not _version(backup):
                raise LocalError(f"{source} is not a backup of a registry")
            _load(backup, source)
            _copy(backup, temporary)
        previous = _readable_facts(path)
        with _explained(path), closing(_connect(temporary)) as connection:
            facts = _load(connection, source)
            changes, epoch = _after_restore(facts, previous)
            _write(connection, changes)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _keep_aside(path)
        temporary.rename(path)
        _sync_directory(path)
    except OSError as error:
        raise LocalError(f"cannot restore {path}: {error.strerror}") from error
    finally:
        for name in (temporary, *_companions(temporary)):
            name.unlink(missing_ok=True)
        lock.close()
    return epoch


def _after_restore(facts: list[Fact], previous: list[Fact]) -> tuple[list[Change], int]:
    """What a restored store must differ in from its backup: epoch, revocations, and numbers given out since."""
    networks = [fact for fact in facts if isinstance(fact, Network)]
    if not networks:
        raise LocalError("the backup holds no network")
    before = [fact for fact in previous if isinstance(fact, Network)]
    epoch = max(network.epoch for network in networks + before) + 1
    same = any(old.private_key == networks[0].private_key for old in before)
    # on a new disk nobody knows which numbers were given out since: begin half the range away
    ahead = before[0].next_host if same else _half_round(networks[0])
    network = replace(networks[0], epoch=epoch, next_host=ahead)
    revoked = [fact for fact in previous if isinstance(fact, Revoked)]
    gone = {fact.public_key for fact in revoked}
    changes: list[Change] = [Put(network), *(Put(fact) for fact in revoked)]
    for fact in facts:
        # an invitation may have been used up since
        if isinstance(fact, Invitation) or (isinstance(fact, Member) and fact.public_key in gone):
            changes.append(Remove(fact))
    return changes, epoch


def _half_round(network: Network) -> int:
    first, last = REGISTRY_HOST_NUMBER + 1, network.prefix4.num_addresses - 2
    size = last - first + 1
    return first + (network.next_host - first + size // 2) % size


def _connect(path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> sqlite3.Connection:
    """An open, checked, up-to-date store."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.chmod(path, 0o600)
    hand_over(path)
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0)
    try:
        _check(connection, path, len(migrations))
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    connection.isolation_level = "IMMEDIATE"
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check(connection: sqlite3.Connection, path: Path, known: int = len(MIGRATIONS)) -> None:
    if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(" ".join(found.split()))
    version = _version(connection)
    if version and connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise LocalError(f"{path} is some other program's database")
    if version > known:
        raise LocalError(f"{path} is of version {version}, this wgdisco knows {known}: update it")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...]) -> None:
    version = _version(connection)
    if version == len(migrations):
        # fails here, and not at the first change, where nothing can be written
        connection.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {version}; COMMIT;")
        return
    if version:
        _copy(connection, path.with_name(f"{path.name}.v{version}"))
    steps = "".join(migrations[version:])
    try:
        connection.executescript(
            f"BEGIN EXCLUSIVE; {steps} PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {len(migrations)}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.rollback()
        raise


def _load(connection: sqlite3.Connection, path: Path) -> list[Fact]:
    try:
        return [
            parse_fact(kind, body) for kind, body in connection.execute("SELECT kind, body FROM fact ORDER BY rowid")
        ]
    except ValueError as error:
        raise LocalError(
            f"{path} is damaged ({error}): `wgdisco registry restore FILE` puts a backup in place"
        ) from None


def _load_observations(connection: sqlite3.Connection) -> list[Observation]:
    rows = connection.execute("SELECT public_key, endpoint, at FROM observation ORDER BY at DESC")
    return [Observation(PublicKey.from_text(key), Endpoint.from_text(where), at) for key, where, at in rows]


def _write(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    with connection:
        for change in changes:
            kind, name = identity(change.fact)
            if isinstance(change, Put):
                connection.execute(
                    "INSERT INTO fact VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                    (kind, name, pack_fact(change.fact)),
                )
            else:
                connection.execute("DELETE FROM fact WHERE kind = ? AND id = ?", (kind, name))
            if not isinstance(change, Put) and isinstance(change.fact, Member):
                connection.execute("DELETE FROM observation WHERE public_key = ?", (change.fact.public_key.to_text(),))


def _write_observations(connection: sqlite3.Connection, observed: Iterable[Observation]) -> None:
    with connection:
        connection.executemany(
            "INSERT OR REPLACE INTO observation VALUES (?, ?, ?)",
            [(one.key.to_text(), one.endpoint.to_text(), one.at) for one in observed],
        )


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(temporary)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        hand_over(temporary)
        temporary.rename(target)
        _sync_directory(target)
    finally:
        temporary.unlink(missing_ok=True)


def _readable_facts(path: Path) -> list[Fact]:
    """What a store that may be missing or damaged still says."""
    if not path.exists():
        return []
    with suppress(sqlite3.Error, LocalError), closing(sqlite3.connect(path)) as connection:
        return _load(connection, path)
    return []


def _keep_aside(path: Path) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for name in (path, *_companions(path)):
        if name.exists():
            name.rename(name.with_name(f"{path.name}.before-{stamp}{name.name.removeprefix(path.name)}"))


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _take_lock(path: Path) -> IO[bytes]:
    try:
        make_state_directory(path.parent)
        held = path.with_name(f"{path.name}.lock")
        descriptor = os.open(held, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        hand_over(held)
    except PermissionError as error:
        raise LocalError(f"no access to {path}: use sudo") from error
    except OSError as error:
        raise LocalError(f"cannot write in {path.parent}: {error.strerror}") from error
    lock = os.fdopen(descriptor, "rb")
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= deadline:
                lock.close()
                raise LocalError(f"another process has {path} open: wait for it, or stop it first") from error
            time.sleep(0.02)
        else:
            return lock


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's and the system's complaints as LocalError, in one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise LocalError(f"cannot write {path}: the disk is full; make room, nothing was changed") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
            raise LocalError(f"cannot write {path}: {error}; is its disk full or mounted read-only?") from error
        raise LocalError(f"{path} is damaged ({error}): {_REMEDY}") from error
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
