// Prints the attributes, shape and dtype of an image as a line of JSON, then the pixels of its array.
import * as zarr from "zarrita";

const store = new zarr.FetchStore(process.argv[2]);
const group = await zarr.open(store, { kind: "group" });
const array = await zarr.open(group.resolve("0"), { kind: "array" });
const read = await zarr.get(array);
const header = { attributes: group.attrs, shape: array.shape, dtype: array.dtype };
process.stdout.write(JSON.stringify(header) + "\n");
process.stdout.write(new Uint8Array(read.data.buffer, read.data.byteOffset, read.data.byteLength));
