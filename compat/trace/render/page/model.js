// The trace: rows in the order of their starts, and the state of every channel at each.
//
// Rule 1: a moment is the end of a row, with all rows inside it. A turn's row ends with the
// turn.
// Rule 2: a query about a moment does not scan the trace.
// Rule 3: bytes that were not recorded are unknown.
// Rule 4: all texts but bytes are returned by visibleText, so names, addresses and errors
// cannot reorder the text beside them.

const TURN = 0;
const WOKE = 1;
const CALL = 2;
const STATE = 3;
const OPEN = 4;
const INTEREST = 5;
const TIMER = 6;
const END = 7;
const INNER_TURN = 8;
const LOST = 9;

// The fields of a state, from the lowest bit up; the first three are texts.
const STATES = ["is", "local", "peer", "terminator", "held", "backlog", "queued"];
const STATE_TEXTS = 3;

// Exceptions of a non-blocking socket that is not ready, and the methods in which that is
// not a failure: the call is repeated later.
const WOULD_BLOCK = /^(BlockingIOError|SSLWantReadError|SSLWantWriteError)\b/;
const TRIES = ["send", "recv"];

// A share of the time of a trace.
const MOSTLY = 0.9;

const NEW_CHANNEL = {
  is: "new", local: "", peer: "", terminator: null,
  held: 0, heldAt: -1, backlog: 0, queued: 0, reads: false, writes: false,
};

// The state of a channel that was opened before the shown part of a trace.
const UNKNOWN_CHANNEL = { ...NEW_CHANNEL, is: "unknown" };

class Channel {
  constructor(number, kind, module, fd) {
    Object.assign(this, { number, kind: visibleText(kind), module: visibleText(module), fd });
    this.name = `${this.kind}#${number}`;
    this.since = -1; // the row of its first appearance
    this.start = NEW_CHANNEL; // its state then
    this.until = Infinity; // the row in which it closed
    this.rows = []; // its rows
    this.reads = []; // rows that read from its socket
    this.changed = []; // rows, ascending
    this.states = []; // the states after them
  }

  // The state at a moment; null before the channel exists.
  at(row) {
    const place = lastUpTo(this.changed, row);
    if (place >= 0) return this.states[place];
    if (this.start === UNKNOWN_CHANNEL) return this.start;
    return this.since >= 0 && this.since <= row ? this.start : null;
  }

  change(row, changes) {
    const last = this.states[this.states.length - 1] || this.start;
    this.changed.push(row);
    this.states.push({ ...last, ...changes });
    if (changes.is === "closed") this.until = row;
    else if (changes.is) this.until = Infinity;
  }
}

class Trace {
  constructor(data) {
    this.header = data.header;
    this.rows = data.rows;
    this.strings = data.strings;
    this.channels = new Map();
    for (const each of data.channels) this.channels.set(each[0], new Channel(...each));
    this.code = new Map(data.code.map((each) => [each[0], codeOf(each)]));
    this.turns = []; // their rows
    this.mostBacklog = 0;
    this.threads = new Set();
    this.looping = new Set(); // threads that have a turn
    this.gaps = []; // rows where lines are missing, ascending
    this._allocate(data.rows.length);
    for (let row = 0; row < data.rows.length; row++) this._add(row);
    this._end();
  }

  // Columns for the frequent queries about rows.
  _allocate(count) {
    this.kind = new Uint8Array(count);
    // A damaged trace may have any number that the reader accepts.
    this.depth = new Float64Array(count);
    this.time = new Float64Array(count); // microseconds since the trace began
    this.turnOf = new Int32Array(count); // the index in turns
    this.last = new Int32Array(count); // the last row inside it
    this.about = new Float64Array(count); // the channel; 0 for none
    this._open = []; // rows whose last row is not known yet
  }

  _add(row) {
    const fields = this.rows[row];
    this.kind[row] = fields[0];
    if (fields[0] === TURN) this._beginTurn(row, fields);
    else this._placeInTurn(row, fields);
    this.turnOf[row] = this.turns.length - 1;
    const effect = EFFECTS[fields[0]];
    if (effect) effect(this, row, fields);
  }

  _beginTurn(row, fields) {
    this._closeFrom(0, row);
    this.turns.push(row);
    this.threads.add(fields[3]);
    if (fields[2]) this.looping.add(fields[3]);
    this.time[row] = fields[1];
  }

  _placeInTurn(row, fields) {
    const depth = fields[1];
    this._closeFrom(depth, row);
    this._open.push(row);
    this.depth[row] = depth;
    this.time[row] = this.time[this.turns[this.turns.length - 1]] + fields[2];
  }

  // End the rows of at least that depth.
  _closeFrom(depth, row) {
    while (this._open.length && this.depth[this._open[this._open.length - 1]] >= depth) {
      this.last[this._open.pop()] = row - 1;
    }
  }

  _end() {
    const count = this.rows.length;
    this._closeFrom(0, count);
    this.turns.forEach((row, place) => {
      this.last[row] = (this.turns[place + 1] ?? count) - 1;
    });
    this.duration = 0;
    for (let row = 0; row < count; row++) {
      this.duration = Math.max(this.duration, this.over(row));
    }
  }

  // The number of levels of nested calls.
  levels() {
    let most = 1;
    for (let row = 0; row < this.length; row++) {
      if (this.kind[row] === CALL && this.depth[row] >= most) most = this.depth[row] + 1;
    }
    return most;
  }

  // Return whether a picture to scale would show little but waits.
  isMostlyWaiting() {
    let waited = 0;
    for (const row of this.turns) waited += this.waitOf(row);
    return waited > MOSTLY * this.duration;
  }

  waitOf(turn) {
    for (let row = turn + 1; row <= this.last[turn]; row++) {
      if (this.kind[row] === WOKE && !this.depth[row]) return this.rows[row][3];
    }
    return 0;
  }

  // Register a row with its channel, and return the channel.
  _register(row, number) {
    const channel = this.channels.get(number);
    if (!channel) return null;
    this.about[row] = number;
    channel.rows.push(row);
    if (channel.since < 0) this._appear(row, channel);
    return channel;
  }

  _appear(row, channel) {
    const wasThere = this.header.part && this.kind[row] !== OPEN;
    channel.since = wasThere ? 0 : row;
    if (wasThere) channel.start = UNKNOWN_CHANNEL;
  }

  get length() {
    return this.rows.length;
  }

  text(number) {
    return visibleText(this.strings[number || 0]);
  }

  // The text as recorded.
  bytes(number) {
    return this.strings[number || 0];
  }

  // Return whether a call raised an exception that is a failure.
  fails(row) {
    if (this.kind[row] !== CALL || !this.rows[row][11]) return false;
    return !this.wouldBlock(row);
  }

  wouldBlock(row) {
    const fields = this.rows[row];
    return TRIES.includes(this.text(fields[4])) && WOULD_BLOCK.test(this.text(fields[11]));
  }

  name(number) {
    return this.channels.get(number)?.name ?? `#${number}`;
  }

  // The row of the turn that a row belongs to.
  turn(row) {
    return this.turns[this.turnOf[row]];
  }

  // The end of a row with all rows inside it.
  ends(row) {
    let end = this.time[row];
    for (let each = row; each <= this.last[row]; each++) end = Math.max(end, this.over(each));
    return end;
  }

  // The end of a row, in microseconds since the trace began.
  over(row) {
    const fields = this.rows[row];
    if (this.kind[row] === CALL) return this.time[row] + (fields[3] || 0);
    return this.time[row];
  }

  call(row) {
    const [, depth, , us = 0, do_, ch = 0, f = 0, data = 0, n = 0, taken = 0, given = 0,
      error = 0, where = 0, to = 0, but = 0, id = 0] = this.rows[row];
    return {
      row, depth, us, ch, to, but, id, taken, given,
      do: this.text(do_),
      code: this.code.get(f) || null,
      data: this.bytes(data),
      size: n ? n - 1 : null,
      error: this.text(error),
      where: this.text(where),
    };
  }

  get keepsPayload() {
    return this.header.payload !== null;
  }

  // The sort of a turn: "turn"; or, with the number 0, "before" the first turn of its
  // thread, or "outside" any, if the thread has none.
  sortOf(turn) {
    const [, , number, thread] = this.rows[turn];
    if (number) return "turn";
    return this.looping.has(thread) ? "before" : "outside";
  }

  // The contents of a turn: {turn, woke, calls, rows}; the last two are row numbers.
  turnAt(place) {
    const row = this.turns[place];
    const [, at, number, thread, by, timeout, channels, asked] = this.rows[row];
    const rows = range(row + 1, this.last[row]);
    const woke = rows.find((each) => this.kind[each] === WOKE && !this.depth[each]);
    return {
      row, at, number, thread, timeout, channels, asked, rows,
      sort: this.sortOf(row),
      by: this.text(by),
      woke: woke === undefined ? null : { row: woke, ...this.woke(woke) },
      interests: rows.filter((each) => this.kind[each] === INTEREST),
      calls: rows.filter((each) => this.kind[each] === CALL),
      changes: rows.filter((each) => this.kind[each] === STATE || this.kind[each] === OPEN),
    };
  }

  woke(row) {
    const [, , , waited, why, read, write, urgent] = this.rows[row];
    return { waited, why: this.text(why), read, write, urgent };
  }

  // The changes in a state's row, by name.
  changes(row) {
    const [, , , , bits, ...values] = this.rows[row];
    const changes = {};
    STATES.forEach((name, place) => {
      if (!(bits & (1 << place))) return;
      const value = values.shift();
      changes[name] = place < STATE_TEXTS ? this.text(value) : value;
    });
    return changes;
  }

  // Channels that exist at a moment, or were closed in its turn.
  channelsAt(row) {
    const turn = this.turn(row);
    const there = (each) => each.since >= 0 && each.since <= row && each.until >= turn;
    return [...this.channels.values()].filter(there);
  }

  // The numbers of the channels in a turn.
  touchedIn(turn) {
    const touched = new Set();
    for (let row = turn; row <= this.last[turn]; row++) {
      if (this.about[row]) touched.add(this.about[row]);
      if (this.kind[row] === WOKE) readyIn(this.rows[row]).forEach((each) => touched.add(each));
    }
    return touched;
  }

  // The held-back bytes of a channel at a moment, as text; null if not recorded.
  held(channel, row) {
    const state = channel.at(row);
    if (!state || !state.held) return "";
    const bytes = this._lastRead(channel, state.heldAt, state.held);
    return bytes && toText(bytes);
  }

  // The last bytes that a channel had read by a row; null if not all were recorded.
  _lastRead(channel, row, count) {
    let bytes = [];
    const gap = this.gaps[lastUpTo(this.gaps, row)] ?? -1;
    for (let place = lastUpTo(channel.reads, row); place >= 0; place--) {
      if (channel.reads[place] < gap) return null;
      const taken = this._read(channel.reads[place]);
      if (!taken) return null;
      bytes = taken.concat(bytes);
      if (bytes.length >= count) return bytes.slice(bytes.length - count);
    }
    return null;
  }

  // The bytes that a call read; null if not all of them were recorded.
  _read(row) {
    const call = this.call(row);
    const bytes = call.size === null ? toBytes(call.data) : [];
    return bytes.length === call.taken ? bytes : null;
  }

  // How the bytes that a call read were processed: a list of {what, size, text}, in the
  // order of the bytes, "what" being "collected", "terminator" or "held". Null if it read
  // nothing, or if the trace does not account for every byte.
  fate(row) {
    const channel = this.channels.get(this.about[row]);
    const reads = channel ? this._within(channel.reads, row) : [];
    if (!reads.length) return null;
    const before = channel.at(row)?.held ?? 0;
    const after = channel.at(this.last[row])?.held ?? 0;
    const parts = this._parts(channel, row);
    const taken = reads.reduce((sum, each) => sum + this.call(each).taken, 0);
    const left = before + taken - parts.reduce((sum, part) => sum + part.size, 0);
    if (left !== after) return null;
    if (left) parts.push({ what: "held", size: left });
    return this._cut(parts, this._stream(channel, row, reads, before));
  }

  _within(rows, row) {
    return rows.slice(lastUpTo(rows, row - 1) + 1, lastUpTo(rows, this.last[row]) + 1);
  }

  _parts(channel, row) {
    const parts = [];
    for (const each of this._within(channel.rows, row)) {
      if (this.kind[each] !== CALL) continue;
      const call = this.call(each);
      const { terminator } = channel.at(each) ?? NEW_CHANNEL;
      if (call.do === "collect_incoming_data") parts.push({ what: "collected", size: call.size ?? 0, row: each });
      else if (call.do === "found_terminator" && typeof terminator === "string") {
        parts.push({ what: "terminator", size: toBytes(terminator).length, row: each });
      }
    }
    return parts;
  }

  // The bytes held before, and those read; null if not all were recorded.
  _stream(channel, row, reads, before) {
    const state = channel.at(row);
    const kept = before ? this._lastRead(channel, state.heldAt, before) : [];
    const taken = reads.map((each) => this._read(each));
    return kept && taken.every(Boolean) ? kept.concat(...taken) : null;
  }

  _cut(parts, stream) {
    let at = 0;
    return parts.map((part) => {
      const text = stream && toText(stream.slice(at, at + part.size));
      at += part.size;
      return { ...part, text };
    });
  }

  // The rows that pass a filter: {channel, what, thread}, each unset if it is "" or 0, and
  // matches(row), null for any. A turn passes if a row in it does.
  passing({ channel = 0, what = "", thread = 0 }, matches = null) {
    const found = [];
    const isOfKind = KINDS[what] || (() => true);
    const isMatch = matches || (() => true);
    const isFiltered = Boolean(channel || matches || (what && what !== "turns"));
    const ofTurns = matches && !channel && (!what || what === "turns");
    for (const turn of this.turns) {
      if (thread && this.rows[turn][3] !== thread) continue;
      const before = found.push(turn);
      let concerned = !isFiltered || Boolean(ofTurns && matches(turn));
      for (let row = turn + 1; row <= this.last[turn]; row++) {
        if (!this._concerns(row, channel) || !isMatch(row)) continue;
        if (isOfKind(this, row)) found.push(row);
        if (what === "turns") concerned = true;
      }
      if (!concerned && found.length === before) found.pop();
    }
    return Int32Array.from(found);
  }

  _concerns(row, channel) {
    if (!channel || this.about[row] === channel) return true;
    return this.kind[row] === WOKE && readyIn(this.rows[row]).includes(channel);
  }
}

// The choices of "show", by name.
const KINDS = {
  turns: () => false,
  calls: (trace, row) => trace.kind[row] === CALL,
  states: (trace, row) => trace.kind[row] === STATE || trace.kind[row] === OPEN,
  errors: (trace, row) => trace.fails(row),
};

// The effects of a row on the model, by kind.
const EFFECTS = {
  [CALL](trace, row, fields) {
    const channel = trace._register(row, fields[5] || 0);
    if (channel && fields[9]) channel.reads.push(row);
  },
  [STATE](trace, row, fields) {
    const channel = trace._register(row, fields[3]);
    const changes = trace.changes(row);
    if ("held" in changes) changes.heldAt = row;
    if (changes.backlog > trace.mostBacklog) trace.mostBacklog = changes.backlog;
    if (channel) channel.change(row, changes);
  },
  [LOST](trace, row) {
    trace.gaps.push(row);
  },
  [OPEN](trace, row, fields) {
    trace._register(row, fields[3]);
  },
  [INTEREST](trace, row, fields) {
    const channel = trace._register(row, fields[3]);
    const wants = { reads: Boolean(fields[4] & 1), writes: Boolean(fields[4] & 2) };
    if (channel) channel.change(row, wants);
  },
};

function codeOf([number, name, kind, file, line, source]) {
  return {
    number, line,
    name: visibleText(name),
    kind: kind && visibleText(kind),
    file: visibleText(file),
    source: source.map(visibleLine),
  };
}

function readyIn([, , , , , read, write, urgent]) {
  return [...read, ...write, ...urgent];
}

function range(first, last) {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => first + place);
}

// The place of the last value that is not greater; -1 if all are.
function lastUpTo(ascending, value, valueOf = (each) => each) {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (valueOf(ascending[middle]) <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
