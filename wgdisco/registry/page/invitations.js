// Invitations that are out, and lately were; for admins.

import { keep, make, tell, word } from "/page/dom.js";
import { span } from "/page/words.js";

const ORDER = ["pending", "used", "expired"];

export class Invitations {
  #model;
  #act;
  #body = document.querySelector("#invitations tbody");
  #nodes = new Map();

  /** `act.cancel(invitation)` opens its dialog. */
  constructor(model, act) {
    this.#model = model;
    this.#act = act;
  }

  update() {
    const told = [...this.#model.invitations];
    told.sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || b.expires_at - a.expires_at);
    keep(
      this.#body,
      this.#nodes,
      told,
      (one) => one.id,
      () => this.#create(),
      (node, one) => this.#fill(node, one),
    );
    this.#body.parentElement.hidden = !told.length;
    document.querySelector("#no-invitations").hidden = told.length > 0;
    const pending = told.filter((one) => one.state === "pending").length;
    const badge = document.querySelector("#pending");
    badge.hidden = !pending;
    tell(badge, String(pending));
    this.tick();
  }

  tick() {
    const now = this.#model.now();
    for (const node of this.#nodes.values()) {
      const left = node.told.expires_at - now;
      tell(node.cells[4], left > 0 ? `in ${span(left, Math.ceil)}` : `${span(-left)} ago`);
    }
  }

  #create() {
    const node = make("tr");
    const button = make(
      "button",
      { type: "button", class: "small", onclick: () => this.#act.cancel(node.told) },
      "Cancel…",
    );
    const cells = ["", "", "wide", "", "", "wide"].map((kind) => make("td", { class: kind || null }));
    node.append(make("th", { scope: "row" }), ...cells.slice(1), make("td", {}, button));
    return Object.assign(node, { button });
  }

  #fill(node, one) {
    node.told = one;
    const [name, state, groups, uses, , used] = node.cells;
    const extra = [one.role === "admin" ? "admin" : "", one.ephemeral ? "ephemeral" : ""].filter(Boolean);
    const text = JSON.stringify([one.name, extra, one.state]);
    if (node.dataset.shown !== text) {
      node.dataset.shown = text;
      name.replaceChildren(one.name ?? "any host", ...extra.map((tag) => make("small", {}, tag)));
      state.replaceChildren(word(one.state));
    }
    tell(groups, one.groups.join(", "));
    tell(uses, String(one.uses_left));
    tell(used, one.used_by.join(", ") || "–");
    node.button.hidden = one.state !== "pending";
    node.button.setAttribute("aria-label", `Cancel the invitation for ${one.name ?? "any host"}`);
  }
}
