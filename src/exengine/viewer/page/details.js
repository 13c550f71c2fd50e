// The panels with the frame's metadata, the facts about the dataset, and the ledger.

/** Return a list of names and values for a JSON value. Nested values become nested lists. */
export function listOf(value, filter = "") {
  const list = document.createElement("dl");
  const entries = Array.isArray(value) ? value.map((each, k) => [String(k), each]) : Object.entries(value);
  for (const [name, each] of entries) {
    const isNested = each !== null && typeof each === "object" && Object.keys(each).length > 0;
    const isNamed = name.toLowerCase().includes(filter);
    const text = isNested ? "" : plain(each);
    const isFlat = isNested && Array.isArray(each) && each.every((one) => one === null || typeof one !== "object");
    let content;
    if (isNested && !isFlat) {
      content = listOf(each, isNamed ? "" : filter);
      if (!content.children.length) continue;
    } else {
      const shown = isFlat ? each.map(plain).join(", ") : text;
      if (filter && !isNamed && !shown.toLowerCase().includes(filter)) continue;
      content = document.createTextNode(shown);
    }
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.append(content);
    list.append(term, detail);
  }
  return list;
}

function plain(value) {
  if (value === null) return "none";
  if (Array.isArray(value)) return "empty list";
  if (typeof value === "object") return "empty";
  return String(value);
}

function note(text) {
  const element = document.createElement("p");
  element.className = "quiet";
  element.textContent = text;
  return element;
}

/** Show the metadata of a frame. */
export class Metadata {
  constructor(root, filter, select) {
    this.root = root;
    this.filter = filter;
    this.select = select; // the channel, if several are shown
    this.number = -1;
    this.value = null;
    this.found = new Map();
    filter.addEventListener("input", () => this.draw());
    select.addEventListener("change", () => this.show(Number(select.value)));
  }

  /** Offer the frames that are shown: {name, number}. */
  offer(frames) {
    const names = JSON.stringify(frames);
    this.select.hidden = frames.length < 2;
    if (names !== this.names) {
      const before = this.select.selectedOptions[0]?.textContent;
      this.names = names;
      this.select.replaceChildren(...frames.map(({ name, number }) => new Option(name, number, false, name === before)));
    }
    if (frames.length) this.show(Number(this.select.value));
    else this.clear("There is no frame here.");
  }

  clear(text) {
    this.number = -1;
    this.root.replaceChildren(note(text));
  }

  async show(number) {
    if (number === this.number) return;
    this.number = number;
    if (!this.found.has(number)) {
      let value;
      try {
        value = await (await fetch(`metadata/${number}`)).json(); // {value} or {error}
      } catch {
        value = { error: "the server does not answer" };
      }
      if (this.found.size > 2000) this.found.clear();
      if (value.value !== undefined) this.found.set(number, value);
      if (this.number !== number) return; // another frame is shown now
      this.value = value;
    } else {
      this.value = this.found.get(number);
    }
    this.draw();
  }

  draw() {
    if (this.number < 0 || !this.value) return;
    const { value, error } = this.value;
    const filter = this.filter.value.trim().toLowerCase();
    if (error) this.root.replaceChildren(note(error));
    else if (value === null || typeof value !== "object") this.root.replaceChildren(note(value === null ? "The frame has no metadata." : String(value)));
    else {
      const list = listOf(value, filter);
      const empty = filter ? `Nothing matches "${filter}".` : "The frame has no metadata.";
      this.root.replaceChildren(list.children.length ? list : note(empty));
    }
  }
}

const UNIT = { um: "µm" };

/** Show the facts about the dataset, as `exengine info` lists them. */
export function showFacts(facts, root, ledgerRoot, ledgerPanel) {
  const size = facts.pixel_size_um;
  const shown = {
    Path: facts.path,
    Status: [facts.status, facts.reason].filter(Boolean).join(": "),
    Backend: facts.backend_version ? `${facts.backend} (${facts.backend_version})` : facts.backend,
    Frames: facts.missing ? `${facts.frames} (${facts.missing} missing)` : String(facts.frames),
    Pixels: facts.shape ? `${facts.shape.join(" × ")} ${facts.dtype}` : null,
    "Pixel size": size ? (size[0] === size[1] ? `${size[0]} ${UNIT.um}` : `${size.join(" × ")} ${UNIT.um}`) : null,
    "Z step": facts.z_step_um ? `${facts.z_step_um} ${UNIT.um}` : null,
    Interval: facts.interval_s ? `${facts.interval_s} s` : null,
    Size: facts.bytes ? sizeText(facts.bytes) : null,
    Levels: facts.resolution_levels?.length > 1 ? facts.resolution_levels.join(", ") : null,
    Problem: facts.problem || null,
  };
  const known = Object.fromEntries(Object.entries(shown).filter(([, text]) => text));
  root.replaceChildren(listOf(known));
  for (const [title, value] of [["Summary metadata", facts.summary_metadata], ...Object.entries(facts.annotations || {})]) {
    if (title === "ledger" || value === null || typeof value !== "object" || !Object.keys(value).length) continue;
    const heading = document.createElement("h3");
    heading.textContent = title[0].toUpperCase() + title.slice(1);
    root.append(heading, listOf(value));
  }
  const ledger = facts.annotations?.ledger;
  ledgerPanel.hidden = !ledger;
  if (!ledger || typeof ledger !== "object") return;
  const counts = ["offered", "stored", "dropped", "failed", "filtered"].filter((name) => typeof ledger[name] === "number");
  const lines = Object.fromEntries(counts.map((name) => [name, String(ledger[name])]));
  const list = listOf(lines);
  for (const [label, text] of facts.ledger_lines || []) list.append(...listOf({ [label]: text }).children);
  ledgerRoot.replaceChildren(list);
}

function sizeText(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${units[power]}`;
}
