"use strict";

/* Ratings of several stimuli beside a reference: ITU-R BS.1534-3. */
class Mushra {
  static WORDS = ["Bad", "Poor", "Fair", "Good", "Excellent"];

  introduction = [
    "You will hear short excerpts, each in several versions, and a reference. Rate how near each version comes to the reference, from 0 to 100.",
    "One of the versions is the reference itself, and should get 100. Others are clearly worse. Switch at any moment, repeat a part by dragging over the line, and hear the reference whenever you like. A version can be rated once you have heard it for a second.",
    data.restarts
      ? "Some versions have speed variations of their own, so each starts anew when you switch to it."
      : "All versions play in step: switching changes nothing but the version.",
  ];
  keys = [
    ["R", "the reference"], ["1 2 3 …", "a version, and then its slider (from the tenth on: q w e)"],
    ["↑ ↓", "change its rating; Page Up and Page Down by ten"], ["Space", "play, pause"], ["Enter", "next trial"],
  ];

  /* Every trial once, some again, in random order; a repetition never follows its first. */
  plan(chance) {
    const order = chance.shuffled(data.trials.keys());
    const again = chance.shuffled(data.trials.keys()).slice(0, data.repeat);
    for (const index of again) {
      const first = order.indexOf(index);
      const places = [...Array(order.length + 1).keys()].filter((place) => place !== first && place !== first + 1);
      order.splice(places.length ? places[chance.below(places.length)] : first + 1, 0, index);
    }
    return order.map((index, i) => this._trial(index, chance, order.indexOf(index) < i));
  }

  practice(chance) { return this._trial(chance.below(data.trials.length), chance, false); }

  _trial(index, chance, repeated) {
    const { sounds, reference } = data.trials[index];
    return {
      index, repeated, restarts: data.restarts, order: chance.shuffled(Object.keys(sounds)),
      sounds: { reference, ...sounds },
    };
  }

  view(trial, desk, changed) { return new MushraView(trial, desk, changed); }
}

class MushraView {
  static NAMES = [..."123456789qwe"];

  constructor(trial, desk, changed) {
    this.trial = trial;
    this.desk = desk;
    this.changed = changed;
    this.ratings = {};
    this.buttons = { reference: this._button("reference", "Reference", "R") };
    this.sliders = {};
    this.outputs = {};
    const columns = trial.order.map((name, i) => this._column(name, i));
    const words = make("ol", { class: "words", "aria-hidden": "true" });
    for (const word of [...Mushra.WORDS].reverse()) words.append(make("li", {}, word));
    this.element = make("div", {}, make("p", {}, "How near does each version come to the reference?"),
      make("div", { class: "mushra" },
        make("div", { class: "scale" }, words, this.buttons.reference), make("div", { class: "columns" }, ...columns)));
  }

  _button(name, text, key) {
    return make("button", { type: "button", class: "version", "aria-pressed": "false", "aria-keyshortcuts": key,
      click: () => this.desk.hear(name) }, text);
  }

  _column(name, i) {
    const title = String(i + 1);
    const rate = () => this._rate(name);
    const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: 50, disabled: true,
      "aria-label": `Rating of version ${title}`, "aria-valuetext": "not rated", "aria-orientation": "vertical",
      input: rate, pointerup: rate });
    slider.addEventListener("pointerdown", () => this.desk.player.current !== name && this.desk.hear(name));
    this.sliders[name] = slider;
    this.outputs[name] = make("output", { "aria-hidden": "true" }, "–");
    this.buttons[name] = this._button(name, title, MushraView.NAMES[i]);
    return make("div", { class: "column" }, this.outputs[name], slider, this.buttons[name]);
  }

  _rate(name) {
    const slider = this.sliders[name];
    if (slider.disabled) return;
    const value = Number(slider.value);
    this.ratings[name] = value;
    this.outputs[name].textContent = String(value);
    slider.classList.add("rated");
    slider.setAttribute("aria-valuetext", `${value}, ${Mushra.WORDS[Math.min(Math.floor(value / 20), 4)]}`);
    this.changed();
  }

  /* Shows which version is heard. */
  mark(name) {
    for (const [each, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(each === name));
    this._focus(name);
  }

  heard(name) {
    if (!(name in this.sliders)) return;
    this.sliders[name].disabled = false;
    if (this.desk.player.current === name) this._focus(name);
  }

  /* The keys that change a rating belong to the version that is heard. */
  _focus(name) {
    if (name in this.sliders && !this.sliders[name].disabled) this.sliders[name].focus({ preventScroll: true });
  }

  press(key) {
    const i = MushraView.NAMES.indexOf(key);
    const name = key === "r" ? "reference" : this.trial.order[i];
    if (name === undefined || (key !== "r" && i < 0)) return false;
    this.desk.hear(name);
    return true;
  }

  missing() {
    const numbers = (test) => this.trial.order.flatMap((name, i) => (test(name) ? [i + 1] : [])).join(", ");
    const unheard = numbers((name) => !this.desk.isHeard(name));
    const unrated = numbers((name) => this.desk.isHeard(name) && !(name in this.ratings));
    return [unheard && `Not yet heard: ${unheard}.`, unrated && `Not yet rated: ${unrated}.`].filter(Boolean).join(" ");
  }

  answer(key) {
    return {
      excerpt: data.trials[this.trial.index].excerpt, repeated: this.trial.repeated,
      stimuli: this.trial.order.map((name) => ({ ...key[name], rating: this.ratings[name] })), // in the order shown
    };
  }
}

const test = new Session(data, new Mushra());
