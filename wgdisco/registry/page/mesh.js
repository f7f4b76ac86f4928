// The drawing: a graph where it stays readable, a matrix where there are more members; and what is said of it.

import { draw, make, tell, word } from "/page/dom.js";
import { drawGraph } from "/page/graph.js";
import { Matrix } from "/page/matrix.js";
import { figure, roundTrip, WORDS } from "/page/words.js";

const GRAPH_MAX = 16;

export class Mesh {
  #model;
  #show;
  #box = document.querySelector("#drawing");
  #readout = document.querySelector("#readout");
  #legend = document.querySelector("#legend");
  #matrix = null;
  #drawn = "";

  /** `show(key)` goes to a member's row. */
  constructor(model, show) {
    this.#model = model;
    this.#show = show;
  }

  /** Draw what changed. */
  update() {
    const model = this.#model;
    const drawn = `${model.turn} ${model.isAdmin}`;
    if (drawn === this.#drawn || !this.#box.offsetParent || !model.network) return;
    this.#drawn = drawn;
    const members = [...model.members.values()];
    const pairs = model.pairs();
    const legend = WORDS.filter((one) => pairs[one]).map((one) => [one, pairs[one]]);
    this.#tellLegend(legend);
    if (model.isAdmin && members.length > GRAPH_MAX) {
      this.#matrix ??= new Matrix(this.#box, model, (from, to) => this.#pair(from, to), this.#show);
      this.#matrix.update(members);
      return;
    }
    this.#matrix = null;
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    this.#box.replaceChildren(drawGraph(model, (key) => this.#member(key), this.#show));
    if (focused) this.#box.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    if (!this.#readout.textContent) this.#member(null);
  }

  #tellLegend(pairs) {
    const told = JSON.stringify(pairs);
    if (this.#legend.dataset.told === told) return;
    this.#legend.dataset.told = told;
    this.#legend.replaceChildren(
      ...pairs.map(([one, number]) => {
        const line = draw("svg", { viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" });
        line.append(draw("path", { class: "edge", "data-word": one, d: "M1,4H27" }));
        return make("li", {}, line, word(one), ` ${figure(number)}`);
      }),
    );
  }

  /** Say of a member how it reaches others. */
  #member(key) {
    const row = this.#model.members.get(key);
    if (!row) return tell(this.#readout, this.#model.members.size ? "Point at a member, or step to it with Tab." : "");
    const reach = this.#model.reach(key);
    const told = WORDS.filter((one) => reach[one]).map((one) => `${reach[one]} ${one}`);
    return tell(this.#readout, `${row.name}, ${this.#model.state(row)}: ${told.join(", ") || "no path reported"}`);
  }

  /** Say how one reaches another; null: nobody is pointed at. */
  #pair(from, to) {
    if (!from)
      return tell(
        this.#readout,
        "Rows reach columns. Point at a square, or step with the arrow keys; Enter opens the row's member.",
      );
    const [one, other] = [this.#model.members.get(from), this.#model.members.get(to)];
    if (!one || !other) return undefined;
    if (one === other) return this.#member(from);
    const path = this.#model.path(from, to);
    const told = path ? [path.path, path.reason && `(${path.reason})`, roundTrip(path.rtt_ms)] : ["not tried"];
    return tell(this.#readout, `${one.name} → ${other.name}: ${told.filter(Boolean).join(" ")}`);
  }
}
