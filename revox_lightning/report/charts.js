"use strict";

/* Line and dot charts as SVG, and spectrograms on a canvas. Text goes in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";
const SERIES_COLORS = 10; // beyond them, colours come again with dashes

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function drawn(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/* Gives a swatch or a line the colour of a row of the table, or of "dry", "target" and "linear". */
function coloured(node, series) {
  const number = typeof series === "number";
  node.style.setProperty("--color", `var(--${number ? `series-${series % SERIES_COLORS}` : series})`);
  if ((number && series >= SERIES_COLORS) || series === "linear") node.classList.add("dashed");
  return node;
}

/* A scale from values to pixels with its ticks; `log` for decades. */
function scale(values, from, to, log, room = 0.04) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const margin = room * (high - low);
  [low, high] = [low - margin, high + margin];
  const place = (value) => from + ((log ? Math.log10(value) : value) - low) / (high - low) * (to - from);
  return { place, ticks: log ? decades(low, high) : steps(low, high) };
}

function steps(low, high) {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
  return ticks;
}

function decades(low, high) {
  const factors = high - low > 4 ? [1] : high - low > 1.6 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const factor of factors) {
      const at = power + Math.log10(factor);
      if (at >= low && at <= high) ticks.push(factor * 10 ** power);
    }
  }
  return ticks;
}

/* A number in few characters: 20000 as 20k. */
function short(value) {
  if (value < 0) return `−${short(-value)}`;
  if (value >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (value >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return `${+value.toPrecision(3)}`;
}

/* One chart in a figure.
 *
 * spec: {title, note, x: {label, log, unit}, y: {label, unit}, series: [{label, color, lines: [[[x, y], ...], ...],
 * dots: [[x, y], ...]}], front: [[x, y], ...]}; the legend's buttons bring one series out, the pointer reads values.
 */
function chart(spec) {
  const [width, height, left, right, top, bottom] = [620, 330, 52, 14, 10, 42];
  const series = spec.series.map((one) => ({ lines: [], dots: [], ...one }));
  const points = series.flatMap((one, i) => [...one.lines.flat(), ...one.dots].map(([x, y]) => ({ x, y, i })))
    .filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y) && (!spec.x.log || p.x > 0));
  const figure = element("figure", {}, element("div", { class: "head" }, element("figcaption", {}, spec.title)));
  if (!points.length) {
    figure.append(element("p", {}, "The runs hold no figures for this picture."));
    return figure;
  }
  const room = spec.named ? 0.12 : 0.04;
  const x = scale(points.map((p) => p.x), left, width - right, spec.x.log, room);
  const y = scale(points.map((p) => p.y), height - bottom, top, false, room);
  const names = series.map((one) => one.label).join(", ");
  const svg = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${spec.title}: ${spec.y.label} against ${spec.x.label}, of ${names}`,
  });
  for (const tick of x.ticks) {
    svg.append(drawn("line", { class: "grid", x1: x.place(tick), x2: x.place(tick), y1: top, y2: height - bottom }));
    svg.append(drawn("text", { x: x.place(tick), y: height - bottom + 16, "text-anchor": "middle" }, short(tick)));
  }
  for (const tick of y.ticks) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y.place(tick), y2: y.place(tick) }));
    svg.append(drawn("text", { x: left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  svg.append(drawn("path", { class: "axis", fill: "none", d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  svg.append(drawn("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, spec.x.label));
  svg.append(drawn("text", {
    x: -(top + height - bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle",
  }, spec.y.label));
  const path = (line) => line.filter(([a, b]) => Number.isFinite(b) && (!spec.x.log || a > 0))
    .map(([a, b], i) => `${i ? "L" : "M"}${x.place(a).toFixed(1)} ${y.place(b).toFixed(1)}`).join("");
  if (spec.front) svg.append(drawn("path", { class: "front", d: path(spec.front) }));
  const marks = series.map((one) => [
    ...one.lines.map((line) => coloured(drawn("path", { class: "series", d: path(line) }), one.color)),
    // A training of one epoch is a dot.
    ...one.lines.filter((line) => line.length === 1).map(([[a, b]]) => coloured(drawn("circle", {
      class: "dot", cx: x.place(a), cy: y.place(b), r: 3.5,
    }), one.color)),
    ...one.dots.map(([a, b]) => coloured(drawn("circle", {
      class: "dot", cx: x.place(a), cy: y.place(b), r: 5.5,
    }), one.color)),
  ]);
  for (const group of marks) svg.append(...group);
  if (spec.named) svg.append(...labels(series, x, y, width - right));
  const readout = element("output", { class: "readout" }, spec.note ?? "");
  const bringOut = (i) => {
    svg.classList.toggle("picked", i !== null);
    marks.forEach((group, j) => group.forEach((mark) => mark.classList.toggle("on", i === j)));
  };
  figure.append(svg, legend(series, bringOut), readout);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
    const far = (p) => (x.place(p.x) - at[0]) ** 2 + (y.place(p.y) - at[1]) ** 2;
    const near = points.reduce((best, p) => (far(p) < far(best) ? p : best));
    readout.textContent = `${series[near.i].label}: ${short(near.x)} ${spec.x.unit ?? ""}, `
      + `${near.y.toFixed(spec.y.digits ?? 1)} ${spec.y.unit ?? ""}`;
  });
  svg.addEventListener("pointerleave", () => { readout.textContent = spec.note ?? ""; });
  return figure;
}

/* Names beside dots; a name that would lie on another is left to the legend. */
function labels(series, x, y, right) {
  const taken = [];
  const texts = [];
  for (const { label, dots } of series) {
    for (const dot of dots) {
      const [at, row, length] = [x.place(dot[0]), y.place(dot[1]) - 6, 7 * label.length];
      const end = at + 9 + length > right;
      const from = end ? at - 9 - length : at + 9;
      if (taken.some((t) => from < t.to && t.from < from + length && Math.abs(row - t.row) < 13)) continue;
      taken.push({ from, to: from + length, row });
      texts.push(drawn("text", { class: "name", x: end ? at - 9 : at + 9, y: row, "text-anchor": end ? "end" : "start" }, label));
    }
  }
  return texts;
}

function legend(series, bringOut) {
  let picked = null;
  const list = element("ul", { class: "legend" });
  series.forEach((one, i) => {
    const button = element("button", { type: "button", "aria-pressed": "false" },
      coloured(element("span", { class: "swatch" }), one.color), one.label);
    button.addEventListener("click", () => {
      picked = picked === i ? null : i;
      list.querySelectorAll("button").forEach((b, j) => b.setAttribute("aria-pressed", String(picked === j)));
      bringOut(picked);
    });
    button.addEventListener("pointerenter", () => bringOut(i));
    button.addEventListener("pointerleave", () => bringOut(picked));
    list.append(element("li", {}, button));
  });
  return list;
}

/* Magnitudes in dB re full scale of a sine, [columns][bins], Hann windows centred on evenly spaced moments. */
function spectrogram(samples, columns = 480, size = 2048) {
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  const turns = Array.from({ length: size / 2 }, (_, k) => (2 * Math.PI * k) / size);
  const [cosines, sines] = [Float64Array.from(turns, Math.cos), Float64Array.from(turns, Math.sin)];
  const [re, im] = [new Float64Array(size), new Float64Array(size)];
  const level = (a, b) => 10 * Math.log10((a * a + b * b) * (4 / (size * size)) + 1e-14);
  const cut = (into, column) => {
    const from = Math.round(((column + 0.5) / columns) * samples.length) - size / 2;
    for (let i = 0; i < size; i++) into[i] = (samples[from + i] ?? 0) * window[i];
  };
  const frames = [];
  for (let column = 0; column < columns; column += 2) { // two real transforms in a complex one
    cut(re, column);
    cut(im, column + 1);
    fourier(re, im, cosines, sines);
    const [one, other] = [new Float32Array(size / 2), new Float32Array(size / 2)];
    for (let k = 0; k < size / 2; k++) {
      const m = (size - k) % size;
      one[k] = level(re[k] + re[m], im[k] - im[m]);
      other[k] = level(im[k] + im[m], re[m] - re[k]);
    }
    frames.push(one, other);
  }
  return frames;
}

/* In place, radix 2 (Cooley and Tukey, 1965). */
function fourier(re, im, cosines, sines) {
  const size = re.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      const [a, b] = [re[i], im[i]];
      re[i] = re[j];
      im[i] = im[j];
      re[j] = a;
      im[j] = b;
    }
  }
  for (let half = 1; half < size; half *= 2) {
    const stride = size / (2 * half);
    for (let begin = 0; begin < size; begin += 2 * half) {
      for (let k = 0; k < half; k++) {
        const [c, s, i] = [cosines[k * stride], sines[k * stride], begin + k];
        const a = re[i + half] * c + im[i + half] * s;
        const b = im[i + half] * c - re[i + half] * s;
        re[i + half] = re[i] - a;
        im[i + half] = im[i] - b;
        re[i] += a;
        im[i] += b;
      }
    }
  }
}

const HEAT = [[4, 4, 22], [52, 14, 92], [122, 30, 108], [187, 55, 84], [237, 105, 37], [251, 180, 26], [252, 255, 200]];

const SHADES = Array.from({ length: 256 }, (_, shade) => {
  const at = (shade / 256) * (HEAT.length - 1);
  const [low, part] = [Math.floor(at), at % 1];
  return HEAT[low].map((value, i) => value + part * (HEAT[low + 1][i] - value));
});

const LOWEST_HZ = 40; // of a spectrogram's logarithmic axis

/* Where a frequency stands in a spectrogram: 0 at the top, 1 at the bottom. */
function depth(hz, rate) { return 1 - Math.log(hz / LOWEST_HZ) / Math.log(rate / 2 / LOWEST_HZ); }

/* Draws frames of `spectrogram`, from `floorDb` (dark) to `ceilingDb` (bright). */
function drawSpectrogram(canvas, frames, rate, floorDb, ceilingDb) {
  const [width, height, bins] = [frames.length, 240, frames[0].length];
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const bin = (row) => (LOWEST_HZ * (rate / 2 / LOWEST_HZ) ** (1 - row / height)) / (rate / 2) * bins;
  for (let row = 0; row < height; row++) {
    const [low, high] = [bin(row + 1), Math.min(bin(row), bins - 1)];
    for (let column = 0; column < width; column++) {
      const frame = frames[column];
      const below = Math.floor(low);
      const above = Math.min(below + 1, bins - 1);
      let db = frame[below] + (low - below) * (frame[above] - frame[below]); // between bins, and the loudest of many
      for (let k = above; k <= high; k++) db = Math.max(db, frame[k]);
      const shade = SHADES[Math.max(Math.min(Math.floor((256 * (db - floorDb)) / (ceilingDb - floorDb)), 255), 0)];
      const at = 4 * (row * width + column);
      for (let i = 0; i < 3; i++) image.data[at + i] = shade[i];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return image;
}
