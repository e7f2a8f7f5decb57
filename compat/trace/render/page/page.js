// The page: the selection, the keys and buttons, and the language.
//
// Rule 1: one moment is selected; the selection and the filter determine all views.
// Rule 2: every key has a button, and every button has a key.
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
    this.setLanguage(words.lang);
  }

  // Select a row, and show that moment in all views.
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
    this._announce(turn);
  }

  // Select the next or the previous row of a kind (null: any) that passes the filter.
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

  // Select the first or the last row.
  edge(last) {
    if (this.visible.length) this.select(this.visible[last ? this.visible.length - 1 : 0]);
  }

  // Select a turn by its number.
  goTo(number) {
    const { trace } = this;
    const row = trace.turns.find((each) => trace.rows[each][2] === number);
    if (row !== undefined) this.select(row);
  }

  // Filter by a channel; remove that filter if it is set already.
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

  // Search lines and figures; if nothing matches, explanations and source, too.
  _passing() {
    const { trace, filter, finder } = this;
    if (!filter.text) return trace.passing(filter);
    const found = trace.passing(filter, finder.finds(filter.text));
    return found.length ? found : trace.passing(filter, finder.findsInProse(filter.text));
  }

  // All texts of a row, without explanations and source.
  _textsOf(row) {
    return [this.lines.text(row), this._clock(row), ...this.detail.texts(row)];
  }

  // Switch the language of all texts.
  setLanguage(lang) {
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

  // Change the timeline, and announce its visible part.
  look(act) {
    if (!this.trace.length) return;
    act(this.timeLine);
    this._showPart();
    byId("announcement").textContent = `${this.words.get("time.line")}: ${byId("part").textContent}`;
  }

  _stay() {
    if (!this.trace.length) return;
    this.select(this.visible.length ? this._near(this.row) : this.row);
  }

  _found() {
    return this.words.get("found", { count: this.visible.length, all: this.trace.length });
  }

  // The place in the list of the selected row, or of the row before it.
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

  // A selected turn is shown with its calls.
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

  // A turn has its time, its events the time since the end of its wait. Events without a
  // wait have their own times.
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
    byId("as-of").textContent = words.get("as.of", { what: this._short(this.row) });
    byId("only-touched").textContent = words.get(`only.touched.${turn.sort}`);
    byId("flame").setAttribute("aria-label", this._flameText(turn));
  }

  _short(row) {
    const { trace, words } = this;
    if (trace.kind[row] === CALL) return callName(trace, row);
    if (trace.kind[row] === TURN) return words.get(`whole.${trace.sortOf(row)}`, { n: trace.rows[row][2] });
    return this.lines.sentence(row);
  }

  _flameText({ calls, sort }) {
    const { words, trace } = this;
    if (!calls.length) return words.get(`flame.none.${sort}`);
    const longest = calls.reduce((most, each) => (trace.rows[each][3] > (trace.rows[most][3] || 0) ? each : most));
    const span = words.span(trace.rows[longest][3] || 0);
    return words.get("flame.text", { count: calls.length, what: callName(trace, longest), span });
  }

  _announce(turn) {
    const { words, trace } = this;
    const name = turnName(words, turn);
    const where = turn.number ? words.get("turn.of", { turn: name, all: this._lastTurn(turn.thread) }) : name;
    const place = words.get("event.of", { place: this.row + 1, all: trace.length });
    byId("where").replaceChildren(make("span", { class: "turn" }, where), " ", make("span", {}, place));
    byId("turn").value = String(turn.number);
    byId("announcement").textContent = this.row === turn.row
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
    choices(byId("channel"), [["0", words.get("channels.all")], ...channels.map((each) => [String(each.number), each.name])], filter.channel);
    choices(byId("what"), ["", ...Object.keys(KINDS)].map((what) => [what, words.get(`what.${what || "all"}`)]), filter.what);
    const threads = [...trace.threads].sort((a, b) => a - b);
    choices(byId("thread"), [["0", words.get("threads.all")], ...threads.map((n) => [String(n), words.get("thread.n", { n })])], filter.thread);
    byId("threads").hidden = threads.length < 2;
  }

  _showAbout() {
    const { words } = this;
    const { program, python, asyncore, began, ended, lost, part } = this.trace.header;
    const title = document.title === visibleText(program) ? "" : program;
    const about = [title, python, asyncore, began].filter(Boolean).map((each) => `${visibleText(each)} · `);
    byId("about").replaceChildren(...about, make("span", { class: ended === "closed" && !part && !lost ? "" : "lacks" }, this._ending()));
    byId("empty").hidden = this.trace.length > 0;
    byId("language").textContent = words.get("language.other");
    byId("language").lang = words.lang === "zh" ? "en" : "zh-CN";
  }

  // The completeness of the trace.
  _ending() {
    const { words } = this;
    const { part, ended, whole, line, lost, max } = this.trace.header;
    // The end of the trace is not in this part.
    if (part) return words.get("ends.part");
    if (lost) return words.get("ends.lost", { count: lost });
    if (ended) return words.either(`ends.${ended}`, "ends.", { why: visibleText(ended), limit: words.size(max) });
    return whole ? words.get("ends.open") : words.get("ends.cut", { line });
  }

  _listen() {
    const press = (id, act) => byId(id).addEventListener("click", act);
    for (const [id, act] of Object.entries(STEPS)) press(id, () => act(this));
    press("language", () => this.setLanguage(this.words.lang === "zh" ? "en" : "zh"));
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

  // The turn in the address of the page, as in #turn=12.
  goToHash() {
    const found = /^#turn=(\d+)$/.exec(location.hash);
    if (found) this.goTo(Number(found[1]));
  }

  // From here on, the choice overrides the system's theme.
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
    byId("part").textContent = words.get(key, { size: figure(part.size), all: figure(part.whole) });
    byId("by").setAttribute("aria-pressed", String(by === "events"));
  }

  // The wheel with the control key zooms, as two fingers on a touchpad do.
  _wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? WHEEL_LINE : 1);
    this.look((timeLine) => timeLine.zoom(2 ** (-pixels / WHEEL_TWICE), event.offsetX));
  }

  // On the timeline, all arrows step through turns.
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

// The texts by which a search finds a row, in the selected language.
class Finder {
  constructor(textsOf, proseOf) {
    Object.assign(this, { textsOf, proseOf });
    this.forget();
  }

  // The language has changed.
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

// Case-insensitive: µ has two lower-case letters.
function folded(text) {
  return text.toUpperCase().toLowerCase();
}

// With more channels, the list first shows only those of the turn.
const MANY_CHANNELS = 40;

// Pixels of a line, for wheels that count lines; pixels that double the zoom.
const WHEEL_LINE = 33;
const WHEEL_TWICE = 100;

// Actions of the buttons, by id.
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

// Actions of the keys.
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

// Actions of signs, for which only some keyboards need the shift key.
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
