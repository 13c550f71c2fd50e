/* Pickers that choose a backend: only the backends that meet every requirement remain.

   The data are in the page, as JSON with the id `exengine-choices`: an entry for each backend, and one for each
   set of options with which its capabilities differ. The tables of the page are complete without this script. */

(function () {
  "use strict";

  const DTYPES = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "complex64", "complex128",
  ];

  /** Other names of pixel types, in lower case. */
  const ALSO = {
    single: "float32", double: "float64", half: "float16", float: "float32", boolean: "bool", byte: "uint8",
  };

  const SAFETY = {
    kill: "the program is killed",
    finish: "a power cut after finish",
    flush: "a power cut after a durable flush",
  };
  const READING = { reading: "from Python, in another process", live: "in other programs" };
  const SIZE = {
    fits: "fits in memory",
    disk: "larger than memory",
    levels: "images that need resolution levels",
    remote: "in object storage, at a URL",
  };

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function union(choices, key) {
    return Array.from(new Set(choices.flatMap((choice) => choice[key]))).sort((one, other) =>
      one.localeCompare(other, undefined, { sensitivity: "base" }),
    );
  }

  /** Return the pixel types that the reader may mean: a type, or those that begin with these letters. */
  function typesFor(text) {
    const bits = text.match(/^(?:mono|gr[ae]y)?\s*(\d+)[\s-]*(?:bits?)?$/i);
    const wanted = bits ? `uint${bits[1]}` : ALSO[text.toLowerCase()] || text.toLowerCase();
    return DTYPES.includes(wanted) ? [wanted] : DTYPES.filter((name) => name.startsWith(wanted));
  }

  function takes(choice, dtype) {
    return (choice.dtypes || DTYPES).some((name) => typesFor(dtype).includes(name));
  }

  /** Return the pickers: name, label, choices, and whether an entry meets a value. */
  function pickersFor(choices) {
    const plain = (names) => Object.fromEntries(names.map((name) => [name, name]));
    return [
      {
        id: "dtype",
        label: "Pixel type",
        dtype: true,
        words: (v) => `pixels of type ${typesFor(v).join(" or ") || v}`,
        meets: takes,
      },
      ...["reader", "reader2"].map((id) => ({
        id,
        label: id === "reader" ? "Opens in" : "and in",
        options: plain(union(choices, "readers")),
        words: (v) => `opens in ${v}`,
        meets: (choice, v) => choice.readers.includes(v),
      })),
      {
        id: "safety",
        label: "Frames survive",
        options: SAFETY,
        words: (v) => `survives ${SAFETY[v]}`.replace("survives the", "survives when the"),
        meets: (choice, v) => choice[v],
      },
      {
        id: "compression",
        label: "Compression",
        options: { some: "any method", ...plain(union(choices, "compression")) },
        words: (v) => (v === "some" ? "compression" : `compression with ${v}`),
        meets: (choice, v) => (v === "some" ? choice.compression.length > 0 : choice.compression.includes(v)),
      },
      {
        id: "reading",
        label: "Read while writing",
        options: READING,
        words: (v) => `read while writing, ${READING[v]}`,
        meets: (choice, v, wishes) => {
          if (v !== "live") return choice.reading;
          const programs = wishes.filter((wish) => wish.id.startsWith("reader"));
          return choice.live.length > 0 && programs.every((wish) => choice.live.includes(wish.value));
        },
      },
      {
        id: "size",
        label: "Size",
        options: SIZE,
        words: (v) => SIZE[v],
        meets: (choice, v) => (v === "disk" ? !choice.memory : v === "fits" || choice[v]),
      },
    ];
  }

  function controlFor(picker) {
    const id = `exengine-pick-${picker.id}`;
    if (picker.dtype) {
      const names = make("datalist", { id: `${id}-names` }, ...DTYPES.map((name) => make("option", { value: name })));
      const field = make("input", {
        type: "search", id, list: names.id, autocomplete: "off", placeholder: "any",
      });
      picker.field = field;
      return [make("label", { for: id }, picker.label, " ", field), names];
    }
    const choices = Object.entries(picker.options).map(([value, text]) => make("option", { value }, text));
    picker.field = make("select", { id }, make("option", { value: "" }, "any"), ...choices);
    return [make("label", { for: id }, picker.label, " ", picker.field)];
  }

  function start() {
    const facts = document.getElementById("exengine-choices");
    const table = document.querySelector("table.exengine-choice");
    if (!facts || !table) return;
    const choices = JSON.parse(facts.textContent);
    const pickers = pickersFor(choices);
    const form = make("form", { class: "exengine-tools exengine-pickers", "aria-label": "Choose a backend" });
    const reset = make("button", { type: "button", class: "exengine-forget" }, "Clear all");
    const answer = make("div", { class: "exengine-answer", role: "status", "aria-live": "polite" });

    function link(choice) {
      const name = make("a", { href: choice.page }, choice.name);
      return choice.options ? [name, " with ", make("code", {}, choice.options)] : [name];
    }

    /** Return a link for each backend; the sets of options that meet the requirements follow it. */
    function links(shown) {
      const sets = new Map();
      for (const choice of shown) sets.set(choice.name, [...(sets.get(choice.name) || []), choice]);
      return Array.from(sets.values(), (some) =>
        link({ ...some[0], options: some.map((choice) => choice.options).join(" or ") }),
      );
    }

    function joined(parts) {
      return parts.flatMap((part, place) => (place ? [", ", ...part] : part));
    }

    /** Return the backends that come closest, and the requirements that they do not meet. */
    function closest(wishes) {
      const missed = choices.map((choice) => wishes.filter((wish) => !wish.meets(choice, wish.value, wishes)));
      const fewest = Math.min(...missed.map((some) => some.length));
      const shown = new Set(); // the same advice with and without options is given once
      const lines = choices.flatMap((choice, place) => {
        const advice = [choice.name, ...missed[place].map((wish) => wish.id)].join();
        if (missed[place].length !== fewest || shown.has(advice)) return [];
        if (!choice.options) shown.add(advice);
        const drops = missed[place].map((wish) => {
          const button = make("button", { type: "button", class: "exengine-drop" }, `drop: ${wish.words(wish.value)}`);
          button.addEventListener("click", () => {
            wish.field.value = "";
            update();
            wish.field.focus();
          });
          return [button];
        });
        return [make("li", {}, ...link(choice), " meets the rest if you ", ...joined(drops))];
      });
      return [make("p", {}, make("strong", {}, "No backend meets all requirements.")), make("ul", {}, ...lines)];
    }

    function update() {
      const wishes = pickers
        .map((picker) => ({ ...picker, value: picker.field.value.trim() }))
        .filter((wish) => wish.value);
      remember(wishes);
      const unknown = wishes.find((wish) => wish.dtype && !typesFor(wish.value).length);
      const meeting = choices.filter((choice) => wishes.every((wish) => wish.meets(choice, wish.value, wishes)));
      // Show a backend with options only if it does not meet the requirements with its defaults.
      const plain = meeting.filter((choice) => !choice.options).map((choice) => choice.name);
      const shown = meeting.filter((choice) => !choice.options || !plain.includes(choice.name));
      const names = new Set(meeting.map((choice) => choice.name));
      const all = new Set(choices.map((choice) => choice.name));
      if (unknown) {
        const text = `“${unknown.value}” is not a pixel type. Types: ${DTYPES.join(", ")}.`;
        answer.replaceChildren(make("p", {}, text));
      } else if (!wishes.length) answer.replaceChildren(make("p", {}, `${all.size} backends to choose from.`));
      else if (!shown.length) answer.replaceChildren(...closest(wishes));
      else {
        const count = `${names.size} of ${all.size} ${names.size === 1 ? "meets" : "meet"} all requirements: `;
        const understood = `Required: ${wishes.map((wish) => wish.words(wish.value)).join("; ")}.`;
        answer.replaceChildren(
          make("p", {}, count, make("strong", {}, ...joined(links(shown))), "."),
          make("p", { class: "exengine-understood" }, understood),
        );
        if (names.size === 1) {
          answer.append(
            make("p", { class: "exengine-in-config" }, "In the config:"),
            make("pre", { class: "exengine-config" }, shown[0].config),
          );
        }
      }
      for (const row of table.tBodies[0].rows) {
        const name = row.cells[0].textContent.trim();
        row.hidden = Boolean(wishes.length && names.size && !names.has(name));
      }
      document.dispatchEvent(
        new CustomEvent("exengine-choice", { detail: wishes.length && names.size ? Array.from(names) : null }),
      );
    }

    /** Keep the requirements in the address, so that it can be sent to others. */
    function remember(wishes) {
      const address = new URL(window.location.href);
      for (const picker of pickers) address.searchParams.delete(picker.id);
      for (const wish of wishes) address.searchParams.set(wish.id, wish.value);
      if (address.href !== window.location.href) window.history.replaceState(null, "", address);
    }

    const wanted = new URLSearchParams(window.location.search);
    for (const picker of pickers) {
      form.append(...controlFor(picker));
      for (const event of ["input", "change"]) picker.field.addEventListener(event, update);
      const value = wanted.get(picker.id);
      if (value && (picker.dtype || value in picker.options)) picker.field.value = value;
    }
    form.append(reset);
    form.addEventListener("submit", (event) => event.preventDefault());
    reset.addEventListener("click", () => {
      for (const picker of pickers) picker.field.value = "";
      update();
    });
    table.closest("section").before(form, answer);
    update();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
