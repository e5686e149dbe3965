"use strict";

/* Can a model be told from the tape? X is A or B; what cannot run in step is asked "which is the real tape?". */
class Abx {
  introduction = [
    "You will hear short excerpts in two versions, A and B. One is a real recording, the other a model of it.",
    ...(data.pairs.some((pair) => pair.mode === "abx")
      ? ["X is the same as A or the same as B: say which. They play in step; switch as often as you like."] : []),
    ...(data.pairs.some((pair) => pair.mode === "2afc")
      ? ["Where there is no X, the versions have speed variations of their own and start anew when you switch: say which of the two is the real tape. The source is what went into the machine."] : []),
    "Many pairs are hard or impossible to tell apart. When in doubt, guess. You may repeat a part by dragging over the line.",
  ];
  keys = [
    ["A B", "the two versions"], ["X", "the one to name; S: the source"], ["1 2", "your answer: A, B"],
    ["Space", "play, pause"], ["Enter", "next trial"],
  ];

  /* Pair after pair in random order; which is A, and what X is, is tossed for each trial. */
  plan(chance) {
    return chance.shuffled(data.pairs).flatMap((pair) => {
      const order = chance.shuffled(pair.excerpts);
      return Array.from({ length: data.trials }, (_, i) => this._trial(pair, order[i % order.length], chance));
    });
  }

  practice(chance) {
    const pair = data.pairs[chance.below(data.pairs.length)];
    return this._trial(pair, pair.excerpts[chance.below(pair.excerpts.length)], chance);
  }

  _trial(pair, heard, chance) {
    const letters = chance.shuffled(Object.keys(heard.sounds)); // A, B
    const [a, b] = letters.map((name) => heard.sounds[name]);
    const inStep = pair.mode === "abx";
    const x = chance.below(2);
    return {
      pair, excerpt: heard.excerpt, letters, x: inStep ? x : null, restarts: !inStep,
      sounds: inStep ? { A: a, B: b, X: [a, b][x] } : { A: a, B: b, source: heard.source },
      question: inStep ? "Is X the same as A or as B?" : "Which is the real tape?",
    };
  }

  view(trial, desk, changed) { return new AbxView(trial, desk, changed); }
}

class AbxView {
  constructor(trial, desk, changed) {
    this.trial = trial;
    this.desk = desk;
    this.choice = null;
    this.buttons = {};
    for (const name of Object.keys(trial.sounds)) {
      this.buttons[name] = make("button", { type: "button", class: "version", "aria-pressed": "false",
        "aria-keyshortcuts": name[0].toUpperCase(), click: () => desk.hear(name) }, name === "source" ? "Source" : name);
    }
    const texts = trial.x === null ? ["A is the real tape", "B is the real tape"] : ["X is A", "X is B"];
    this.radios = texts.map((text, i) => make("input", { type: "radio", name: "answer", id: `answer-${i}`, disabled: true,
      change: () => { this.choice = i; changed(); } }));
    this.answers = make("fieldset", { class: "answers" }, make("legend", {}, trial.question),
      ...texts.flatMap((text, i) => [this.radios[i], make("label", { for: `answer-${i}` }, text)]));
    this.element = make("div", { class: "abx" }, make("div", { class: "versions" }, ...Object.values(this.buttons)), this.answers);
  }

  get _needed() { return Object.keys(this.buttons).filter((name) => name !== "source"); }

  mark(name) {
    for (const [each, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(each === name));
  }

  heard() {
    if (this._needed.every((name) => this.desk.isHeard(name))) this.radios.forEach((radio) => { radio.disabled = false; });
  }

  press(key) {
    const name = Object.keys(this.buttons).find((each) => each[0].toLowerCase() === key);
    if (name) this.desk.hear(name);
    const radio = this.radios[["1", "2"].indexOf(key)];
    if (radio && !radio.disabled) radio.click();
    return Boolean(name || radio);
  }

  missing() {
    const unheard = this._needed.filter((name) => !this.desk.isHeard(name));
    if (unheard.length) return `Not yet heard: ${unheard.join(", ")}.`;
    return this.choice === null ? "Not yet answered." : "";
  }

  answer(key) {
    const { pair, excerpt, letters, x } = this.trial;
    const kinds = letters.map((name) => key[name].kind);
    const right = x === null ? kinds.indexOf("reference") : x;
    return {
      system: key[pair.name].name, mode: pair.mode, excerpt, a: key[letters[0]].name, b: key[letters[1]].name,
      gains_db: letters.map((name) => key[name].gain_db), x: x === null ? null : "AB"[x],
      answer: "AB"[this.choice], correct: this.choice === right,
    };
  }
}

const test = new Session(data, new Abx());
