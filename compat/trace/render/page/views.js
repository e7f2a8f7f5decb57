// The views of a moment: the event's line, the turn, the channels, the details.
//
// Rule 1: contents of a trace become text, never markup.
// Rule 2: the number of elements is limited: the rest is counted, and is in the list.
// Rule 3: colour is never the only signal.

// Names to list before the rest is counted.
const NAMED = 5;

// Characters of bytes in a line of the list.
const LINE_BYTES = 48;

// The largest number of queue entries that a bar shows, and the least share of each.
const MOST_ENTRIES = 24;
const NARROWEST_ENTRY = 0.02;

// Names of kinds, for styles and words.
const KIND_NAMES = ["turn", "woke", "call", "state", "open", "interest", "timer", "end", "turn", "lost"];

// Bytes, with marked escapes.
function bytesElement(text, limit = Infinity) {
  const element = make("span", { class: "bytes" });
  let room = limit;
  for (const [shown, escape] of seen(text)) {
    if (room <= 0) break;
    const part = shown.slice(0, room);
    room -= part.length;
    element.append(escape ? make("span", { class: "escape" }, part) : part);
  }
  if (room <= 0) element.append("…");
  return element;
}

// The line of each kind of event in the list, and the sentence for it.
class Lines {
  constructor(trace, words) {
    Object.assign(this, { trace, words });
  }

  // The parts of a line: [class, text or element].
  of(row) {
    return this._parts(row).map(([style, what]) =>
      (style === "bytes" ? ["", bytesElement(what, LINE_BYTES)] : [style, what]));
  }

  // For labels and announcements.
  sentence(row) {
    const parts = this.of(row).map(([, what]) => what.textContent ?? what);
    return parts.join(" ").trim();
  }

  // The same with all bytes, for the search.
  text(row) {
    return this._parts(row).map(([style, what]) => (style === "bytes" ? visibleText(what) : what)).join(" ");
  }

  // The parts of a line as texts: [class, text], and of the class "bytes", bytes.
  _parts(row) {
    return this[LINES[this.trace.kind[row]]](row).filter(([, what]) => what);
  }

  turn(row) {
    const { words, trace } = this;
    const turn = trace.turnAt(trace.turnOf[row]);
    const count = words.get("calls", { count: turn.calls.length });
    const thread = turn.thread > 1 ? words.get("thread.n", { n: turn.thread }) : "";
    return [["name", turnName(words, turn)], ["quiet", thread], ["quiet", count]];
  }

  innerTurn(row) {
    return [["name", this.words.get("turn.inner", { n: this.trace.rows[row][3] })]];
  }

  woke(row) {
    const { words } = this;
    const { waited, why, read, write, urgent } = this.trace.woke(row);
    const count = read.length + write.length + urgent.length;
    return [
      ["name", words.get(`why.${why}`)],
      ["quiet", words.get("after", { span: words.span(waited) })],
      ["quiet", count ? words.get("ready.count", { count }) : ""],
    ];
  }

  call(row) {
    const call = this.trace.call(row);
    const size = call.size ?? (call.taken || call.given);
    return [
      ["channel", call.ch ? this.trace.name(call.ch) : ""],
      ["name", this.doing(call)],
      ["size", size ? this.words.bytes(size) : ""],
      ["bytes", call.data],
      [this.trace.wouldBlock(row) ? "quiet" : "error", call.error],
    ];
  }

  doing(call) {
    if (call.to) return `${call.do} → ${this.words.number(call.to)}`;
    return call.do;
  }

  state(row) {
    const { trace } = this;
    return [
      ["channel", trace.name(trace.about[row])],
      ["", this.words.list(this.changes(trace.changes(row)))],
    ];
  }

  // The changes, one text each.
  changes(changes) {
    const { words } = this;
    const texts = [];
    if (changes.is) texts.push(words.get(`is.${changes.is}`));
    if ("held" in changes) texts.push(words.get("held.is", { size: words.bytes(changes.held) }));
    if ("backlog" in changes) texts.push(words.get("queue.is", { size: words.bytes(changes.backlog) }));
    else if ("queued" in changes) texts.push(words.get("entries", { count: changes.queued }));
    if ("terminator" in changes) texts.push(words.get("terminator.is", { what: terminatorText(words, changes.terminator) }));
    if (changes.peer) texts.push(words.get("peer.is", { peer: changes.peer }));
    if (changes.local && !changes.peer) texts.push(changes.local);
    return texts;
  }

  open(row) {
    const { trace, words } = this;
    const channel = trace.channels.get(trace.about[row]);
    return [["channel", channel.name], ["", words.get("opened", { fd: channel.fd })]];
  }

  interest(row) {
    const { trace, words } = this;
    return [
      ["channel", trace.name(trace.about[row])],
      ["", words.get(`wants.${trace.rows[row][4]}`)],
    ];
  }

  timer(row) {
    const [, , , id, seconds] = this.trace.rows[row];
    const key = seconds === null ? "timer.cancelled" : "timer.set";
    return [["", this.words.get(key, { id, seconds: seconds ?? 0 })]];
  }

  lost(row) {
    return [["error", this.words.get("lost", { count: this.trace.rows[row][3] })]];
  }

  end(row) {
    const why = this.trace.text(this.trace.rows[row][3]);
    return [["name", this.words.either(`end.${why}`, "end.")]];
  }
}

const LINES = ["turn", "woke", "call", "state", "open", "interest", "timer", "end", "innerTurn", "lost"];

function turnName(words, turn) {
  return words.get(`name.${turn.sort}`, { n: turn.number });
}

function terminatorText(words, terminator) {
  if (terminator === null) return words.get("none");
  return typeof terminator === "number" ? words.bytes(terminator) : `"${visibleText(terminator)}"`;
}

// A turn in five phases. Events outside any turn have no phases, only calls and
// changes.
class TurnView {
  constructor(root, trace, words, lines, pick) {
    Object.assign(this, { root, trace, words, lines, pick });
  }

  show(turn, row) {
    const { words } = this;
    const here = phaseOf(this.trace, row);
    const first = turn.number ? this._wait(turn) : [["none", turn.row, [""]]];
    const phases = [
      ...first,
      ["called", turn.calls[0], this._called(turn)],
      ["became", turn.changes[0], this._became(turn)],
    ];
    this.root.classList.toggle("no-turn", !turn.number);
    this.root.replaceChildren(...phases.map(([name, target, what]) =>
      this._phase(turn.sort, name, target, what, name === here)));
    this.root.setAttribute("aria-label", words.get(`picture.${turn.sort}`, { turn: turnName(words, turn) }));
  }

  _wait(turn) {
    return [
      ["asked", turn.row, this._asked(turn)],
      ["waited", turn.woke?.row ?? turn.row, this._waited(turn)],
      ["ready", turn.woke?.row ?? turn.row, this._ready(turn)],
    ];
  }

  _phase(sort, name, target, [figure, ...what], here) {
    const { words } = this;
    const button = make("button", { type: "button", "data-phase": name, disabled: target === undefined },
      words.either(`phase.${name}.${sort}`, `phase.${name}`));
    if (here) button.setAttribute("aria-current", "step");
    button.addEventListener("click", () => this.pick(target));
    return make("li", { class: `phase ${name}` },
      make("div", { class: "head" }, button, make("span", { class: "figure" }, figure)),
      make("p", { class: "hint" }, words.either(`phase.${name}.${sort}.hint`, `phase.${name}.hint`)),
      ...what);
  }

  _asked(turn) {
    const { words, trace, lines } = this;
    const news = turn.interests.map((row) => chip(trace.name(trace.about[row]), words.get(`wants.${trace.rows[row][4]}`)));
    return [
      words.span(turn.asked),
      quiet(words.get("asked.count", { count: turn.channels })),
      this._some(news),
    ];
  }

  _waited(turn) {
    const { words } = this;
    const limit = limitText(words, turn);
    if (!turn.woke) return ["…", quiet(words.get(waitingKey(this.trace, turn))), quiet(`${turn.by} · ${limit}`)];
    return [
      words.span(turn.woke.waited),
      make("p", {}, words.get(`why.${turn.woke.why}`)),
      quiet(`${turn.by} · ${limit}`),
    ];
  }

  _ready(turn) {
    const { words, trace } = this;
    const { read = [], write = [], urgent = [] } = turn.woke ?? {};
    const chips = [["read", read], ["write", write], ["urgent", urgent]].flatMap(([how, who]) =>
      who.map((each) => chip(trace.name(each), words.get(`ready.${how}`))));
    return [words.number(chips.length), chips.length ? this._some(chips) : quiet(words.get("ready.nobody"))];
  }

  _called(turn) {
    const { words, trace } = this;
    const outer = turn.calls.filter((row) => !trace.depth[row]);
    const us = outer.reduce((sum, row) => sum + (trace.rows[row][3] || 0), 0);
    const named = outer.map((row) => {
      const call = trace.call(row);
      return chip(call.ch ? trace.name(call.ch) : "", call.do, trace.fails(row) ? "bad" : "");
    });
    const failed = turn.calls.filter((row) => trace.fails(row)).length;
    return [
      words.span(us),
      quiet(words.get("calls", { count: turn.calls.length })),
      this._some(named),
      failed ? make("p", { class: "error" }, words.get("errors", { count: failed })) : "",
    ];
  }

  _became(turn) {
    const { words, trace } = this;
    const changed = [...trace.touchedIn(turn.row)].sort((a, b) => a - b)
      .map((number) => [number, this._difference(number, turn.row)])
      .filter(([, what]) => what.length);
    const chips = changed.map(([number, what]) => chip(trace.name(number), words.list(what)));
    return [words.number(chips.length), chips.length ? this._some(chips) : quiet(words.get("became.nothing"))];
  }

  // The changes of a channel in a turn.
  _difference(number, turn) {
    const channel = this.trace.channels.get(number);
    const before = channel.at(turn - 1);
    const after = channel.at(this.trace.last[turn]);
    if (!after) return [];
    const was = before ?? NEW_CHANNEL;
    const changes = {};
    for (const name of ["is", "held", "backlog"]) if (after[name] !== was[name]) changes[name] = after[name];
    const texts = this.lines.changes(changes);
    return before ? texts : [this.words.get("opened.short"), ...texts];
  }

  _some(chips) {
    const list = make("ul", { class: "chips" }, ...chips.slice(0, NAMED));
    const more = chips.length - NAMED;
    if (more > 0) list.append(make("li", { class: "quiet" }, this.words.get("more", { count: more })));
    return list;
  }
}

function phaseOf(trace, row) {
  const kind = trace.kind[row];
  if (kind === INTEREST) return "asked";
  if (kind === WOKE) return "ready";
  if (kind === CALL) return "called";
  return kind === STATE || kind === OPEN ? "became" : "";
}

function chip(who, what, kind = "") {
  return make("li", { class: `chip ${kind}` }, make("b", {}, who), who ? " " : "", make("span", {}, what));
}

function quiet(text) {
  return make("p", { class: "quiet" }, text);
}

// The channels at a moment, one row each.
class ChannelsView {
  constructor(table, words, trace, choose) {
    Object.assign(this, { table, words, trace, choose });
    this.shown = [];
    this.list = new LongList(table.querySelector(".rows"), (place) => this._row(place));
  }

  show(row, onlyTouched, chosen) {
    const turn = this.trace.turn(row);
    const focused = document.activeElement?.dataset?.channel;
    Object.assign(this, { row, chosen });
    this.touched = this.trace.touchedIn(turn);
    const there = this.trace.channelsAt(this.trace.last[row]);
    this.shown = onlyTouched ? there.filter((each) => this.touched.has(each.number)) : there;
    this.table.setAttribute("aria-rowcount", String(this.shown.length + 1));
    this.table.classList.toggle("empty", !this.shown.length);
    this.list.reset(this.shown.length);
    if (focused) this.table.querySelector(`[data-channel="${focused}"]`)?.focus();
  }

  _row(place) {
    const { trace, row } = this;
    const channel = this.shown[place];
    const now = channel.at(trace.last[row]) ?? NEW_CHANNEL;
    const was = channel.at(row - 1) ?? NEW_CHANNEL;
    const touched = this.touched.has(channel.number) ? "touched" : "";
    const about = trace.about[row] === channel.number ? "about" : "";
    return make("div", { class: `row ${touched} ${about}`, role: "row", "aria-rowindex": String(place + 2) },
      this._name(channel, now, was), this._wants(now), this._held(channel, now, was), this._queue(now, was));
  }

  _name(channel, now, was) {
    const { words } = this;
    const button = make("button", {
      type: "button",
      "data-channel": String(channel.number),
      "aria-pressed": String(this.chosen === channel.number),
      title: words.get("only.this"),
    }, channel.name);
    button.addEventListener("click", () => this.choose(channel.number));
    const status = make("span", { class: `status ${now.is} ${now.is === was.is ? "" : "changed"}` }, words.get(`is.${now.is}`));
    return cell("who", button, status,
      make("span", { class: "quiet address" }, now.peer || now.local || `fd ${channel.fd}`));
  }

  _wants(now) {
    const { words } = this;
    const mark = (key) => make("span", {}, words.get(key));
    return cell("wants",
      now.reads ? mark("wants.read") : "",
      now.writes ? mark("wants.write") : "",
      now.reads || now.writes ? "" : make("span", { class: "quiet" }, "–"));
  }

  _held(channel, now, was) {
    const { words, trace, row } = this;
    const changed = now.held !== was.held;
    const text = trace.held(channel, trace.last[row]);
    return cell(`held ${changed ? "changed" : ""}`,
      now.held ? heldElement(words, text, now.held) : make("span", { class: "quiet" }, "–"),
      changed ? wasElement(words, words.bytes(was.held)) : "",
      terminatorElement(words, now.terminator));
  }

  _queue(now, was) {
    const { words, trace } = this;
    const changed = now.backlog !== was.backlog;
    const text = now.backlog
      ? `${words.bytes(now.backlog)} · ${words.get("entries", { count: now.queued })}`
      : words.get(now.is === "unknown" ? "is.unknown" : "queue.empty");
    return cell(`queue ${changed ? "changed" : ""}`,
      queueElement(now, trace.mostBacklog),
      make("span", { class: now.backlog ? "" : "quiet" }, text),
      changed ? wasElement(words, words.bytes(was.backlog)) : "");
  }
}

function cell(kind, ...children) {
  return make("div", { class: `cell ${kind}`, role: "cell" }, ...children);
}

function wasElement(words, what) {
  return make("span", { class: "was" }, words.get("was", { what }));
}

function terminatorElement(words, terminator) {
  if (terminator === null) return "";
  return make("span", { class: "quiet" }, words.get("terminator.short", { what: terminatorText(words, terminator) }));
}

function heldElement(words, text, size) {
  if (text === null) return make("span", { class: "cells unknown" }, words.bytes(size));
  return make("span", { class: "cells" }, bytesElement(text, 16));
}

// A bar relative to the longest queue of the trace, divided into its entries.
function queueElement({ backlog, queued }, most) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  const fill = make("span", { class: "fill" });
  fill.style.width = most ? `${Math.max(backlog ? 3 : 0, (backlog / most) * 100)}%` : "0";
  if (queued <= MOST_ENTRIES && backlog / most >= queued * NARROWEST_ENTRY) {
    for (let entry = 0; entry < queued; entry++) fill.append(make("i"));
  }
  bar.append(fill);
  return bar;
}

// The details of the selected event.
class DetailView {
  constructor(root, trace, words, lines, pick) {
    Object.assign(this, { root, trace, words, lines, pick });
  }

  // The texts of a row besides its line: its figures, and the processing of its bytes.
  texts(row) {
    const { trace, words } = this;
    const kind = trace.kind[row];
    if (kind === CALL) {
      const call = trace.call(row);
      const parts = trace.fate(row) ?? [];
      return [
        ...this._facts(call).map(([, what]) => what),
        ...parts.map(({ what }) => words.get(`fate.${what}`)),
        call.where,
        call.code ? placeOf(call.code) : "",
      ];
    }
    const channel = trace.channels.get(trace.about[row]);
    const texts = [words.moment(trace.time[row])];
    if (kind === TURN) texts.push(...turnTexts(trace, words, row));
    if (kind === OPEN && channel) texts.push(`fd ${channel.fd}`);
    if (kind === STATE && channel) texts.push(visibleText(trace.held(channel, row) ?? ""), trace.changes(row).local ?? "");
    return texts;
  }

  // The explanation and the source.
  prose(row) {
    const { trace, words } = this;
    if (trace.kind[row] !== CALL) return [words.get(this._hint(row))];
    const call = trace.call(row);
    return [
      words.get(`do.${call.do}`),
      ...this._facts(call).map(([name]) => name),
      ...(call.code?.source ?? []),
    ];
  }

  show(row) {
    const kind = this.trace.kind[row];
    const parts = kind === CALL ? this._call(this.trace.call(row)) : this._event(row, kind);
    this.root.replaceChildren(make("h3", {}, ...this._heading(row)), ...parts.filter(Boolean));
  }

  _heading(row) {
    const { trace } = this;
    if (trace.kind[row] !== CALL) {
      return this.lines.of(row).flatMap(([style, what]) => [make("span", { class: style }, what), " "]);
    }
    const call = trace.call(row);
    return call.ch ? [make("span", { class: "channel" }, trace.name(call.ch)), ` ${call.do}`] : [call.do];
  }

  _event(row, kind) {
    const { words, trace } = this;
    const hint = this._hint(row);
    return [
      words.has(hint) && make("p", { class: "hint" }, words.get(hint)),
      facts([[words.get("fact.when"), words.moment(trace.time[row])]]),
      this._parent(row),
    ];
  }

  _hint(row) {
    const kind = this.trace.kind[row];
    return `kind.${kind === TURN ? this.trace.sortOf(row) : KIND_NAMES[kind]}.hint`;
  }

  _call(call) {
    const { words } = this;
    const hint = `do.${call.do}`;
    return [
      words.has(hint) && make("p", { class: "hint" }, words.get(hint)),
      this._error(call),
      this._fate(call),
      this._data(call),
      facts(this._facts(call)),
      this._parent(call.row),
      call.code && sourceElement(words, call),
    ];
  }

  _facts(call) {
    const { words, trace } = this;
    const known = [
      ["when", words.moment(trace.time[call.row])],
      ["took", words.span(call.us)],
      ["size", call.size === null ? "" : words.bytes(call.size)],
      ["in", call.taken && words.bytes(call.taken)],
      ["out", call.given && words.bytes(call.given)],
      ["to", call.to && words.get("channels", { count: call.to })],
      ["but", call.but && trace.name(call.but)],
      ["timer", call.id && `#${call.id}`],
    ];
    return known.filter(([, what]) => what).map(([name, what]) => [words.get(`fact.${name}`), what]);
  }

  _error(call) {
    if (!call.error) return null;
    const { trace, words } = this;
    const where = call.where ? make("p", { class: "quiet" }, call.where) : "";
    const text = make("p", {}, call.error);
    if (trace.fails(call.row)) return make("div", { class: "error box" }, text, where);
    return make("div", { class: "later" }, make("p", {}, words.get("would.block")), text, where);
  }

  // The bytes read, divided by their processing.
  _fate(call) {
    const { words, trace } = this;
    const parts = trace.fate(call.row);
    if (!parts || !parts.length) return null;
    const list = make("ol", { class: "fate" }, ...parts.map((part) => this._part(part)));
    return make("section", {}, make("h4", {}, words.get("fate")), list);
  }

  _part({ what, size, text, row }) {
    const { words } = this;
    const shown = text === null ? words.bytes(size) : bytesElement(text, 64);
    const label = make("span", { class: "label" }, words.get(`fate.${what}`));
    const item = make("li", { class: what },
      make("span", { class: "cells" }, shown), label,
      make("span", { class: "quiet" }, words.bytes(size)));
    if (row !== undefined) this._leads(item, label, row);
    return item;
  }

  _leads(item, label, row) {
    const link = make("button", { type: "button", class: "link" }, label.textContent);
    link.addEventListener("click", () => this.pick(row));
    item.replaceChild(link, label);
  }

  _data(call) {
    const { words } = this;
    if (!call.data) return null;
    const size = call.size ?? (call.taken || call.given);
    const more = size - toBytes(call.data).length;
    return make("section", {}, make("h4", {}, words.get(dataName(call))),
      make("p", { class: "data" }, bytesElement(call.data),
        more > 0 ? make("span", { class: "quiet" }, ` ${words.get("data.more", { size: words.bytes(more) })}`) : ""));
  }

  _parent(row) {
    const { trace, words, lines } = this;
    let parent = row;
    while (parent > 0 && trace.depth[parent] >= trace.depth[row] && trace.kind[parent] !== TURN) parent--;
    if (!trace.depth[row] || trace.kind[parent] === TURN) return null;
    const link = make("button", { type: "button", class: "link" }, callName(trace, parent));
    link.addEventListener("click", () => this.pick(parent));
    return make("p", { class: "quiet" }, `${words.get("inside")} `, link);
  }
}

function dataName(call) {
  if (call.size !== null) return "data.given";
  return call.taken ? "data.read" : "data.written";
}

function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.flatMap(([name, what]) =>
    [make("dt", {}, name), make("dd", {}, String(what))]));
}

function nameOf(code) {
  return code.kind ? `${code.kind}.${code.name}` : code.name;
}

function definitionIn(code) {
  return code.source.findIndex((line) => /^\s*(async\s+)?def\s/.test(line));
}

// The owner and the place of code.
function placeOf(code) {
  return `${nameOf(code)} · ${code.file}:${code.line + Math.max(0, definitionIn(code))}`;
}

// The texts of a turn above the list, without those of its events.
function turnTexts(trace, words, row) {
  const turn = trace.turnAt(trace.turnOf[row]);
  if (!turn.number) return [];
  return [
    turn.by,
    words.span(turn.asked),
    words.get("asked.count", { count: turn.channels }),
    limitText(words, turn),
    turn.woke ? "" : words.get(waitingKey(trace, turn)),
  ];
}

function limitText(words, turn) {
  if (turn.timeout === null) return words.get("limit.none");
  return words.get("limit", { span: words.span(turn.timeout * 1e6) });
}

// The key for a wait that had not ended when the trace ended, or when lines were lost.
function waitingKey(trace, turn) {
  return turn.rows.some((each) => trace.kind[each] === LOST) ? "waiting.lost" : "waiting";
}

// The function; the lines of its definition and of its exception are marked.
function sourceElement(words, { code, where }) {
  const definition = definitionIn(code);
  const raised = where.startsWith(`${code.file}:`) ? Number(where.slice(code.file.length + 1)) - code.line : -1;
  const lines = code.source.map((line, place) => {
    const kind = place === raised ? "raised" : place === definition ? "definition" : "";
    return make("span", { class: `line ${kind}` },
      make("span", { class: "number" }, String(code.line + place)), line || "\u00a0");
  });
  const name = nameOf(code);
  return make("section", { class: "source" },
    make("h4", {}, words.get("source")), make("p", { class: "quiet place" }, placeOf(code)),
    make("pre", { tabindex: "0", "aria-label": words.get("source.of", { name }) }, make("code", {}, ...lines)));
}
