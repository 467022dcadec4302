// Load bundles with transformers.js, from local files alone, and with ONNX Runtime for browsers, which is a part of it:
// node check_transformers_js.mjs FOLDER

import assert from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { env, pipeline } from "@huggingface/transformers";
import * as web from "onnxruntime-web";

const folder = process.argv[2];
const TOLERANCE = 1e-4;
env.allowRemoteModels = false;
env.localModelPath = folder;
web.env.wasm.numThreads = 1;

function close(actual, expected, what) {
  assert.strictEqual(actual.length, expected.length, what);
  actual.forEach((value, index) =>
    assert.ok(Math.abs(value - expected[index]) <= TOLERANCE, `${what} [${index}]: ${value}, not ${expected[index]}`),
  );
}

// Run the graph as a browser does, on the token ids of eager transformers, and compare every output where the mask is 1.
async function checkInBrowserRuntime(name, expected) {
  const file = join(folder, name, expected.file);
  const weights = expected.weights_file && { path: "model.onnx_data", data: readFileSync(`${file}_data`) };
  const session = await web.InferenceSession.create(readFileSync(file), {
    executionProviders: ["wasm"],
    externalData: weights ? [weights] : [],
  });
  const mask = expected.inputs.attention_mask;
  const shape = [mask.length, mask[0].length];
  const feeds = Object.entries(expected.inputs).map(([input, rows]) => [
    input,
    new web.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), shape),
  ]);
  const outputs = await session.run(Object.fromEntries(feeds));
  for (const [output, rows] of Object.entries(expected.outputs)) {
    const isTokenwise = rows[0].length === shape[1];
    const size = rows.flat(2).length / (isTokenwise ? mask.flat().length : mask.length);
    const isKept = (_, index) => !isTokenwise || mask.flat()[Math.floor(index / size)];
    close([...outputs[output].data].filter(isKept), rows.flat(2).filter(isKept), `${name} ${output}`);
  }
}

// Run the pipeline of the task on texts, with the tokenizer of transformers.js.
async function checkPipeline(name, expected) {
  const run = await pipeline(expected.task, name, {
    dtype: "fp32",
    // Where the graph is at the top of the bundle, transformers.js must be told: it looks in the folder `onnx`.
    ...(expected.file === "model.onnx" && { subfolder: "" }),
    ...(expected.weights_file && { use_external_data_format: true }),
  });
  for (const [index, text] of expected.texts.entries()) {
    const wanted = expected.results[index];
    const what = `${name}: ${JSON.stringify(text)}`;
    if (expected.task === "feature-extraction") {
      const embedding = await run(text, { pooling: "mean", normalize: true });
      close([...embedding.data], wanted, what);
    } else if (expected.task === "question-answering") {
      const { answer, score } = await run(...text);
      assert.strictEqual(answer, wanted.answer, what);
      close([score], [wanted.score], what);
    } else {
      const results = await run(text, { top_k: null, ignore_labels: [] });
      assert.deepStrictEqual(
        results.map((result) => result.label ?? result.entity),
        wanted.map((result) => result.label),
        what,
      );
      close(results.map((result) => result.score), wanted.map((result) => result.score), what);
    }
  }
}

for (const [name, expected] of Object.entries(JSON.parse(readFileSync(join(folder, "expected.json"), "utf-8")))) {
  await checkInBrowserRuntime(name, expected);
  await checkPipeline(name, expected);
  console.log(`transformers.js ${env.version}: ${name} (${expected.file}) gives the results of eager transformers`);
}
