// The two pictures of time: the whole trace, and the calls of one turn.
//
// Rule 1: the cost of a picture depends on its width: one scan of the rows after a change
// of the channel, one scan of the drawn rows after a change of the view, none after a
// change of the moment.
// Rule 2: a canvas is invisible to screen readers. Its contents are in the list of events
// too; the timeline is a slider with a text, and the calls of the turn have a label.

class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.width = 0;
    this.height = 0;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const scale = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    this.repaint();
  }

  colour(name) {
    return getComputedStyle(this.canvas).getPropertyValue(`--${name}`).trim();
  }

  clear() {
    this.pen.clearRect(0, 0, this.width, this.height);
  }
}

// Lanes of the timeline, from the top: their places and heights in pixels.
const LANES = { part: [0, 3], turns: [5, 12], work: [19, 22], backlog: [45, 20], marks: [69, 6] };

// The height of the scale below them.
const SCALE = 16;

// The smallest view: microseconds, and events.
const LEAST = { time: 20, events: 16 };

// Pixels between lines of the scale, and between turns that are separated.
const TICK = 80;
const TURN_APART = 14;

// Marks, in the order of painting: an error hides the others.
const MARKS = ["gone", "good", "bad"];

// By "time", or by "events", where every event has the same width, and a wait has none.
// The selection stays in view at every zoom.
class TimeLine extends Picture {
  constructor(canvas, trace, words, pick) {
    super(canvas);
    Object.assign(this, { trace, words, row: 0, channel: 0, drawn: null, isPointedAt: false });
    this.background = document.createElement("canvas");
    this.scaleBy("time");
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this._point(event, pick);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this._point(event, pick);
    });
  }

  // The part under the pointer does not scroll.
  _point(event, pick) {
    this.isPointedAt = true;
    pick(this.rowAt(event.offsetX));
    this.isPointedAt = false;
  }

  // Show another moment.
  show(row) {
    this.row = row;
    const stays = this.isPointedAt && this._seesTurn();
    if (!stays && this._keepInView()) this.repaint();
    else this.paintMoment();
  }

  // Show only one channel; 0: all.
  narrow(channel) {
    if (channel !== this.channel) this.drawn = null;
    this.channel = channel;
    this.repaint();
  }

  // Scale by "time" or by "events", with the same part of the trace in view.
  scaleBy(by) {
    const { trace, part } = this;
    if (by === this.by) return;
    this.by = by;
    this.part = new Viewport(by === "time" ? trace.duration : trace.length, LEAST[by]);
    if (!part || part.isAll || !trace.length) return;
    const [from, to] = by === "time"
      ? [trace.time[Math.floor(part.from)], trace.over(Math.min(trace.length, Math.ceil(part.to)) - 1)]
      : [this._rowOf(part.from), this._rowOf(part.to) + 1];
    this.part.fit(from, to);
    this._keepInView();
  }

  // Zoom in; x, or else the selection, keeps its place.
  zoom(factor, x = null) {
    const { part } = this;
    const wasSeen = part.sees(...this._focus().span);
    part.zoom(factor, x === null ? this._anchor() : part.from + (x / this.width) * part.size);
    if (wasSeen || !this._seesTurn()) this._keepInView();
    this.repaint();
  }

  showAll() {
    this.part.showAll();
    this.repaint();
  }

  // Fit the selected turn, without its wait.
  showTurn() {
    const turn = this.trace.turn(this.row);
    this.part.fit(...this._spans(turn)[1]);
    this.repaint();
  }

  // Repaint: another view, channel, theme or language.
  repaint() {
    if (!this.width || !this.trace.length) return;
    this.clear();
    this.drawn ??= this._gather();
    this._paintPart();
    this._paintTurns();
    this._paintWork(this._work());
    this._paintBacklog(this._backlog());
    this._paintMarks(this._marks());
    this._paintScale();
    this._keep();
    this.paintMoment();
  }

  paintMoment() {
    const { pen, trace, row } = this;
    if (!this.width) return;
    this.clear();
    pen.drawImage(this.background, 0, 0, this.width, this.height);
    const [top] = LANES.turns;
    const tall = this.height - SCALE - top;
    const [from, to] = this._spans(trace.turn(row))[0].map((value) => this._x(value));
    const left = Math.max(0, from);
    pen.fillStyle = this.colour("moment-soft");
    pen.fillRect(left, top, Math.max(1, Math.min(this.width, to) - left), tall);
    const x = this.x(row);
    if (x < 0 || x > this.width) return;
    pen.fillStyle = this.colour("moment");
    pen.fillRect(Math.min(this.width - 2, Math.max(0, x - 1)), top, 2, tall);
  }

  // The place of a row.
  x(row) {
    return this._x(this._value(row));
  }

  _value(row) {
    return this.by === "events" ? row : this.trace.time[row];
  }

  _x(value) {
    return ((value - this.part.from) / this.part.size) * this.width;
  }

  // The row at a place.
  rowAt(x) {
    const place = Math.min(1, Math.max(0, x / this.width));
    const value = this.part.from + place * this.part.size;
    return this.by === "events" ? Math.min(this.trace.length - 1, Math.floor(value)) : this._rowOf(value);
  }

  // The last row that started by a time.
  _rowOf(time) {
    const { trace } = this;
    const turn = trace.turns[Math.max(0, lastUpTo(trace.turns, time, (each) => trace.time[each]))];
    let row = turn;
    while (row < trace.last[turn] && trace.time[row + 1] <= time) row++;
    return row;
  }

  // The spans of a row, the longest first: with its wait, and, of a turn, without it.
  _spans(row) {
    const { trace } = this;
    if (this.by === "events") return Array(2).fill([row, trace.last[row] + 1]);
    const end = trace.ends(row);
    if (trace.turn(row) !== row) return Array(2).fill([trace.time[row], end]);
    return [[trace.time[row], end], [Math.min(end, trace.time[row] + trace.waitOf(row)), end]];
  }

  // The span to keep in view, and the anchor in it: as much of the selected turn as fits;
  // else the event.
  _focus() {
    const { trace, row } = this;
    const spans = [...this._spans(trace.turn(row)), ...this._spans(row)];
    const own = spans[spans.length - 1];
    const span = spans.find(([from, to]) => this.part.holds(to - from)) ?? own;
    return { span, at: own[0] };
  }

  // The fixed point of a zoom: the event; or, within a long wait, the middle of its
  // visible part.
  _anchor() {
    const { part } = this;
    const { at } = this._focus();
    const [from, to] = this._spans(this.trace.turn(this.row))[0];
    if (part.sees(at, at) || !part.sees(from, to)) return at;
    return (Math.max(from, part.from) + Math.min(to, part.to)) / 2;
  }

  _seesTurn() {
    return this.part.sees(...this._spans(this.trace.turn(this.row))[0]);
  }

  _keepInView() {
    return this.trace.length > 0 && this.part.reveal(...this._focus().span);
  }

  // The painted values, by the rows in which they begin: one scan of all rows.
  _gather() {
    const { trace } = this;
    const drawn = { work: [], changes: [], backlog: [], marks: [] };
    const waits = new Map();
    let total = 0;
    for (let row = 0; row < trace.length; row++) {
      if (this.channel && trace.about[row] !== this.channel) continue;
      if (trace.kind[row] === CALL && !trace.depth[row]) drawn.work.push(row);
      const more = this._moreWaits(row, waits);
      if (more) {
        drawn.changes.push(row);
        drawn.backlog.push(total += more);
      }
      const mark = this._mark(row);
      if (mark) drawn.marks.push([row, MARKS.indexOf(mark)]);
    }
    return drawn;
  }

  _moreWaits(row, waits) {
    const { trace } = this;
    if (trace.kind[row] !== STATE) return 0;
    const changes = trace.changes(row);
    const now = changes.is === "closed" ? 0 : changes.backlog;
    if (now === undefined) return 0;
    const before = waits.get(trace.about[row]) || 0;
    waits.set(trace.about[row], now);
    return now - before;
  }

  _mark(row) {
    const { trace } = this;
    if (trace.kind[row] === OPEN) return "good";
    if (trace.fails(row)) return "bad";
    const closes = trace.kind[row] === STATE && trace.rows[row][4] & 1;
    return closes && trace.changes(row).is === "closed" ? "gone" : "";
  }

  // Microseconds of callbacks for each pixel.
  _work() {
    const { trace, width } = this;
    const work = new Float64Array(Math.ceil(width));
    for (const row of this.drawn.work) {
      const us = trace.rows[row][3] || 0;
      const begin = Math.floor(this.x(row));
      const long = this.by === "events" ? trace.last[row] + 1 - row : us;
      const wide = Math.max(1, Math.round((long / this.part.size) * width));
      const tall = this.by === "events" ? us : us / wide;
      const end = Math.min(work.length, begin + wide);
      for (let x = Math.max(0, begin); x < end; x++) work[x] += tall;
    }
    return work;
  }

  // The largest backlog for each pixel.
  _backlog() {
    const { changes, backlog } = this.drawn;
    const most = new Float64Array(Math.ceil(this.width));
    let reached = 0;
    let total = 0;
    changes.forEach((row, place) => {
      const x = Math.min(most.length, Math.floor(this.x(row)));
      for (; reached < x; reached++) most[reached] = Math.max(most[reached], total);
      total = backlog[place];
      if (x >= 0 && x < most.length) most[x] = Math.max(most[x], total);
    });
    for (; reached < most.length; reached++) most[reached] = Math.max(most[reached], total);
    return most;
  }

  // Marks for each pixel, one bit for each of MARKS.
  _marks() {
    const marks = new Uint8Array(Math.ceil(this.width));
    for (const [row, mark] of this.drawn.marks) {
      const x = Math.floor(this.x(row));
      if (x >= 0 && x < marks.length) marks[x] |= 1 << mark;
    }
    return marks;
  }

  // The part of the whole that is in view.
  _paintPart() {
    const { pen, part, width } = this;
    if (part.isAll) return;
    const [top, height] = LANES.part;
    const wide = Math.max(4, (part.size / part.whole) * width);
    pen.fillStyle = this.colour("line");
    pen.fillRect(0, top, width, height);
    pen.fillStyle = this.colour("accent");
    pen.fillRect(Math.min(width - wide, (part.from / part.whole) * width), top, wide, height);
  }

  // The starts of turns, and their numbers where they fit.
  _paintTurns() {
    const { trace, pen, part } = this;
    const begins = (turn) => this._value(turn);
    const first = Math.max(0, lastUpTo(trace.turns, part.from, begins));
    const end = lastUpTo(trace.turns, part.to, begins) + 1;
    if ((end - first) * TURN_APART > this.width) return;
    const [top] = LANES.turns;
    pen.font = getComputedStyle(this.canvas).font;
    pen.textAlign = "left";
    pen.textBaseline = "top";
    for (let place = first; place < end; place++) {
      const turn = trace.turns[place];
      pen.fillStyle = this.colour("line");
      pen.fillRect(Math.floor(this.x(turn)), top, 1, this.height - SCALE - top);
      const next = trace.turns[place + 1];
      this._paintTurnName(turn, next === undefined ? this.width : this.x(next), top);
    }
  }

  // At its callbacks; or, if that is too narrow, at its wait; else only the number.
  _paintTurnName(turn, end, top) {
    const { pen, trace, words } = this;
    const number = trace.rows[turn][2];
    const name = turnName(words, { sort: trace.sortOf(turn), number });
    const [[begin], [woke]] = this._spans(turn);
    const right = Math.min(this.width, end);
    const places = [[name, woke], [name, begin], [words.number(number), woke]];
    const [text, from] = places.find(([each, value]) =>
      Math.max(0, this._x(value)) + pen.measureText(each).width + 9 < right) ?? [];
    if (!text || (!number && text !== name)) return;
    pen.fillStyle = this.colour("quiet");
    pen.fillText(text, Math.max(0, this._x(from)) + 3, top);
  }

  _paintWork(work) {
    const [top, height] = LANES.work;
    const most = Math.max(1e-9, ...work);
    this.pen.fillStyle = this.colour("call");
    work.forEach((us, x) => {
      // The square root keeps short calls visible beside long ones.
      const tall = us && Math.max(1.5, Math.sqrt(us / most) * height);
      if (tall) this.pen.fillRect(x, top + height - tall, 1, tall);
    });
  }

  _paintBacklog(backlog) {
    const [top, height] = LANES.backlog;
    const most = backlog.reduce((one, other) => Math.max(one, other), 1);
    this.pen.fillStyle = this.colour("queue");
    backlog.forEach((bytes, x) => {
      const tall = (bytes / most) * height;
      if (tall) this.pen.fillRect(x, top + height - tall, 1, tall);
    });
  }

  _paintMarks(marks) {
    const [top, height] = LANES.marks;
    MARKS.forEach((kind, bit) => {
      this.pen.fillStyle = this.colour(kind);
      marks.forEach((mark, x) => {
        if (mark & (1 << bit)) this.pen.fillRect(x - 1, top, 3, height);
      });
    });
  }

  _paintScale() {
    const { pen, part, words, width } = this;
    pen.fillStyle = this.colour("quiet");
    pen.font = getComputedStyle(this.canvas).font;
    pen.textBaseline = "bottom";
    pen.textAlign = "center";
    const byEvents = this.by === "events";
    const first = byEvents ? 1 : 0;
    const step = roundStep(part.size / Math.max(2, Math.floor(width / TICK)), byEvents);
    for (let at = Math.ceil((part.from + first) / step) * step; at <= part.to + first; at += step) {
      const text = byEvents ? `#${words.number(at)}` : words.tick(at, step, part.to);
      const half = pen.measureText(text).width / 2;
      const x = this._x(at - first);
      pen.fillRect(x, this.height - SCALE, 1, 3);
      pen.fillText(text, Math.min(width - half, Math.max(half, x)), this.height - 1);
    }
  }

  // Keep the painting, so that a change of the moment does not repaint everything.
  _keep() {
    const { background, canvas } = this;
    background.width = canvas.width;
    background.height = canvas.height;
    background.getContext("2d").drawImage(canvas, 0, 0);
  }
}

// The next larger of 1, 2, 5, 10, 20, 50 …
function roundStep(least, isWhole) {
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].find((each) => each * power >= least) * power;
  return isWhole ? Math.max(1, step) : step;
}

// The calls of one turn: time runs from left to right, children are below.
const FLAME_ROW = 20;

// Levels that fit; deeper calls are in the list.
const FLAME_LEVELS = 5;

class Flame extends Picture {
  constructor(canvas, trace, words, pick) {
    super(canvas);
    Object.assign(this, { trace, words, turn: null, row: 0, boxes: [] });
    // The same for every turn, so that the page below does not move.
    canvas.style.height = `${Math.min(FLAME_LEVELS, trace.levels()) * FLAME_ROW}px`;
    canvas.addEventListener("click", (event) => {
      const box = this.boxAt(event.offsetX, event.offsetY);
      if (box) pick(box.row);
    });
  }

  show(turn, row) {
    Object.assign(this, { turn, row });
    this.repaint();
  }

  repaint() {
    if (!this.width || !this.turn) return;
    this.clear();
    this.boxes = this._boxes();
    for (const box of this.boxes) this._paint(box);
  }

  boxAt(x, y) {
    const level = Math.floor(y / FLAME_ROW);
    return this.boxes.find((box) => box.level === level && x >= box.x && x < box.x + box.wide);
  }

  _boxes() {
    const { trace, turn } = this;
    const { calls } = turn;
    if (!calls.length) return [];
    const from = trace.time[calls[0]];
    const to = calls.reduce((most, each) => Math.max(most, trace.over(each)), from + 1);
    const scale = this.width / (to - from);
    return calls.filter((each) => trace.depth[each] < FLAME_LEVELS).map((row) => ({
      row,
      level: trace.depth[row],
      x: (trace.time[row] - from) * scale,
      wide: Math.max(1, (trace.over(row) - trace.time[row]) * scale),
    }));
  }

  _paint({ row, level, x, wide }) {
    const { pen, trace } = this;
    const fails = trace.fails(row);
    const here = row === this.row;
    pen.fillStyle = this.colour(here ? "moment" : fails ? "bad-soft" : `call-${Math.min(level, 2)}`);
    pen.fillRect(x, level * FLAME_ROW, Math.max(1, wide - 1), FLAME_ROW - 1);
    if (wide < 24) return;
    pen.save();
    pen.beginPath();
    pen.rect(x, level * FLAME_ROW, wide - 4, FLAME_ROW);
    pen.clip();
    pen.fillStyle = this.colour(here ? "on-moment" : "ink");
    pen.font = getComputedStyle(this.canvas).font;
    pen.textBaseline = "middle";
    pen.fillText(callName(trace, row), x + 5, level * FLAME_ROW + FLAME_ROW / 2);
    pen.restore();
  }
}

function callName(trace, row) {
  const call = trace.call(row);
  return call.ch ? `${trace.name(call.ch)}.${call.do}` : call.do;
}
