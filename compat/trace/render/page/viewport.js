// The visible part of a long scale: its start and its size.
//
// Rule 1: it is never larger than the whole, never smaller than the least size, and never
// beyond an end.
// Rule 2: the caller chooses the unit: microseconds, or rows.

// A revealed range gets this margin, as a share of the view.
const BESIDE = 0.06;

class Viewport {
  constructor(whole, least) {
    this.whole = Math.max(1, whole);
    this.least = Math.min(least, this.whole);
    this.showAll();
  }

  get to() {
    return this.from + this.size;
  }

  get isAll() {
    return this.size >= this.whole;
  }

  showAll() {
    this._set(0, this.whole);
  }

  // Zoom in; the value *at* keeps its place.
  zoom(factor, at) {
    const place = Math.min(1, Math.max(0, (at - this.from) / this.size));
    const size = this._fitting(this.size / factor);
    this._set(at - place * size, size);
  }

  // Zoom in as far as both fit, with a margin.
  fit(from, to) {
    const size = this._fitting((to - from) / (1 - 2 * BESIDE));
    this._set((from + to - size) / 2, size);
  }

  // Return whether a range of that size fits, with a margin.
  holds(size) {
    return size <= this.size * (1 - 2 * BESIDE);
  }

  // Return whether any of the range is in view.
  sees(from, to) {
    return from <= this.to && to >= this.from;
  }

  // Scroll as little as needed, the beginning first; from far away, to the middle.
  // Return whether it scrolled.
  reveal(from, to) {
    if (from >= this.from && to <= this.to) return false;
    const beside = BESIDE * this.size;
    const isFar = to < this.from - this.size || from > this.to + this.size;
    const least = to + beside - this.size;
    const most = from - beside;
    const near = Math.min(most, Math.max(least, this.from));
    const before = this.from;
    this._set(isFar ? Math.min(most, (from + to - this.size) / 2) : near, this.size);
    return this.from !== before;
  }

  _fitting(size) {
    return Math.min(this.whole, Math.max(this.least, size));
  }

  _set(from, size) {
    this.size = size;
    this.from = Math.max(0, Math.min(this.whole - size, from));
  }
}
