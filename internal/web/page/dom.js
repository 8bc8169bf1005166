// What makes and changes elements. Text goes in as text only: nothing that a
// host says can become markup, and nothing in it is hidden or turns what stands
// beside it around.

const SVG = "http://www.w3.org/2000/svg";

// el makes an element: el("a", {href: "x", class: "y"}, "text", child).
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
    else attr(node, name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map((c) => (typeof c === "string" ? visible(c) : c)));
  return node;
}

// hidden characters show nothing, or something else than themselves: controls
// but line feeds, all that sets the direction, blanks that are no space.
const hidden = /[\p{C}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u115f\u1160\u3164\uffa0\u034f\u17b4\u17b5\u2800\u180b-\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/gu;

// visible writes hidden characters as \x1b, \u202e or \U000e0041, as every output
// of twwatch does.
export function visible(value) {
  return String(value).replace(hidden, (c) => {
    const code = c.codePointAt(0), digits = code.toString(16);
    if (code === 10) return c;
    return code < 0x80 ? "\\x" + digits.padStart(2, "0") : code > 0xffff ? "\\U" + digits.padStart(8, "0") : "\\u" + digits.padStart(4, "0");
  });
}

// attr sets an attribute if it isn't so already; null and false take it away.
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : visible(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

// text sets a node's text if it isn't that already: what doesn't change is not
// drawn or read out again.
export function text(node, value) {
  const wanted = visible(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// keyed makes the children of a parent those of a list: it makes what is new,
// updates what is there, removes what is gone, and moves no more than it must,
// so that focus, open details and scroll positions stay.
export function keyed(parent, items, keyOf, make, update) {
  const there = new Map();
  for (const child of parent.children) there.set(child.dataset.key, child);
  const focused = document.activeElement;
  const used = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    let key = keyOf(item);
    while (used.has(key)) key += "+"; // what is told twice is shown twice
    used.add(key);
    let node = there.get(key);
    if (node) {
      there.delete(key);
    } else {
      node = make(item);
      node.dataset.key = key;
    }
    update(node, item);
    if (node === place) {
      place = place.nextElementSibling;
    } else if (node.isConnected && parent.moveBefore) {
      parent.moveBefore(node, place);
    } else {
      parent.insertBefore(node, place);
    }
  }
  for (const node of there.values()) node.remove();
  if (focused && focused !== document.activeElement && parent.contains(focused)) focused.focus({preventScroll: true});
}

// unknown is a cell's content for what can't be known.
export function unknown() {
  return [el("span", {"aria-hidden": "true", class: "unknown"}, "–"), el("span", {class: "hidden"}, "not known")];
}

// setCell shows text, or that it isn't known where it is null.
export function setCell(node, value) {
  if (value === null) {
    if (!node.querySelector(".unknown")) node.replaceChildren(...unknown());
    return;
  }
  text(node, value);
}

// copyText puts text on the clipboard, also where the page came without TLS.
export async function copyText(node) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  }
  getSelection().selectAllChildren(node);
  return document.execCommand("copy");
}
