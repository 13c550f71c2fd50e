// Opens the array of an image once; for each line with a time point, prints its frame as a line of JSON.
import readline from "node:readline";
import * as zarr from "zarrita";

const store = new zarr.FetchStore(process.argv[2]);
const array = await zarr.open(zarr.root(store).resolve("0"), { kind: "array" });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const frame = await zarr.get(array, [Number(line), null, null]);
  process.stdout.write(JSON.stringify(Array.from(frame.data)) + "\n");
}
