/** Elements of the page. Text goes in as text only, so that nothing that comes from outside is ever markup. */

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; texts among the children stay texts. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An SVG element. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Put options into a select. */
export function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
}

/** Tell the reader something; an empty text takes it away. */
export function tell(...sentences) {
  byId("message").textContent = sentences.join(" ");
  byId("message").hidden = sentences.join("") === "";
}

/** Put a text into the clipboard, or say how it can be got by hand. */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} is in the clipboard.`);
  } catch {
    tell("The browser gives this page no clipboard. Select the text and copy it by hand.");
  }
}
