// The page: what is selected, what the keys and buttons do, and in which words.
//
// Rule 1: one moment is selected; all that is shown follows from it and the filter.
// Rule 2: whatever a key does, a button does, and the other way round.
// Rule 3: each step is announced in one sentence.

const byId = (id) => document.getElementById(id);

class Page {
  constructor(trace, words) {
    Object.assign(this, { trace, words, row: 0 });
    this.filter = { channel: 0, what: "", text: "", thread: 0 };
    this.visible = trace.passing(this.filter);
    this.finder = new Finder((row) => this._textsOf(row), (row) => this.detail.prose(row));
    const pick = (row) => this.select(row);
    this.lines = new Lines(trace, words);
    this.turnView = new TurnView(byId("phases"), trace, words, this.lines, pick);
    this.detail = new DetailView(byId("detail"), trace, words, this.lines, pick);
    this.channels = new ChannelsView(byId("channels"), words, trace, (number) => this.choose(number));
    this.events = new LongList(byId("events"), (place) => this._line(place));
    this.timeLine = new TimeLine(byId("time"), trace, words, (row) => this.select(this._near(row)));
    this.flame = new Flame(byId("flame"), trace, words, pick);
    this.timeLine.scaleBy(trace.isMostlyWaiting() ? "events" : "time");
    byId("touched").checked = trace.channels.size > MANY_CHANNELS;
    this._listen();
    this.speak(words.lang);
  }

  // Select a row, and show that moment everywhere.
  select(row) {
    this.row = row;
    const { trace } = this;
    const turn = trace.turnAt(trace.turnOf[row]);
    this._follow();
    this.turnView.show(turn, row);
    this.flame.show(turn, row);
    this.timeLine.show(row);
    this.detail.show(row);
    this._showChannels();
    this._say(turn);
  }

  // The next or the last before of a kind (null: any) that passes the filter.
  step(forward, kind) {
    const by = forward ? 1 : -1;
    let place = this._place() + (forward || this.visible[this._place()] === this.row ? by : 0);
    while (place >= 0 && place < this.visible.length) {
      const row = this.visible[place];
      if (kind === null || this.trace.kind[row] === kind) return this.select(row);
      place += by;
    }
    return undefined;
  }

  // To the first or the last row.
  edge(last) {
    if (this.visible.length) this.select(this.visible[last ? this.visible.length - 1 : 0]);
  }

  // To a turn, by its number.
  goTo(number) {
    const { trace } = this;
    const row = trace.turns.find((each) => trace.rows[each][2] === number);
    if (row !== undefined) this.select(row);
  }

  // Filter by a channel, or not any more if it is that already.
  choose(number) {
    this.narrow({ channel: this.filter.channel === number ? 0 : number });
  }

  narrow(change) {
    Object.assign(this.filter, change);
    this.visible = this._passing();
    byId("channel").value = String(this.filter.channel);
    this.events.selected = -1;
    this.events.reset(this.visible.length);
    this.timeLine.narrow(this.filter.channel);
    byId("nothing").hidden = this.visible.length > 0;
    byId("found").textContent = this._found();
    this._stay();
  }

  // What is found in lines and figures; if nothing is, in explanations and source, too.
  _passing() {
    const { trace, filter, finder } = this;
    if (!filter.text) return trace.passing(filter);
    const found = trace.passing(filter, finder.finds(filter.text));
    return found.length ? found : trace.passing(filter, finder.findsInProse(filter.text));
  }

  // All that is shown of a row, but for explanations and source.
  _textsOf(row) {
    return [this.lines.text(row), this._clock(row), ...this.detail.texts(row)];
  }

  // Say everything in another language.
  speak(lang) {
    const { words } = this;
    this.finder.forget();
    words.use(lang);
    document.documentElement.lang = lang === "zh" ? "zh-CN" : lang;
    words.fill(document);
    this._fillChoices();
    this._showAbout();
    this._showPart();
    this.narrow({});
  }

  // Do something to the time line, and say what it shows then.
  look(act) {
    if (!this.trace.length) return;
    act(this.timeLine);
    this._showPart();
    byId("said").textContent = `${this.words.say("time.line")}: ${byId("part").textContent}`;
  }

  _stay() {
    if (!this.trace.length) return;
    this.select(this.visible.length ? this._near(this.row) : this.row);
  }

  _found() {
    return this.words.say("found", { count: this.visible.length, all: this.trace.length });
  }

  // The place in the list of what is selected, or of what stands before it.
  _place() {
    return lastUpTo(this.visible, this.row);
  }

  _near(row) {
    return this.visible[Math.max(0, lastUpTo(this.visible, row))];
  }

  _follow() {
    const place = this._place();
    const here = place >= 0 && this.visible[place] === this.row ? place : -1;
    const element = this.events.select(here, this._end(here));
    if (element) byId("events").setAttribute("aria-activedescendant", element.id);
    else byId("events").removeAttribute("aria-activedescendant");
  }

  // Of a turn, the calls are to be seen, too.
  _end(place) {
    const { trace, row } = this;
    return trace.kind[row] === TURN ? lastUpTo(this.visible, trace.last[row]) : place;
  }

  _line(place) {
    const row = this.visible[place];
    const { trace } = this;
    const kind = KIND_NAMES[trace.kind[row]];
    const failed = trace.fails(row) ? "failed" : "";
    const element = make("div", {
      class: `event ${kind} ${failed}`,
      role: "option",
      id: `event-${row}`,
      "aria-selected": String(row === this.row),
      "aria-setsize": String(this.visible.length),
      "aria-posinset": String(place + 1),
    }, ...this.lines.of(row).map(([style, what]) => make("span", { class: style }, what)));
    element.style.paddingInlineStart = `${indent(trace, row)}px`;
    element.append(make("span", { class: "time" }, this._clock(row)));
    element.addEventListener("click", () => this.select(row));
    return element;
  }

  // A turn says when it was; what happened in it, how long after the wait. Where there
  // was no wait, everything says when it was.
  _clock(row) {
    const { trace, words } = this;
    const turn = trace.turn(row);
    if (row === turn || !trace.rows[turn][2]) return words.moment(trace.time[row]);
    const after = trace.time[row] - trace.time[turn] - trace.waitOf(turn);
    return after < 0 || trace.kind[row] === WOKE ? "" : `+${words.span(after)}`;
  }

  _showChannels() {
    const { words, trace } = this;
    if (!trace.length) return;
    const turn = trace.turnAt(trace.turnOf[this.row]);
    this.channels.show(this.row, byId("touched").checked, this.filter.channel);
    byId("as-of").textContent = words.say("as.of", { what: this._short(this.row) });
    byId("only-touched").textContent = words.say(`only.touched.${turn.sort}`);
    byId("flame").setAttribute("aria-label", this._flameText(turn));
  }

  _short(row) {
    const { trace, words } = this;
    if (trace.kind[row] === CALL) return callName(trace, row);
    if (trace.kind[row] === TURN) return words.say(`whole.${trace.sortOf(row)}`, { n: trace.rows[row][2] });
    return this.lines.sentence(row);
  }

  _flameText({ calls, sort }) {
    const { words, trace } = this;
    if (!calls.length) return words.say(`flame.none.${sort}`);
    const longest = calls.reduce((most, each) => (trace.rows[each][3] > (trace.rows[most][3] || 0) ? each : most));
    const span = words.span(trace.rows[longest][3] || 0);
    return words.say("flame.text", { count: calls.length, what: callName(trace, longest), span });
  }

  _say(turn) {
    const { words, trace } = this;
    const name = turnName(words, turn);
    const where = turn.number ? words.say("turn.of", { turn: name, all: this._lastTurn(turn.thread) }) : name;
    const place = words.say("event.of", { place: this.row + 1, all: trace.length });
    byId("where").replaceChildren(make("span", { class: "turn" }, where), " ", make("span", {}, place));
    byId("turn").value = String(turn.number);
    byId("said").textContent = this.row === turn.row
      ? this.lines.sentence(this.row)
      : `${name}: ${this.lines.sentence(this.row)}`;
    const slider = byId("time");
    slider.setAttribute("aria-valuenow", String(trace.turnOf[this.row] + 1));
    slider.setAttribute("aria-valuetext", `${where}, ${words.moment(trace.time[this.row])}`);
  }

  _lastTurn(thread) {
    const { trace } = this;
    const own = (row) => trace.rows[row][3] === thread;
    return trace.rows[trace.turns.findLast(own)][2];
  }

  _fillChoices() {
    const { trace, words, filter } = this;
    const channels = [...trace.channels.values()].filter((each) => each.since >= 0);
    choices(byId("channel"), [["0", words.say("channels.all")], ...channels.map((each) => [String(each.number), each.name])], filter.channel);
    choices(byId("what"), ["", ...Object.keys(KINDS)].map((what) => [what, words.say(`what.${what || "all"}`)]), filter.what);
    const threads = [...trace.threads].sort((a, b) => a - b);
    choices(byId("thread"), [["0", words.say("threads.all")], ...threads.map((n) => [String(n), words.say("thread.n", { n })])], filter.thread);
    byId("threads").hidden = threads.length < 2;
  }

  _showAbout() {
    const { words } = this;
    const { program, python, asyncore, began, ended, lost, part } = this.trace.header;
    const title = document.title === seenText(program) ? "" : program;
    const about = [title, python, asyncore, began].filter(Boolean).map((each) => `${seenText(each)} · `);
    byId("about").replaceChildren(...about, make("span", { class: ended === "closed" && !part && !lost ? "" : "lacks" }, this._ending()));
    byId("empty").hidden = this.trace.length > 0;
    byId("language").textContent = words.say("language.other");
    byId("language").lang = words.lang === "zh" ? "en" : "zh-CN";
  }

  // How much of what happened the trace has.
  _ending() {
    const { words } = this;
    const { part, ended, whole, line, lost, max } = this.trace.header;
    // How the trace ends is not seen here.
    if (part) return words.say("ends.part");
    if (lost) return words.say("ends.lost", { count: lost });
    if (ended) return words.either(`ends.${ended}`, "ends.", { why: seenText(ended), limit: words.size(max) });
    return whole ? words.say("ends.open") : words.say("ends.cut", { line });
  }

  _listen() {
    const press = (id, act) => byId(id).addEventListener("click", act);
    for (const [id, act] of Object.entries(STEPS)) press(id, () => act(this));
    press("language", () => this.speak(this.words.lang === "zh" ? "en" : "zh"));
    press("theme", () => this._decide());
    press("help", () => byId("keys").showModal());
    press("close", () => byId("keys").close());
    press("by", () => this._scale(this.timeLine.by === "time" ? "events" : "time"));
    byId("touched").addEventListener("change", () => this._showChannels());
    byId("channel").addEventListener("change", (event) => this.narrow({ channel: Number(event.target.value) }));
    byId("thread").addEventListener("change", (event) => this.narrow({ thread: Number(event.target.value) }));
    byId("what").addEventListener("change", (event) => this.narrow({ what: event.target.value }));
    byId("text").addEventListener("input", (event) => this.narrow({ text: event.target.value }));
    byId("turn").addEventListener("change", (event) => this.goTo(Number(event.target.value)));
    byId("time").addEventListener("keydown", (event) => this._slide(event));
    byId("time").addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    document.addEventListener("keydown", (event) => this._key(event));
    window.addEventListener("hashchange", () => this.goToHash());
  }

  // As #turn=12 in the page's address says.
  goToHash() {
    const found = /^#turn=(\d+)$/.exec(location.hash);
    if (found) this.goTo(Number(found[1]));
  }

  // From here on, what the system says does not count.
  _decide() {
    this.decided = true;
    this.paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  }

  followSystem() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const follow = () => this.decided || this.paint(dark.matches ? "dark" : "light");
    dark.addEventListener("change", follow);
    follow();
  }

  paint(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
    this.timeLine.repaint();
    this.flame.repaint();
  }

  _scale(by) {
    this.look((timeLine) => {
      timeLine.scaleBy(by);
      timeLine.repaint();
    });
  }

  _showPart() {
    const { words } = this;
    const { part, by } = this.timeLine;
    const figure = (size) => (by === "time" ? words.span(Math.round(size)) : Math.round(size));
    const key = part.isAll ? `part.${by}.all` : `part.${by}`;
    byId("part").textContent = words.say(key, { size: figure(part.size), all: figure(part.whole) });
    byId("by").setAttribute("aria-pressed", String(by === "events"));
  }

  // With the control key, the wheel zooms; two fingers on a touchpad do the same.
  _wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? WHEEL_LINE : 1);
    this.look((timeLine) => timeLine.zoom(2 ** (-pixels / WHEEL_TWICE), event.offsetX));
  }

  // On the time line, all arrows go from turn to turn.
  _slide(event) {
    const act = { ArrowLeft: "turn-back", ArrowDown: "turn-back", ArrowRight: "turn-on", ArrowUp: "turn-on" }[event.key];
    if (!act || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    STEPS[act](this);
  }

  _key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("keys").open) return;
    if (event.target.closest("input:not([type=checkbox]), select, pre")) return;
    const act = KEYS[`${event.shiftKey ? "Shift+" : ""}${event.key}`] ?? SIGNS[event.key.toLowerCase()];
    if (!act || !this.trace.length) return;
    event.preventDefault();
    STEPS[act](this);
  }
}

// What a row is found by: what the page shows of it, in the language that is chosen.
class Finder {
  constructor(textsOf, proseOf) {
    Object.assign(this, { textsOf, proseOf });
    this.forget();
  }

  // All of it is said otherwise now.
  forget() {
    this.texts = [];
  }

  finds(text) {
    const wanted = folded(text);
    return (row) => this._text(row).includes(wanted);
  }

  findsInProse(text) {
    const wanted = folded(text);
    return (row) => this.proseOf(row).some((each) => folded(each).includes(wanted));
  }

  _text(row) {
    this.texts[row] ??= folded(this.textsOf(row).join(" "));
    return this.texts[row];
  }
}

// Without its case: that of µ has two small letters.
function folded(text) {
  return text.toUpperCase().toLowerCase();
}

// With more channels than that, at first only those of the turn are shown.
const MANY_CHANNELS = 40;

// Pixels of a line, where the wheel counts lines; and of what makes it twice as close.
const WHEEL_LINE = 33;
const WHEEL_TWICE = 100;

// What the buttons do, by their ids.
const STEPS = {
  first: (page) => page.edge(false),
  "turn-back": (page) => page.step(false, TURN),
  "call-back": (page) => page.step(false, CALL),
  "event-back": (page) => page.step(false, null),
  "event-on": (page) => page.step(true, null),
  "call-on": (page) => page.step(true, CALL),
  "turn-on": (page) => page.step(true, TURN),
  last: (page) => page.edge(true),
  "zoom-out": (page) => page.look((timeLine) => timeLine.zoom(1 / 2)),
  "zoom-in": (page) => page.look((timeLine) => timeLine.zoom(2)),
  "zoom-turn": (page) => page.look((timeLine) => timeLine.showTurn()),
  "zoom-all": (page) => page.look((timeLine) => timeLine.showAll()),
};

// The same for the keys.
const KEYS = {
  Home: "first",
  "Shift+ArrowLeft": "turn-back",
  PageUp: "turn-back",
  ArrowLeft: "call-back",
  ArrowUp: "event-back",
  ArrowDown: "event-on",
  ArrowRight: "call-on",
  "Shift+ArrowRight": "turn-on",
  PageDown: "turn-on",
  End: "last",
};

// The same for signs, which on some keyboards need the shift key, and on some do not.
const SIGNS = {
  "+": "zoom-in",
  "=": "zoom-in",
  "-": "zoom-out",
  z: "zoom-turn",
  0: "zoom-all",
};

function indent(trace, row) {
  return trace.kind[row] === TURN ? 12 : 26 + 14 * Math.min(12, trace.depth[row]);
}

function choices(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  select.value = String(chosen);
}

function start() {
  const read = (id) => JSON.parse(byId(id).textContent);
  const trace = new Trace(read("trace"));
  byId("trace").remove();
  const page = new Page(trace, new Words(read("words"), document.documentElement.lang));
  page.followSystem();
  byId("time").setAttribute("aria-valuemax", String(Math.max(1, trace.turns.length)));
  page.goToHash();
  document.documentElement.dataset.state = "ready";
  return page;
}

start();
