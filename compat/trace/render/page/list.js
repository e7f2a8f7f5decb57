// A list of any length that creates only the visible elements.
//
// Rule 1: the number of elements depends on the height of the list, never on its length.
// Rule 2: every element has its position and the length of the list, for screen readers.
// Rule 3: the selected element always exists, in view or not: a screen reader follows it.

// Rows above and below the visible ones, so that a short scroll finds them.
const SPARE = 6;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

class LongList {
  // render(place) creates the element of a place; its height is the list's --row.
  constructor(box, render) {
    this.box = box;
    this.render = render;
    this.count = 0;
    this.selected = -1;
    this.end = -1;
    this.there = new Map();
    this.space = make("div", { class: "space", role: "presentation" });
    box.replaceChildren(this.space);
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(box);
    this.measure();
  }

  // Keep the selected element in view after a resize.
  measure() {
    const seen = this._sees(this.selected);
    this.height = this.box.clientHeight;
    this.row = parseFloat(getComputedStyle(this.box).getPropertyValue("--row"));
    this.reset(this.count);
    if (seen) this._show(this.selected, this.end);
  }

  // Replace all elements.
  reset(count) {
    this.count = count;
    this.space.style.height = `${count * this.row}px`;
    this.there.clear();
    this.space.replaceChildren();
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.row) - SPARE);
    const end = Math.min(this.count, first + Math.ceil(this.height / this.row) + 2 * SPARE);
    for (const [place, element] of this.there) {
      if ((place < first || place >= end) && place !== this.selected) this._drop(place, element);
    }
    for (let place = first; place < end; place++) this._ensure(place);
    if (this.selected >= 0 && this.selected < this.count) this._ensure(this.selected);
  }

  // Select a place and scroll it into view, with as many of the following rows up to
  // *end* as fit; return its element.
  select(place, end = place) {
    const before = this.there.get(this.selected);
    if (before) before.setAttribute("aria-selected", "false");
    Object.assign(this, { selected: place, end });
    if (place < 0) return null;
    this._show(place, end);
    this.draw();
    const element = this.there.get(place);
    element.setAttribute("aria-selected", "true");
    return element;
  }

  _show(place, end) {
    const margin = Math.min(this.height / 4, 3 * this.row);
    const most = place * this.row - margin;
    const least = (end + 1) * this.row + margin - this.height;
    const { scrollTop } = this.box;
    const wanted = Math.min(most, Math.max(least, scrollTop));
    if (wanted !== scrollTop) this.box.scrollTop = wanted;
  }

  _sees(place) {
    const top = place * this.row - this.box.scrollTop;
    return place >= 0 && top >= 0 && top + this.row <= this.height;
  }

  _ensure(place) {
    if (this.there.has(place)) return;
    const element = this.render(place);
    element.style.top = `${place * this.row}px`;
    this.there.set(place, element);
    this.space.append(element);
  }

  _drop(place, element) {
    this.there.delete(place);
    element.remove();
  }
}
