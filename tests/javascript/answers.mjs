// What an exported file says of pictures given as bare RGB bytes: node answers.mjs MODEL PICTURES.json
// In:  a list of {file, width, height}; a file holds height x width x 3 bytes.
// Out: one JSON document: the probabilities, the unfamiliarity where there is one, and the milliseconds of each.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const [model, list] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const answers = [];
for (const { file, width, height } of JSON.parse(await readFile(list, "utf8"))) {
  const image = new ort.Tensor("uint8", new Uint8Array(await readFile(file)), [1, height, width, 3]);
  const began = performance.now();
  const { probabilities, unfamiliarity } = await session.run({ image });
  const strange = unfamiliarity ? unfamiliarity.data[0] : null;
  const milliseconds = performance.now() - began;
  answers.push({ probabilities: Array.from(probabilities.data), unfamiliarity: strange, milliseconds });
}
console.log(JSON.stringify(answers));
