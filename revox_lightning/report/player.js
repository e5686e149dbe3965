"use strict";

/* Plays several recordings of the same moment, sample by sample in step, and switches between them.
 *
 *   const player = new Player(context);            // an AudioContext, best at the files' own rate: Player.rate(uri)
 *   await player.load({dry: uri, wet: uri}, {dry: 0.5});   // WAV or FLAC as data: URIs or bare base64; gains if any
 *   player.play("dry", 1.5);                       // from 1.5 s on; without a number from where it stands
 *   player.switchTo("wet");                        // goes on at the same sample, with a short crossfade
 *   player.restart("wet");                         // from the loop's start: for what does not run in step
 *   player.pause(); player.seek(3); player.position();
 *   player.loop(1, 2.5); player.loop();            // a region in seconds; no region
 *   player.onended = () => ...;                    // the end was reached (never with a loop)
 *
 * All recordings start in the same sample frame and run on in silence until they are switched to. The signal leaves by
 * `player.output`, a GainNode already connected to the context's destination. Nothing here touches the page, the
 * keyboard or the network.
 */
class Player {
  static FADE_SECONDS = 0.005;
  static AHEAD_SECONDS = 0.03; // what the audio thread may have rendered when the last part of a call arrives

  constructor(context) {
    this.context = context;
    this.output = context.createGain();
    this.output.connect(context.destination);
    this.onended = null;
    this.current = null; // the name that is heard
    this._buffers = new Map();
    this._gains = new Map();
    this._take = null; // what is running: {sources, faders, bus, began, from}
    this._from = 0; // where it stands when nothing runs
    this._region = null; // [start, end] in seconds
  }

  get names() { return [...this._buffers.keys()]; }
  get playing() { return this._take !== null; }
  get region() { return this._region; }
  get duration() {
    return Math.max(0, ...[...this._buffers.values()].map((buffer) => buffer.duration));
  }

  /* Decodes every recording at its own sample rate; shorter ones end in silence so that loops keep in step. */
  async load(sources, gains = {}) {
    const names = Object.keys(sources);
    const decoded = await Promise.all(names.map((name) => Player.decode(sources[name], name)));
    names.forEach((name, i) => {
      this._buffers.set(name, decoded[i]);
      this._gains.set(name, gains[name] ?? 1);
    });
    const longest = this.duration;
    for (const [name, buffer] of this._buffers) this._buffers.set(name, padded(buffer, longest));
    return names;
  }

  /* Forgets all recordings. */
  unload() {
    this._stop();
    this._buffers.clear();
    this._gains.clear();
    this._from = 0;
    this._region = null;
    this.current = null;
  }

  buffer(name) { return this._buffers.get(name); }

  /* How loud a recording is played: a factor. */
  setGain(name, factor) {
    this._known(name);
    this._gains.set(name, factor);
    if (this._take && this.current === name) this._fade(this._take, name, factor, this._soon());
  }

  play(name = this.current ?? this.names[0], from = this.position()) {
    this._known(name);
    if (this._live && this.context.state === "suspended") this.context.resume();
    this._stop();
    this.current = name;
    if (this._region) {
      const [start, end] = this._region;
      if (from < start || from >= end) from = start;
    } else if (from >= this.duration) {
      from = 0;
    }
    this._start(name, from);
  }

  switchTo(name) {
    this._known(name);
    const before = this.current;
    this.current = name;
    if (!this._take || before === name) return;
    const at = this._soon();
    this._fade(this._take, name, this._gains.get(name), at);
    this._fade(this._take, before, 0, at);
  }

  restart(name = this.current) { this.play(name, this._region ? this._region[0] : 0); }

  pause() {
    this._from = this.position();
    this._stop();
  }

  seek(seconds) {
    const place = Math.min(Math.max(seconds, 0), this.duration);
    if (this._take) this.play(this.current, place);
    else this._from = place;
  }

  /* Repeats start to end, in seconds; without numbers plays to the end again. */
  loop(start = null, end = null) {
    const place = this.position();
    this._region = null;
    if (start !== null && end !== null) {
      const [low, high] = [Math.max(Math.min(start, end), 0), Math.min(Math.max(start, end), this.duration)];
      if (high - low >= 0.01) this._region = [low, high];
    }
    if (this._take) this.play(this.current, place);
    else this._from = place;
  }

  /* Seconds into the recordings. */
  position() {
    if (!this._take) return this._from;
    const at = this._take.from + Math.max(0, this.context.currentTime - this._take.began);
    const region = this._take.region;
    if (region && at >= region[1]) return region[0] + ((at - region[0]) % (region[1] - region[0]));
    return Math.min(at, this.duration);
  }

  _known(name) {
    if (!this._buffers.has(name)) throw new Error(`there is no recording ${name}: load it first`);
  }

  /* When all parts of a change happen, on a whole sample: between samples the browser would interpolate. */
  _soon(ahead = Player.AHEAD_SECONDS) {
    const rate = this.context.sampleRate;
    return Math.round((this.context.currentTime + ahead) * rate) / rate;
  }

  get _live() { return !(this.context instanceof OfflineAudioContext); }

  _start(name, from, ahead = Player.AHEAD_SECONDS) {
    const [called, began] = [performance.now(), this._soon(ahead)];
    const bus = this.context.createGain();
    bus.connect(this.output);
    bus.gain.setValueAtTime(0, began);
    bus.gain.linearRampToValueAtTime(1, began + Player.FADE_SECONDS);
    const take = { sources: [], faders: new Map(), bus, began, from, region: this._region };
    for (const [each, buffer] of this._buffers) {
      const source = this.context.createBufferSource();
      const whole = (seconds) => Math.round(seconds * buffer.sampleRate) / buffer.sampleRate;
      source.buffer = buffer;
      if (take.region) {
        source.loop = true;
        [source.loopStart, source.loopEnd] = take.region.map(whole);
      }
      const gain = this.context.createGain();
      const level = each === name ? this._gains.get(each) : 0;
      gain.gain.setValueAtTime(level, 0);
      source.connect(gain).connect(bus);
      source.start(began, whole(from));
      take.sources.push(source);
      take.faders.set(each, { gain: gain.gain, from: level, to: level, at: 0 });
    }
    // On a machine too busy to plan all starts in time, some would come late and out of step: once more, later.
    if (this._live && ahead < 2 && performance.now() - called > 500 * ahead) {
      bus.disconnect();
      for (const source of take.sources) source.stop();
      this._start(name, from, 2 * ahead);
      return;
    }
    take.sources[0].onended = () => this._ended(take);
    this._take = take;
  }

  _ended(take) {
    if (this._take !== take) return;
    this._take = null;
    this._from = 0;
    if (this.onended) this.onended();
  }

  _stop() {
    const take = this._take;
    if (!take) return;
    this._take = null;
    const now = this._soon();
    const end = now + Player.FADE_SECONDS;
    const risen = Math.min(Math.max((now - take.began) / Player.FADE_SECONDS, 0), 1);
    take.bus.gain.cancelScheduledValues(now);
    take.bus.gain.setValueAtTime(risen, now);
    take.bus.gain.linearRampToValueAtTime(0, end);
    for (const source of take.sources) source.stop(end);
    take.sources[0].onended = () => take.bus.disconnect();
  }

  /* A straight crossfade: two versions of one sound are alike, so their sum keeps its level. */
  _fade(take, name, to, now) {
    const fader = take.faders.get(name);
    const done = Math.min(Math.max((now - fader.at) / Player.FADE_SECONDS, 0), 1);
    const value = fader.from + (fader.to - fader.from) * done; // it may be on its way
    fader.gain.cancelScheduledValues(now);
    fader.gain.setValueAtTime(value, now);
    fader.gain.linearRampToValueAtTime(to, now + Player.FADE_SECONDS);
    Object.assign(fader, { from: value, to, at: now });
  }

  /* The bytes of a data: URI or of bare base64; never fetched. */
  static bytes(source) {
    const text = atob(source.slice(source.indexOf(",") + 1).trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  /* The sample rate in Hz that a WAV or FLAC file names (RIFF "fmt " chunk; RFC 9639, section 8.2). */
  static rate(source) {
    const head = source.indexOf(",") + 1;
    const bytes = typeof source === "string" ? Player.bytes(source.slice(head, head + 65536)) : source;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const tag = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
    if (tag(0) === "fLaC") return (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4);
    if (tag(0) === "RIFF") {
      for (let at = 12; at + 16 <= bytes.length; at += 8 + view.getUint32(at + 4, true) + (bytes[at + 4] & 1)) {
        if (tag(at) === "fmt ") return view.getUint32(at + 12, true);
      }
    }
    throw new Error("this is neither WAV nor FLAC");
  }

  /* An AudioBuffer at the file's own rate: a context of another rate would resample it in decoding. */
  static async decode(source, name = "recording") {
    try {
      const bytes = Player.bytes(source);
      const decoder = new OfflineAudioContext(1, 1, Player.rate(bytes));
      return await decoder.decodeAudioData(bytes.buffer);
    } catch (error) {
      throw new Error(`${name} cannot be played: ${error.message || error}`);
    }
  }
}

function padded(buffer, seconds) {
  const length = Math.round(seconds * buffer.sampleRate);
  if (buffer.length >= length) return buffer;
  const longer = new AudioBuffer({ length, numberOfChannels: buffer.numberOfChannels, sampleRate: buffer.sampleRate });
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    longer.copyToChannel(buffer.getChannelData(channel), channel);
  }
  return longer;
}
