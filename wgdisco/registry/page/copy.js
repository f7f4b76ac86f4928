// To the clipboard. The registry's address in the tunnel is plain HTTP, where navigator.clipboard is not to be had.

export async function copy(text, button) {
  let isDone = false;
  if (navigator.clipboard)
    isDone = await navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  if (!isDone) {
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("readonly", "");
    field.className = "unseen";
    button.after(field); // within the dialog, if it is in one: outside it nothing can be selected
    field.select();
    isDone = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = isDone ? "Copied" : "Select and copy it";
  setTimeout(() => (button.textContent = before), 2000);
}
