// Which part of something long is shown: from where, and how much of it.
//
// Rule 1: it is never more than the whole, never less than the least, and never beyond an
// end.
// Rule 2: its numbers are those of who asks: microseconds, or rows.

// What is brought into view gets a little of what stands beside it, too.
const BESIDE = 0.06;

class Part {
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

  // So much closer; what stands at *at* keeps its place.
  zoom(factor, at) {
    const place = Math.min(1, Math.max(0, (at - this.from) / this.size));
    const size = this._fitting(this.size / factor);
    this._set(at - place * size, size);
  }

  // As close as can be with both in view, and a little beside.
  fit(from, to) {
    const size = this._fitting((to - from) / (1 - 2 * BESIDE));
    this._set((from + to - size) / 2, size);
  }

  // Whether it has room for as much, with a little beside.
  holds(size) {
    return size <= this.size * (1 - 2 * BESIDE);
  }

  // Whether any of that is in view.
  sees(from, to) {
    return from <= this.to && to >= this.from;
  }

  // Move as little as brings that into view, its beginning first; from far away, to the
  // middle. Whether it had to.
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
