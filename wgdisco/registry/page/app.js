// The page: what the registry tells goes into the model, and from there into the table, the drawing and the rest.

import { Dialogs } from "/page/dialogs.js";
import { make, tell, word } from "/page/dom.js";
import { Invitations } from "/page/invitations.js";
import { Mesh } from "/page/mesh.js";
import { Model } from "/page/model.js";
import { Stream } from "/page/stream.js";
import { Table } from "/page/table.js";
import { figure, WORDS } from "/page/words.js";

const VIEWS = ["members", "mesh", "invitations"];
const find = (selector) => document.querySelector(selector);

const model = new Model();
const dialogs = new Dialogs(model, say);
const table = new Table(model, dialogs);
const mesh = new Mesh(model, (key) => {
  location.hash = "members";
  look();
  table.show(key);
});
const invitations = new Invitations(model, dialogs);
const stream = new Stream("/v1/view/events", heard, lost);
const changed = new Set();
let isAwaited = false;
let silence = 0; // counts the seconds of it
let lostAt = 0;

function heard(name, event) {
  if (name !== "view" && name !== "change") return;
  for (const key of model.take(event, name === "view")) changed.add(key);
  document.body.dataset.lost = "";
  find("#lost").hidden = true;
  clearInterval(silence);
  tell(find("#link"), "live");
  if (isAwaited) return;
  isAwaited = true;
  requestAnimationFrame(show); // a hidden page waits until it is looked at
}

function show() {
  isAwaited = false;
  document.body.dataset.role = model.self.role;
  if (!model.isAdmin && document.body.dataset.view === "invitations") location.hash = "members";
  const { name, zone, prefixes } = model.network;
  document.title = `${name} – wgdisco`;
  tell(find("#network"), name);
  const own = model.isAdmin ? `${model.self.name}, admin` : model.self.name;
  tell(find("#about"), `${zone.replace(/\.$/, "")} · ${prefixes.join(", ")} · you are ${own}`);
  summarize();
  table.update(changed);
  mesh.update();
  invitations.update();
  count();
  changed.clear();
}

function summarize() {
  const sums = {};
  for (const row of model.members.values()) {
    const state = model.state(row);
    sums[state] = (sums[state] ?? 0) + 1;
  }
  const pairs = model.pairs();
  const told = ["online", "stale", "never"]
    .filter((state) => sums[state])
    .map((state) => [state, sums[state], "members"]);
  told.push(...WORDS.filter((one) => pairs[one] && one !== "idle").map((one) => [one, pairs[one], "paths"]));
  const list = find("#summary");
  const text = JSON.stringify(told);
  if (list.dataset.told === text) return;
  list.dataset.told = text;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.word : null;
  list.replaceChildren(
    ...told.map(([one, number, of]) => {
      const button = make("button", { type: "button", "data-word": one }, make("b", {}, figure(number)), word(one));
      button.title = of === "paths" ? "Show members with such paths" : "Show these members";
      button.addEventListener("click", () => table.filter(find("#filter").value === one ? "" : one));
      return make("li", { class: of }, button);
    }),
  );
  if (focused) list.querySelector(`[data-word="${focused}"]`)?.focus();
}

function count() {
  const list = find("#counters dl");
  const relay = Object.entries(model.relay).filter(([, value]) => typeof value === "number");
  const told = relay.map(([name, value]) => [`relayed ${name}`, value]);
  told.push(...Object.entries(model.drops).filter(([, value]) => value));
  const text = JSON.stringify(told);
  if (list.dataset.told === text) return;
  list.dataset.told = text;
  const pairs = told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, figure(value))));
  list.replaceChildren(...pairs);
}

function lost(reason, seconds) {
  const at = Date.now();
  if (document.body.dataset.lost !== "yes") lostAt = at;
  document.body.dataset.lost = "yes";
  tell(find("#link"), "lost");
  const [told, left] = find("#lost").children;
  const line = model.network ? "What is shown is from before. " : "";
  tell(told, `No news from the registry: ${reason}. ${line}`);
  const wait = () => {
    // a registry that comes back within a moment is not worth a word
    find("#lost").hidden &&= Date.now() - lostAt < 2000;
    const more = Math.ceil(seconds - (Date.now() - at) / 1000);
    tell(left, more > 0 ? `Trying again in ${more} s.` : "Trying again.");
  };
  clearInterval(silence);
  silence = setInterval(wait, 1000);
  wait();
}

/** The page is looked at again, or the host has a network again. */
function wake() {
  if (!document.hidden && document.body.dataset.lost === "yes") stream.open();
}

function say(text) {
  const toast = find("#toast");
  tell(toast, text);
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => tell(toast, ""), 8000);
}

function look() {
  const view = location.hash.slice(1);
  document.body.dataset.view = VIEWS.includes(view) ? view : "members";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${document.body.dataset.view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  mesh.update(); // it is drawn when it is looked at
}

addEventListener("hashchange", look);
addEventListener("online", wake);
document.addEventListener("visibilitychange", wake);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  location.hash = "members";
  look();
  find("#filter").focus();
});
find("#invite").addEventListener("click", () => dialogs.invite());
find("#lost button").addEventListener("click", () => stream.open());
setInterval(() => {
  if (document.hidden || !model.network) return;
  table.tick();
  invitations.tick();
}, 1000);
look();
table.update(changed);
stream.open();
