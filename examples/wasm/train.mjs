// Trains the digits network in JavaScript alone: the module brings the training step, its derivatives and Adam.
//
//     python examples/wasm/export.py build        digits.wasm, digits.h and digits.bin
//     node examples/wasm/train.mjs build 200
//
// digits.bin: the number of images (int32), their pixels (float32, 64 each), their labels (int32).  In a browser, fetch
// takes the place of readFileSync; all else stays.
import { readFileSync } from "node:fs";

const BATCH = 64, PIXELS = 64, CLASSES = 10, PAGE = 65536;
const BYTES = { bool: 1, int8: 1, uint8: 1, int16: 2, uint16: 2, float16: 2, bfloat16: 2, int32: 4, uint32: 4,
                float32: 4, int64: 8, uint64: 8, float64: 8 };

const [folder = "build", steps = "200"] = process.argv.slice(2);
const bytes = readFileSync(`${folder}/digits.wasm`);
const lib = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;

let free = lib.__heap_base.value;
function place(nbytes) {                             // memory that nobody else uses, aligned for all
  const at = Math.ceil(free / 64) * 64;
  free = at + nbytes;
  const missing = free - lib.memory.buffer.byteLength;
  if (missing > 0) lib.memory.grow(Math.ceil(missing / PAGE));
  return at;
}

function description() {                             // what the library says of itself
  const memory = new Uint8Array(lib.memory.buffer), start = lib.digits_metadata.value;
  return JSON.parse(new TextDecoder().decode(memory.subarray(start, memory.indexOf(0, start))));
}

function newState() {                                // struct digits_state: a pointer to every variable
  const variables = description().state;
  const sizes = variables.map(v => v.shape.reduce((n, size) => n * size, 1) * BYTES[v.dtype]);
  const struct = place(4 * variables.length), arrays = sizes.map(place);
  new Uint32Array(lib.memory.buffer, struct, arrays.length).set(arrays);
  const first = new Uint32Array(lib.memory.buffer, lib.digits_initial.value, arrays.length);
  const memory = new Uint8Array(lib.memory.buffer);
  arrays.forEach((at, k) => { if (first[k]) memory.copyWithin(at, first[k], first[k] + sizes[k]); });
  return struct;
}

function check(status) {
  if (status === 0) return;
  const memory = new Uint8Array(lib.memory.buffer), start = lib.digits_strerror(status);
  throw new Error(new TextDecoder().decode(memory.subarray(start, memory.indexOf(0, start))));
}

const file = readFileSync(`${folder}/digits.bin`);
const data = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
const count = new Int32Array(data, 0, 1)[0];
if (data.byteLength !== 4 + count * 4 * (PIXELS + 1)) throw new Error("digits.bin is cut off");
const images = new Float32Array(data, 4, count * PIXELS), labels = new Int32Array(data, 4 + 4 * count * PIXELS, count);

const state = newState();
const x = place(4 * BATCH * PIXELS), t = place(4 * BATCH), loss = place(4), logits = place(4 * BATCH * CLASSES);
const rooms = [lib.digits_train_step_workspace_size, lib.digits_predict_workspace_size];
const workspace = place(Math.max(...rooms.map(size => Number(size(BigInt(BATCH))))));
const given = new Float32Array(lib.memory.buffer, x, BATCH * PIXELS);
const wanted = new Int32Array(lib.memory.buffer, t, BATCH);

function load(batch) {
  const first = (batch % Math.floor(count / BATCH)) * BATCH;
  given.set(images.subarray(first * PIXELS, (first + BATCH) * PIXELS));
  wanted.set(labels.subarray(first, first + BATCH));
}

for (let step = 0; step < Number(steps); step++) {
  load(step);
  check(lib.digits_train_step(BigInt(BATCH), x, t, loss, state, workspace));
  if ((step + 1) % 50 === 0) console.log(`step ${step + 1}  loss ${new Float32Array(lib.memory.buffer, loss, 1)[0]}`);
}

load(0);
check(lib.digits_predict(BigInt(BATCH), x, logits, state, workspace));
const scores = new Float32Array(lib.memory.buffer, logits, BATCH * CLASSES);
const right = Array.from(wanted).filter((label, k) => {
  const row = scores.subarray(k * CLASSES, (k + 1) * CLASSES);
  return row.indexOf(Math.max(...row)) === label;
}).length;
console.log(`right: ${right} of ${BATCH}`);
