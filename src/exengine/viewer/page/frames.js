// The frames of the dataset: their positions on the axes, and a cache of their pixels.

const CACHE_BYTES = 512 * 2 ** 20;
const RETRY_MS = 5000; // after an error
const TYPES = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array,
  int32: Int32Array, uint64: BigUint64Array, int64: BigInt64Array, float32: Float32Array,
  float64: Float64Array,
};

/** An axis. A position is identified by its place in the order in which positions first occurred. */
class Axis {
  constructor(name) {
    this.name = name;
    this.positions = []; // {label, number}: number is null for a name
    this.stops = []; // places in the order of the slider; -1 stands for frames without this axis
    this.rank = new Map(); // place -> index in stops
    this.hasAbsent = false;
  }

  label(place) {
    return place < 0 ? "none" : this.positions[place].label;
  }

  add(positions) {
    for (const each of positions) {
      const isNumber = Array.isArray(each);
      this.positions.push({ label: isNumber ? each[0] : each, number: isNumber ? Number(each[0]) : null });
    }
  }

  isAscending(first) {
    const last = this.stops.at(-1);
    if (this.hasAbsent || this.stops.length !== first || (first > 0 && last !== first - 1)) return false;
    let before = first ? this.positions[last].number : -Infinity;
    if (before === null) return false;
    for (let place = first; place < this.positions.length; place++) {
      const { number } = this.positions[place];
      if (number === null || number <= before) return false;
      before = number;
    }
    return true;
  }

  /** Sort the positions, of which those from `first` on are new. */
  sort(first) {
    if (this.isAscending(first)) { // the usual case: a time axis that grows
      for (let place = first; place < this.positions.length; place++) {
        this.rank.set(place, this.stops.length);
        this.stops.push(place);
      }
      return;
    }
    const order = (place) => this.positions[place].number;
    const all = this.positions.map((_, place) => place);
    const numbers = all.filter((place) => order(place) !== null).sort((a, b) => order(a) - order(b));
    this.stops = [...(this.hasAbsent ? [-1] : []), ...numbers, ...all.filter((place) => order(place) === null)];
    this.rank = new Map(this.stops.map((place, index) => [place, index]));
  }
}

/** All frames, by their numbers and by their places on the axes. */
export class Frames {
  constructor() {
    this.axes = [];
    this.count = 0;
    this.places = []; // one Int32Array per axis
    this.capacities = []; // per axis, for the keys
    this.isHuge = false; // keys of numbers would not be exact
    this.byKey = new Map();
  }

  /** Add the frames of a message. Return whether there are more to ask for, and the facts. */
  add(buffer) {
    const bytes = new Uint8Array(buffer);
    const end = bytes.indexOf(0);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    const added = head.to - head.from;
    if (head.from !== this.count) return head; // an answer that another one has overtaken
    let at = end + 1 + ((4 - ((end + 1) % 4)) % 4);
    const known = this.axes.length;
    head.axes.forEach(({ name, positions }, number) => {
      if (number >= this.axes.length) {
        this.axes.push(new Axis(name));
        this.places.push(new Int32Array(Math.max(1024, this.count)).fill(-1));
        this.axes[number].hasAbsent = this.count > 0;
      }
      const axis = this.axes[number];
      const first = axis.positions.length;
      axis.add(positions);
      const column = new Int32Array(buffer, at, added);
      at += 4 * added;
      this.places[number] = grown(this.places[number], this.count + added);
      this.places[number].set(column, this.count);
      if (!axis.hasAbsent && column.includes(-1)) axis.hasAbsent = true;
      if (positions.length || number >= known || axis.hasAbsent) axis.sort(first);
    });
    const first = this.count;
    this.count += added;
    const needed = this.axes.map((axis) => axis.positions.length + 1);
    const tooSmall = needed.some((size, number) => size > (this.capacities[number] || 0));
    if (tooSmall) {
      this.capacities = needed.map((size) => 2 ** Math.ceil(Math.log2(size) + 1));
      this.isHuge = this.capacities.reduce((product, size) => product * size, 1) > Number.MAX_SAFE_INTEGER;
      this.byKey.clear();
    }
    for (let number = tooSmall ? 0 : first; number < this.count; number++) {
      this.byKey.set(this.key(this.placesOf(number)), number);
    }
    return head;
  }

  key(places) {
    if (this.isHuge) return places.join(" ");
    let key = 0;
    for (let axis = 0; axis < this.axes.length; axis++) key = key * this.capacities[axis] + places[axis] + 1;
    return key;
  }

  placesOf(number) {
    return this.places.map((column) => column[number]);
  }

  /** Return the number of the frame at these places; -1 if there is none. */
  find(places) {
    return this.byKey.get(this.key(places)) ?? -1;
  }

  text(number) {
    return this.axes
      .map((axis, index) => [axis, this.places[index][number]])
      .filter(([, place]) => place >= 0)
      .map(([axis, place]) => `${axis.name} ${axis.label(place)}`)
      .join(", ");
  }
}

function grown(column, length) {
  if (column.length >= length) return column;
  const longer = new Int32Array(Math.max(length, 2 * column.length)).fill(-1);
  longer.set(column);
  return longer;
}

/** Pixels of frames, fetched on demand, the most recently used first. */
export class PixelCache {
  constructor(kind, mostRequests, onArrival) {
    this.kind = kind; // "frame" or "thumbnail"
    this.mostRequests = mostRequests; // at the same time; a browser opens six connections to a server
    this.onArrival = onArrival;
    this.found = new Map();
    this.bytes = 0;
    this.wanted = [];
    this.kept = new Set(); // numbers of frames that stay, even if the cache is full
    this.running = new Set();
  }

  /** Return a picture if it is here: {pixels, exact, width, height, components, dtype, step, note, error}. */
  get(number) {
    const picture = this.found.get(number);
    if (picture) {
      this.found.delete(number); // the map keeps its keys in the order of use
      this.found.set(number, picture);
    }
    return picture;
  }

  /** Fetch these frames, in this order, and forget about earlier wishes. Keep those in `kept`. */
  want(numbers, kept = []) {
    this.kept = new Set(kept);
    this.wanted = numbers.filter((number) => !this.found.has(number) && !this.running.has(number));
    this.fetchNext();
  }

  forget(number) {
    const picture = this.found.get(number);
    if (picture) this.bytes -= picture.bytes;
    this.found.delete(number);
  }

  fetchNext() {
    while (this.running.size < this.mostRequests && this.wanted.length) this.fetchOne(this.wanted.shift());
  }

  async fetchOne(number) {
    this.running.add(number);
    let picture;
    try {
      const answer = await fetch(`${this.kind}/${number}`);
      const head = answer.headers.get("X-Picture");
      if (head) picture = decoded(await answer.arrayBuffer(), JSON.parse(head));
      else picture = { error: answer.ok ? (await answer.json()).error : `the server answers ${answer.status}`, bytes: 0 };
    } catch {
      picture = { error: "the server does not answer", bytes: 0 };
    }
    this.running.delete(number);
    this.found.set(number, picture);
    this.bytes += picture.bytes;
    for (const oldest of this.found.keys()) {
      if (this.bytes <= CACHE_BYTES) break;
      if (oldest !== number && !this.kept.has(oldest)) this.forget(oldest);
    }
    if (picture.error) setTimeout(() => this.forget(number), RETRY_MS);
    this.fetchNext();
    this.onArrival(number, picture);
  }
}

function decoded(buffer, { shape, dtype, step, note }) {
  const exact = new TYPES[dtype](buffer);
  const isBig = dtype === "uint64" || dtype === "int64";
  return {
    exact, // the values to print
    pixels: isBig ? Float64Array.from(exact, Number) : exact, // the values to draw
    height: shape[0], width: shape[1], components: shape[2] || 1,
    dtype, step, note, bytes: buffer.byteLength * (isBig ? 2 : 1),
  };
}
