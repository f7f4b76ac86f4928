// Many members as a matrix: the row's member reaches the column's in the colour of the path's word. Members behind one
// address stand together, so that what happens at one place is a square on the diagonal.

import { draw, make } from "/page/dom.js";
import { WORDS } from "/page/words.js";

const SIZE = 720;
const NAMED_MAX = 48;

export class Matrix {
  #model;
  #point;
  #show;
  #svg;
  #group;
  #cross = draw("path", { class: "cross" });
  #keys = [];
  #rows = new Map(); // by key: the element, and what it shows
  #cell = SIZE;
  #margin = 0;
  #at = null; // row and column pointed at

  /** `point(from, to)` says what is pointed at, null and null: nothing. `show(key)` opens a member. */
  constructor(box, model, point, show) {
    this.#model = model;
    this.#point = point;
    this.#show = show;
    this.#group = draw("g");
    this.#svg = draw("svg", { class: "matrix", role: "img", viewBox: `0 0 ${SIZE} ${SIZE}` }, this.#group, this.#cross);
    const frame = make(
      "div",
      {
        class: "frame",
        tabindex: "0",
        role: "group",
        "aria-label": "Who reaches whom: arrow keys step from square to square, Enter opens a member",
      },
      this.#svg,
    );
    frame.addEventListener("keydown", (event) => this.#step(event));
    frame.addEventListener("blur", () => this.#go(null));
    this.#svg.addEventListener("pointermove", (event) => this.#go(this.#under(event)));
    this.#svg.addEventListener("pointerleave", () => this.#go(null));
    this.#svg.addEventListener("click", (event) => {
      const at = this.#under(event);
      if (at) this.#show(this.#keys[at.row]);
    });
    box.replaceChildren(frame);
    this.#point(null, null);
  }

  /** Draw what changed. */
  update(members) {
    const keys = order(members).map((row) => row.public_key);
    if (keys.join() !== this.#keys.join()) this.#lay(keys);
    const words = this.#model.pairs();
    const told = WORDS.filter((word) => words[word]).map((word) => `${words[word]} ${word}`);
    this.#svg.setAttribute("aria-label", `Paths between ${members.length} members: ${told.join(", ")}`);
    keys.forEach((from, row) => {
      const line = this.#rows.get(from);
      const shown = keys.map((to) => (to === from ? "self" : (this.#model.fresh(from, to)?.path ?? "")));
      const text = shown.join();
      if (line.shown === text) return;
      line.shown = text;
      line.element.replaceChildren(...this.#runs(shown, row));
    });
  }

  /** Lay out anew, for other members. */
  #lay(keys) {
    this.#keys = keys;
    this.#margin = keys.length <= NAMED_MAX ? 110 : 0;
    this.#cell = (SIZE - this.#margin) / keys.length;
    this.#at = null;
    this.#mark();
    this.#rows = new Map(keys.map((key) => [key, { element: draw("g"), shown: "" }]));
    const names = [];
    if (this.#margin)
      keys.forEach((key, row) => {
        const { name } = this.#model.members.get(key);
        const [x, y] = [this.#margin - 6, this.#margin + (row + 0.5) * this.#cell + 4];
        names.push(draw("text", { x, y, "text-anchor": "end" }, name));
        const turn = `rotate(-90 ${y} ${x})`;
        names.push(draw("text", { x: y, y: x, transform: turn, dy: 0 }, name));
      });
    this.#group.replaceChildren(...[...this.#rows.values()].map((line) => line.element), ...names);
  }

  /** A row's squares: one path for each word. */
  #runs(shown, row) {
    const paths = new Map();
    const y = this.#margin + row * this.#cell;
    const gap = this.#cell > 6 ? 1 : 0;
    const side = (this.#cell - gap).toFixed(2);
    for (let column = 0; column < shown.length;) {
      const word = shown[column];
      let end = column + 1;
      while (!gap && shown[end] === word) end += 1; // small squares make one
      const x = (this.#margin + column * this.#cell).toFixed(2);
      const wide = ((end - column) * this.#cell - gap).toFixed(2);
      paths.set(word, `${paths.get(word) ?? ""}M${x},${y.toFixed(2)}h${wide}v${side}h-${wide}z`);
      column = end;
    }
    return [...paths].map(([word, d]) => draw("path", { "data-word": word || "none", d }));
  }

  #under(event) {
    const box = this.#svg.getBoundingClientRect();
    const scale = SIZE / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - this.#margin) / this.#cell);
    const row = Math.floor(((event.clientY - box.top) * scale - this.#margin) / this.#cell);
    const last = this.#keys.length - 1;
    return row < 0 || column < 0 || row > last || column > last ? null : { row, column };
  }

  #step(event) {
    const last = this.#keys.length - 1;
    const { row, column } = this.#at ?? { row: 0, column: -1 };
    const to = {
      ArrowLeft: { row, column: Math.max(0, column - 1) },
      ArrowRight: { row, column: Math.min(last, column + 1) },
      ArrowUp: { row: Math.max(0, row - 1), column: Math.max(0, column) },
      ArrowDown: { row: Math.min(last, row + (this.#at ? 1 : 0)), column: Math.max(0, column) },
    }[event.key];
    if (to) this.#go(to);
    else if (event.key === "Enter" && this.#at) this.#show(this.#keys[this.#at.row]);
    else return;
    event.preventDefault();
  }

  #go(at) {
    if (at?.row === this.#at?.row && at?.column === this.#at?.column) return;
    this.#at = at;
    this.#mark();
    this.#point(at && this.#keys[at.row], at && this.#keys[at.column]);
  }

  #mark() {
    if (!this.#at) return this.#cross.setAttribute("d", "");
    const middle = (place) => (this.#margin + (place + 0.5) * this.#cell).toFixed(1);
    const { row, column } = this.#at;
    return this.#cross.setAttribute(
      "d",
      `M${this.#margin},${middle(row)}H${SIZE}M${middle(column)},${this.#margin}V${SIZE}`,
    );
  }
}

function order(members) {
  const place = (row) => row.endpoint?.replace(/:\d+$/, "") ?? "~";
  return [...members].sort((one, other) => {
    const [a, b] = [place(one), place(other)];
    return a === b ? (one.name < other.name ? -1 : 1) : a < b ? -1 : 1;
  });
}
