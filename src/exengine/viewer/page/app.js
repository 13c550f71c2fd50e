// The page: connects the parts, follows the dataset, and handles the keyboard.

import { Filmstrip, Sliders } from "./axes.js";
import { Channels } from "./channels.js";
import { Metadata, showFacts } from "./details.js";
import { Frames, PixelCache } from "./frames.js";
import { compose } from "./render.js";
import { Stage, valuesAt, valueText } from "./stage.js";

const POLL_MS = 400; // while frames may arrive
const IDLE_POLL_MS = 5000; // of a finished dataset, to notice that the server has ended
const AHEAD = 8; // frames that are fetched in advance in the direction of movement
const BEHIND = 2;
const FOLLOW_WITHIN = 100; // frames
const find = (id) => document.getElementById(id);

const frames = new Frames();
const state = { frames, places: [], channelAxis: -1, isWaiting: () => isWaiting };
let facts = {};
let isWaiting = false; // for pixels of the frames to show
let isDirty = false;
let idleTimer = 0;
let isLive = false;
let lastStatus = "";
let shown = []; // [{channel, number}]
let needed = [];
let lastFound = 0; // number of the frame that was shown last

const cache = new PixelCache("frame", 3, (number) => { if (shown.some((each) => each.number === number)) redraw(); });
const thumbnails = new PixelCache("thumbnail", 2, () => later());
const stage = new Stage(find("stage"), showPixel);
const channels = new Channels(find("channels"), redraw);
const sliders = new Sliders(find("axes"), state, (isOtherFrame) => {
  if (isOtherFrame) find("follow").checked = false;
  redraw();
});
const film = new Filmstrip(find("film-box"), state, sliders, drawTile);
const metadata = new Metadata(find("metadata"), find("metadata-filter"), find("metadata-channel"));

// -- the frames to show -----------------------------------------------------------------------

function redraw() {
  if (!isDirty) {
    isDirty = true;
    requestAnimationFrame(drawNow);
  }
}

/** Return the channels that are on, with the numbers of their frames at these places. */
function framesAt(places, some = channels.shown()) {
  return some.map((channel) => {
    const there = places.slice();
    if (state.channelAxis >= 0) there[state.channelAxis] = channel.key;
    return { channel, number: frames.find(there) };
  });
}

function drawNow() {
  isDirty = false;
  if (!frames.count) return;
  shown = framesAt(state.places);
  const there = shown.filter(({ number }) => number >= 0);
  needed = there.map(({ number }) => number).filter((number) => !cache.get(number));
  isWaiting = needed.length > 0;
  sliders.show();
  prefetch();
  find("busy").hidden = !isWaiting;
  if (isWaiting) return; // the earlier frame stays until the new one is here
  const pictures = there.map(({ channel, number }) => ({ channel, number, picture: cache.get(number) }));
  const good = pictures.filter(({ picture }) => !picture.error);
  const isAuto = find("auto-always").checked;
  for (const { channel, picture } of good) channels.receive(channel, picture, isAuto);
  stage.show(good.map(({ channel, picture }) => channels.layer(channel, picture)));
  const notes = new Set(good.map(({ picture }) => picture.note).filter(Boolean));
  const errors = pictures.filter(({ picture }) => picture.error).map(({ picture }) => picture.error);
  showNotice(shown.length, there.length, errors, [...notes]);
  if (there.length) lastFound = there[0].number;
  find("canvas").dataset.frames = there.map(({ number }) => number).join(" ");
  later();
}

function showNotice(wanted, there, errors, notes) {
  const notice = find("notice");
  let text = "";
  if (!wanted) text = "All channels are off.";
  else if (!there) text = "There is no frame at these positions. Press N for the next one.";
  else if (errors.length) text = `This frame cannot be shown: ${errors[0]}`;
  else if (there < wanted) text = `${wanted - there} of the channels ${wanted - there === 1 ? "has" : "have"} no frame here`;
  else if (notes.length) text = sentence(notes.join("; "));
  notice.textContent = text;
  notice.hidden = !text;
  notice.classList.toggle("large", !there || errors.length === there || !wanted);
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

/** Fetch the frames to show, then their neighbours. */
function prefetch() {
  const wanted = [...needed];
  const number = sliders.active;
  if (number >= 0) {
    const { stops } = frames.axes[number];
    const rank = sliders.rankOf(number);
    const add = (step) => {
      const places = state.places.slice();
      places[number] = stops[rank + step * sliders.direction];
      if (places[number] === undefined) return;
      for (const each of framesAt(places)) if (each.number >= 0) wanted.push(each.number);
    };
    for (let step = 1; step <= AHEAD; step++) add(step);
    for (let step = 1; step <= BEHIND; step++) add(-step);
  }
  cache.want(wanted, shown.map((each) => each.number));
}

/** Update the slow parts once the user pauses: histograms, the filmstrip and the metadata. */
function later() {
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => {
    for (const channel of channels.all) channels.describe(channel);
    const wanted = film.update().flatMap((places) => framesAt(places)).map(({ number }) => number);
    thumbnails.want(wanted.filter((number) => number >= 0));
    metadata.offer(shown.filter(({ number }) => number >= 0).map(({ channel, number }) => ({ name: channel.name, number })));
    const first = shown.find(({ number }) => number >= 0);
    find("stage").setAttribute("aria-label", first ? `Image: ${frames.text(first.number)}` : "Image: no frame");
  }, 60);
}

function drawTile(canvas, places) {
  const there = framesAt(places).filter(({ number }) => number >= 0);
  const layers = [];
  for (const { channel, number } of there) {
    const picture = thumbnails.get(number);
    if (picture && !picture.error && channel.low !== null) layers.push(channels.layer(channel, picture));
  }
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (layers.length) {
    const { width, height } = layers[0].picture;
    const image = new ImageData(width, height);
    compose(image, layers, 0, 0, 1);
    const small = document.createElement("canvas");
    [small.width, small.height] = [width, height];
    small.getContext("2d").putImageData(image, 0, 0);
    const scale = Math.min(canvas.width / width, canvas.height / height);
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(small, (canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2, width * scale, height * scale);
  }
  return there.length > 0;
}

function showPixel(pixel, isFromKeyboard) {
  const where = find("where");
  const values = find("values");
  if (!pixel || !stage.layers.length) {
    where.textContent = "Point at a pixel to see its value";
    values.replaceChildren();
    return;
  }
  const [x, y] = pixel;
  const step = stage.layers[0].picture.step;
  where.textContent = `x ${x * step}, y ${y * step}`;
  const parts = stage.layers.map((layer) => {
    const text = valuesAt(layer.picture, x, y).map((value) => valueText(value, layer.picture.dtype)).join(", ");
    const element = document.createElement("span");
    const name = document.createElement("i");
    const value = document.createElement("b");
    name.textContent = layer.name;
    name.style.setProperty("--shade", `rgb(${layer.color.join(" ")})`);
    value.textContent = text || "outside";
    element.append(name, value);
    return element;
  });
  values.replaceChildren(...parts);
  if (isFromKeyboard) {
    find("spoken").textContent = [where.textContent, ...parts.map((part) => `${part.firstChild.textContent} ${part.lastChild.textContent}`)].join(", ");
  }
}

// -- the dataset ------------------------------------------------------------------------------

async function poll() {
  let wait = IDLE_POLL_MS;
  try {
    let head;
    do {
      const answer = await fetch(`frames?from=${frames.count}`);
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const before = frames.count;
      head = frames.add(await answer.arrayBuffer());
      if (frames.count > before) arrived(before);
    } while (head.frames > frames.count);
    await showStatus(head);
    wait = head.finished ? IDLE_POLL_MS : POLL_MS;
    if (document.hidden) wait = Math.max(wait, 1000);
    showProblem(head.problem ? `The dataset cannot be read any further: ${head.problem}` : "");
  } catch {
    showProblem("The viewer has ended. Start exengine view again to go on.");
    wait = 2000;
  }
  setTimeout(poll, wait);
}

function arrived(before) {
  for (let axis = state.places.length; axis < frames.axes.length; axis++) state.places.push(frames.placesOf(0)[axis]);
  state.channelAxis = frames.axes.findIndex((axis) => axis.name === "channel");
  setChannels();
  sliders.update();
  if (before === 0) redraw();
  if (find("follow").checked) follow();
  else redraw();
}

function setChannels() {
  const axis = frames.axes[state.channelAxis];
  const colors = new Map((facts.channels || []).map(({ name, color }) => [name, color]));
  const named = (facts.channels || []).map(({ name }) => name);
  channels.set(axis
    ? axis.stops.map((place) => {
      const label = axis.label(place);
      const number = place >= 0 ? axis.positions[place].number : null;
      const rank = axis.stops.filter((each) => each >= 0).indexOf(place);
      const name = number !== null && named[rank] !== undefined ? named[rank] : label;
      return { key: place, name: name === label || number === null ? label : name, color: colors.get(name) };
    })
    : [{ key: 0, name: "Pixels", color: null }]);
}

async function showStatus({ status, reason, finished, frames: count }) {
  isLive = !finished;
  find("count").textContent = count === 1 ? "1 frame" : `${count.toLocaleString("en")} frames`;
  const badge = find("status");
  badge.textContent = isLive ? "live" : status || "";
  badge.dataset.status = badge.textContent;
  badge.title = reason || "";
  badge.hidden = !badge.textContent;
  find("follow-label").hidden = !isLive;
  if (!lastStatus && isLive) {
    find("follow").checked = true;
    follow();
  }
  const now = `${status} ${reason}`;
  if (now !== lastStatus) {
    lastStatus = now;
    await loadFacts();
  }
  if (!count) {
    find("notice").textContent = isLive ? "Waiting for the first frame" : "The dataset has no frames";
    find("notice").classList.add("large");
    find("notice").hidden = false;
  }
}

async function loadFacts() {
  const { value, error } = await (await fetch("facts")).json();
  if (error) {
    showProblem(error);
    return;
  }
  facts = value;
  const name = facts.path.replace(/[/\\]+$/, "").split(/[/\\]/).pop();
  find("name").textContent = name;
  find("name").title = facts.path;
  document.title = `${name} – ExEngine viewer`;
  stage.um = facts.pixel_size_um;
  showFacts(facts, find("facts"), find("ledger"), find("ledger-panel"));
  if (frames.count) {
    setChannels();
    redraw();
  }
}

function showProblem(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

/** Go to a frame, by its number. Its channel is turned on. */
function goToFrame(number) {
  if (number < 0 || number >= frames.count) return;
  const places = frames.placesOf(number);
  frames.axes.forEach((_, axis) => { if (axis !== state.channelAxis) state.places[axis] = places[axis]; });
  const channel = channels.all.find(({ key }) => key === places[state.channelAxis]);
  if (channel && !channel.isOn && !channels.shown().length) channel.isOn = true;
  redraw();
}

/** Go to the newest positions at which every channel that is on has a frame. */
function follow() {
  if (!frames.count) return;
  sliders.pause();
  const newest = frames.count - 1;
  for (let number = newest; number > Math.max(-1, newest - FOLLOW_WITHIN); number--) {
    if (framesAt(frames.placesOf(number)).every((each) => each.number >= 0)) {
      goToFrame(number);
      return;
    }
  }
  goToFrame(newest);
}

/** Go to the next or previous frame, in the order of storing, at other positions than these. */
function goToOther(step) {
  const here = shown.map(({ number }) => number).filter((number) => number >= 0);
  let number = here.length ? (step > 0 ? Math.max(...here) : Math.min(...here)) : lastFound;
  const on = new Set(channels.shown().map(({ key }) => key));
  const matches = () => state.channelAxis < 0 || on.has(frames.places[state.channelAxis][number]);
  do number += step; while (number >= 0 && number < frames.count && !matches());
  goToFrame(number);
}

// -- controls ---------------------------------------------------------------------------------

function listen() {
  find("zoom-in").addEventListener("click", () => stage.zoomBy(1.5));
  find("zoom-out").addEventListener("click", () => stage.zoomBy(1 / 1.5));
  find("zoom-fit").addEventListener("click", () => stage.fit());
  find("zoom-one").addEventListener("click", () => stage.zoomTo(1 / (window.devicePixelRatio || 1)));
  find("stage").addEventListener("zoomed", () => {
    const percent = stage.zoom * (window.devicePixelRatio || 1) * 100;
    find("zoom-value").textContent = `${percent >= 10 ? Math.round(percent) : percent.toPrecision(2)} %`;
  });
  find("auto-all").addEventListener("click", () => channels.auto(channels.shown()));
  find("auto-always").addEventListener("change", redraw);
  find("follow").addEventListener("change", () => { if (find("follow").checked) follow(); });
  find("help-button").addEventListener("click", () => find("help").showModal());
  window.addEventListener("resize", later);
  document.addEventListener("keydown", onKey);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  ArrowLeft: () => sliders.step(-1),
  ArrowRight: () => sliders.step(1),
  ArrowUp: () => say(sliders.selectOther(-1)),
  ArrowDown: () => say(sliders.selectOther(1)),
  PageUp: () => sliders.step(-10),
  PageDown: () => sliders.step(10),
  Home: () => sliders.goToEnd(false),
  End: () => sliders.goToEnd(true),
  " ": () => sliders.play(),
  n: () => goToOther(1),
  p: () => goToOther(-1),
  a: () => channels.auto(channels.shown()),
  "+": () => stage.zoomBy(1.5),
  "=": () => stage.zoomBy(1.5),
  "-": () => stage.zoomBy(1 / 1.5),
  0: () => stage.fit(),
  f: () => { if (isLive) find("follow").click(); },
  Escape: () => stage.removeCursor(),
  "?": () => find("help").showModal(),
};

function say(text) {
  find("spoken").textContent = text;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  const target = event.target instanceof Element ? event.target : document.body;
  const isRange = target.matches("input[type=range]");
  const isLevel = isRange && !target.closest("#axes");
  const isTyped = target.matches("input[type=number], input[type=search], input[type=color], select");
  if (isTyped || (isLevel && event.key in KEYS && /^(Arrow|Page|Home|End)/.test(event.key))) return;
  if (event.key === " " && target.matches("button, summary, input[type=checkbox]")) return;
  const isScrolled = target.closest(".facts") && /^(Arrow(Up|Down)|Page|Home|End)/.test(event.key) && !event.shiftKey;
  if (isScrolled) return;
  if (event.shiftKey && event.key in ARROWS) stage.moveCursor(...ARROWS[event.key]);
  else if (/^[1-9]$/.test(event.key)) channels.toggle(Number(event.key) - 1);
  else if (event.key in KEYS) KEYS[event.key]();
  else if (event.key.toLowerCase() in KEYS) KEYS[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
}

async function start() {
  listen();
  await loadFacts();
  await poll();
}

start();
