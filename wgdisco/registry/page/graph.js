// Few members as a graph: each a node on an oval, each pair that has a path an edge; what is relayed bends towards the
// registry in the middle. A member that sees only its own paths stands in the middle itself.

import { draw } from "/page/dom.js";
import { roundTrip } from "/page/words.js";

const CENTRE = { x: 0, y: 0 };
const LABELLED_MAX = 5;
const NAMED_MAX = 40;

/** The drawing. `point(key)` says what is pointed at (null: nothing), `show(key)` opens it. */
export function drawGraph(model, point, show) {
  const rows = [...model.members.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  const middle = model.isAdmin ? null : model.self?.public_key;
  const far = reach(rows.length);
  const places = place(rows, middle, far);
  const [x, y] = [far.x + far.aside, far.y + 40];
  const svg = draw("svg", {
    class: rows.length > NAMED_MAX ? "graph many" : "graph",
    viewBox: `${-x} ${-y} ${2 * x} ${2 * y}`,
    role: "group",
  });
  svg.setAttribute("aria-label", "The mesh: members and the paths between them");
  const edges = draw("g");
  const labels = draw("g", { class: "labels", "aria-hidden": "true" });
  svg.append(edges);
  if (!middle) svg.append(registry(rows, places, edges));
  svg.append(labels);
  const isLabelled = rows.length <= LABELLED_MAX;
  rows.forEach((row, at) => {
    for (const other of rows.slice(0, at)) {
      const path = model.between(row.public_key, other.public_key);
      if (!path || path.path === "idle") continue;
      const bend = curve(places.get(row.public_key), places.get(other.public_key), path.path === "relay" && !middle);
      const d = `M${at2(bend.a)}Q${at2(bend.c)} ${at2(bend.b)}`;
      edges.append(
        draw("path", {
          class: "edge",
          d,
          "data-word": path.path,
          "data-ends": `${row.public_key} ${other.public_key}`,
        }),
      );
      if (isLabelled) labels.append(...label(bend, path));
    }
  });
  for (const row of rows) svg.append(node(row, places.get(row.public_key), model, rows.length, middle));
  listen(svg, point, show);
  return svg;
}

/** Half axes of the oval, and room for names beside it. */
function reach(number) {
  if (number <= 3) return { x: 150, y: 125, aside: 75 };
  if (number <= LABELLED_MAX) return { x: 175, y: 150, aside: 75 };
  return number <= 9 ? { x: 230, y: 165, aside: 105 } : { x: 205, y: 190, aside: 120 };
}

function place(rows, middle, far) {
  const around = rows.filter((row) => row.public_key !== middle);
  const places = new Map(middle ? [[middle, { ...CENTRE, turn: Math.PI / 2 }]] : []);
  around.forEach((row, at) => {
    const turn = (2 * Math.PI * at) / around.length - Math.PI / 2;
    places.set(row.public_key, {
      x: far.x * Math.cos(turn),
      y: far.y * Math.sin(turn) + (around.length === 3 ? 22 : 0),
      turn,
    });
  });
  return places;
}

/** Ends and control point of an edge. */
function curve(a, b, isRelayed) {
  const half = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  if (isRelayed) return { a, b, c: { x: half.x + (CENTRE.x - half.x) * 0.8, y: half.y + (CENTRE.y - half.y) * 0.8 } };
  if (Math.hypot(half.x - CENTRE.x, half.y - CENTRE.y) > 36) return { a, b, c: half };
  const long = Math.hypot(b.x - a.x, b.y - a.y);
  if (!long || a === CENTRE || Math.hypot(a.x - CENTRE.x, a.y - CENTRE.y) < 1) return { a, b, c: half };
  return { a, b, c: { x: half.x + ((b.y - a.y) / long) * 70, y: half.y - ((b.x - a.x) / long) * 70 } };
}

function at2(place) {
  return `${place.x.toFixed(1)},${place.y.toFixed(1)}`;
}

function label(bend, path) {
  const x = (bend.a.x + 2 * bend.c.x + bend.b.x) / 4;
  const y = (bend.a.y + 2 * bend.c.y + bend.b.y) / 4;
  const first = [path.path, roundTrip(path.rtt_ms)].filter(Boolean).join(" ");
  const lines = [draw("text", { x, y: y + 4 }, first)];
  if (path.reason) lines.push(draw("text", { x, y: y + 19, class: "why" }, path.reason));
  return lines;
}

/** The registry in the middle, with its devices of stock WireGuard. */
function registry(rows, places, edges) {
  for (const row of rows)
    if (row.kind === "device" && row.online) {
      const place_ = places.get(row.public_key);
      edges.append(draw("path", { class: "edge", "data-word": "hub", d: `M${at2(place_)}L${at2(CENTRE)}` }));
    }
  const { x, y } = CENTRE;
  const box = draw("rect", { x: x - 7, y: y - 7, width: 14, height: 14, rx: 3 });
  return draw("g", { class: "registry" }, box, draw("text", { x, y: y + 24 }, "registry"));
}

function node(row, at, model, number, middle) {
  const { public_key: key, name } = row;
  const isMiddle = key === middle;
  const isSmall = number > NAMED_MAX;
  const state = model.state(row);
  const group = draw("g", { class: "node", "data-key": key, "data-state": state, tabindex: "0", role: "button" });
  group.setAttribute("aria-label", `${name}, ${state}`);
  group.append(draw("circle", { cx: at.x, cy: at.y, r: isSmall && !isMiddle ? 3.2 : 9 }));
  if (isSmall && !isMiddle) return group;
  const [cos, sin] = isMiddle ? [0, 1] : [Math.cos(at.turn), Math.sin(at.turn)];
  if (number > 16 && !isMiddle) {
    const degrees = (at.turn * 180) / Math.PI;
    const isLeft = cos < -0.001;
    const turn = `rotate(${isLeft ? degrees + 180 : degrees} ${at.x.toFixed(1)} ${at.y.toFixed(1)})`;
    group.append(
      draw(
        "text",
        {
          x: at.x + (isLeft ? -14 : 14),
          y: at.y + 4,
          transform: turn,
          "text-anchor": isLeft ? "end" : "start",
          class: "name small",
        },
        name,
      ),
    );
    return group;
  }
  const anchor = Math.abs(cos) < 0.3 ? "middle" : cos < 0 ? "end" : "start";
  const x = at.x + (anchor === "middle" ? 0 : cos * 17);
  const y = at.y + 5 + sin * (anchor === "middle" ? 24 : 14);
  group.append(draw("text", { x, y, "text-anchor": anchor, class: "name" }, name));
  return group;
}

function listen(svg, point, show) {
  const over = (event) => {
    const key = event.target.closest("[data-key]")?.dataset.key ?? null;
    svg.classList.toggle("pointed", key !== null);
    for (const edge of svg.querySelectorAll("[data-ends]"))
      edge.classList.toggle("lit", edge.dataset.ends.split(" ").includes(key));
    point(key);
  };
  svg.addEventListener("pointerover", over);
  svg.addEventListener("pointerleave", over);
  svg.addEventListener("focusin", over);
  svg.addEventListener("focusout", over);
  const enter = (event) => {
    const key = event.target.closest("[data-key]")?.dataset.key;
    if (!key || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    show(key);
  };
  svg.addEventListener("click", enter);
  svg.addEventListener("keydown", enter);
}
