// Turns pixels into colors: contrast, histograms, and the sum of the channels.

/** Return the range of the values, and how often values occur in each of `bins` equal parts of a range. */
export function histogram(picture, low, high, bins = 128) {
  const { pixels } = picture;
  const counts = new Uint32Array(bins);
  const step = Math.max(1, Math.floor(pixels.length / 262144));
  const scale = high > low ? bins / (high - low) : 0;
  for (let k = 0; k < pixels.length; k += step) {
    const bin = Math.floor((pixels[k] - low) * scale);
    if (bin >= 0) counts[Math.min(bin, bins - 1)]++; // NaN is not >= 0
  }
  return counts;
}

/** Return the smallest and the largest finite value. */
export function range(picture) {
  const { pixels } = picture;
  let low = Infinity;
  let high = -Infinity;
  for (let k = 0; k < pixels.length; k++) {
    const value = pixels[k];
    if (value < low && value !== -Infinity) low = value;
    if (value > high && value !== Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Return the values between which nearly all pixels lie. */
export function autoContrast(picture) {
  const { pixels } = picture;
  const step = Math.max(1, Math.floor(pixels.length / 65536));
  const sample = new Float64Array(Math.ceil(pixels.length / step));
  let count = 0;
  for (let k = 0; k < pixels.length; k += step) if (Number.isFinite(pixels[k])) sample[count++] = pixels[k];
  const sorted = sample.subarray(0, count).sort();
  if (!count) return [0, 1];
  const at = (part) => sorted[Math.min(count - 1, Math.round(part * (count - 1)))];
  const [low, high] = [at(0.005), at(0.995)];
  if (high > low) return [low, high];
  return sorted[count - 1] > sorted[0] ? [sorted[0], sorted[count - 1]] : [low - 1, high + 1];
}

const SMALL = { uint8: [0, 256], int8: [128, 256], uint16: [0, 65536], int16: [32768, 65536] };

/** A table from the values of a channel to its color, with 10 bits for each of red, green and blue. */
class Shade {
  constructor(dtype, low, high, color) {
    const [red, green, blue] = color;
    const levels = new Int32Array(256);
    for (let level = 0; level < 256; level++) {
      const part = level / 255;
      levels[level] = (Math.round(red * part) << 20) | (Math.round(green * part) << 10) | Math.round(blue * part);
    }
    this.low = low;
    this.scale = 255 / Math.max(high - low, 1e-30);
    this.levels = levels;
    this.table = null;
    if (dtype in SMALL) {
      const [offset, size] = SMALL[dtype];
      this.offset = offset;
      this.table = new Int32Array(size);
      for (let k = 0; k < size; k++) this.table[k] = levels[this.level(k - offset)];
    }
  }

  level(value) {
    const level = (value - this.low) * this.scale;
    return level > 0 ? (level < 255 ? Math.round(level) : 255) : 0; // NaN is not > 0
  }
}

const shades = new Map();

function shadeOf(dtype, { low, high, color }) {
  const key = `${dtype} ${low} ${high} ${color}`;
  let shade = shades.get(key);
  if (!shade) {
    if (shades.size > 64) shades.clear();
    shades.set(key, (shade = new Shade(dtype, low, high, color)));
  }
  return shade;
}

let sums = new Int32Array(0);

/**
 * Draw the sum of layers, {picture, low, high, color}, into an ImageData.
 *
 * The ImageData shows the pixels of the region that begins at (left, top), with one pixel for every `step`
 * pixels of the layers.
 */
export function compose(image, layers, left, top, step) {
  const { width, height } = image;
  const size = width * height;
  if (sums.length < size) sums = new Int32Array(size);
  const total = sums.subarray(0, size).fill(0);
  layers.forEach((layer, number) => {
    if (number > 3) limit(total); // four channels fit into 10 bits
    if (layer.picture.components === 3) addRgb(total, layer, left, top, step, width, height);
    else addGray(total, layer, left, top, step, width, height);
  });
  const out = new Uint32Array(image.data.buffer);
  for (let k = 0; k < size; k++) {
    const sum = total[k];
    const red = sum >>> 20;
    const green = (sum >>> 10) & 1023;
    const blue = sum & 1023;
    out[k] = 0xff000000 | ((blue > 255 ? 255 : blue) << 16) | ((green > 255 ? 255 : green) << 8) | (red > 255 ? 255 : red);
  }
}

function limit(total) {
  for (let k = 0; k < total.length; k++) {
    const sum = total[k];
    total[k] = (Math.min(sum >>> 20, 255) << 20) | (Math.min((sum >>> 10) & 1023, 255) << 10) | Math.min(sum & 1023, 255);
  }
}

function addGray(total, layer, left, top, step, width, height) {
  const { picture } = layer;
  const { pixels } = picture;
  const shade = shadeOf(picture.dtype, layer);
  const { table, offset, levels } = shade;
  const columns = Math.min(width, Math.ceil((picture.width - left) / step));
  const rows = Math.min(height, Math.ceil((picture.height - top) / step));
  for (let row = 0; row < rows; row++) {
    let from = (top + row * step) * picture.width + left;
    let to = row * width;
    if (table) {
      for (let column = 0; column < columns; column++, from += step) total[to++] += table[pixels[from] + offset];
    } else {
      for (let column = 0; column < columns; column++, from += step) total[to++] += levels[shade.level(pixels[from])];
    }
  }
}

function addRgb(total, layer, left, top, step, width, height) {
  const { picture } = layer;
  const { pixels } = picture;
  const { low } = layer;
  const scale = 255 / Math.max(layer.high - low, 1e-30);
  const level = (value) => {
    const found = (value - low) * scale;
    return found > 0 ? (found < 255 ? Math.round(found) : 255) : 0;
  };
  const columns = Math.min(width, Math.ceil((picture.width - left) / step));
  const rows = Math.min(height, Math.ceil((picture.height - top) / step));
  for (let row = 0; row < rows; row++) {
    let from = 3 * ((top + row * step) * picture.width + left);
    let to = row * width;
    for (let column = 0; column < columns; column++, from += 3 * step) {
      total[to++] += (level(pixels[from]) << 20) | (level(pixels[from + 1]) << 10) | level(pixels[from + 2]);
    }
  }
}

/** Return red, green and blue of a color such as "00FF00". */
export function rgb(color) {
  const number = parseInt(color.replace("#", ""), 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}
