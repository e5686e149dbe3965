"use strict";

/* What both listening tests share: chance, the transport, and the way from the first page to the saved file.
 * Nothing is sent anywhere. Text from outside reaches the page as text only. */

/* Random numbers that can be drawn again from their seed (mulberry32). */
class Chance {
  constructor(seed = crypto.getRandomValues(new Uint32Array(1))[0]) {
    this.seed = seed >>> 0;
    this._state = this.seed;
  }

  next() {
    this._state = (this._state + 0x6d2b79f5) >>> 0;
    let z = this._state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  below(count) { return Math.floor(this.next() * count); }

  shuffled(items) {
    const mixed = [...items];
    for (let i = mixed.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
    }
    return mixed;
  }
}

/* An element with attributes (a function becomes a listener) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/* Play, pause, the place in the excerpt and its loop; counts for how long each recording was heard. */
class Desk {
  static HEARD_SECONDS = 1; // of a recording before it may be judged
  static TICK_MS = 50;

  constructor(rateHz) {
    this.context = new AudioContext({ sampleRate: rateHz });
    this.player = new Player(this.context);
    this.restarts = false;
    this.onheard = () => {};
    this.onswitched = () => {};
    this.heard = {};
    this._before = performance.now();
    this._build();
    setInterval(() => this._tick(), Desk.TICK_MS);
  }

  _build() {
    this.button = make("button", { type: "button", class: "play", click: () => this.toggle() }, "Play");
    this.cursor = make("div", { class: "cursor" });
    this.band = make("div", { class: "band" });
    this.line = make("div", { class: "line", "aria-hidden": "true" }, this.band, this.cursor);
    this.line.addEventListener("pointerdown", (event) => this._drag(event));
    const limit = (edge) => make("input", {
      type: "number", min: 0, step: 0.1, "aria-label": `Loop ${edge}, seconds`, change: () => this._typed(),
    });
    [this.start, this.end] = [limit("from"), limit("to")];
    const whole = make("button", { type: "button", click: () => this.region() }, "Whole excerpt");
    this.element = make("div", { class: "desk", role: "group", "aria-label": "Playback" },
      this.button, this.line, make("span", { class: "loop" }, "Loop ", this.start, " to ", this.end, " s "), whole);
  }

  async load(sounds, restarts) {
    this.player.unload();
    this.restarts = restarts;
    const text = (number) => document.getElementById(`sound-${number}`).textContent;
    await this.player.load(Object.fromEntries(Object.entries(sounds).map(([name, n]) => [name, text(n)])));
    this.heard = Object.fromEntries(Object.keys(sounds).map((name) => [name, 0]));
    this.region();
    this._show();
  }

  hear(name) {
    if (this.restarts) this.player.restart(name);
    else if (this.player.playing) this.player.switchTo(name);
    else this.player.play(name);
    this._show();
    this.onswitched(name);
  }

  toggle() {
    if (this.player.playing) this.player.pause();
    else if (this.player.current) this.player.play(this.player.current);
    this._show();
    this.onswitched(this.player.current);
  }

  silence() {
    this.player.pause();
    this._show();
  }

  region(start = 0, end = this.player.duration) {
    this.player.loop(start, end);
    const [low, high] = this.player.region ?? [0, this.player.duration];
    [this.start.value, this.end.value] = [low.toFixed(2), high.toFixed(2)];
    const share = (seconds) => `${(100 * seconds) / Math.max(this.player.duration, 1e-9)}%`;
    this.band.style.left = share(low);
    this.band.style.width = share(high - low);
  }

  isHeard(name) {
    return this.heard[name] >= Math.min(Desk.HEARD_SECONDS, this.player.duration / 2);
  }

  _typed() {
    const [start, end] = [Number(this.start.value), Number(this.end.value)];
    if (end > start + 0.05) this.region(start, end);
    else this.region();
  }

  _drag(event) {
    const at = (e) => {
      const box = this.line.getBoundingClientRect();
      return (Math.min(Math.max(e.clientX - box.left, 0), box.width) / box.width) * this.player.duration;
    };
    const from = at(event);
    this.line.setPointerCapture(event.pointerId);
    this.line.onpointerup = (e) => {
      this.line.onpointerup = null;
      if (Math.abs(at(e) - from) > 0.2) this.region(Math.min(from, at(e)), Math.max(from, at(e)));
      else this.player.seek(from);
    };
  }

  _tick() {
    const now = performance.now();
    const passed = Math.min((now - this._before) / 1000, 1.5); // a page in the background ticks once a second
    this._before = now;
    if (!this.player.playing) return;
    const name = this.player.current;
    const before = this.isHeard(name);
    this.heard[name] += passed;
    if (!before && this.isHeard(name)) this.onheard(name);
    this.cursor.style.left = `${(100 * this.player.position()) / this.player.duration}%`;
  }

  _show() {
    this.button.textContent = this.player.playing ? "Pause" : "Play";
    this.button.disabled = this.player.current === null;
  }
}

/* A session: introduction, practice, trials, saved file. `method` is the kind of test: its texts, its trials, its view. */
class Session {
  constructor(data, method) {
    this.data = data;
    this.method = method;
    this.key = JSON.parse(new TextDecoder().decode(Player.bytes(data.key)));
    this.main = document.getElementById("test");
    this.view = null;
    this.saved = true;
    document.addEventListener("keydown", (event) => this._pressed(event));
    addEventListener("beforeunload", (event) => { if (!this.saved) event.preventDefault(); });
    this._introduce();
  }

  _introduce() {
    const name = make("input", { id: "listener", type: "text", maxlength: 40, autocomplete: "off", required: true });
    const form = make("form", { class: "start" },
      make("label", { for: "listener" }, "Your code name "), name,
      make("button", { type: "submit", class: "next" }, "Begin with practice"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (name.value.trim() && !this.desk) this._begin(name.value.trim());
    });
    const keys = make("dl", { class: "keys" });
    for (const [key, meaning] of this.method.keys) keys.append(make("dt", {}, make("kbd", {}, key)), make("dd", {}, meaning));
    this._turn(make("section", { "aria-labelledby": "heading" }, make("h2", { id: "heading", tabindex: -1 }, "Before you begin"),
      ...this.method.introduction.map((text) => make("p", {}, text)),
      make("p", {}, "Sit in a quiet room with headphones. Set the volume during practice and leave it then. Nothing is ",
        "sent anywhere: at the end you save a file and hand it back."),
      make("h3", {}, "Keys"), keys, form));
  }

  async _begin(listener) {
    const chance = new Chance();
    this.desk = new Desk(this.data.rate_hz);
    this.desk.context.resume();
    this.plan = this.method.plan(chance);
    this.result = {
      format: "revox listening test 1", kind: this.data.kind, page: this.data.page, listener,
      session: crypto.getRandomValues(new Uint32Array(2)).join("-"), seed: chance.seed,
      began: new Date().toISOString(), ended: null, trials: [],
    };
    this.saved = false;
    await this._try(this.method.practice(chance), -1);
  }

  /* One trial; number -1 is practice, whose answer is not kept. */
  async _try(trial, number) {
    this.view = null;
    this.desk.silence();
    this.main.setAttribute("aria-busy", "true");
    try {
      await this.desk.load(trial.sounds, trial.restarts);
    } catch (error) {
      this.main.replaceChildren(make("p", { role: "alert" }, `This browser cannot play the test: ${error.message}.`));
      return;
    }
    this.main.removeAttribute("aria-busy");
    this.status = make("p", { class: "status", role: "status" });
    this.next = make("button", { type: "button", class: "next", click: () => this._answered(number) },
      number < 0 ? "Start the test" : number + 1 < this.plan.length ? "Next" : "Finish");
    const view = this.method.view(trial, this.desk, () => this._check());
    this.desk.onswitched = (name) => { view.mark(this.desk.player.playing ? name : null); };
    this.desk.onheard = (name) => { view.heard(name); this._check(); };
    this.view = view;
    this.trial = trial;
    this.since = performance.now();
    const title = number < 0 ? "Practice: nothing here is kept" : `Trial ${number + 1} of ${this.plan.length}`;
    this._turn(make("section", { class: "trial", "aria-labelledby": "heading" },
      make("h2", { id: "heading", tabindex: -1 }, title),
      this.desk.element, view.element, make("div", { class: "foot" }, this.next, this.status)));
    this._check();
  }

  _check() {
    const missing = this.view.missing();
    this.next.disabled = missing !== "";
    if (this.status.textContent !== missing) this.status.textContent = missing;
  }

  async _answered(number) {
    if (!this.view || this.view.missing() !== "") return; // a second click while the next trial is read
    if (number >= 0) {
      const heard = this._named(this.desk.heard);
      const seconds = Math.round((performance.now() - this.since) / 100) / 10;
      this.result.trials.push({ ...this.view.answer(this.key), heard_seconds: heard, seconds });
    }
    if (number + 1 < this.plan.length) await this._try(this.plan[number + 1], number + 1);
    else this._end();
  }

  _named(heard) {
    const name = (id) => this.key[id]?.name ?? (id === "reference" ? "open reference" : id);
    return Object.fromEntries(Object.entries(heard).map(([id, s]) => [name(id), Math.round(s * 10) / 10]));
  }

  _end() {
    this.desk.silence();
    this.view = null;
    this.result.ended = new Date().toISOString();
    const text = JSON.stringify(this.result, null, 1);
    const plain = this.result.listener.replace(/[^A-Za-z0-9_-]+/g, "_");
    const name = `${this.data.kind}_${this.data.page}_${plain}_${this.result.session}.json`;
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: name });
    const note = make("p", { class: "status", role: "status" });
    const save = make("button", { type: "button", class: "next save", click: () => {
      link.click();
      this.saved = true;
      note.textContent = `Saved as ${name} where your browser puts downloads. Hand this file back.`;
    } }, "Save the result");
    this._turn(make("section", { "aria-labelledby": "heading" }, make("h2", { id: "heading", tabindex: -1 }, "Thank you"),
      make("p", {}, "That was the last trial. Save the result before you close this page."), save, note,
      make("details", {}, make("summary", {}, "If saving does not work: copy this text"),
        make("textarea", { readonly: true, rows: 12, "aria-label": "The result as text" }, text))));
  }

  _turn(section) {
    this.main.replaceChildren(section);
    section.querySelector("h2").focus();
    scrollTo(0, 0);
  }

  _pressed(event) {
    if (!this.view || event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = event.target.matches("input[type=number], input[type=text], textarea");
    if (typing) return;
    if (event.key === " " && !event.target.matches("button, input[type=radio]")) this.desk.toggle();
    else if (event.key === "Enter" && !event.target.matches("button") && !this.next.disabled) this.next.click();
    else if (!this.view.press(event.key.toLowerCase())) return;
    event.preventDefault();
  }
}

const data = JSON.parse(document.getElementById("test-data").textContent);
