// The panel of channels: on and off, color, contrast and histogram.

import { autoContrast, histogram, range, rgb } from "./render.js";

/** Return the contrast of a frame that is shown first. The colors of 8-bit RGB are not changed. */
function firstContrast(picture) {
  return picture.components === 3 && picture.dtype === "uint8" ? [0, 255] : autoContrast(picture);
}

const MIXED = ["00FF00", "FF00FF", "00FFFF", "FF0000", "FFFF00", "4D7CFF"];
const MOST_SHOWN = 4; // channels that are on at the start

export class Channels {
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange; // (isOtherFrame)
    this.all = [];
  }

  /** Set the channels: {key, name, color}. Channels that are already here keep their settings. */
  set(wanted) {
    if (wanted.length === this.all.length && wanted.every(({ key }, k) => key === this.all[k].key)) return;
    const known = new Map(this.all.map((channel) => [channel.key, channel]));
    this.all = wanted.map(({ key, name, color }, number) => {
      const default_ = wanted.length > 1 ? MIXED[number % MIXED.length] : "FFFFFF";
      return known.get(key) || this.make(key, name, color || default_, number, wanted.length);
    });
    this.root.replaceChildren(...this.all.map((channel) => channel.element));
  }

  shown() {
    return this.all.filter((channel) => channel.isOn);
  }

  make(key, name, color, number, count) {
    const channel = {
      key, name, color: `#${color.replace("#", "").toLowerCase()}`, isOn: count <= MOST_SHOWN || number === 0,
      low: null, high: null, extent: null, picture: null, dtype: "", isInteger: true,
    };
    const id = `channel-${number}-${Math.random().toString(36).slice(2, 7)}`;
    const element = document.createElement("fieldset");
    element.className = "channel";
    element.innerHTML = `
      <legend class="unseen"></legend>
      <div class="channel-head">
        <label class="switch"><input type="checkbox" class="on"> <b></b></label>
        <span class="space"></span>
        <label class="swatch"><span class="unseen"></span><input type="color"></label>
        <button type="button" class="only" ${count > 1 ? "" : "hidden"}>Only</button>
        <button type="button" class="auto">Auto</button>
      </div>
      <div class="histogram">
        <canvas width="560" height="96" role="img"></canvas>
        <input type="range" class="low" step="any"><input type="range" class="high" step="any">
      </div>
      <div class="limits">
        <label>Black <input type="number" class="low-number" step="any"></label>
        <label>White <input type="number" class="high-number" step="any"></label>
      </div>`;
    const find = (selector) => element.querySelector(selector);
    find("legend").textContent = `Channel ${name}`;
    find("b").textContent = name;
    find("b").id = id;
    find(".swatch .unseen").textContent = `Color of ${name}`;
    find(".only").setAttribute("aria-label", `Show only ${name}`);
    find(".auto").setAttribute("aria-label", `Auto contrast for ${name}`);
    find(".low").setAttribute("aria-label", `Black level of ${name}`);
    find(".high").setAttribute("aria-label", `White level of ${name}`);
    find(".low-number").setAttribute("aria-label", `Black level of ${name}, as a number`);
    find(".high-number").setAttribute("aria-label", `White level of ${name}, as a number`);
    if (number < 9) find(".on").title = `Show or hide (${number + 1})`;
    find(".on").addEventListener("change", (event) => this.turn(channel, event.target.checked));
    find(".only").addEventListener("click", () => {
      for (const each of this.all) each.isOn = each === channel;
      this.update(true);
    });
    find("input[type=color]").addEventListener("input", (event) => {
      channel.color = event.target.value;
      this.update();
    });
    find(".auto").addEventListener("click", () => this.auto([channel]));
    for (const side of ["low", "high"]) {
      for (const input of [find(`.${side}`), find(`.${side}-number`)]) {
        input.addEventListener(input.type === "range" ? "input" : "change", () => {
          const value = Number(input.value);
          if (input.value !== "" && Number.isFinite(value)) this.limit(channel, side, value);
          this.update();
        });
      }
    }
    channel.element = element;
    return channel;
  }

  turn(channel, isOn) {
    channel.isOn = isOn;
    this.update(true);
  }

  toggle(number) {
    const channel = this.all[number];
    if (channel) this.turn(channel, !channel.isOn);
  }

  limit(channel, side, value) {
    channel[side] = channel.isInteger ? Math.round(value) : value;
    if (side === "low") channel.high = Math.max(channel.high, channel.low + this.smallest(channel));
    else channel.low = Math.min(channel.low, channel.high - this.smallest(channel));
    channel.extent = widened(channel.extent, channel.low, channel.high);
  }

  smallest(channel) {
    return channel.isInteger ? 1 : Math.max(1e-12, (channel.extent[1] - channel.extent[0]) / 1000);
  }

  /** Set the contrast of channels from the frames that they show. */
  auto(channels) {
    for (const channel of channels) {
      if (channel.picture) {
        [channel.low, channel.high] = autoContrast(channel.picture);
        channel.extent = widened(channel.extent, channel.low, channel.high);
      }
    }
    this.update();
  }

  /** Give a channel the frame that it shows now. The first frame sets the contrast. */
  receive(channel, picture, isAuto) {
    channel.picture = picture;
    channel.isInteger = !picture.dtype.startsWith("float");
    const isOther = channel.dtype !== picture.dtype; // values of another dtype need another contrast
    if (isOther || isAuto) {
      [channel.low, channel.high] = isAuto ? autoContrast(picture) : firstContrast(picture);
      channel.extent = widened(isOther ? null : channel.extent, channel.low, channel.high);
      channel.dtype = picture.dtype;
    }
  }

  layer(channel, picture) {
    return { picture, low: channel.low, high: channel.high, color: rgb(channel.color), name: channel.name };
  }

  update(isOtherFrame = false) {
    this.onChange(isOtherFrame);
    for (const channel of this.all) this.describe(channel);
  }

  /** Update the controls of a channel, and its histogram. Takes a few milliseconds. */
  describe(channel) {
    const find = (selector) => channel.element.querySelector(selector);
    find(".on").checked = channel.isOn;
    find("input[type=color]").value = channel.color;
    channel.element.classList.toggle("off", !channel.isOn);
    channel.element.style.setProperty("--shade", channel.color);
    if (!channel.picture || channel.low === null) return;
    const isRgb = channel.picture.components === 3;
    find(".swatch").hidden = isRgb; // the colors are those of the pixels
    channel.extent = widened(channel.extent, ...range(channel.picture));
    const [low, high] = channel.extent;
    for (const side of ["low", "high"]) {
      const slider = find(`.${side}`);
      [slider.min, slider.max] = [low, high];
      slider.step = channel.isInteger ? 1 : "any";
      slider.value = channel[side];
      slider.setAttribute("aria-valuetext", rounded(channel[side]));
      if (document.activeElement !== find(`.${side}-number`)) find(`.${side}-number`).value = rounded(channel[side]);
    }
    this.drawHistogram(channel, find("canvas"));
  }

  drawHistogram(channel, canvas) {
    const [low, high] = channel.extent;
    // A bin holds a whole number of integers; otherwise the histogram has gaps that the pixels do not have.
    const mostBins = 140;
    const perBin = channel.isInteger ? Math.ceil((high - low + 1) / mostBins) : (high - low) / mostBins;
    const bins = channel.isInteger ? Math.ceil((high - low + 1) / perBin) : mostBins;
    const end = low + bins * perBin;
    const counts = histogram(channel.picture, low, end, bins);
    const most = Math.log1p(Math.max(1, ...counts));
    const pen = canvas.getContext("2d");
    const { width, height } = canvas;
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    const at = (value) => ((value - low) / Math.max(high - low, 1e-30)) * width;
    const wide = at(low + perBin);
    pen.fillStyle = style.getPropertyValue("--band");
    pen.fillRect(at(channel.low), 0, Math.max(1, at(channel.high) - at(channel.low)), height);
    pen.fillStyle = style.getPropertyValue("--bars");
    counts.forEach((count, bin) => {
      const tall = (Math.log1p(count) / most) * (height - 6);
      pen.fillRect(bin * wide, height - tall, wide, tall);
    });
    pen.strokeStyle = channel.picture.components === 3 ? "#ffffff" : channel.color;
    pen.lineWidth = 3;
    pen.beginPath();
    pen.moveTo(at(channel.low), height);
    pen.lineTo(at(channel.high), 0);
    pen.stroke();
    const text = (value) => rounded(value);
    canvas.setAttribute("aria-label",
      `Histogram of ${channel.name}, from ${text(low)} to ${text(high)}; black at ${text(channel.low)}, white at ${text(channel.high)}`);
  }
}

function widened(extent, low, high) {
  return extent ? [Math.min(extent[0], low), Math.max(extent[1], high)] : [low, high];
}

function rounded(value) {
  return String(Number(value.toPrecision(6)));
}
