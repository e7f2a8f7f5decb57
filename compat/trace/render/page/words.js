// What the page says, in the language that is chosen.
//
// Rule 1: every word stands in words.json, in each language; nothing is said otherwise.

class Words {
  constructor(all, lang) {
    this.all = all;
    this.use(lang);
  }

  use(lang) {
    this.lang = lang;
    this.words = this.all[lang];
    this.numbers = new Intl.NumberFormat(lang);
  }

  has(key) {
    return key in this.words;
  }

  // The words of a key, with what stands in braces filled in. With one of a thing
  // ("count" is 1), those of key.one, where the language has them.
  say(key, values = {}) {
    const one = values.count === 1 && this.words[`${key}.one`];
    const words = one || this.words[key] || key;
    return words.replace(/\{(\w+)\}/g, (_, name) => this._shown(values[name]));
  }

  // The words of a key, or, if it has none, those of another.
  either(key, other, values = {}) {
    return this.say(this.has(key) ? key : other, values);
  }

  _shown(value) {
    return typeof value === "number" ? this.number(value) : String(value ?? "");
  }

  number(value) {
    return this.numbers.format(value);
  }

  // Microseconds, with three digits that count.
  span(us) {
    if (us < 1000) return `${this.number(us)} µs`;
    if (us < 1e6) return `${digits(us / 1e3)} ms`;
    return `${digits(us / 1e6)} s`;
  }

  // A line of a scale up to a time, in steps, all in microseconds.
  tick(us, step, to) {
    const [unit, name] = to < 1e3 ? [1, "µs"] : to < 1e6 ? [1e3, "ms"] : [1e6, "s"];
    const places = Math.max(0, Math.ceil(Math.log10(unit / step)));
    return `${(us / unit).toFixed(places)} ${name}`;
  }

  // When: seconds since the trace began, to the microsecond.
  moment(us) {
    return `${(us / 1e6).toFixed(6)} s`;
  }

  bytes(count) {
    return this.say("bytes", { count });
  }

  // A limit, in the largest unit of which it is a whole number.
  size(count) {
    let unit = 0;
    while (count && count % 1024 === 0 && unit < SIZES.length) {
      count /= 1024;
      unit++;
    }
    return unit ? `${this.number(count)} ${SIZES[unit - 1]}` : this.bytes(count);
  }

  // Several things in a row.
  list(things) {
    return things.join(this.say("comma"));
  }

  // Fill in what the frame leaves open: text, labels and hints.
  fill(root) {
    for (const each of root.querySelectorAll("[data-word]")) {
      each.textContent = this.say(each.dataset.word);
    }
    for (const each of root.querySelectorAll("[data-label]")) {
      each.setAttribute("aria-label", this.say(each.dataset.label));
    }
    for (const each of root.querySelectorAll("[data-hint]")) {
      each.title = this.say(each.dataset.hint);
    }
  }
}

const SIZES = ["KiB", "MiB", "GiB", "TiB"];

function digits(value) {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
