// The sliders of the axes, and the filmstrip along the selected axis.

const PLAY_MS = 100;
const MOST_TILES = 24;

export class Sliders {
  constructor(root, state, onMove) {
    this.root = root;
    this.state = state; // {frames, places, channelAxis}
    this.onMove = onMove;
    this.rows = new Map(); // number of an axis -> its elements
    this.active = -1;
    this.timer = 0;
    this.playing = -1;
    this.direction = 1;
  }

  /** Create the rows of axes with several positions, and set the ranges of the sliders. */
  update() {
    const { frames, channelAxis } = this.state;
    frames.axes.forEach((axis, number) => {
      if (number === channelAxis || axis.stops.length < 2) return;
      if (!this.rows.has(number)) this.add(axis, number);
      const { slider, element } = this.rows.get(number);
      slider.max = axis.stops.length - 1;
      element.querySelector(".length").textContent = `of ${axis.stops.length}`;
    });
    if (this.active < 0 && this.rows.size) {
      const time = [...this.rows.keys()].find((number) => frames.axes[number].name === "time");
      this.select(time ?? this.rows.keys().next().value);
    }
    this.show();
  }

  add(axis, number) {
    const element = document.createElement("div");
    element.className = "axis";
    element.dataset.axis = axis.name;
    element.innerHTML = `
      <label for="axis-${number}"></label>
      <button type="button" class="back">‹</button>
      <input type="range" id="axis-${number}" min="0" step="1" value="0">
      <button type="button" class="forward">›</button>
      <output for="axis-${number}"></output><span class="length quiet"></span>
      <button type="button" class="play" aria-pressed="false"><span aria-hidden="true">▶</span></button>`;
    const find = (selector) => element.querySelector(selector);
    find("label").textContent = axis.name;
    find(".back").setAttribute("aria-label", `Previous ${axis.name}`);
    find(".forward").setAttribute("aria-label", `Next ${axis.name}`);
    find(".play").setAttribute("aria-label", `Play along ${axis.name}`);
    const slider = find("input");
    slider.addEventListener("input", () => {
      this.select(number);
      this.goTo(number, Number(slider.value));
    });
    slider.addEventListener("focus", () => this.select(number));
    find(".back").addEventListener("click", () => { this.select(number); this.step(-1); });
    find(".forward").addEventListener("click", () => { this.select(number); this.step(1); });
    find(".play").addEventListener("click", () => { this.select(number); this.play(); });
    find("label").addEventListener("click", () => this.select(number));
    this.rows.set(number, { element, slider, output: find("output"), play: find(".play") });
    const before = [...this.rows.keys()].filter((other) => other < number).length;
    this.root.insertBefore(element, this.root.children[before] || null);
  }

  select(number) {
    if (number === this.active) return;
    this.active = number;
    for (const [each, { element }] of this.rows) element.classList.toggle("selected", each === number);
    this.onMove(false);
  }

  selectOther(step) {
    const all = [...this.rows.keys()].sort((a, b) => a - b);
    if (!all.length) return "";
    this.select(all[(all.indexOf(this.active) + step + all.length) % all.length]);
    return this.state.frames.axes[this.active].name;
  }

  rankOf(number) {
    return this.state.frames.axes[number].rank.get(this.state.places[number]) ?? 0;
  }

  goTo(number, rank) {
    const { stops } = this.state.frames.axes[number];
    const place = stops[Math.min(stops.length - 1, Math.max(0, rank))];
    if (place === this.state.places[number]) return;
    this.direction = rank < this.rankOf(number) ? -1 : 1;
    this.state.places[number] = place;
    this.onMove(true);
  }

  /** Move along the selected axis. */
  step(count, isCyclic = false) {
    if (this.active < 0) return;
    const { length } = this.state.frames.axes[this.active].stops;
    const rank = this.rankOf(this.active) + count;
    this.goTo(this.active, isCyclic ? (rank + length) % length : rank);
  }

  goToEnd(isLast) {
    if (this.active >= 0) this.goTo(this.active, isLast ? Infinity : 0);
  }

  play() {
    const wasPlaying = this.playing === this.active;
    this.pause();
    if (wasPlaying || this.active < 0) return;
    this.playing = this.active;
    this.timer = setInterval(() => {
      if (this.state.isWaiting()) return; // do not skip frames that are still loading
      this.active = this.playing;
      this.step(1, true);
    }, PLAY_MS);
    this.show();
  }

  pause() {
    clearInterval(this.timer);
    this.playing = -1;
    this.show();
  }

  /** Show the positions. */
  show() {
    for (const [number, { slider, output, play }] of this.rows) {
      const axis = this.state.frames.axes[number];
      const text = axis.label(this.state.places[number]);
      slider.value = this.rankOf(number);
      slider.setAttribute("aria-valuetext", text);
      output.textContent = text;
      output.title = text;
      const isPlaying = this.playing === number;
      play.setAttribute("aria-pressed", String(isPlaying));
      play.firstElementChild.textContent = isPlaying ? "❚❚" : "▶";
    }
  }
}

export class Filmstrip {
  constructor(box, state, sliders, draw) {
    this.box = box;
    this.root = box.querySelector("#film");
    this.state = state;
    this.sliders = sliders;
    this.draw = draw; // (canvas, places) -> whether the frame exists; draws it if its pixels are here
    this.tiles = [];
  }

  /** Show frames around the current one. Return the places of those that are shown. */
  update() {
    const { frames, places } = this.state;
    const number = this.sliders.active;
    this.box.hidden = number < 0;
    if (this.box.hidden) return [];
    const axis = frames.axes[number];
    const room = Math.max(3, Math.min(MOST_TILES, Math.floor((this.root.clientWidth + 6) / 78)));
    const count = Math.min(room, axis.stops.length);
    const current = this.sliders.rankOf(number);
    const first = Math.max(0, Math.min(current - Math.floor(count / 2), axis.stops.length - count));
    while (this.tiles.length < count) this.tiles.push(this.makeTile());
    this.root.replaceChildren(...this.tiles.slice(0, count).map((tile) => tile.element));
    this.box.querySelector("#film-title").textContent = `Along ${axis.name}`;
    const shown = [];
    for (let k = 0; k < count; k++) {
      const rank = first + k;
      const there = places.slice();
      there[number] = axis.stops[rank];
      shown.push(there);
      const tile = this.tiles[k];
      tile.rank = rank;
      const label = axis.label(axis.stops[rank]);
      tile.text.textContent = label;
      const exists = this.draw(tile.canvas, there);
      tile.element.classList.toggle("absent", !exists);
      tile.element.setAttribute("aria-label", `${axis.name} ${label}${exists ? "" : ", no frame"}`);
      if (rank === current) tile.element.setAttribute("aria-current", "true");
      else tile.element.removeAttribute("aria-current");
    }
    const ends = [first, first + count - 1].map((rank) => rank + 1);
    this.box.querySelector("#film-range").textContent =
      count < axis.stops.length ? `${ends[0]} to ${ends[1]} of ${axis.stops.length}` : "";
    return shown;
  }

  makeTile() {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "tile";
    element.tabIndex = -1; // the sliders and the arrow keys do the same
    element.innerHTML = "<canvas width='72' height='72'></canvas><span></span>";
    const tile = { element, canvas: element.firstChild, text: element.lastChild, rank: 0 };
    element.addEventListener("click", () => this.sliders.goTo(this.sliders.active, tile.rank));
    return tile;
  }
}
