// As answers.mjs, but of picture files, opened by sharp: what another decoder changes.
// In:  MODEL, and a list of {file}.
// Out: one JSON document: the probabilities and the milliseconds of each, decoding left out.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import sharp from "sharp";

ort.env.wasm.numThreads = 1;
const [model, list] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const answers = [];
for (const { file } of JSON.parse(await readFile(list, "utf8"))) {
  const upright = sharp(file).rotate().flatten({ background: "white" }).toColourspace("srgb");
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  const image = new ort.Tensor("uint8", data, [1, info.height, info.width, 3]);
  const began = performance.now();
  const { probabilities } = await session.run({ image });
  answers.push({ probabilities: Array.from(probabilities.data), milliseconds: performance.now() - began });
}
console.log(JSON.stringify(answers));
