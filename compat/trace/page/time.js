// The two pictures of time: the whole trace, and the calls of one turn.
//
// Rule 1: a picture costs what its width costs: one walk through the rows when what it
// shows changes, none when only the moment does.
// Rule 2: a canvas says nothing to who cannot see it. What it shows is in the list of
// events too; the time line is a slider that speaks, the turn's calls have a label.

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

// Lanes of the time line, from the top: their places and heights in pixels.
const LANES = { work: [6, 22], backlog: [32, 20], marks: [56, 6] };

// By "time", or by "events": then every event has the same room, and a long wait none.
class TimeLine extends Picture {
  constructor(canvas, trace, words, pick) {
    super(canvas);
    Object.assign(this, { trace, words, by: "time", row: 0, channel: 0, background: null });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pick(this.rowAt(event.offsetX));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) pick(this.rowAt(event.offsetX));
    });
  }

  // Show another moment.
  show(row) {
    this.row = row;
    this.paintMoment();
  }

  // Show something else: another scale, channel or theme.
  repaint() {
    if (!this.width || !this.trace.length) return;
    this.clear();
    const bins = this._bins();
    this._paintWork(bins.work);
    this._paintBacklog(bins.backlog);
    this._paintMarks(bins.marks);
    this._paintScale();
    this.background = document.createElement("canvas");
    this.background.width = this.canvas.width;
    this.background.height = this.canvas.height;
    this.background.getContext("2d").drawImage(this.canvas, 0, 0);
    this.paintMoment();
  }

  paintMoment() {
    if (!this.background) return;
    const { pen } = this;
    this.clear();
    pen.drawImage(this.background, 0, 0, this.width, this.height);
    const turn = this.trace.turn(this.row);
    const from = this.x(turn);
    const to = this.x(this.trace.last[turn]);
    pen.fillStyle = this.colour("moment-soft");
    pen.fillRect(from, 0, Math.max(1, to - from), this.height - 16);
    pen.fillStyle = this.colour("moment");
    pen.fillRect(Math.min(this.width - 2, Math.max(0, this.x(this.row) - 1)), 0, 2, this.height - 16);
  }

  x(row) {
    const { trace } = this;
    if (this.by === "events") return (row / Math.max(1, trace.length)) * this.width;
    return (trace.time[row] / Math.max(1, trace.duration)) * this.width;
  }

  // The row that is shown at a place.
  rowAt(x) {
    const part = Math.min(1, Math.max(0, x / this.width));
    const { trace } = this;
    if (this.by === "events") return Math.min(trace.length - 1, Math.floor(part * trace.length));
    const time = part * trace.duration;
    const starts = trace.turns.map((turn) => trace.time[turn]);
    const place = Math.max(0, lastUpTo(starts, time));
    const turn = trace.turns[place];
    let row = turn;
    while (row < trace.last[turn] && trace.time[row + 1] <= time) row++;
    return row;
  }

  // For each pixel: microseconds of work, the most bytes that waited, what happened.
  _bins() {
    const count = Math.ceil(this.width);
    const bins = { work: new Float64Array(count), backlog: new Float64Array(count), marks: [] };
    const waits = new Map();
    let total = 0;
    let reached = 0;
    for (let row = 0; row < this.trace.length; row++) {
      const x = Math.min(count - 1, Math.floor(this.x(row)));
      for (; reached < x; reached++) bins.backlog[reached + 1] = total;
      total += this._moreWaits(row, waits);
      bins.backlog[x] = Math.max(bins.backlog[x], total);
      this._addWork(row, x, bins.work);
      const mark = this._mark(row);
      if (mark) bins.marks.push([x, mark]);
    }
    return bins;
  }

  _addWork(row, x, work) {
    const { trace } = this;
    if (trace.kind[row] !== CALL || trace.depth[row]) return;
    if (this.channel && trace.about[row] !== this.channel) return;
    const us = trace.rows[row][3] || 0;
    const scale = this.width / Math.max(1, trace.duration);
    const byEvents = this.by === "events";
    const wide = Math.max(1, Math.round(byEvents ? this.width / trace.length : us * scale));
    const tall = byEvents ? us : us / wide;
    for (let at = x; at < Math.min(work.length, x + wide); at++) work[at] += tall;
  }

  _moreWaits(row, waits) {
    const { trace } = this;
    if (trace.kind[row] !== STATE) return 0;
    const channel = trace.about[row];
    if (this.channel && channel !== this.channel) return 0;
    const changes = trace.changes(row);
    const now = changes.is === "closed" ? 0 : changes.backlog;
    if (now === undefined) return 0;
    const before = waits.get(channel) || 0;
    waits.set(channel, now);
    return now - before;
  }

  _mark(row) {
    const { trace } = this;
    if (this.channel && trace.about[row] !== this.channel) return "";
    if (trace.kind[row] === OPEN) return "good";
    if (trace.kind[row] === CALL && trace.rows[row][11]) return "bad";
    const closes = trace.kind[row] === STATE && trace.rows[row][4] & 1;
    return closes && trace.changes(row).is === "closed" ? "gone" : "";
  }

  _paintWork(work) {
    const [top, height] = LANES.work;
    const most = Math.max(1, ...work);
    this.pen.fillStyle = this.colour("call");
    work.forEach((us, x) => {
      // The root, or what is short would not be seen beside what is long.
      const tall = us && Math.max(1.5, Math.sqrt(us / most) * height);
      if (tall) this.pen.fillRect(x, top + height - tall, 1, tall);
    });
  }

  _paintBacklog(backlog) {
    const [top, height] = LANES.backlog;
    const most = Math.max(1, ...backlog);
    this.pen.fillStyle = this.colour("queue");
    backlog.forEach((bytes, x) => {
      const tall = (bytes / most) * height;
      if (tall) this.pen.fillRect(x, top + height - tall, 1, tall);
    });
  }

  _paintMarks(marks) {
    const [top, height] = LANES.marks;
    for (const kind of ["gone", "good", "bad"]) {
      this.pen.fillStyle = this.colour(kind);
      for (const [x, mark] of marks) if (mark === kind) this.pen.fillRect(x - 1, top, 3, height);
    }
  }

  _paintScale() {
    const { pen, trace } = this;
    pen.fillStyle = this.colour("quiet");
    pen.font = getComputedStyle(this.canvas).font;
    pen.textBaseline = "bottom";
    const ticks = Math.max(2, Math.floor(this.width / 160));
    for (let tick = 0; tick <= ticks; tick++) {
      const part = tick / ticks;
      const text = this.by === "events"
        ? `#${this.words.number(Math.round(part * trace.length))}`
        : this.words.span(Math.round(part * trace.duration));
      pen.textAlign = tick === 0 ? "left" : tick === ticks ? "right" : "center";
      pen.fillText(text, part * this.width, this.height - 1);
    }
  }
}

// The calls of one turn: from left to right as time passes, inner calls below.
const FLAME_ROW = 20;

// How many levels fit; deeper calls are in the list.
const FLAME_LEVELS = 5;

class Flame extends Picture {
  constructor(canvas, trace, words, pick) {
    super(canvas);
    Object.assign(this, { trace, words, turn: null, row: 0, boxes: [] });
    // The same for every turn, or all that stands below would jump at each step.
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
    const fails = trace.rows[row][11];
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
