"use strict";

/* The report's page: tables that sort, curves, and switching between the versions of an excerpt. */

const report = JSON.parse(document.getElementById("report-data").textContent);

/* ---- tables ---- */

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (column === 0) return cell.textContent;
        return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      };
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === null || b === null) return (a === null) - (b === null); // what is not known stays last
        return (column === 0 ? a.localeCompare(b, "en", { numeric: true }) : a - b) * (down ? -1 : 1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

/* ---- curves of a table ---- */

const ABSCISSAE = [
  { name: "hours of audio", index: 1, label: "audio seen in training (hours)", unit: "h" },
  { name: "minutes", index: 2, label: "training (minutes)", unit: "min" },
  { name: "epochs", index: 0, label: "epoch", unit: "epochs" },
];
const COSTS = [
  { name: "multiply-adds", key: "multiply_adds", label: "multiply-adds a sample", unit: "multiply-adds", less: true },
  { name: "real time", key: "real_time_factor", label: "× real time (more is faster)", unit: "× real time", less: false },
  { name: "parameters", key: "parameters", label: "parameters", unit: "parameters", less: true },
];

function learning(board, abscissa) {
  return chart({
    title: "Learning curves",
    note: "The error on the validation part; a line a seed.",
    x: { label: abscissa.label, unit: abscissa.unit },
    y: { label: "validation ESR (dB)", unit: "dB" },
    series: board.rows.map((row, i) => ({
      label: row.label, color: i, lines: row.curves.map((curve) => curve.map((p) => [p[abscissa.index], p[3]])),
    })),
  });
}

function pareto(board, cost) {
  const dots = board.rows.map((row, i) => ({ x: row[cost.key], y: row.esr_db, label: row.label, i }))
    .filter((dot) => dot.x !== null && dot.x > 0);
  const cheapFirst = [...dots].sort((a, b) => (cost.less ? a.x - b.x : b.x - a.x) || a.y - b.y);
  const front = [];
  for (const dot of cheapFirst) {
    const last = front.at(-1);
    if (last && dot.y >= last[1]) continue;
    if (last) front.push([dot.x, last[1]]);
    front.push([dot.x, dot.y]);
  }
  return chart({
    title: "Error against cost",
    note: "The dotted line is the Pareto front: nothing is both cheaper and better.",
    named: true, front,
    x: { label: cost.label, unit: cost.unit, log: true },
    y: { label: "test ESR (dB)", unit: "dB" },
    series: dots.map((dot) => ({ label: dot.label, color: dot.i, dots: [[dot.x, dot.y]] })),
  });
}

/* A chart with a menu of what stands on its horizontal axis. */
function choosable(choices, label, draw) {
  const holder = element("div");
  const show = (chosen) => {
    const figure = draw(choices[chosen]);
    const menu = element("select", { "aria-label": label, onchange: (event) => {
      show(Number(event.target.value));
      holder.querySelector("select").focus();
    } });
    choices.forEach((choice, i) => menu.append(element("option", { value: i, selected: i === chosen }, choice.name)));
    figure.querySelector(".head").append(menu);
    holder.replaceChildren(figure);
  };
  show(0);
  return holder;
}

/* ---- listening ---- */

const KEYS = "1234567890";
const HELP = [
  ["1 to 9, 0", "the first ten versions"],
  ["↑ ↓", "the version before, the next one"],
  ["space", "play or pause"],
  ["← →", "one second back or on (with shift: a tenth)"],
  ["Home", "to the start, or to the loop's"],
  ["L", "loop on or off"],
  ["R", "play from the start, or from the loop's"],
];

class Listening {
  constructor(holder) {
    this.holder = holder;
    this.excerpts = report.boards.flatMap((board) => board.excerpts.map((excerpt) => ({ board, excerpt })));
    this.player = null;
    this.version = 0;
    this.ready = null; // the excerpt whose sounds are decoded
    this.build();
    this.choose(0);
  }

  build() {
    const menu = element("select", { id: "excerpt", onchange: () => this.choose(Number(menu.value)) });
    for (const board of report.boards) {
      const group = element("optgroup", { label: board.title });
      this.excerpts.forEach((one, i) => {
        if (one.board === board) group.append(element("option", { value: i }, one.excerpt.name));
      });
      if (group.children.length) menu.append(group);
    }
    this.menu = menu;
    this.versions = element("div", { class: "versions", role: "group", "aria-label": "Versions" });
    this.playButton = element("button", { type: "button", class: "play", onclick: (e) => this.clicked(e, () => this.toggle()) });
    this.slider = element("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Position in seconds",
      oninput: () => this.act(() => this.player.seek(Number(this.slider.value))),
    });
    this.clock = element("span", {});
    const number = (label) => element("input", {
      type: "number", min: 0, step: 0.1, "aria-label": label, onchange: () => this.setLoop(this.looped.checked),
    });
    [this.loopStart, this.loopEnd] = [number("Loop from, in seconds"), number("Loop to, in seconds")];
    this.looped = element("input", { type: "checkbox", onchange: () => this.setLoop(this.looped.checked) });
    this.matched = element("input", { type: "checkbox", checked: true, onchange: () => this.levels() });
    this.restarts = element("input", { type: "checkbox" });
    this.status = element("p", { "aria-live": "polite", class: "status" });
    this.heard = picture("Spectrogram of what is heard");
    this.apart = picture("Spectrogram of its difference to the target");
    for (const one of [this.heard, this.apart]) this.pointing(one.box);
    this.curves = element("div", { class: "charts" });
    const help = element("dl", {}, ...HELP.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]));
    this.holder.replaceChildren(
      element("p", {}, "All versions run in step, sample by sample, and are played at the target's loudness (ITU-R "
        + "BS.1770; the gain stands beside each name). Of several seeds the one of the middle error is heard."),
      element("div", { class: "row" }, element("label", { for: "excerpt" }, "Excerpt"), menu,
        element("label", {}, this.matched, " level-matched"),
        element("label", {}, this.restarts, " switching restarts (for generated wow and flutter)")),
      this.versions,
      element("div", { class: "row" }, this.playButton, this.slider, this.clock),
      element("div", { class: "row" }, element("label", {}, this.looped, " loop"),
        element("label", {}, "from ", this.loopStart, " s"), element("label", {}, "to ", this.loopEnd, " s"),
        element("small", {}, "or drag across a spectrogram")),
      this.status,
      element("div", { class: "pictures" }, this.heard.figure, this.apart.figure),
      this.curves,
      element("details", {}, element("summary", {}, "Keys"), help));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  get excerpt() { return this.excerpts[this.chosen].excerpt; }
  get current() { return this.excerpt.versions[this.version]; }

  /* A pointer's click leaves the keys to the page; the keyboard's click keeps its focus. */
  clicked(event, what) {
    if (event.detail > 0) event.currentTarget.blur();
    what();
  }

  choose(number) {
    if (this.player) this.player.unload();
    this.ready = null;
    this.images = new Map();
    this.chosen = number;
    this.menu.value = number;
    this.version = Math.min(this.version, this.excerpt.versions.length - 1);
    this.buttons = this.excerpt.versions.map((version, i) => element("button",
      { type: "button", "aria-pressed": "false", onclick: (e) => this.clicked(e, () => this.pick(i)) },
      ...(i < KEYS.length ? [element("kbd", {}, KEYS[i])] : []),
      coloured(element("span", { class: "swatch" }), version.row ?? version.kind),
      element("span", {}, version.label), element("small", {}, signed(version.gain_db))));
    this.versions.replaceChildren(...this.buttons);
    this.looped.checked = false;
    [this.loopStart.value, this.loopEnd.value, this.slider.value] = [0, "", 0];
    this.curves.replaceChildren(spectra(this.excerpt), transfers(this.excerpt));
    this.mark();
    if (this.visible) this.prepare();
  }

  /* Decodes the sounds of the chosen excerpt, once; nothing is decoded before it is looked at or played. */
  prepare() {
    const excerpt = this.excerpt;
    if (this.preparing?.excerpt !== excerpt) {
      this.status.textContent = "Decoding …";
      this.preparing = { excerpt, done: this.decode(excerpt) };
    }
    return this.preparing.done;
  }

  async decode(excerpt) {
    if (!this.player || this.player.context.sampleRate !== excerpt.rate) {
      if (this.player) this.player.context.close();
      this.player = new Player(new AudioContext({ sampleRate: excerpt.rate, latencyHint: "interactive" }));
      this.player.onended = () => this.tick();
    }
    const sounds = excerpt.versions.map((v, i) => [String(i), document.getElementById(`sound-${v.sound}`).textContent]);
    try {
      await this.player.load(Object.fromEntries(sounds));
    } catch (error) {
      this.status.textContent = error.message;
      throw error;
    }
    if (this.excerpt !== excerpt) return;
    this.ready = excerpt;
    this.slider.max = this.player.duration;
    this.loopEnd.value = this.player.duration.toFixed(1);
    this.levels();
    this.tick();
  }

  async act(what) {
    await this.prepare();
    if (this.ready !== this.excerpt) return;
    what();
    this.tick();
  }

  pick(number) {
    this.version = number;
    this.mark();
    this.act(() => {
      if (this.restarts.checked && this.player.playing) this.player.restart(String(number));
      else this.player.switchTo(String(number));
      this.paint();
    });
  }

  mark() {
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === this.version)));
  }

  toggle() {
    this.act(() => {
      if (this.player.playing) this.player.pause();
      else this.player.play(String(this.version));
    });
  }

  gain(version) {
    return 10 ** (((this.matched.checked ? version.gain_db + this.excerpt.headroom_db : 0)) / 20);
  }

  levels() {
    if (this.ready !== this.excerpt) return;
    this.excerpt.versions.forEach((version, i) => this.player.setGain(String(i), this.gain(version)));
    this.paint();
  }

  setLoop(on) {
    this.looped.checked = on;
    this.act(() => {
      if (on) this.player.loop(Number(this.loopStart.value), Number(this.loopEnd.value) || this.player.duration);
      else this.player.loop();
      const region = this.player.region;
      this.looped.checked = region !== null;
      if (region) [this.loopStart.value, this.loopEnd.value] = region.map((v) => +v.toFixed(2));
    });
  }

  /* Click on a picture: go there; drag: loop. */
  pointing(box) {
    let from = null;
    const at = (event) => {
      const place = box.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - place.left) / place.width, 0), 1) * this.player.duration;
    };
    box.addEventListener("pointerdown", (event) => {
      if (this.ready !== this.excerpt) return;
      from = at(event);
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [low, high] = [from, at(event)].sort((a, b) => a - b);
      from = null;
      if (high - low < 0.1) this.act(() => this.player.seek(high));
      else {
        [this.loopStart.value, this.loopEnd.value] = [+low.toFixed(2), +high.toFixed(2)];
        this.setLoop(true);
      }
    });
  }

  /* The pictures of the version that is heard: after the sound has changed, and each computed once. */
  paint() {
    const [excerpt, version] = [this.excerpt, this.version];
    const reference = Math.max(excerpt.versions.findIndex((v) => v.kind === "target"), 0);
    const sound = (i) => {
      const gain = this.gain(excerpt.versions[i]);
      return this.player.buffer(String(i)).getChannelData(0).map((value) => value * gain);
    };
    const [own, other] = [excerpt.versions[version].label, excerpt.versions[reference].label];
    const pictures = [
      [this.heard, `Heard: ${own}`, () => sound(version)],
      [this.apart, `${own} minus ${other} (as played, same colours)`, () => {
        const y = sound(reference);
        return sound(version).map((value, i) => value - y[i]);
      }],
    ];
    for (const [picture, caption, signal] of pictures) {
      setTimeout(() => {
        if (this.ready !== excerpt || this.version !== version) return;
        picture.caption.textContent = caption;
        picture.canvas.setAttribute("aria-label", `Spectrogram. ${caption}`);
        picture.scale(excerpt.rate);
        const key = `${caption} ${this.matched.checked}`;
        if (!this.images.has(key)) {
          const peak = 20 * Math.log10(sound(reference).reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6));
          this.images.set(key, drawSpectrogram(picture.canvas, spectrogram(signal()), excerpt.rate, peak - 100, peak - 10));
        } else {
          picture.canvas.getContext("2d").putImageData(this.images.get(key), 0, 0);
        }
      });
    }
  }

  tick() {
    const player = this.player;
    const playing = Boolean(player?.playing);
    this.playButton.replaceChildren(playing ? "❚❚ Pause" : "▶ Play");
    if (this.ready !== this.excerpt) return;
    const [at, length] = [player.position(), player.duration];
    if (document.activeElement !== this.slider || playing) this.slider.value = at;
    this.clock.textContent = `${at.toFixed(1)} of ${length.toFixed(1)} s`;
    this.slider.setAttribute("aria-valuetext", `${at.toFixed(1)} seconds`);
    const said = `${playing ? "Playing" : "Standing at"} ${this.current.label}${player.region ? ", in a loop" : ""}`;
    if (this.status.textContent !== said) this.status.textContent = said;
    for (const { cursor, region } of [this.heard, this.apart]) {
      cursor.style.left = `${(100 * at) / length}%`;
      region.hidden = !player.region;
      if (player.region) {
        region.style.left = `${(100 * player.region[0]) / length}%`;
        region.style.width = `${(100 * (player.region[1] - player.region[0])) / length}%`;
      }
    }
    if (playing && !this.ticking) {
      this.ticking = true;
      requestAnimationFrame(() => {
        this.ticking = false;
        this.tick();
      });
    }
  }

  key(event) {
    const target = event.target;
    const typing = target.matches("select, textarea, input:not([type=checkbox])");
    if (event.ctrlKey || event.altKey || event.metaKey || typing) return;
    if (event.key === " " && target.matches("button, summary, a, input, [tabindex]")) return; // it presses that
    const count = this.excerpt.versions.length;
    const step = event.shiftKey ? 0.1 : 1;
    const number = KEYS.indexOf(event.key);
    const start = () => (this.player.region ? this.player.region[0] : 0);
    const moves = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.act(() => this.player.seek(this.player.position() - step)),
      ArrowRight: () => this.act(() => this.player.seek(this.player.position() + step)),
      ArrowUp: () => this.pick((this.version + count - 1) % count),
      ArrowDown: () => this.pick((this.version + 1) % count),
      Home: () => this.act(() => this.player.seek(start())),
      l: () => this.setLoop(!this.looped.checked),
      r: () => this.act(() => this.player.restart(String(this.version))),
    };
    // Arrows scroll the page, and a table that is looked at, until there is something to hear.
    const own = this.visible && !target.matches(".scroll");
    const move = number >= 0 && number < count ? () => this.pick(number) : moves[event.key] ?? moves[event.key.toLowerCase()];
    if (!move || !own) return;
    event.preventDefault();
    move();
  }

  /* Keys, and decoding, begin when this part comes into sight. */
  watch() {
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      if (this.visible) this.prepare();
    }).observe(this.holder);
  }
}

function picture(label) {
  const canvas = element("canvas", { role: "img", "aria-label": label, width: 480, height: 240 });
  const [cursor, region] = [element("div", { class: "cursor" }), element("div", { class: "region", hidden: true })];
  const caption = element("figcaption", {}, label);
  const box = element("div", { class: "picture" }, canvas, region, cursor);
  const scale = (rate) => {
    box.querySelectorAll(".hz").forEach((mark) => mark.remove());
    for (const hz of [100, 1000, 10000].filter((one) => one < rate / 2)) {
      const mark = element("span", { class: "hz", "aria-hidden": true }, `${short(hz)} Hz`);
      mark.style.top = `${100 * depth(hz, rate)}%`;
      box.append(mark);
    }
  };
  return { canvas, cursor, region, caption, box, scale, figure: element("figure", {}, caption, box) };
}

function signed(db) { return `${db <= -0.05 ? "−" : "+"}${Math.abs(db).toFixed(1)} dB`; }

function spectra(excerpt) {
  const lines = (key) => excerpt.versions.filter((v) => v[key]).map((v) => ({
    label: v.label, color: v.row ?? v.kind, lines: [v[key].map((db, i) => [excerpt.bands_hz[i], db])],
  }));
  const kinds = [{ name: "difference to the target", key: "error" }, { name: "signals", key: "spectrum" }];
  return choosable(kinds, "What the spectra are of", (kind) => chart({
    title: kind.key === "error" ? "Spectra of the error" : "Spectra",
    note: "Sixths of an octave, at the levels of the files.",
    x: { label: "frequency (Hz)", unit: "Hz", log: true },
    y: { label: "level (dBFS)", unit: "dBFS" },
    series: lines(kind.key),
  }));
}

function transfers(excerpt) {
  const kinds = [{ name: "as they are", key: "own" }, { name: "less the target's", key: "less" }];
  const target = excerpt.versions.find((v) => v.kind === "target");
  const draw = (kind) => chart({
    title: "Input-output curves",
    note: "The mean output where the dry signal has a value; memory and noise spread about it.",
    x: { label: "dry signal (full scale 1)" },
    y: { label: kind.key === "less" ? "mean output less the target's" : "mean output", digits: 4 },
    series: excerpt.versions.filter((v) => kind.key === "own" || v.kind === "model" || v.kind === "linear").map((v) => ({
      label: v.label, color: v.row ?? v.kind,
      lines: [v.transfer.map((y, i) => [excerpt.levels[i], kind.key === "less" ? y - target.transfer[i] : y])],
    })),
  });
  return choosable(target ? kinds : kinds.slice(0, 1), "How the curves are drawn", draw);
}

/* ---- the page ---- */

for (const table of document.querySelectorAll("table")) makeSortable(table);
for (const swatch of document.querySelectorAll("[data-series]")) coloured(swatch, Number(swatch.dataset.series));
for (const place of document.querySelectorAll("[data-board]")) {
  const board = report.boards[Number(place.dataset.board)];
  place.append(
    choosable(ABSCISSAE, "Horizontal axis of the learning curves", (choice) => learning(board, choice)),
    choosable(COSTS, "Cost", (cost) => pareto(board, cost)));
}
const listeningPlace = document.getElementById("listening");
const listening = listeningPlace ? new Listening(listeningPlace) : null;
if (listening) {
  listening.tick();
  listening.watch();
}
