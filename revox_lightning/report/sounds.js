"use strict";

/* A page of named sounds: one button each, switched at the same moment; space plays and pauses, digits choose. */

const page = JSON.parse(document.getElementById("sounds-data").textContent);

class Sounds {
  constructor(holder) {
    this.player = new Player(new AudioContext({ sampleRate: page.rate, latencyHint: "interactive" }));
    this.player.onended = () => this.show();
    this.chosen = 0;
    this.play = part("button", "Play", () => this.toggle());
    this.play.className = "play";
    this.place = part("input");
    Object.assign(this.place, { type: "range", min: 0, step: 0.01, value: 0 });
    this.place.setAttribute("aria-label", "position in seconds");
    this.place.addEventListener("input", () => this.player.seek(Number(this.place.value)));
    this.clock = part("output");
    const row = part("div");
    row.className = "row";
    row.append(this.play, this.place, this.clock);
    this.versions = part("div");
    this.versions.className = "versions";
    this.versions.setAttribute("role", "group");
    this.versions.setAttribute("aria-label", "Sounds");
    this.buttons = page.sounds.map((sound, i) => part("button", sound.name, () => this.choose(i)));
    this.versions.append(...this.buttons);
    holder.replaceChildren(this.versions, row);
    document.addEventListener("keydown", (event) => this.key(event));
    const sources = {};
    page.sounds.forEach((sound, i) => { sources[i] = document.getElementById(`sound-${sound.sound}`).textContent; });
    this.ready = this.player.load(sources).then(
      () => { this.place.max = this.player.duration; this.show(); },
      (error) => { holder.replaceChildren(part("p", error.message)); },
    );
    this.show();
  }

  choose(i) {
    this.chosen = i;
    if (this.player.playing) this.player.switchTo(String(i));
    this.show();
  }

  async toggle() {
    await this.ready;
    if (this.player.playing) this.player.pause();
    else this.player.play(String(this.chosen));
    this.show();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.type === "range") return;
    const number = Number(event.key) - 1;
    if (event.key === " ") this.toggle();
    else if (number >= 0 && number < page.sounds.length) this.choose(number);
    else return;
    event.preventDefault();
  }

  show() {
    const at = this.player.position();
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === this.chosen)));
    this.play.textContent = this.player.playing ? "Pause" : "Play";
    this.place.value = at;
    this.clock.textContent = `${at.toFixed(1)} s of ${this.player.duration.toFixed(1)} s`;
    if (this.player.playing) requestAnimationFrame(() => this.show());
  }
}

function part(tag, text = "", onclick = null) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (onclick) made.addEventListener("click", onclick);
  return made;
}

window.sounds = new Sounds(document.getElementById("listening"));
