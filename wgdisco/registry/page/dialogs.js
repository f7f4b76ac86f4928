// Invite, rename, revoke, cancel: a dialog each, which says what the registry says.

import { copy } from "/page/copy.js";
import { make, tell } from "/page/dom.js";
import { ask } from "/page/stream.js";
import { count } from "/page/words.js";

const LIFETIMES = { "1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days" };

let numbers = 0;

function field(label, input, hint) {
  const id = (input.id = `field-${(numbers += 1)}`);
  const note = hint ? make("small", { id: `${id}-hint` }, hint) : null;
  if (note) input.setAttribute("aria-describedby", note.id);
  return make(
    "p",
    { class: input.type === "checkbox" ? "check" : "field" },
    make("label", { for: id }, label),
    input,
    note,
  );
}

/** Open a dialog. `send()` does it, and may return nodes that take the form's place; the dialog closes otherwise. */
function open(title, content, verb, send, isDanger = false) {
  const error = make("p", { class: "error", role: "alert" });
  const heading = make("h2", { id: `field-${(numbers += 1)}` }, title);
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const submit = make("button", { type: "submit", class: isDanger ? "danger main" : "main" }, verb);
  const buttons = make("p", { class: "buttons" }, close, submit);
  const body = make("div", {}, ...content);
  const form = make("form", { novalidate: true }, heading, body, error, buttons);
  const dialog = make("dialog", { "aria-labelledby": heading.id }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    tell(error, "");
    try {
      const answer = await send();
      if (!answer) return dialog.close();
      body.replaceChildren(...answer.filter(Boolean));
      submit.remove();
      tell(close, "Done");
      (body.querySelector("[data-first]") ?? close).focus();
    } catch (problem) {
      tell(error, problem.message);
      submit.disabled = false;
    }
    return undefined;
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export class Dialogs {
  #model;
  #say;

  /** `say(text)` tells what was done. */
  constructor(model, say) {
    this.#model = model;
    this.#say = say;
  }

  invite() {
    const text = (attributes) =>
      make("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
    const name = text({ maxlength: "63" });
    const groups = text({ value: "all" });
    const uses = make("input", { type: "number", min: "1", max: "10000", value: "1" });
    const expires = make(
      "select",
      {},
      ...Object.entries(LIFETIMES).map(([value, label]) => make("option", { value, selected: value === "24h" }, label)),
    );
    const admin = make("input", { type: "checkbox" });
    const ephemeral = make("input", { type: "checkbox" });
    const content = [
      field("Name", name, "of the member to be; empty: what its host is called"),
      field("Groups", groups, "members of one group see each other"),
      make("div", { class: "two" }, field("Uses", uses), field("Good for", expires)),
      field("Admin: may do what you do here", admin),
      field("Ephemeral: forgotten when it ends", ephemeral),
    ];
    open("Invite", content, "Make a link", async () => {
      const asked = {
        groups: groups.value.split(/[\s,]+/).filter(Boolean),
        uses: Number(uses.value),
        expires: expires.value,
      };
      if (name.value.trim()) asked.name = name.value.trim();
      if (admin.checked) asked.admin = true;
      if (ephemeral.checked) asked.ephemeral = true;
      const made = await ask("/v1/invite", asked);
      return this.#invited(made, asked);
    });
  }

  #invited(made, asked) {
    const link = make("input", {
      type: "text",
      readonly: true,
      value: made.link,
      "data-first": true,
      "aria-label": "Link",
    });
    link.addEventListener("focus", () => link.select());
    const button = make("button", { type: "button", class: "main", onclick: () => copy(made.link, button) }, "Copy");
    const code = make("img", { class: "qr", alt: "The link as a QR code" });
    code.src = `data:image/svg+xml,${encodeURIComponent(made.qr)}`;
    const revoked =
      `${asked.name} was revoked: members who knew it refuse another key under that name, until each types ` +
      `“wgdisco accept ${asked.name}”. Another name would spare them that.`;
    const who = asked.uses > 1 ? count(asked.uses, "host") : "one host";
    return [
      make("p", {}, `Good for ${who} and ${LIFETIMES[asked.expires]}. It is shown this once: who has it can join.`),
      made.was_revoked ? make("p", { class: "error" }, revoked) : null,
      make("p", { class: "link" }, link, button),
      make("p", {}, "On that host: ", make("code", {}, "wgdisco join"), ", which asks for the link."),
      code,
    ];
  }

  cancel(invitation) {
    const who = invitation.name ?? "any host";
    const content = [
      make("p", {}, `The link for ${who} will let nobody in any more. Who joined with it stays a member.`),
    ];
    open(
      `Cancel the invitation for ${who}?`,
      content,
      "Cancel the invitation",
      async () => {
        await ask("/v1/invite/cancel", { id: invitation.id });
        this.#say(`The invitation for ${who} is cancelled`);
      },
      true,
    );
  }

  rename(row) {
    const name = make("input", {
      type: "text",
      value: row.name,
      maxlength: "63",
      autocomplete: "off",
      spellcheck: "false",
    });
    open(
      `Rename ${row.name}`,
      [field("New name", name, "lower-case letters, digits and inner hyphens")],
      "Rename",
      async () => {
        await ask("/v1/rename", { public_key: row.public_key, name: name.value.trim() });
        this.#say(`${row.name} is ${name.value.trim()} now`);
      },
    );
    name.select();
  }

  revoke(row) {
    const line =
      `${row.name} (${row.addresses[0] ?? row.public_key}) will be no member: nobody talks to its key any more.` +
      " To have it back, invite it under another name.";
    open(
      `Revoke ${row.name}?`,
      [make("p", {}, line)],
      `Revoke ${row.name}`,
      async () => {
        const done = await ask("/v1/revoke", { public_key: row.public_key });
        const unseen = done.unseen?.length ? `; not yet heard of by ${done.unseen.join(", ")}` : "";
        this.#say(`${row.name} is revoked${unseen}`);
      },
      true,
    );
  }
}
