// The image: zoom, pan, the pixel cursor, the values of pixels, and the scale bar.

import { compose } from "./render.js";

const VALUES_FROM = 38; // zoom at which pixels are large enough to print their values
const LARGEST_ZOOM = 128;

export class Stage {
  constructor(root, onPixel) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.small = document.createElement("canvas");
    this.onPixel = onPixel; // (pixel or null, isFromKeyboard)
    this.layers = [];
    this.width = this.height = 0; // of the image
    this.um = null; // [y, x], the size of a pixel
    this.zoom = 1; // CSS pixels per pixel of the image
    this.center = [0, 0];
    this.isFitted = true;
    this.cursor = null;
    this.hover = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(root);
  }

  // -- content ----------------------------------------------------------------------------------

  /** Show layers: {picture, low, high, color, name}. */
  show(layers) {
    const width = Math.max(0, ...layers.map(({ picture }) => picture.width));
    const height = Math.max(0, ...layers.map(({ picture }) => picture.height));
    this.layers = layers;
    if (width && (width !== this.width || height !== this.height)) {
      this.width = width;
      this.height = height;
      this.isFitted = true;
      this.cursor = null;
    }
    this.draw();
    this.tell();
  }

  /** Return the size of the stage in CSS pixels, and the number of screen pixels per CSS pixel. */
  size() {
    return [this.root.clientWidth, this.root.clientHeight, window.devicePixelRatio || 1];
  }

  fitZoom() {
    const [width, height] = this.size();
    return Math.min(width / Math.max(1, this.width), height / Math.max(1, this.height), LARGEST_ZOOM);
  }

  draw() {
    const [width, height, ratio] = this.size();
    const { canvas, context } = this;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
    if (this.isFitted) {
      this.zoom = this.fitZoom();
      this.center = [this.width / 2, this.height / 2];
    }
    context.fillStyle = "#101216";
    context.fillRect(0, 0, columns, rows);
    if (this.layers.length && columns && rows) this.drawImage(width, height, ratio);
    this.drawScaleBar(width);
    this.root.dispatchEvent(new CustomEvent("zoomed"));
  }

  drawImage(width, height, ratio) {
    const { context, zoom } = this;
    const [centerX, centerY] = this.center;
    const step = Math.max(1, Math.floor(1 / (zoom * ratio)));
    const begin = (center, half) => Math.max(0, Math.floor((center - half / zoom) / step) * step);
    const left = begin(centerX, width / 2);
    const top = begin(centerY, height / 2);
    const right = Math.min(this.width, Math.ceil(centerX + width / 2 / zoom));
    const bottom = Math.min(this.height, Math.ceil(centerY + height / 2 / zoom));
    if (right <= left || bottom <= top) return;
    const columns = Math.ceil((right - left) / step);
    const rows = Math.ceil((bottom - top) / step);
    if (!this.image || this.image.width !== columns || this.image.height !== rows) {
      this.image = new ImageData(columns, rows);
      [this.small.width, this.small.height] = [columns, rows];
    }
    compose(this.image, this.layers, left, top, step);
    this.small.getContext("2d").putImageData(this.image, 0, 0);
    const scale = zoom * ratio;
    const x = ((left - centerX) * zoom + width / 2) * ratio;
    const y = ((top - centerY) * zoom + height / 2) * ratio;
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(this.small, x, y, columns * step * scale, rows * step * scale);
    if (zoom >= VALUES_FROM) this.drawValues(left, top, right, bottom, x, y, ratio);
    this.drawCursor(x, y, left, top, scale, ratio);
  }

  drawValues(left, top, right, bottom, x, y, ratio) {
    const { context, zoom, image } = this;
    const cell = zoom * ratio;
    const lines = this.layers.slice(0, zoom > 70 ? 5 : 3);
    const font = Math.min(13, (zoom - 6) / Math.max(3, lines.length * 1.25)) * ratio;
    context.font = `${font}px ui-monospace, Menlo, Consolas, monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const at = 4 * ((row - top) * image.width + column - left);
        const [red, green, blue] = image.data.subarray(at, at + 3);
        context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 120 ? "#000" : "#fff";
        lines.forEach((layer, number) => {
          const text = shortValue(layer.picture, column, row);
          const middle = y + (row - top + 0.5) * cell + (number - (lines.length - 1) / 2) * font * 1.25;
          if (text) context.fillText(text, x + (column - left + 0.5) * cell, middle, cell - 4);
        });
      }
    }
  }

  drawCursor(x, y, left, top, scale, ratio) {
    if (!this.cursor) return;
    const size = Math.max(scale, 7 * ratio);
    const middleX = x + (this.cursor[0] - left + 0.5) * scale;
    const middleY = y + (this.cursor[1] - top + 0.5) * scale;
    for (const [color, width] of [["#000", 4], ["#ffd54a", 2]]) {
      this.context.strokeStyle = color;
      this.context.lineWidth = width * ratio;
      this.context.strokeRect(middleX - size / 2, middleY - size / 2, size, size);
    }
  }

  drawScaleBar(width) {
    const bar = document.getElementById("scale");
    bar.hidden = !this.um || !this.layers.length;
    if (bar.hidden) return;
    const um = this.um[1] * (this.layers[0].picture.step || 1); // per pixel of the image
    const longest = (Math.min(width, this.width * this.zoom) * 0.3 * um) / this.zoom;
    const unit = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((part) => part * unit).find((part) => part <= longest) || unit;
    const [shown, name] = length >= 1000 ? [length / 1000, "mm"] : length >= 1 ? [length, "µm"] : [length * 1000, "nm"];
    bar.querySelector("i").style.width = `${(length / um) * this.zoom}px`;
    bar.querySelector("span").textContent = `${Number(shown.toPrecision(3))} ${name}`;
  }

  // -- zoom and pan -----------------------------------------------------------------------------

  fit() {
    this.isFitted = true;
    this.draw();
  }

  /** Zoom by a factor, and keep the pixel at a place of the stage where it is. */
  zoomBy(factor, place = null) {
    const [width, height] = this.size();
    const smallest = Math.min(this.fitZoom(), 1) / 2;
    const zoom = Math.min(LARGEST_ZOOM, Math.max(smallest, this.zoom * factor));
    const at = place || (this.cursor ? this.placeOf(this.cursor) : [width / 2, height / 2]);
    const offset = [at[0] - width / 2, at[1] - height / 2];
    this.center = this.center.map((center, k) => center + offset[k] / this.zoom - offset[k] / zoom);
    this.zoom = zoom;
    this.isFitted = false;
    this.keepInside();
    this.draw();
  }

  zoomTo(zoom) {
    this.zoomBy(zoom / this.zoom);
  }

  pan(x, y) {
    this.center = [this.center[0] - x / this.zoom, this.center[1] - y / this.zoom];
    this.isFitted = false;
    this.keepInside();
    this.draw();
  }

  keepInside() {
    const size = [this.width, this.height];
    this.center = this.center.map((center, k) => Math.min(size[k], Math.max(0, center)));
  }

  // -- pixels -----------------------------------------------------------------------------------

  placeOf([x, y]) {
    const [width, height] = this.size();
    return [(x + 0.5 - this.center[0]) * this.zoom + width / 2, (y + 0.5 - this.center[1]) * this.zoom + height / 2];
  }

  pixelAt(x, y) {
    const [width, height] = this.size();
    const pixel = [
      Math.floor((x - width / 2) / this.zoom + this.center[0]),
      Math.floor((y - height / 2) / this.zoom + this.center[1]),
    ];
    const isInside = pixel[0] >= 0 && pixel[1] >= 0 && pixel[0] < this.width && pixel[1] < this.height;
    return isInside ? pixel : null;
  }

  /** Move the cursor, and pan if it would leave the stage. */
  moveCursor(x, y) {
    if (!this.layers.length) return;
    const start = this.cursor || [Math.floor(this.center[0]) - x, Math.floor(this.center[1]) - y];
    this.cursor = [
      Math.min(this.width - 1, Math.max(0, start[0] + x)),
      Math.min(this.height - 1, Math.max(0, start[1] + y)),
    ];
    this.hover = null;
    const [width, height] = this.size();
    const [placeX, placeY] = this.placeOf(this.cursor);
    const margin = Math.min(40, width / 4);
    const beyond = (place, most) => Math.min(0, place - margin) + Math.max(0, place - most + margin);
    const [offX, offY] = [beyond(placeX, width), beyond(placeY, height)];
    if ((offX || offY) && !this.isFitted) this.center = [this.center[0] + offX / this.zoom, this.center[1] + offY / this.zoom];
    this.draw();
    this.tell(true);
  }

  removeCursor() {
    this.cursor = null;
    this.draw();
    this.tell();
  }

  tell(isFromKeyboard = false) {
    this.onPixel(this.hover || this.cursor, isFromKeyboard);
  }

  listen() {
    const { root, pointers } = this;
    const place = (event) => {
      const box = root.getBoundingClientRect();
      return [event.clientX - box.left - root.clientLeft, event.clientY - box.top - root.clientTop];
    };
    root.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoomBy(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) * 0.003), place(event));
    }, { passive: false });
    root.addEventListener("pointerdown", (event) => {
      if (event.target !== this.canvas || event.button !== 0) return;
      pointers.set(event.pointerId, place(event));
      this.canvas.setPointerCapture(event.pointerId);
    });
    root.addEventListener("pointermove", (event) => {
      const now = place(event);
      const before = pointers.get(event.pointerId);
      if (before) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
        if (other) {
          const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
          const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
          this.zoomBy(distance(now) / Math.max(1, distance(before)), middle);
        } else {
          this.pan(now[0] - before[0], now[1] - before[1]);
        }
        pointers.set(event.pointerId, now);
        root.classList.add("dragged");
      }
      this.hover = event.target === this.canvas ? this.pixelAt(...now) : null;
      this.tell();
    });
    const end = (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) root.classList.remove("dragged");
    };
    root.addEventListener("pointerup", end);
    root.addEventListener("pointercancel", end);
    root.addEventListener("pointerleave", () => {
      this.hover = null;
      this.tell();
    });
    this.canvas.addEventListener("dblclick", () => this.fit());
  }
}

/** Return the values of a pixel, one per component; empty outside the picture. */
export function valuesAt(picture, x, y) {
  if (x >= picture.width || y >= picture.height) return [];
  const at = (y * picture.width + x) * picture.components;
  return Array.from(picture.exact.subarray(at, at + picture.components));
}

/** Return a value as numpy prints it. */
export function valueText(value, dtype) {
  if (dtype !== "float32" && dtype !== "float64") return value.toString();
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "-∞";
  if (dtype === "float64") return String(value);
  let text = "";
  for (let digits = 1; digits < 10; digits++) {
    text = String(Number(value.toPrecision(digits)));
    if (Math.fround(Number(text)) === value) break;
  }
  return text;
}

function shortValue(picture, x, y) {
  const values = valuesAt(picture, x, y);
  const isFloat = picture.dtype.startsWith("float");
  return values.map((value) => (isFloat ? String(Number(value.toPrecision(3))) : value.toString())).join(" ");
}
