// The network as the registry tells it, and what follows from that. No element here.

import { WORDS } from "/page/words.js";

// What the drawing shows of a member, beside its paths
const DRAWN = ["name", "online", "endpoint", "kind"];
const RANK = Object.fromEntries(WORDS.map((word, rank) => [word, rank]));

export class Model {
  members = new Map(); // rows by public key
  network = null;
  self = null;
  invitations = [];
  drops = {};
  relay = {};
  turn = 0; // rises when there is something else to draw
  #ahead = 0; // of this machine's clock, in seconds
  #paths = new Map();
  #reach = null;
  #counted = -1;

  /** The whole, or what changed; the set of public keys whose rows did. */
  take(event, isWhole) {
    this.#ahead = event.time - Date.now() / 1000;
    for (const name of ["network", "self", "invitations", "drops", "relay"]) if (event[name]) this[name] = event[name];
    const before = new Map(this.members);
    if (isWhole) this.members.clear();
    const changed = new Set();
    for (const row of event.members) {
      const key = row.public_key;
      const old = before.get(key);
      this.members.set(key, { ...old, ...row }); // paths are not told where they are as before
      changed.add(key);
      if (row.paths) this.#paths.delete(key);
      if (row.paths || DRAWN.some((name) => old?.[name] !== row[name])) this.turn += 1;
    }
    for (const key of event.removed ?? []) {
      this.members.delete(key);
      changed.add(key);
      this.turn += 1;
    }
    if (isWhole) {
      this.turn += 1;
      this.#paths.clear();
    }
    if (!this.isAdmin && changed.has(this.self.public_key)) for (const key of this.members.keys()) changed.add(key);
    return changed;
  }

  get isAdmin() {
    return this.self?.role === "admin";
  }

  /** Unix time at the registry, in seconds. */
  now() {
    return Date.now() / 1000 + this.#ahead;
  }

  /** `online`, `stale`, or `never` seen. */
  state(row) {
    if (row.online) return "online";
    return this.isAdmin && row.seen_at === null && row.handshake_at === null ? "never" : "stale";
  }

  /** Handshake and sizes to show of a member: the registry's to an admin, to a member those of its own path there. */
  figures(row) {
    if (this.isAdmin || row.public_key === this.self.public_key) return row;
    return this.path(this.self.public_key, row.public_key) ?? { handshake_at: null, rx_bytes: 0, tx_bytes: 0 };
  }

  /** What one member reports of its path to another, undefined where it does not. */
  path(from, to) {
    let paths = this.#paths.get(from);
    if (paths === undefined) {
      paths = new Map((this.members.get(from)?.paths ?? []).map((path) => [path.peer, path]));
      this.#paths.set(from, paths);
    }
    return paths.get(to);
  }

  /** The same where it is of now, and the other is there: who is offline has told nothing since. */
  fresh(from, to) {
    const path = this.members.get(from)?.online ? this.path(from, to) : undefined;
    return path?.reason === "peer offline" ? undefined : path;
  }

  /** How two reach each other: the worse of what both say, unless one of them says only that it did not try. */
  between(a, b) {
    const one = this.fresh(a, b);
    const other = this.fresh(b, a);
    if (!one || !other) return one ?? other;
    if (one.path === "idle") return other;
    if (other.path === "idle") return one;
    return RANK[one.path] >= RANK[other.path] ? one : other;
  }

  /** How many others a member reaches, by word. */
  reach(key) {
    if (this.#counted !== this.turn) {
      this.#counted = this.turn;
      this.#reach = this.#count();
    }
    return this.#reach.get(key) ?? {};
  }

  /** How many pairs there are, by word. */
  pairs() {
    const sums = {};
    for (const key of this.members.keys())
      for (const [word, number] of Object.entries(this.reach(key))) sums[word] = (sums[word] ?? 0) + number;
    return Object.fromEntries(Object.entries(sums).map(([word, number]) => [word, number / 2]));
  }

  #count() {
    const keys = [...this.members.keys()];
    const reach = new Map(keys.map((key) => [key, {}]));
    for (let i = 0; i < keys.length; i++)
      for (let j = 0; j < i; j++) {
        const word = this.between(keys[i], keys[j])?.path;
        if (word === undefined) continue;
        for (const key of [keys[i], keys[j]]) {
          const counts = reach.get(key);
          counts[word] = (counts[word] ?? 0) + 1;
        }
      }
    return reach;
  }

  /** Whether each word of a filter is somewhere in a row. */
  matches(row, filter) {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const reach = Object.keys(this.reach(row.public_key));
    const reasons = (row.paths ?? []).map((path) => path.reason);
    const mine = [row.name, this.state(row), row.kind, row.role, row.nat, row.endpoint, row.public_key];
    const told = [...mine, ...row.addresses, ...row.groups, ...row.subnets, ...reach, ...new Set(reasons)];
    if (row.ephemeral) told.push("ephemeral");
    const text = told.filter(Boolean).join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }
}
