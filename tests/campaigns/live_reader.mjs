// A reader of the campaign of live readers, by zarrita: the counterpart of live_reader.py.
//
// node live_reader.mjs MODULES ARRAY PROGRESS READS AFTER SEED
//
// MODULES is a folder in which `npm install zarrita @zarrita/storage` was run. Zarrita keeps the index of a shard for
// ever, so it sees a frame only if the index never changes while the dataset is written.

import fs from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, path, progressPath, reads, after, seed] = process.argv.slice(2);
const load = (name, file) => import(pathToFileURL(join(modules, "node_modules", name, file)).href);
const zarr = await load("zarrita", "dist/src/index.js");
const FileSystemStore = (await load("@zarrita/storage", "dist/src/fs.js")).default;

const SIZE = 64, CHANNELS = 2, PER_TIME = 4;
const progress = fs.openSync(progressPath, "r");
const buffer = Buffer.alloc(16);

function look() {
  fs.readSync(progress, buffer, 0, 16, 0);
  return { acknowledged: Number(buffer.readBigInt64LE(0)), killed: buffer[8] !== 0 };
}

let state = BigInt(seed) * 2654435761n + 1n;
function random() {
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
  return Number(state >> 33n) / 2 ** 31;
}

const open = () => zarr.open(new FileSystemStore(path), { kind: "array" });
let array = await open();

async function one() {
  const count = look().acknowledged;
  const first = random() < 0.5 ? Math.max(0, count - 64) : 0;
  const number = first + Math.floor(random() * (count - first));
  const t = Math.floor(number / PER_TIME), rest = number % PER_TIME;
  const z = Math.floor(rest / CHANNELS), c = rest % CHANNELS;
  let fault = "";
  try {
    if (t >= array.shape[0] || random() < 0.01) array = await open();
    const { data } = await zarr.get(array, [t, c, z, null, null]);
    const begin = (number * 40503) % 65536;
    if (data.length !== SIZE * SIZE) fault = `${data.length} pixels`;
    if (data[0] !== number % 65536 || data[1] !== Math.floor(number / 65536)) fault = "other pixels";
    for (let i = 2; i < SIZE * SIZE && !fault; i++) {
      if (data[i] !== (begin + i * 31) % 65536) fault = "other pixels";
    }
  } catch (error) {
    fault = `${error}`.replace(/\s+/g, " ");
  }
  if (fault) console.log(`broken zarrita, frame ${number} of ${count}: ${fault}`);
}

for (let done = 0; done < Number(reads); done++) await one();
console.log(`live ${reads}`);
while (!look().killed) await new Promise((resolve) => setTimeout(resolve, 10));
for (let done = 0; done < Number(after); done++) await one();
console.log(`after ${after}`);
