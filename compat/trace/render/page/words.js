// The words of the page, in the selected language.
//
// Rule 1: words.json has every word, in each language.

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

  // The text of a key, with its fields in braces filled in. With one thing ("count" is
  // 1), the text of key.one, if the language has it.
  get(key, values = {}) {
    const one = values.count === 1 && this.words[`${key}.one`];
    const words = one || this.words[key] || key;
    return words.replace(/\{(\w+)\}/g, (_, name) => this._shown(values[name]));
  }

  // The text of a key, or, if it has none, of another.
  either(key, other, values = {}) {
    return this.get(this.has(key) ? key : other, values);
  }

  _shown(value) {
    return typeof value === "number" ? this.number(value) : String(value ?? "");
  }

  number(value) {
    return this.numbers.format(value);
  }

  // Microseconds, with three significant digits.
  span(us) {
    if (us < 1000) return `${this.number(us)} µs`;
    if (us < 1e6) return `${digits(us / 1e3)} ms`;
    return `${digits(us / 1e6)} s`;
  }

  // A label of a scale up to a time, in steps, all in microseconds.
  tick(us, step, to) {
    const [unit, name] = to < 1e3 ? [1, "µs"] : to < 1e6 ? [1e3, "ms"] : [1e6, "s"];
    const places = Math.max(0, Math.ceil(Math.log10(unit / step)));
    return `${(us / unit).toFixed(places)} ${name}`;
  }

  // A time: seconds since the trace began, with microseconds.
  moment(us) {
    return `${(us / 1e6).toFixed(6)} s`;
  }

  bytes(count) {
    return this.get("bytes", { count });
  }

  // A limit, in the largest unit that makes it a whole number.
  size(count) {
    let unit = 0;
    while (count && count % 1024 === 0 && unit < SIZES.length) {
      count /= 1024;
      unit++;
    }
    return unit ? `${this.number(count)} ${SIZES[unit - 1]}` : this.bytes(count);
  }

  // Several texts in a row.
  list(things) {
    return things.join(this.get("comma"));
  }

  // Fill in the texts, labels and hints of the frame.
  fill(root) {
    for (const each of root.querySelectorAll("[data-word]")) {
      each.textContent = this.get(each.dataset.word);
    }
    for (const each of root.querySelectorAll("[data-label]")) {
      each.setAttribute("aria-label", this.get(each.dataset.label));
    }
    for (const each of root.querySelectorAll("[data-hint]")) {
      each.title = this.get(each.dataset.hint);
    }
  }
}

const SIZES = ["KiB", "MiB", "GiB", "TiB"];

function digits(value) {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
