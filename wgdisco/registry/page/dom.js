// Elements, made and kept. Text goes in as text only: names come from strangers.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An element with attributes (`onclick` and the like are listeners), and children: nodes or texts. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Set the text of a node, unless it is that already. */
export function tell(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Text for those who listen. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

/** A path's or member's word, with its mark. */
export function word(text) {
  return make("span", { class: "word", "data-word": text }, make("i", { "aria-hidden": "true" }), text);
}

/**
 * Children of `parent` for `items`, in their order: those that are there stay the same nodes. `nodes` is a Map by key,
 * `create(item)` makes one, `update(node, item)` brings it up to date. Focus stays where it is.
 */
export function keep(parent, nodes, items, key, create, update, first = null) {
  const focused = document.activeElement;
  const left = new Set(nodes.keys());
  let place = first ?? parent.firstChild;
  for (const item of items) {
    const id = key(item);
    let node = nodes.get(id);
    if (node === undefined) nodes.set(id, (node = create(item)));
    left.delete(id);
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const id of left) {
    nodes.get(id).remove();
    nodes.delete(id);
  }
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}
