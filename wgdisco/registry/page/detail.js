// What a row opens to: its paths with reasons and remedies, what else is known, and what an admin may do with it.

import { keep, make, tell, word } from "/page/dom.js";
import { count, nat, REMEDIES, roundTrip, size, span } from "/page/words.js";
import { copy } from "/page/copy.js";

// What needs a look comes first
const ORDER = ["punching", "stale", "relay", "direct", "lan", "idle"];

// What is done on the host that tells the reason
const HERE = new Set(["registry unreachable", "no UDP answer", "host firewall", "clock", "revoked"]);

export class Detail {
  node;
  #model;
  #key;
  #show;
  #facts = make("dl");
  #told = new Map(); // facts, by name
  #title = make("h3");
  #body = make("tbody");
  #table;
  #paths = new Map();
  #remedies = make("ul", { class: "remedies" });
  #rest = make("p", { class: "muted" });

  /** `show(key)` goes to another member's row. */
  constructor(model, row, columns, act, show) {
    this.#model = model;
    this.#key = row.public_key;
    this.#show = show;
    const titles = ["Peer", "Path", "Round trip", "Endpoint", "Handshake", "Transfer"];
    const heads = titles.map((title, at) => make("th", { scope: "col", class: at > 1 ? "wide" : null }, title));
    this.#table = make("table", { class: "paths" }, make("thead", {}, make("tr", {}, ...heads)), this.#body);
    const button = make("button", { type: "button", class: "small" }, "Copy");
    button.addEventListener("click", () => copy(this.#key, button));
    const parts = [this.#facts, make("p", { class: "key" }, "Key ", make("code", {}, this.#key), button)];
    if (model.isAdmin) {
      const rename = make(
        "button",
        { type: "button", onclick: () => act.rename(model.members.get(this.#key)) },
        "Rename…",
      );
      const revoke = make("button", { type: "button", class: "danger" }, "Revoke…");
      revoke.addEventListener("click", () => act.revoke(model.members.get(this.#key)));
      const isSelf = this.#key === model.self.public_key;
      parts.push(make("p", { class: "actions" }, rename, isSelf ? null : revoke));
    }
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region" }, this.#table);
    scroll.setAttribute("aria-label", `Paths of ${row.name}`);
    parts.unshift(make("div", {}, this.#title, this.#remedies, scroll, this.#rest));
    const cell = make("td", { colspan: columns }, make("div", { class: "detail" }, ...parts));
    this.node = make("tr", { class: "detail-row" }, cell);
    this.update(row);
  }

  /** The row has changed. */
  update(row) {
    this.#tellFacts(row);
    this.#tellPaths(row);
    this.tick(this.#model.now());
  }

  /** A second has passed. */
  tick(now) {
    const row = this.#model.members.get(this.#key);
    const heard = this.#told.get("Heard");
    if (heard && row) tell(heard.lastChild, `${span(now - row.seen_at)} ago`);
    for (const node of this.#paths.values()) {
      const at = node.path.handshake_at;
      tell(node.cells[4], at === null ? "–" : span(now - at));
    }
  }

  #tellFacts(row) {
    const facts = [
      ["Address", row.addresses.join(", ")],
      ["Endpoint", row.endpoint],
      ["Groups", row.groups.join(", ")],
      ["NAT", row.kind === "device" ? null : nat(row.nat).long],
      ["Heard", row.seen_at === null ? null : "–"],
      ["With the registry", lately(row.history)],
      ["Candidates", row.candidates.map((one) => `${one.endpoint} (${one.kind})`).join(", ")],
      ["Behind it", row.subnets.join(", ")],
      ["Offers", row.offers.join(", ")],
    ];
    keep(
      this.#facts,
      this.#told,
      facts.filter(([, value]) => value),
      ([name]) => name,
      ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
      (node, [name, value]) => name === "Heard" || tell(node.lastChild, value),
    );
  }

  #tellPaths(row) {
    const { found, isMine, left } = this.#known(row);
    tell(this.#title, isMine ? `How you reach ${row.name}` : `Whom ${row.name} reaches, and how`);
    this.#tellRemedies(found, isMine ? this.#model.self.name : row.name);
    keep(
      this.#body,
      this.#paths,
      found,
      (path) => path.peer,
      (path) => this.#create(path),
      (node, path) => this.#fill(node, path),
    );
    this.#table.parentElement.hidden = !found.length;
    tell(this.#rest, this.#left(row, found.length, isMine, left));
  }

  /** Each reason once, with what to do about it. */
  #tellRemedies(paths, from) {
    const reasons = new Map();
    for (const { reason } of paths) if (reason) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    const told = [...reasons].map(([reason, number]) => [`${reason} (${number})`, remedy(reason, from)]);
    const text = JSON.stringify(told);
    if (this.#remedies.dataset.told === text) return;
    this.#remedies.dataset.told = text;
    this.#remedies.replaceChildren(...told.map(([reason, line]) => make("li", {}, make("b", {}, reason), line)));
  }

  #known(row) {
    const model = this.#model;
    const isMine = !model.isAdmin && row.public_key !== model.self.public_key;
    if (isMine) {
      const path = model.path(model.self.public_key, row.public_key);
      return { isMine, found: path ? [path] : [], left: 0 };
    }
    const known = row.paths.filter((path) => model.members.has(path.peer));
    const name = (path) => model.members.get(path.peer).name;
    const rank = (path) => ORDER.indexOf(path.path) + (path.reason === "peer offline" ? ORDER.length : 0);
    known.sort((one, other) => rank(one) - rank(other) || (name(one) < name(other) ? -1 : 1));
    return { isMine, found: known, left: model.members.size - 1 - known.length };
  }

  #left(row, found, isMine, left) {
    if (row.kind === "device") return "A device of stock WireGuard: it reaches all others through the registry.";
    if (isMine) return found ? "" : "Not tried yet: a path is looked for when there is a packet.";
    if (!found && row.paths_at === null) return "It has not reported yet how it reaches others.";
    const told = [];
    if (!row.online && row.paths_at)
      told.push(`As it was ${span(this.#model.now() - row.paths_at)} ago, before it went silent.`);
    if (left > 0) told.push(`${count(left, "other")} it has not tried: a path is looked for when there is a packet.`);
    return told.join(" ");
  }

  #create(path) {
    const button = make("button", { type: "button", class: "peer", onclick: () => this.#show(path.peer) });
    const name = make("th", { scope: "row" }, button);
    const how = make("td", { class: "how" });
    const cells = ["trip", "endpoint", "handshake", "transfer"].map((kind) => make("td", { class: `${kind} wide` }));
    const node = make("tr", {}, name, how, ...cells);
    return Object.assign(node, { button, told: "" });
  }

  #fill(node, path) {
    node.path = path;
    const [, how, trip, endpoint, , transfer] = node.cells;
    tell(node.button, this.#model.members.get(path.peer)?.name ?? "?");
    tell(trip, roundTrip(path.rtt_ms) || "–");
    tell(endpoint, path.endpoint ?? "–");
    tell(transfer, path.rx_bytes + path.tx_bytes ? `↓ ${size(path.rx_bytes)}  ↑ ${size(path.tx_bytes)}` : "–");
    const told = `${path.path} ${path.reason}`;
    if (told === node.told) return;
    node.told = told;
    how.replaceChildren(word(path.path), ...(path.reason ? [make("span", { class: "reason" }, path.reason)] : []));
  }
}

/** What to do about a reason, and where it is to be done. */
function remedy(reason, from) {
  const where = HERE.has(reason) ? `on ${from}, ` : "";
  return REMEDIES[reason] ? `: ${where}${REMEDIES[reason]}` : "";
}

/** What the lines of the table show, in words. */
function lately({ interval, rx, tx }) {
  if (!rx.length) return null;
  const rates = (pick) => [rx, tx].map((sizes) => size(pick(sizes) / interval));
  const [now, most] = [rates((sizes) => sizes.at(-1)), rates((sizes) => Math.max(...sizes))];
  return `↓ ${now[0]}/s ↑ ${now[1]}/s; at most ↓ ${most[0]}/s ↑ ${most[1]}/s in ${span(rx.length * interval)}`;
}
