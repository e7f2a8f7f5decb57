// The trace: rows in the order of their beginning, and what every channel was at each.
//
// Rule 1: a moment is a row, and means: when that row, and all that happened in it, was
// over. A turn's row is over when the turn is.
// Rule 2: whatever is asked about a moment costs no walk through the trace.
// Rule 3: bytes that were not recorded are not known; nothing here guesses them.
// Rule 4: text leaves here as seenText, but for bytes: no name, address or error steers
// what is shown beside it.

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

// What a state may change, from the lowest bit up; the first three are texts.
const STATES = ["is", "local", "peer", "terminator", "held", "backlog", "queued"];
const STATE_TEXTS = 3;

// What a non-blocking socket raises when it takes or gives nothing at the moment, and
// from where that is no failure: it is tried again when the socket is ready.
const WOULD_BLOCK = /^(BlockingIOError|SSLWantReadError|SSLWantWriteError)\b/;
const TRIES = ["send", "recv"];

// The part of a trace's time.
const MOSTLY = 0.9;

const NEW_CHANNEL = {
  is: "new", local: "", peer: "", terminator: null,
  held: 0, heldAt: -1, backlog: 0, queued: 0, reads: false, writes: false,
};

// What a channel is that was opened before the part of a trace that is shown.
const UNKNOWN_CHANNEL = { ...NEW_CHANNEL, is: "unknown" };

class Channel {
  constructor(number, kind, module, fd) {
    Object.assign(this, { number, kind: seenText(kind), module: seenText(module), fd });
    this.name = `${this.kind}#${number}`;
    this.since = -1; // the row in which it was first seen
    this.start = NEW_CHANNEL; // what it was then
    this.until = Infinity; // the row in which it was closed
    this.rows = []; // that are about it
    this.takes = []; // those in which it read from its socket
    this.changed = []; // rows, ascending
    this.states = []; // what it was after each of them
  }

  // What it was at a moment; null before it was there.
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
    this._lay(data.rows.length);
    for (let row = 0; row < data.rows.length; row++) this._take(row);
    this._end();
  }

  // What is asked of every row often, in columns.
  _lay(count) {
    this.kind = new Uint8Array(count);
    // A damaged trace may have any number that the reader takes.
    this.depth = new Float64Array(count);
    this.time = new Float64Array(count); // microseconds since the trace began
    this.turnOf = new Int32Array(count); // the place in turns
    this.last = new Int32Array(count); // the last row that happened in this one
    this.about = new Float64Array(count); // the channel; 0 for none
    this._open = []; // rows of whose last nothing is known yet
  }

  _take(row) {
    const fields = this.rows[row];
    this.kind[row] = fields[0];
    if (fields[0] === TURN) this._beginTurn(row, fields);
    else this._placeInTurn(row, fields);
    this.turnOf[row] = this.turns.length - 1;
    const taker = TAKERS[fields[0]];
    if (taker) taker(this, row, fields);
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

  // Those of at least that depth are over.
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

  // How deep calls are nested, at most.
  levels() {
    let most = 1;
    for (let row = 0; row < this.length; row++) {
      if (this.kind[row] === CALL && this.depth[row] >= most) most = this.depth[row] + 1;
    }
    return most;
  }

  // Whether a picture in which time is to scale would show little but waits.
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

  // Notes that a row is about a channel, and returns it.
  _tell(row, number) {
    const channel = this.channels.get(number);
    if (!channel) return null;
    this.about[row] = number;
    channel.rows.push(row);
    if (channel.since < 0) this._meet(row, channel);
    return channel;
  }

  _meet(row, channel) {
    const wasThere = this.header.part && this.kind[row] !== OPEN;
    channel.since = wasThere ? 0 : row;
    if (wasThere) channel.start = UNKNOWN_CHANNEL;
  }

  get length() {
    return this.rows.length;
  }

  text(number) {
    return seenText(this.strings[number || 0]);
  }

  // As it was recorded.
  bytes(number) {
    return this.strings[number || 0];
  }

  // Whether a call raised what it should not have.
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

  // The same, of a row with all that happened in it.
  ends(row) {
    let end = this.time[row];
    for (let each = row; each <= this.last[row]; each++) end = Math.max(end, this.over(each));
    return end;
  }

  // Microseconds since the trace began at which a row was over.
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

  // What a turn is: a "turn"; or, with the number 0, what stands in none, "before" its
  // thread's first, or "outside" of any, where its thread has none.
  sortOf(turn) {
    const [, , number, thread] = this.rows[turn];
    if (number) return "turn";
    return this.looping.has(thread) ? "before" : "outside";
  }

  // What stands in a turn: {turn, woke, calls, rows}, the last two as numbers of rows.
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

  // What a state's row says has changed, by name.
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

  // Channels that are there at a moment, or were closed in its turn.
  channelsAt(row) {
    const turn = this.turn(row);
    const there = (each) => each.since >= 0 && each.since <= row && each.until >= turn;
    return [...this.channels.values()].filter(there);
  }

  // The numbers of those that a turn has to do with.
  touchedIn(turn) {
    const touched = new Set();
    for (let row = turn; row <= this.last[turn]; row++) {
      if (this.about[row]) touched.add(this.about[row]);
      if (this.kind[row] === WOKE) readyIn(this.rows[row]).forEach((each) => touched.add(each));
    }
    return touched;
  }

  // The bytes that a channel holds back at a moment, as text; null if not recorded.
  held(channel, row) {
    const state = channel.at(row);
    if (!state || !state.held) return "";
    const bytes = this._lastTaken(channel, state.heldAt, state.held);
    return bytes && toText(bytes);
  }

  // The last bytes that had been read by a row; null if not all were recorded.
  _lastTaken(channel, row, count) {
    let bytes = [];
    const gap = this.gaps[lastUpTo(this.gaps, row)] ?? -1;
    for (let place = lastUpTo(channel.takes, row); place >= 0; place--) {
      if (channel.takes[place] < gap) return null;
      const taken = this._taken(channel.takes[place]);
      if (!taken) return null;
      bytes = taken.concat(bytes);
      if (bytes.length >= count) return bytes.slice(bytes.length - count);
    }
    return null;
  }

  // The bytes that a call read; null if not all of them were recorded.
  _taken(row) {
    const call = this.call(row);
    const bytes = call.size === null ? toBytes(call.data) : [];
    return bytes.length === call.taken ? bytes : null;
  }

  // What became of what a call read: a list of {what, size, text}, in the order of the
  // bytes; what is "told", "terminator" or "held". Null if it read nothing, or if the
  // trace does not account for every byte.
  fate(row) {
    const channel = this.channels.get(this.about[row]);
    const reads = channel ? this._within(channel.takes, row) : [];
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
      if (call.do === "collect_incoming_data") parts.push({ what: "told", size: call.size ?? 0, row: each });
      else if (call.do === "found_terminator" && typeof terminator === "string") {
        parts.push({ what: "terminator", size: toBytes(terminator).length, row: each });
      }
    }
    return parts;
  }

  // The bytes held before, and those read; null if not all were recorded.
  _stream(channel, row, reads, before) {
    const state = channel.at(row);
    const kept = before ? this._lastTaken(channel, state.heldAt, before) : [];
    const taken = reads.map((each) => this._taken(each));
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

  // The rows that pass a filter: {channel, what, thread}, each unset if it is "" or 0,
  // and says(row), null for any. A turn stays for as long as something in it does.
  passing({ channel = 0, what = "", thread = 0 }, says = null) {
    const found = [];
    const meets = KINDS[what] || (() => true);
    const said = says || (() => true);
    const asked = Boolean(channel || says || (what && what !== "turns"));
    const ofTurns = says && !channel && (!what || what === "turns");
    for (const turn of this.turns) {
      if (thread && this.rows[turn][3] !== thread) continue;
      const before = found.push(turn);
      let concerned = !asked || Boolean(ofTurns && says(turn));
      for (let row = turn + 1; row <= this.last[turn]; row++) {
        if (!this._concerns(row, channel) || !said(row)) continue;
        if (meets(this, row)) found.push(row);
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

// What "show" offers, by name.
const KINDS = {
  turns: () => false,
  calls: (trace, row) => trace.kind[row] === CALL,
  states: (trace, row) => trace.kind[row] === STATE || trace.kind[row] === OPEN,
  errors: (trace, row) => trace.fails(row),
};

// What the model learns of a row, by its kind.
const TAKERS = {
  [CALL](trace, row, fields) {
    const channel = trace._tell(row, fields[5] || 0);
    if (channel && fields[9]) channel.takes.push(row);
  },
  [STATE](trace, row, fields) {
    const channel = trace._tell(row, fields[3]);
    const changes = trace.changes(row);
    if ("held" in changes) changes.heldAt = row;
    if (changes.backlog > trace.mostBacklog) trace.mostBacklog = changes.backlog;
    if (channel) channel.change(row, changes);
  },
  [LOST](trace, row) {
    trace.gaps.push(row);
  },
  [OPEN](trace, row, fields) {
    trace._tell(row, fields[3]);
  },
  [INTEREST](trace, row, fields) {
    const channel = trace._tell(row, fields[3]);
    const wants = { reads: Boolean(fields[4] & 1), writes: Boolean(fields[4] & 2) };
    if (channel) channel.change(row, wants);
  },
};

function codeOf([number, name, kind, file, line, source]) {
  return {
    number, line,
    name: seenText(name),
    kind: kind && seenText(kind),
    file: seenText(file),
    source: source.map(seenLine),
  };
}

function readyIn([, , , , , read, write, urgent]) {
  return [...read, ...write, ...urgent];
}

function range(first, last) {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => first + place);
}

// The place of the last that is no greater; -1 if all are.
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
