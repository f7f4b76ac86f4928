// The table of members: rows change in place, and move only when the order that was asked for does.

import { Detail } from "/page/detail.js";
import { draw, keep, make, tell, unseen, word } from "/page/dom.js";
import { count, nat, roundTrip, size, span, WORDS } from "/page/words.js";

const STATES = { online: 0, stale: 1, never: 2 };
const bytes = (figures) => figures.rx_bytes + figures.tx_bytes;
const byText = new Intl.Collator("en", { numeric: true });

// `live` columns change all the time: they order the rows when one asks, and when members come or go
const COLUMNS = [
  { id: "name", title: "Name", value: (row) => row.name },
  { id: "address", title: "Address", value: (row) => row.addresses[0] ?? "" },
  { id: "state", title: "State", value: (row, model) => STATES[model.state(row)] },
  { id: "nat", title: "NAT", value: (row) => row.nat ?? "~" },
  { id: "endpoint", title: "Endpoint", value: (row) => row.endpoint ?? "~" },
  { id: "handshake", title: "Handshake", live: true, value: (row, model) => -(model.figures(row).handshake_at ?? 0) },
  { id: "transfer", title: "Transfer", live: true, value: (row, model) => -bytes(model.figures(row)) },
  { id: "reach", title: "Reached", live: true, value: (row, model) => -troubles(model.reach(row.public_key)) },
];

function troubles(reach) {
  return (reach.punching ?? 0) * 1000 + (reach.stale ?? 0) * 1000 + (reach.relay ?? 0);
}

export class Table {
  #model;
  #act;
  #table = document.querySelector("#table");
  #nodes = new Map();
  #rows = new Map(); // what belongs to a node
  #order = [];
  #sort = { id: "name", down: false };
  #filter = document.querySelector("#filter");
  #dirty = true;

  /** `act` opens the dialogs: `rename(row)` and `revoke(row)`. */
  constructor(model, act) {
    this.#model = model;
    this.#act = act;
    this.#table.tHead.rows[0].append(...COLUMNS.map((column) => this.#header(column)));
    this.#filter.addEventListener("input", () => this.#again());
    this.#filter.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.filter("");
      else if (event.key === "ArrowDown" || event.key === "Enter") this.#buttons()[0]?.focus();
      else return;
      event.preventDefault();
    });
    this.#table.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Show only what has these words. */
  filter(text) {
    this.#filter.value = text;
    this.#again();
  }

  /** Rows have changed, or gone. */
  update(changed) {
    const keys = this.#nodes;
    const transfer = this.#table.tHead.querySelector('[data-column="transfer"] button');
    tell(transfer, this.#model.isAdmin ? "With the registry" : "Transfer");
    const sort = COLUMNS.find((column) => column.id === this.#sort.id);
    this.#dirty ||= !sort.live || this.#filter.value !== "";
    this.#dirty ||= [...changed].some((key) => keys.has(key) !== this.#model.members.has(key));
    if (this.#dirty) this.#arrange();
    else for (const key of this.#order) if (this.#rows.has(key)) this.#fill(key);
  }

  /** A second has passed. */
  tick() {
    const now = this.#model.now();
    for (const [key, one] of this.#rows) {
      const row = this.#model.members.get(key);
      if (row) this.#age(one, row, now);
      one.detail?.tick(now);
    }
  }

  /** Open a member's row, and go there. */
  show(key) {
    if (!this.#rows.has(key)) this.filter("");
    const one = this.#rows.get(key);
    if (!one) return;
    if (!one.detail) this.#toggle(key);
    one.button.focus({ preventScroll: true });
    one.button.scrollIntoView({ block: "center" });
  }

  #again() {
    this.#dirty = true;
    this.#arrange();
  }

  #arrange() {
    this.#dirty = false;
    const filter = this.#filter.value.trim();
    const { value } = COLUMNS.find((column) => column.id === this.#sort.id);
    const sign = this.#sort.down ? -1 : 1;
    const rows = [...this.#model.members.values()]
      .filter((row) => this.#model.matches(row, filter))
      .map((row) => [value(row, this.#model), row])
      .sort(([a, one], [b, other]) => {
        const order = typeof a === "string" ? byText.compare(a, b) : a - b;
        return sign * order || byText.compare(one.name, other.name);
      })
      .map(([, row]) => row);
    this.#order = rows.map((row) => row.public_key);
    keep(
      this.#table,
      this.#nodes,
      rows,
      (row) => row.public_key,
      (row) => this.#create(row),
      (_node, row) => this.#fill(row.public_key),
      this.#table.tHead.nextSibling,
    );
    for (const key of this.#rows.keys()) if (!this.#nodes.has(key)) this.#rows.delete(key);
    const all = this.#model.members.size;
    const none = document.querySelector("#none");
    this.#table.hidden = !rows.length;
    none.hidden = rows.length > 0;
    tell(
      none,
      all
        ? `None of ${count(all, "member")} has all of “${filter}”. Escape clears the filter.`
        : "Asking the registry …",
    );
    tell(document.querySelector("#found"), filter ? `${count(rows.length, "member")} of ${all}` : "");
  }

  #header(column) {
    const button = make("button", { type: "button", onclick: () => this.#sortBy(column.id) }, column.title);
    const sorted = column.id === this.#sort.id ? "ascending" : null;
    return make("th", { scope: "col", "data-column": column.id, "aria-sort": sorted }, button);
  }

  #sortBy(id) {
    this.#sort = { id, down: this.#sort.id === id && !this.#sort.down };
    for (const header of this.#table.tHead.rows[0].cells) {
      if (header.dataset.column !== id) header.removeAttribute("aria-sort");
      else header.setAttribute("aria-sort", this.#sort.down ? "descending" : "ascending");
    }
    this.#again();
  }

  #create(row) {
    const key = row.public_key;
    const button = make("button", { type: "button", class: "open", "aria-expanded": "false" }, make("bdi"));
    button.addEventListener("click", () => this.#toggle(key));
    const one = { button, tags: make("span", { class: "tags" }), detail: null, spark: null, shown: {} };
    const cells = Object.fromEntries(COLUMNS.slice(1).map((column) => [column.id, make("td", { class: column.id })]));
    one.handshake = cells.handshake;
    one.figures = make("span");
    cells.transfer.append(one.figures);
    one.cells = cells;
    const head = make("th", { scope: "row" }, button, one.tags);
    const node = make("tbody", {}, make("tr", {}, head, ...Object.values(cells)));
    node.firstChild.addEventListener("click", (event) => {
      if (!event.target.closest("button") && !getSelection().toString()) this.#toggle(key);
    });
    one.node = node;
    this.#rows.set(key, one);
    return node;
  }

  /** Bring a row up to date; what did not change is not touched. */
  #fill(key) {
    const model = this.#model;
    const row = model.members.get(key);
    const one = this.#rows.get(key);
    if (!row) return;
    this.#age(one, row, model.now());
    const figures = model.figures(row);
    tell(one.figures, bytes(figures) ? `↓ ${size(figures.rx_bytes)}  ↑ ${size(figures.tx_bytes)}` : "–");
    if (one.row !== row) {
      one.row = row;
      const profile = nat(row.nat);
      tell(one.button.firstChild, row.name);
      tell(one.cells.address, row.addresses[0] ?? "–");
      tell(one.cells.nat, profile.short);
      one.cells.nat.title = profile.long;
      tell(one.cells.endpoint, row.endpoint ?? "–");
      this.#changed(one, "tags", tagsOf(row, model), (tags) => one.tags.replaceChildren(...tags.map(tag)));
      this.#changed(one, "state", [model.state(row)], ([state]) => {
        one.cells.state.replaceChildren(word(state));
        one.node.dataset.state = state;
      });
      this.#changed(one, "history", [row.history.rx, row.history.tx], ([rx, tx]) => {
        one.spark?.remove();
        one.spark = spark(rx, tx);
        if (one.spark) one.cells.transfer.prepend(one.spark);
      });
    }
    this.#changed(one, "reach", reachOf(row, model), (told) => one.cells.reach.replaceChildren(...told.map(reached)));
    one.detail?.update(row);
  }

  #age(one, row, now) {
    const at = this.#model.figures(row).handshake_at;
    tell(one.handshake, at === null ? "–" : span(now - at));
  }

  #changed(one, name, value, update) {
    const text = JSON.stringify(value);
    if (one.shown[name] === text) return;
    one.shown[name] = text;
    update(value);
  }

  #toggle(key) {
    const one = this.#rows.get(key);
    const row = this.#model.members.get(key);
    if (one.detail) {
      one.detail.node.remove();
      one.detail = null;
    } else {
      one.detail = new Detail(this.#model, row, COLUMNS.length, this.#act, (peer) => this.show(peer));
      one.node.append(one.detail.node);
    }
    one.node.classList.toggle("opened", one.detail !== null);
    one.button.setAttribute("aria-expanded", String(one.detail !== null));
  }

  #buttons() {
    return [...this.#table.querySelectorAll("button.open")];
  }

  #move(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(document.activeElement);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0) this.#filter.focus();
    else buttons[Math.min(to, buttons.length - 1)].focus();
  }
}

function tagsOf(row, model) {
  const tags = [];
  if (row.public_key === model.self.public_key) tags.push("you");
  if (row.role === "admin") tags.push("admin");
  if (row.kind === "device") tags.push("device");
  if (row.ephemeral) tags.push("ephemeral");
  return tags;
}

function tag(text) {
  return make("small", {}, text);
}

/** What the last cell tells: how many others are reached how, or how the one who looks reaches this one. */
function reachOf(row, model) {
  if (row.kind === "device") return [["through the registry"]];
  if (model.isAdmin || row.public_key === model.self.public_key) {
    const reach = model.reach(row.public_key);
    return WORDS.filter((one) => reach[one]).map((one) => [one, reach[one]]);
  }
  const path = model.path(model.self.public_key, row.public_key);
  return path ? [[path.path, roundTrip(path.rtt_ms)]] : [];
}

function reached([what, figure]) {
  if (figure === undefined) return make("span", { class: "muted" }, what);
  if (typeof figure === "string") return make("span", {}, word(what), ` ${figure}`);
  const mark = make("i", { "aria-hidden": "true" });
  return make(
    "span",
    { class: "word sum", "data-word": what, title: `${figure} ${what}` },
    mark,
    `${figure}`,
    unseen(` ${what} `),
  );
}

/** What came and went in the last minutes, as two lines of one scale; null where nothing did. */
function spark(rx, tx) {
  const most = Math.max(...rx, ...tx, 0);
  if (!most) return null;
  const [width, height, steps] = [80, 20, 59];
  const points = (figures) =>
    figures.map((figure, at) => {
      const x = width - ((figures.length - 1 - at) * width) / steps;
      return `${x.toFixed(1)},${(height - 1 - (figure / most) * (height - 2)).toFixed(1)}`;
    });
  const area = points(rx);
  const start = area[0].split(",")[0];
  return draw(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    draw("path", { class: "rx", d: `M${start},${height}L${area.join("L")}V${height}z` }),
    draw("polyline", { class: "tx", points: points(tx).join(" ") }),
  );
}
